"""Counterfactual attention: does the model say the same word if its weights are other ones?

The test of Moradi et al. 2019 (arXiv:1910.00139) along the model's own translations. At each word
in turn the weights are exchanged, with everything before that word as it was, and the most probable
word is compared. If it stays whatever the weights are, the weights do not explain it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.data.batching import Batch
from seq2seq.data.tokenizer import EOS, PAD
from seq2seq.model.draws import fold, stream
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.intervention import intervened
from seq2seq.model.protocols import Barred

Exchange = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(weights (B, h, Tx), mask (B, 1, Tx), order (B, 1, Tx)) -> other weights, may be broadcast."""


def uniform(weights: Tensor, mask: Tensor, _order: Tensor) -> Tensor:
    """Return equal weights."""
    return mask.to(weights.dtype) / mask.sum(dim=-1, keepdim=True)


def permuted(weights: Tensor, _mask: Tensor, order: Tensor) -> Tensor:
    """Return the same weights at other positions."""
    return weights.gather(-1, order.expand_as(weights))


def last(weights: Tensor, mask: Tensor, _order: Tensor) -> Tensor:
    """Return all weight on the last source position, the end symbol."""
    return _only(mask.sum(dim=-1, keepdim=True) - 1, weights)


def least(weights: Tensor, mask: Tensor, _order: Tensor) -> Tensor:
    """Return all weight on the position that has the least."""
    return _only(weights.masked_fill(~mask, torch.inf).argmin(dim=-1, keepdim=True), weights)


def without_most(weights: Tensor, mask: Tensor, _order: Tensor) -> Tensor:
    """Return the weights without the greatest, the rest scaled to their former sum."""
    most = _only(weights.argmax(dim=-1, keepdim=True), weights).bool()
    # Where all weight was on one position, the others share it.
    rest = (weights + torch.finfo(weights.dtype).tiny).masked_fill(most | ~mask, 0.0)
    return rest / rest.sum(dim=-1, keepdim=True) * weights.sum(dim=-1, keepdim=True)


def _only(position: Tensor, weights: Tensor) -> Tensor:
    shape = (*position.shape[:-1], weights.shape[-1])
    return weights.new_zeros(shape).scatter_(-1, position, 1.0)


_ALL: tuple[Exchange, ...] = (uniform, permuted, last, least, without_most)
EXCHANGES = {exchange.__name__: exchange for exchange in _ALL}
"""By name; all of them are candidates of the adversarial distribution."""


@dataclass(frozen=True)
class Counterfactuals:
    """What the model says at each word, by weights: its own, those of `EXCHANGES`, of each head.

    C = 1 + len(EXCHANGES) + layers x heads; a head is made uniform alone. Without several heads
    there are none.
    """

    words: npt.NDArray[np.int64]  # (B, Ty, C)  the most probable word
    distance: npt.NDArray[np.float64]  # (B, Ty, C)  total variation from the model's own weights

    @property
    def stays(self) -> npt.NDArray[np.bool_]:
        """Whether the word is that of the model's own weights, (B, Ty, C)."""
        same: npt.NDArray[np.bool_] = self.words == self.words[..., :1]
        return same


def heads_of(model: EncoderDecoder, batch: Batch) -> list[tuple[int, int]]:
    """Return the layers and heads to the source, from 0, of a model that has several."""
    parts = (x[:1] for x in (batch.src, batch.src_mask, batch.tgt, batch.tgt_mask))
    maps = model.follow(*parts).maps().get("heads")
    layers, heads = (0, 0) if maps is None else (maps.shape[0], maps.shape[2])
    return [(layer, head) for layer in range(layers) for head in range(heads)]


@torch.inference_mode()
def counterfactuals(
    model: EncoderDecoder, batch: Batch, numbers: Sequence[int], seed: int, forbidden: Sequence[int]
) -> Counterfactuals:
    """Exchange the weights at every word of a model's own translations.

    The permutations depend on the numbers of the sentences and on the seed alone. Forbidden ids are
    never said. The model is in evaluation mode and has attention weights.
    """
    (size, num_words), device = batch.tgt.shape, batch.src.device
    heads, orders = heads_of(model, batch), permutations(batch, numbers, seed).to(device)
    slots = 1 + len(EXCHANGES) + len(heads)

    def change(weights: Tensor, mask: Tensor, step: int, layer: int) -> Tensor:
        """Exchange the weights of all slots but the first of each sentence."""
        own, real = weights.unflatten(0, (size, slots)), mask.unflatten(0, (size, slots))[:, 0]
        every = [own[:, 0]]
        for slot, exchange in enumerate(EXCHANGES.values(), start=1):
            every.append(exchange(own[:, slot], real, orders[:, None, step]).expand_as(own[:, 0]))
        for slot, (of_layer, head) in enumerate(heads, start=len(every)):
            other = own[:, slot].clone()
            if of_layer == layer:
                other[:, head] = uniform(other[:, head], real[:, 0], orders)
            every.append(other)
        return torch.stack(every, dim=1).flatten(0, 1)

    # The slots of a sentence are its hypotheses: they share its source and all that was before.
    changed, sentences = intervened(model, change), torch.arange(size, device=device)
    own = sentences * slots
    state, y = changed.begin(batch.src, batch.src_mask), batch.tgt.new_full((size,), PAD)
    allowed = torch.zeros(size * slots, dtype=torch.bool, device=device)
    barred = Barred(torch.tensor(forbidden, dtype=torch.int64, device=device), EOS, allowed)
    words, distances = [], []
    for i in range(num_words):
        # One word with all weights, then on from the model's own.
        state = state.select(sentences, slots, sentences.repeat_interleave(slots))
        prediction, state = changed.step(y.repeat_interleave(slots), state)
        best = prediction.best(1, barred)
        words.append(best.words[:, 0].view(size, slots))
        alpha = prediction.alpha.double().view(size, slots, -1)
        distances.append((alpha - alpha[:, :1]).abs().sum(dim=-1) / 2)
        state, y = state.select(sentences, 1, own), batch.tgt[:, i]
    return Counterfactuals(
        torch.stack(words, dim=1).cpu().numpy(), torch.stack(distances, dim=1).cpu().numpy()
    )


def permutations(batch: Batch, numbers: Sequence[int], seed: int) -> Tensor:
    """Return a random order of the real source positions at each word, (B, Ty, Tx)."""
    size, num_words = batch.tgt.shape
    orders = torch.arange(batch.src.shape[1]).repeat(size, num_words, 1)
    lengths = batch.src_mask.sum(dim=1).tolist()
    for row, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
        for i in range(num_words):
            orders[row, i, :length] = torch.tensor(shuffled(length, fold(seed, number, i)))
    return orders


def shuffled(count: int, key: int) -> list[int]:
    """Return 0, ..., count - 1 in a random order that depends on the key alone."""
    uniform = stream(key)
    draws = [uniform() for _ in range(count)]
    return sorted(range(count), key=draws.__getitem__)
