"""Batches to train on: of a real corpus in files, or drawn with lengths like one."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from seq2seq.config.schema import BatchOrder, TrainerConfig
from seq2seq.data.batching import TokenizedPairs, plan_epoch
from seq2seq.data.store import IdStore
from seq2seq.data.tokenizer import EOS, PAD, UNK

Rows = Sequence[npt.NDArray[np.int32]]

LENGTHS = {"captions": (14.5, 4.3, 16.4, 5.4, 50), "full": (50, 0, 50, 0, 50)}
"""Mean and spread of source and target tokens, and the longest: as in Multi30k; none shorter."""


def drawn_pairs(kind: str, pairs: int, vocabulary: int, seed: int = 1) -> tuple[Rows, Rows]:
    """Draw sentences of random ids; target lengths follow source lengths."""
    rng = np.random.default_rng(seed)
    mean_x, spread_x, mean_y, spread_y, longest = LENGTHS[kind]
    both = rng.standard_normal(pairs)
    own = rng.standard_normal(pairs)
    x = np.rint(mean_x + spread_x * both).clip(3, longest).astype(int)
    y = np.rint(mean_y + spread_y * (0.85 * both + 0.53 * own)).clip(3, longest).astype(int)
    return _rows(rng, x, vocabulary), _rows(rng, y, vocabulary)


def _rows(rng: np.random.Generator, lengths: npt.NDArray[np.int64], vocabulary: int) -> Rows:
    ids = rng.integers(max(PAD, EOS, UNK) + 1, vocabulary, int(lengths.sum()), dtype=np.int32)
    ids[np.cumsum(lengths) - 1] = EOS
    return np.split(ids, np.cumsum(lengths)[:-1])


def read_pairs(source: Path, target: Path, vocabulary: int) -> tuple[Rows, Rows]:
    """Cut two text files into byte pairs of their own, `vocabulary` each."""
    return _pieces(source, vocabulary), _pieces(target, vocabulary)


def _pieces(file: Path, vocabulary: int) -> Rows:
    lines = file.read_text(encoding="utf-8").splitlines()
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        character_coverage=1.0,
        pad_id=PAD,
        eos_id=EOS,
        unk_id=UNK,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    processor = SentencePieceProcessor(model_proto=model.getvalue())
    return [np.array([*ids, EOS], np.int32) for ids in processor.encode(lines)]


def stored(pairs: tuple[Rows, Rows], vocabulary: int, directory: Path) -> TokenizedPairs:
    """Put pairs into files that are read as a run reads its own."""
    sides = []
    for name, rows in zip(("source", "target"), pairs, strict=True):
        ids, ends = directory / f"{name}.ids", directory / f"{name}.ends"
        np.concatenate(rows).tofile(ids)
        np.cumsum([len(row) for row in rows], dtype=np.int64).tofile(ends)
        sides.append(IdStore(ids, ends, vocabulary))
    return TokenizedPairs(*sides)


def plan(pairs: TokenizedPairs, cfg: TrainerConfig) -> list[list[int]]:
    """Return batches in random order, as an epoch of training has them."""
    assert cfg.batch_order is BatchOrder.shuffled
    return plan_epoch(pairs.src.lengths(), pairs.tgt.lengths(), cfg, seed=1, epoch=0)
