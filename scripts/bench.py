"""The parts of `benchmark.py`: models of named sizes, training updates, batches, clocks."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.config.registry import build
from seq2seq.config.schema import (
    Backend,
    BatchOrder,
    Config,
    GatedConfig,
    InitialWeights,
    ModelConfig,
    Precision,
    RecurrentDecoderConfig,
    RecurrentEncoderConfig,
    SentencePieceConfig,
    TrainerConfig,
)
from seq2seq.data.batching import Batch, TokenizedPairs, plan_epoch
from seq2seq.data.store import IdStore
from seq2seq.data.subword_vocabulary import SentencePieceTokenizer, train_sentencepiece
from seq2seq.data.tokenizer import EOS, PAD, UNK
from seq2seq.model import EncoderDecoder, build_model
from seq2seq.training.gradient import Gradient, accumulated_gradient, split
from seq2seq.training.objective import draw_keys
from seq2seq.training.optim import build_optimizer, clip_gradients

Rows = Sequence[npt.NDArray[np.int32]]

SIZES = {"small": (192, 256), "medium": (256, 512), "paper": (620, 1000)}
"""Embedding size and hidden units; `paper` is RNNsearch of Bahdanau et al. 2014, A.2.3."""

PAPERS = "multi30k_en_fr"
MEMBERS = (
    PAPERS,
    *(f"{PAPERS} attention={kind}" for kind in ("dot", "scaled_dot", "general", "multi_head")),
    *(f"{PAPERS} attention={kind}" for kind in ("coverage", "local", "hard", "fixed")),
    f"{PAPERS} cell=lstm",
    f"{PAPERS} cell.layer_norm=true",
    f"{PAPERS} cell.transitions=2",
    f"{PAPERS} cell=min_gru decoder=stacked decoder.attend=top decoder.input_feeding=false",
    *("cgru", "luong", "gnmt_small", "bideep", "self_attention_encoder", "transformer_tiny"),
)
"""The model family: presets with overrides; the first is the paper's model."""

LENGTHS = {"captions": (14.5, 4.3, 16.4, 5.4, 50), "full": (50, 0, 50, 0, 50)}
"""Mean and spread of source and target tokens, and the maximum; `captions` is as in Multi30k."""


# Clocks --------------------------------------------------------------------------------


def interleaved(contestants: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Return units per second of each contestant, round by round.

    All take turns, so that a slowdown of the machine affects all of them. The first round is a
    warmup and does not count.
    """
    turns = [[contestant() for contestant in contestants] for _ in range(rounds + 1)]
    return [list(rates) for rates in zip(*turns[1:], strict=True)]


def timed(work: Callable[[], float], clock: Callable[[], float] = time.perf_counter) -> float:
    """Run work that returns a number of units; return units per second of a clock."""
    start = clock()
    units = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return units / (clock() - start)


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Return operations per second of square matmuls, the best of several."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        a @ b
        return 2.0 * size**3

    return max(timed(work) for _ in range(8))


# Models and updates -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """A model size to compare; the readout has l = n / 2, as in the paper."""

    name: str
    embedding: int  # m
    hidden: int  # n and n'
    vocabulary: int  # K_x and K_y

    def apply_to(self, cfg: Config) -> Config:
        """Return a config with the paper's model at this size, with dropout, as it takes time."""
        model = ModelConfig(
            embedding_size=self.embedding,
            hidden_size=self.hidden,
            align_size=self.hidden,
            readout_size=self.hidden // 2,
            embedding_bias=True,
            init=InitialWeights.glorot,
            embedding_dropout=0.2,
        )
        encoder, decoder = RecurrentEncoderConfig(), RecurrentDecoderConfig(readout_dropout=0.2)
        return replace(cfg, model=model, cell=GatedConfig(), encoder=encoder, decoder=decoder)


class Training:
    """A model in training: does what the trainer does between two log lines.

    Args:
        cfg: Model, optimizer, clipping, smoothing.
        way: Backend and precision: `fused bf16`.
        words: K_x and K_y.
        batches: Made on demand, as in training; never ends.
        device: Device of the model.
    """

    def __init__(
        self, cfg: Config, way: str, words: int, batches: Iterator[Batch], device: torch.device
    ) -> None:
        backend, precision = way.split()
        self.way, self.words, self.batches, self.device = way, words, batches, device
        self.cfg = replace(
            cfg,
            model=replace(cfg.model, backend=Backend[backend]),
            trainer=replace(cfg.trainer, precision=Precision[precision]),
        )
        torch.manual_seed(1)
        self.model = build_model(self.cfg, num_source=words, num_target=words, pad=PAD).to(device)
        self.optimizer = build_optimizer(self.model, cfg.optimizer)
        self.operations = operations(cfg, words, next(batches))

    def updates(self, count: int) -> float:
        """Make `count` updates; return their target tokens, end symbols included."""
        return float(sum(self.update(next(self.batches)) for _ in range(count)))

    def update(self, batch: Batch) -> int:
        """Make one update; return its target tokens."""
        batch = batch.to(self.device)
        gradient = gradient_of(self.model, batch, self.cfg)
        clip_gradients(self.model, self.cfg.trainer.clip_norm)
        gradient.total.item()
        self.optimizer.step()
        return gradient.tokens


def operations(cfg: Config, words: int, batch: Batch) -> float:
    """Return the FLOPs of matmuls per target token, forward and backward.

    Counted by torch on the reference code, on a few sentences of a batch; elementwise functions do
    not count.
    """
    cfg = replace(cfg, model=replace(cfg.model, backend=Backend.reference))
    model = build_model(cfg, num_source=words, num_target=words, pad=PAD)
    few = split(batch, max(1, batch.num_sentences // 4))[0]
    with FlopCounterMode(display=False) as counter:
        tokens = gradient_of(model, few, cfg).tokens
    return float(counter.get_total_flops()) / tokens


def gradient_of(model: EncoderDecoder, batch: Batch, cfg: Config) -> Gradient:
    """Compute the gradient of a batch with the draws of a first update."""
    objective = build(cfg.objective, cfg, ())
    keys = draw_keys(cfg.seed, 1, batch.num_sentences, objective.passes).to(batch.src.device)
    return accumulated_gradient(model, objective, batch, keys, 1, cfg)


# Batches: of a real corpus in files, or drawn with lengths like one -------------------------------


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


def pieces_of(file: Path, vocabulary: int) -> Rows:
    """Tokenize a text file by BPE learnt from it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    model = train_sentencepiece(lines, SentencePieceConfig(vocab_size=vocabulary), "nmt_nfkc")
    rows = SentencePieceTokenizer(model, str(file)).encode(lines)
    return [np.array([*ids, EOS], np.int32) for ids in rows]


def write_text(directory: Path, name: str, pairs: int, seed: int = 1) -> None:
    """Write NAME.en and NAME.fr: words drawn by Zipf's law, a comma and a full stop a line."""
    rng = np.random.default_rng(seed)
    letters = np.array([*"abcdefghijklmnopqrstuvwxyz"])
    sizes = rng.integers(2, 9, 50_000)
    words = np.array(["".join(rng.choice(letters, size)) for size in sizes])
    shares = 1 / np.arange(1, len(words) + 1)
    for side in ("en", "fr"):
        with (directory / f"{name}.{side}").open("w", encoding="utf-8") as file:
            for start in range(0, pairs, 10_000):
                count = min(10_000, pairs - start)
                drawn = rng.choice(words, (count, 20), p=shares / shares.sum())
                lines = (f"{' '.join(row[:9])}, {' '.join(row[9:])}.\n" for row in drawn)
                file.writelines(lines)


def stored(pairs: tuple[Rows, Rows], vocabulary: int, directory: Path) -> TokenizedPairs:
    """Write pairs to files, and open them as a run does."""
    sides = []
    for name, rows in zip(("source", "target"), pairs, strict=True):
        ids, ends = directory / f"{name}.ids", directory / f"{name}.ends"
        np.concatenate(rows).tofile(ids)
        np.cumsum([len(row) for row in rows], dtype=np.int64).tofile(ends)
        sides.append(IdStore(ids, ends, vocabulary))
    return TokenizedPairs(*sides)


def batches_of(pairs: TokenizedPairs, cfg: TrainerConfig) -> Iterator[Batch]:
    """Yield the shuffled batches of an epoch, repeated forever."""
    assert cfg.batch_order is BatchOrder.shuffled
    plan = plan_epoch(pairs.longest(), cfg, seed=1, epoch=0)
    return (pairs.batch(rows, PAD) for rows in itertools.cycle(plan))
