"""Batches: padding, and the order of the pairs in an epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.config.schema import BatchOrder, TrainerConfig
from seq2seq.data.mixture import Mixture
from seq2seq.data.store import IdStore, Lengths

Rows = npt.NDArray[np.int32]

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Batch:
    """Padded ids of some sentence pairs; both sides end with the end symbol."""

    src: Tensor  # (B, Tx)       ids
    src_mask: Tensor  # (B, Tx)  bool, True on real tokens
    tgt: Tensor  # (B, Ty)
    tgt_mask: Tensor  # (B, Ty)
    links: Tensor | None = None  # (B, Ty, Tx) bool, linked tokens, for guided alignment

    @property
    def num_sentences(self) -> int:
        """Pairs in the batch."""
        return len(self.src)

    @property
    def num_cells(self) -> int:
        """Number of token positions on both sides, padding included."""
        return self.src.numel() + self.tgt.numel()

    def count_tokens(self) -> int:
        """Count real tokens on both sides; waits for the device."""
        return int(self.src_mask.sum() + self.tgt_mask.sum())

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device."""
        return self.each(lambda t: t.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Change every tensor, sentences first."""
        given = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **{name: change(tensor) for name, tensor in given.items()})


def pad_ids(rows: Sequence[npt.ArrayLike], pad: int) -> tuple[Tensor, Tensor]:
    """Pad rows of ids to one length; return ids (B, T) and their mask (B, T)."""
    lengths = np.array([np.size(row) for row in rows])
    assert lengths.all(), "a row without tokens: its softmax would be 0/0"
    ids = np.full((len(rows), lengths.max()), pad, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = row
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask)


def collate(pairs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], pad: int) -> Batch:
    """Pad pairs of id rows to a batch."""
    src, src_mask = pad_ids([source for source, _ in pairs], pad)
    tgt, tgt_mask = pad_ids([target for _, target in pairs], pad)
    return Batch(src, src_mask, tgt, tgt_mask)


@dataclass(frozen=True)
class TokenizedPairs:
    """A tokenized split."""

    src: IdStore
    tgt: IdStore

    def __len__(self) -> int:
        return len(self.src)

    def longest(self) -> Lengths:
        """Return the tokens of the longer side of every pair, (N,)."""
        lengths = self.src.lengths()
        return np.maximum(lengths, self.tgt.lengths(), out=lengths)

    def batch(self, rows: Sequence[int], pad: int) -> Batch:
        """Return some pairs as a batch."""
        return collate([(self.src[row], self.tgt[row]) for row in rows], pad)


class Plan:
    """The batches of an epoch: lists of row numbers, made from one array as they are asked for.

    Args:
        rows: The rows of all batches.
        ends: Where in `rows` each batch ends.
    """

    def __init__(self, rows: Rows, ends: Rows) -> None:
        self._rows, self._ends = rows, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> list[int]:
        start = self._ends[number - 1] if number else 0
        rows: list[int] = self._rows[start : self._ends[number]].tolist()
        return rows

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.__getitem__, range(len(self)))


def spread(rows: Sequence[int], limit: int) -> list[int]:
    """Return at most `limit` rows, evenly spread over all."""
    count = min(limit, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def plan_epoch(
    longest: Lengths, cfg: TrainerConfig, *, seed: int, epoch: int, mixture: Mixture | None = None
) -> Plan:
    """Plan the batches of an epoch; a pure function of its arguments.

    B.2: pairs are shuffled; each pool of `pool_batches` batches is sorted by the longer side and
    cut. The authors shuffle once for all epochs and yield a pool's batches shortest first. Without
    a mixture, each pair comes once.

    Args:
        longest: (N,) tokens of the longer side of each pair.
        cfg: The sizes of batches and pools, and the order.
        seed: The seed of the run.
        epoch: From 0.
        mixture: How often each corpus is drawn from.
    """
    rng = np.random.default_rng([seed, epoch if cfg.reshuffle else 0])
    order = rng.permutation(np.arange(len(longest), dtype=np.int32))
    if mixture is not None:
        drawn = mixture.draw(seed=seed, epoch=epoch, reshuffle=cfg.reshuffle)
        order = rng.permutation(drawn.astype(np.int32))
    sizes: list[Rows] = []
    # Sort and cut each pool in its place, and shuffle its batches if configured.
    for pool in _pools(order, longest, cfg):
        by_length = pool[np.argsort(longest[pool], kind="stable")]
        cut = np.split(by_length, _cuts(longest[by_length], cfg))
        if cfg.batch_order is BatchOrder.shuffled:
            cut = [cut[i] for i in rng.permutation(len(cut))]
        pool[:] = np.concatenate(cut)
        sizes.append(np.array([len(rows) for rows in cut], np.int32))
    return Plan(order, np.cumsum(np.concatenate(sizes), dtype=np.int32))


def _pools(order: Rows, longest: Lengths, cfg: TrainerConfig) -> Iterator[Rows]:
    """Cut into pools of n sentences, or of n tokens of the longer side and a bit."""
    if cfg.batch_sentences is not None:
        size = cfg.batch_sentences * cfg.pool_batches
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    assert cfg.batch_tokens is not None
    start = number = tokens = 0  # of the pool, and tokens so far
    for begin in range(0, len(order), _BLOCK):
        filled = tokens + np.cumsum(longest[order[begin : begin + _BLOCK]], dtype=np.int64)
        tokens = int(filled[-1])
        numbers = filled // (cfg.batch_tokens * cfg.pool_batches)
        for end in (begin + np.flatnonzero(np.diff(numbers, prepend=number))).tolist():
            if end > start:
                yield order[start:end]
            start = end
        number = int(numbers[-1])
    yield order[start:]


def _cuts(longest: Lengths, cfg: TrainerConfig) -> list[int]:
    """Return where rows, sorted by length, are cut into batches of n sentences or padded tokens."""
    if cfg.batch_sentences is not None:
        return [*range(cfg.batch_sentences, len(longest), cfg.batch_sentences)]
    assert cfg.batch_tokens is not None
    cuts, start = [], 0
    while start < len(longest):
        # Rows are sorted, so the last one is the longest; a row over the budget stands alone.
        rows = longest[start : start + cfg.batch_tokens // int(longest[start]) + 1]
        tokens = rows * np.arange(1, len(rows) + 1)
        start += max(1, int(np.searchsorted(tokens, cfg.batch_tokens, side="right")))
        cuts.append(start)
    return cuts[:-1]


def shape(batch: Batch, rows: Sequence[int], file: str) -> str:
    """Describe the size of a batch, and name its longest line."""
    lengths = torch.maximum(batch.src_mask.sum(dim=1), batch.tgt_mask.sum(dim=1))
    return (
        f"{batch.num_sentences} pairs of up to {batch.src.shape[1]} and {batch.tgt.shape[1]} "
        f"tokens, the longest in line {rows[int(lengths.argmax())] + 1} of {file}"
    )
