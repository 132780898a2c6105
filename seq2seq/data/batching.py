"""Batches: padding, and the order of the pairs in an epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.config.schema import BatchOrder, TrainerConfig
from seq2seq.data.mixture import Mixture
from seq2seq.data.store import IdStore, Lengths


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

    def batch(self, rows: Sequence[int], pad: int) -> Batch:
        """Return some pairs as a batch."""
        return collate([(self.src[row], self.tgt[row]) for row in rows], pad)


def plan_epoch(
    src_lengths: Lengths,
    tgt_lengths: Lengths,
    cfg: TrainerConfig,
    *,
    seed: int,
    epoch: int,
    mixture: Mixture | None = None,
) -> list[list[int]]:
    """Return the batches of an epoch as lists of row numbers; a pure function of its arguments.

    B.2: pairs are shuffled; each pool of `pool_batches` batches is sorted by the longer side and
    cut. The authors shuffle once for all epochs and yield a pool's batches shortest first. Without
    a mixture, each pair comes once.
    """
    rng = np.random.default_rng([seed, epoch if cfg.reshuffle else 0])
    longest = np.maximum(src_lengths, tgt_lengths)
    order = rng.permutation(len(longest))
    if mixture is not None:
        order = rng.permutation(mixture.draw(seed=seed, epoch=epoch, reshuffle=cfg.reshuffle))
    batches: list[list[int]] = []
    # Sort and cut each pool, and shuffle its batches if configured.
    for pool in _pools(order, longest, cfg):
        by_length = pool[np.argsort(longest[pool], kind="stable")]
        cut = _cut(by_length, longest, cfg)
        if cfg.batch_order is BatchOrder.shuffled:
            cut = [cut[i] for i in rng.permutation(len(cut))]
        batches += cut
    return batches


def _pools(order: Lengths, longest: Lengths, cfg: TrainerConfig) -> list[Lengths]:
    if cfg.batch_sentences is not None:
        size = cfg.batch_sentences * cfg.pool_batches
        return [order[i : i + size] for i in range(0, len(order), size)]
    assert cfg.batch_tokens is not None
    filled = np.cumsum(longest[order])  # a pool ends when its token budget is full
    bounds = np.arange(1, filled[-1] // (cfg.batch_tokens * cfg.pool_batches) + 1)
    cuts = np.searchsorted(filled, bounds * cfg.batch_tokens * cfg.pool_batches)
    return [pool for pool in np.split(order, cuts) if len(pool)]


def _cut(rows: Lengths, longest: Lengths, cfg: TrainerConfig) -> list[list[int]]:
    """Cut rows, sorted by length, into batches of n sentences or padded tokens."""
    if cfg.batch_sentences is not None:
        size = cfg.batch_sentences
        return [rows[i : i + size].tolist() for i in range(0, len(rows), size)]
    assert cfg.batch_tokens is not None
    batches: list[list[int]] = [[]]
    for row in rows.tolist():
        # Rows are sorted, so this one is the longest yet; a row over the budget stands alone.
        if batches[-1] and (len(batches[-1]) + 1) * longest[row] > cfg.batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def shape(batch: Batch, rows: Sequence[int], file: str) -> str:
    """Describe the size of a batch, and name its longest line."""
    lengths = torch.maximum(batch.src_mask.sum(dim=1), batch.tgt_mask.sum(dim=1))
    return (
        f"{batch.num_sentences} pairs of up to {batch.src.shape[1]} and {batch.tgt.shape[1]} "
        f"tokens, the longest in line {rows[int(lengths.argmax())] + 1} of {file}"
    )
