"""Changes of the attention of one step that a page can ask for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.alignment.words import map_words
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.data.words import Splitter
from seq2seq.model.intervention import Change
from seq2seq.run.errors import DataError

CHANGES = ("flatten", "permute", "move")


def change_at(step: int, name: str, to: Sequence[int]) -> Change:
    """Return a change of one step, in all layers and heads, for a sentence alone in its batch.

    Steps are target pieces, from 0. `flatten` makes all weights equal, `permute` deals them out at
    random (the same at each call), `move` spreads them over the positions `to` alone.
    """

    def change(weights: Tensor, _mask: Tensor, now: int, _layer: int) -> Tensor:
        size = weights.shape[-1]
        if now != step:
            return weights
        if name == "flatten":
            return torch.full_like(weights, 1 / size)
        if name == "permute":
            order = torch.randperm(size, generator=torch.Generator().manual_seed(size))
            return weights[..., order.to(weights.device)]
        moved = torch.zeros_like(weights)
        moved[..., list(to)] = 1 / len(to)
        return moved

    return change


def pieces_of_word(
    text: str, source: Tokenizer, word: int, split: Splitter | None, most: int
) -> list[int]:
    """Return the pieces of a source word; the word after the last one is the end symbol.

    Of a text with more than `most` pieces the first ones are used, each a word, as the page shows.

    Raises:
        DataError: there is no such word.
    """
    tokens = source.tokens([text])[0][:most]
    words = map_words(text, [token.span for token in tokens], split) if split else None
    groups = [[i] for i in range(len(tokens))]
    if words is not None:
        groups = [words.groups[group] for group in words.group_of]
    groups.append([len(tokens)])
    if word >= len(groups):
        raise DataError("sentence", f"has no word {word}", f"Name one from 0 to {len(groups) - 1}.")
    return groups[word]
