"""The places in the training text where the model was most like what it is at a place now.

The state compared is t, from which the output layer predicts a word: the key of Khandelwal et al.
2020, Nearest Neighbor Machine Translation (arXiv:2010.00710), found here by cosine similarity.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from seq2seq.alignment.heatmap import printable_line
from seq2seq.alignment.words import group_pieces
from seq2seq.data.batching import spread
from seq2seq.data.prepare import SIDES, directions_of, load_text, splitter_of
from seq2seq.data.tokenizer import EOS
from seq2seq.data.words import Span
from seq2seq.decoding.forced import followed
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import UserError

MAX_PAIRS = 2_000  # training pairs that are read, evenly spread over all
BATCH = 32
NUM_NEAREST, MANY = 3, 50
"""Pairs that are shown, and places that are looked through for as many different ones."""

Ids = Sequence[int]


@dataclass(frozen=True)
class Place:
    """A word of a training target."""

    source: str
    target: str
    word: Span


class Neighbours:
    """An index of a run's training text, which a thread fills while questions are answered.

    A published model, which has no text, has no neighbours.
    """

    def __init__(self, run: RunDir, model: Pretrained) -> None:
        self._run, self._model, self._closed = run, model, False
        self._places: list[Place] = []
        self._states: list[Tensor] = []  # (places, l) of each pair, of length 1; after the places
        self.thread = threading.Thread(target=self._fill, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self.thread.join()

    def nearest(self, src: Ids, first: Ids) -> list[dict[str, Any]]:
        """Return the nearest of the places read so far to that after the first ids of a target.

        At most one place of a pair.
        """
        if not self._states:
            return []
        [state] = self._along([(src, [*first, EOS])])
        likeness = torch.cat(self._states) @ state[-1]
        likeness, rows = likeness.topk(min(MANY, len(likeness)))
        found: dict[str, dict[str, Any]] = {}
        for row, cosine in zip(rows.tolist(), likeness.tolist(), strict=True):
            place = self._places[row]
            target, (start, end) = place.target, place.word
            parts = {"before": target[:start], "word": target[start:end], "after": target[end:]}
            parts["source"] = place.source
            shown = {name: printable_line(text) for name, text in parts.items()}
            found.setdefault(target, {**shown, "cosine": round(cosine, 3)})
        return [*found.values()][:NUM_NEAREST]

    @torch.inference_mode()
    def _along(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Tensor]:
        """Return the states along the target of each pair, of length 1."""
        t = followed(self._model.model, pairs).t
        return [*functional.normalize(t.float(), dim=-1).split([len(tgt) for _, tgt in pairs])]

    def _fill(self) -> None:
        with suppress(UserError):  # a model without text, or with a damaged one, answers all else
            sources, targets = (load_text(self._run, "train", side) for side in SIDES)
            languages = [b for _, b in directions_of(self._run, self._model.config, "train")]
            rows = spread(range(len(sources)), MAX_PAIRS)
            for start in range(0, len(rows), BATCH):
                if self._closed:
                    return
                chunk = rows[start : start + BATCH]
                pairs = [(sources[i], targets[i]) for i in chunk]
                self._read(pairs, [languages[i] for i in chunk])

    def _read(self, pairs: Sequence[tuple[str, str]], languages: Sequence[str]) -> None:
        """Add the words of some pairs."""
        model, most = self._model, self._model.config.decode.max_source_tokens
        tags, (source, target) = model.tagging(languages), model.tokenizers
        src = [ids[:most] for ids in source.encode([text for text, _ in pairs])]
        tgt = [tokens[:most] for tokens in target.tokens([text for _, text in pairs])]
        ids = [
            ([*tags.of_line(n), *s, EOS], [*(token.id for token in t), EOS])
            for n, (s, t) in enumerate(zip(src, tgt, strict=True), start=1)
        ]
        # Of each word, the state before its first piece
        split = splitter_of(model.config)
        for pair, tokens, states in zip(pairs, tgt, self._along(ids), strict=True):
            spans = [token.span for token in tokens]
            groups = [[i] for i in range(len(spans))]
            if split is not None:
                _, groups = group_pieces(pair[1], spans, split)
            for group in groups:
                start, end = spans[group[0]].start, spans[group[-1]].end
                word = pair[1][start:end]
                blank = len(word) - len(word.lstrip() or word)  # a space may be a character
                self._places.append(Place(*pair, Span(start + blank, end)))
            self._states.append(states[[group[0] for group in groups]])
