"""Erasure and gradients: how much does a word depend on the source words attended to?

Comprehensiveness and sufficiency are those of DeYoung et al. 2020 (ERASER, arXiv:1911.03429): how
much less probable a word is without the source words ranked first, and with them alone. Agreement
is Kendall's tau between attention and gradients, as in Jain & Wallace 2019 (arXiv:1902.10186).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.data.batching import Batch, collate
from seq2seq.data.tokenizer import PAD
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.intervention import scaled

Floats = npt.NDArray[np.float64]

SHARES = (0.1, 0.2, 0.5)  # shares of the source words that are erased, or kept alone
PATH_STEPS = 16  # points of the path of integrated gradients
_ROWS = 256  # sentences of a batch of erased sources


def log_probs(model: EncoderDecoder, batch: Batch) -> Tensor:
    """Return log p (B,) of the last word of each target."""
    followed = model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    lengths = batch.tgt_mask.sum(dim=1)
    logits = model.logits(followed.t[lengths.cumsum(dim=0) - 1])
    words = batch.tgt.gather(1, lengths[:, None] - 1)
    log_p = torch.log_softmax(
        logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)
    )
    return log_p.gather(1, words).squeeze(1)


def attributions(model: EncoderDecoder, batch: Batch) -> tuple[Floats, Floats]:
    """Return what each source word adds to log p of the last word of each target, (B, Tx) each.

    The first is gradient x input. The second are integrated gradients (Sundararajan et al. 2017,
    arXiv:1703.01365) on the straight path from embeddings of zero, by the midpoint rule; they add
    up to the difference between the log-probabilities at both ends.
    """
    found = []
    for factor in (1.0, *((k + 0.5) / PATH_STEPS for k in range(PATH_STEPS))):
        weight = next(model.parameters())
        factors = torch.full(batch.src.shape, factor, dtype=weight.dtype, device=weight.device)
        factors.requires_grad_()
        [gradient] = torch.autograd.grad(log_probs(scaled(model, factors), batch).sum(), factors)
        found.append(gradient.double().cpu().numpy())
    integrated: Floats = np.mean(found[1:], axis=0)
    return found[0], integrated


def rollout(encoder: Floats, alpha: Floats) -> Floats:
    """Return the attention (Tx,) through all layers: Abnar & Zuidema 2020, arXiv:2005.00928.

    It is made of that within the source (layers, h, Tx, Tx) and that to the last layer (Tx,).
    """
    through = np.eye(len(alpha))
    for layer in encoder.mean(axis=1):
        through = (layer + np.eye(len(alpha))) / 2 @ through  # half for the residual connection
    return alpha @ through


def kendall(a: Floats, b: Floats) -> float | None:
    """Return Kendall's tau_b of two rankings (ties count for neither); None if one is constant."""
    first, second = (np.sign(x[:, None] - x[None, :]) for x in (a, b))
    norm = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float((first * second).sum() / norm) if norm else None


@dataclass(frozen=True)
class Question:
    """A word of a translation, and the ways to rank the source words for it."""

    src: Sequence[int]  # ids of the source, with the end symbol
    tgt: Sequence[int]  # ids of the translation up to and with the word
    places: Sequence[int]  # positions of the source that may be erased
    rankings: Mapping[str, Floats]  # by name: values of the places, greatest first


@dataclass(frozen=True)
class _Row:
    src: Sequence[int]
    erased: frozenset[int]  # positions with an embedding of zero
    tgt: Sequence[int]


def erased(model: EncoderDecoder, questions: Sequence[Question]) -> list[tuple[float, Floats]]:
    """Return the probability of each word and what it loses, (rankings, 2, 2, shares).

    The dimensions: the ranking, zeroed or removed, comprehensiveness or sufficiency, the share of
    `SHARES`. Erased, or kept alone, are the words that the ranking puts first.
    """
    rows = [row for question in questions for row in _rows(question)]
    parts = (rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS))
    p = np.exp(np.concatenate([_score(model, part) for part in parts]))
    found, first = [], 0
    for question in questions:
        shape = (len(question.rankings), 2, 2, len(SHARES))
        whole, *others = p[first : first + 1 + int(np.prod(shape))]
        found.append((float(whole), whole - np.reshape(others, shape)))
        first += 1 + len(others)
    return found


def _rows(question: Question) -> list[_Row]:
    """Return the whole sentence, then its erased versions in the order of `erased`."""
    src, tgt, every = question.src, question.tgt, frozenset(question.places)
    rows = [_Row(src, frozenset(), tgt)]
    for values in question.rankings.values():
        order = [question.places[i] for i in np.argsort(-values, kind="stable")]
        top = [frozenset(order[: math.ceil(share * len(order))]) for share in SHARES]
        gone = [*top, *(every - first for first in top)]
        rows += [_Row(src, places, tgt) for places in gone]
        rows += [
            _Row([x for j, x in enumerate(src) if j not in places], frozenset(), tgt)
            for places in gone
        ]
    return rows


@torch.inference_mode()
def _score(model: EncoderDecoder, rows: Sequence[_Row]) -> Floats:
    """Return log p (rows,) of the last words."""
    weight = next(model.parameters())
    batch = collate([(row.src, row.tgt) for row in rows], PAD)
    factors = torch.ones(batch.src.shape, dtype=weight.dtype)
    for factor, row in zip(factors, rows, strict=True):
        factor[sorted(row.erased)] = 0.0
    log_p = log_probs(scaled(model, factors.to(weight.device)), batch.to(weight.device))
    found: Floats = log_p.double().cpu().numpy()
    return found
