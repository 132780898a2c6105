"""Tiny models with live weights and ragged batches, the same for every test."""

import contextlib
import functools
import gc
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pytest
import torch
from cell_oracle import CellOracle
from oracles import Oracle
from runs import characters_run, composed_by_workers, layers_run, run_here, tiny_run
from stacked_oracle import StackedOracle
from storms import Micro, Zygote
from torch import Tensor
from transformer_oracle import TransformerOracle

from seq2seq.config.schema import (
    AdditiveConfig,
    Attend,
    Backend,
    Config,
    CoverageConfig,
    DotConfig,
    FixedConfig,
    GeneralConfig,
    HardConfig,
    HardInference,
    LayersAttentionConfig,
    LocalConfig,
    ModelConfig,
    MultiHeadConfig,
    Readout,
    RecurrentDecoderConfig,
    RecurrentEncoderConfig,
    ScaledDotConfig,
    SelfAttentionConfig,
    StackedDecoderConfig,
    Tied,
    TransformerDecoderConfig,
    UniformConfig,
)
from seq2seq.data.batching import Batch, collate
from seq2seq.kernels import native
from seq2seq.model import EncoderDecoder, build_model
from seq2seq.model.attention import (
    AdditiveAttention,
    CoverageAttention,
    DotAttention,
    FixedContext,
    GeneralAttention,
    LocalAttention,
    MultiHeadAttention,
    UniformAttention,
)
from seq2seq.model.draws import entry_keys, fold, keyed, stream
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.hard_attention import HardAttention
from seq2seq.model.output import smoothed_loss
from seq2seq.model.protocols import Followed
from seq2seq.model.stacked_decoder import StackedDecoder
from seq2seq.model.stacked_encoder import StackedEncoder
from seq2seq.model.transformer import SelfAttentionEncoder, TransformerDecoder
from seq2seq.training.loss import Loss, loss_along

for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)  # a background job would hand down that it ignores some
signal.signal(signal.SIGINT, signal.default_int_handler)

# As the commands do, or a tenth of the time of all tests goes to searches for garbage among what
# imports have made. A test that waits for garbage collects it.
gc.set_threshold(50_000)
gc.freeze()

native.library()  # compiled before anything counts what is done to the disk
torch.set_num_threads(1)  # results at larger sizes depend on the thread count

PAD, EOS = 0, 1
VOCAB = 7

HARD = HardConfig(discount=1.0, entropy_weight=0.1)
FAMILY = {
    "additive": AdditiveConfig(),
    "coverage": CoverageConfig(max_fertility=1.5),
    "dot": DotConfig(),
    "scaled_dot": ScaledDotConfig(),
    "general": GeneralConfig(),
    "multi_head": MultiHeadConfig(heads=2),
    "hard": HARD,
    "hard, expectation": replace(HARD, inference=HardInference.expectation),
    "local": LocalConfig(window=1),
    "fixed": FixedConfig(),
    "uniform": UniformConfig(),
}
"""Every kind of attention; `multi_head` needs an even `align_size`."""

STACKED = {
    "between": StackedDecoderConfig(),
    "between, residual": StackedDecoderConfig(layers=2, residual=True),
    "bottom": StackedDecoderConfig(layers=2, attend=Attend.bottom),
    "bottom, one layer": StackedDecoderConfig(attend=Attend.bottom, output_rank=3),
    "top": StackedDecoderConfig(layers=2, attend=Attend.top),
    "top, residual": StackedDecoderConfig(layers=3, attend=Attend.top, residual=True),
    "fed": StackedDecoderConfig(layers=2, attend=Attend.top, input_feeding=True),
    "fed, maxout": StackedDecoderConfig(
        attend=Attend.top, input_feeding=True, readout=Readout.maxout
    ),
}
"""Every kind of stacked decoder."""

TINY = Config(
    model=ModelConfig(
        embedding_size=3, hidden_size=4, align_size=5, readout_size=2,
        embedding_bias=True, backend=Backend.reference,
    ),
    decoder=RecurrentDecoderConfig(output_rank=3),
)  # fmt: skip


def with_values(cfg: Config, **changes) -> Config:
    """A config with other values: `reset` of its cell, `hidden_size` of its model, and so on."""
    groups = ("model", "cell", "encoder", "decoder")
    cfg = replace(cfg, **{group: changes.pop(group) for group in groups if group in changes})
    for group in groups:
        part = getattr(cfg, group)
        own = {key: changes.pop(key) for key in list(changes) if hasattr(part, key)}
        cfg = replace(cfg, **{group: replace(part, **own)})
    return replace(cfg, **changes)


SIZES = ((4, 3), (1, 5), (5, 1), (2, 2))
"""Source and target tokens of the sentences of a ragged batch, end symbols included."""


def tiny_model(
    seed: int = 0, *, vocab: int = VOCAB, pad: int = PAD, scale: float = 0.7, **changes
) -> EncoderDecoder:
    """A float64 model in which every weight is alive: N(0, scale^2), the row of y_0 excepted."""
    cfg = with_values(TINY, **changes)
    model = build_model(cfg, num_source=vocab, num_target=vocab, pad=pad).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale, generator=generator)
        for side in (model.encoder, model.decoder):
            side.embedding.E.weight[pad] = 0.0
    return model.eval()


SELF_ATTENTION = SelfAttentionConfig(layers=2, heads=2, inner_size=6)


def tiny_transformer(
    seed: int = 0,
    *,
    vocab: int = VOCAB,
    self_attention: bool = True,
    layer: int | None = None,
    head: int | None = None,
    tied: Tied = Tied.none,
    backend: Backend = Backend.reference,
    **changes,
) -> EncoderDecoder:
    """`tiny_model` of a Transformer with two layers and heads; or of its decoder alone."""
    encoder = replace(SELF_ATTENTION, **changes) if self_attention else RecurrentEncoderConfig()
    decoder = TransformerDecoderConfig(layers=2, inner_size=6, **changes)
    attention = LayersAttentionConfig(heads=2, layer=layer, head=head)
    parts = {"encoder": encoder, "decoder": decoder, "attention": attention, "backend": backend}
    return tiny_model(seed, vocab=vocab, embedding_size=4, embedding_bias=False, tied=tied, **parts)


def random_pairs(
    seed: int, sizes: Sequence[tuple[int, int]] = SIZES, *, vocab: int = VOCAB
) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(seed)
    rows = [[*rng.integers(2, vocab, size - 1).tolist(), EOS] for pair in sizes for size in pair]
    return list(zip(rows[::2], rows[1::2], strict=True))


def random_batch(
    seed: int, sizes: Sequence[tuple[int, int]] = SIZES, *, vocab: int = VOCAB
) -> Batch:
    return collate(random_pairs(seed, sizes, vocab=vocab), PAD)


def attention_of(model: EncoderDecoder) -> tuple[str, float | None]:
    """The kind of attention as the oracle names it, with its heads, its window or its N."""
    match model.decoder.attention:
        case HardAttention(take_most_likely=True):
            return "hard", None
        case CoverageAttention(max_fertility=most):
            return "coverage", most
        case AdditiveAttention():
            return "additive", None
        case MultiHeadAttention(heads=heads):
            return "multi_head", heads
        case LocalAttention(window=window):
            return "local", window
        case GeneralAttention():
            return "general", None
        case DotAttention(scale=scale):
            return ("dot" if scale == 1 else "scaled_dot"), None
        case FixedContext():
            return "fixed", None
        case UniformAttention():
            return "uniform", None
    raise AssertionError(model.decoder.attention)


def weights_of(model: EncoderDecoder) -> dict[str, np.ndarray]:
    """Copies, by name."""
    return {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}


def oracle_of(model: EncoderDecoder) -> Oracle | TransformerOracle:
    """The oracle with a copy of a model's weights and the model's reading of the paper."""
    weights, transformer = weights_of(model), None
    if isinstance(model.encoder, SelfAttentionEncoder):
        layers = model.decoder.layers if hasattr(model.decoder, "layers") else model.encoder.layers
        shown = getattr(model.decoder, "shown", None)
        transformer = TransformerOracle(
            weights,
            heads=2,
            pre_norm=layers[0].residuals[0].pre_norm,
            gelu=layers[0].feed_forward.gelu,
            shown=(shown.layer, shown.head) if shown else (0, None),
        )
        if isinstance(model.decoder, TransformerDecoder):
            return transformer
    kind, option = attention_of(model)
    stacked = isinstance(model.encoder, StackedEncoder)
    first = getattr(model.decoder.unit, "first", model.decoder.unit)
    reading = {
        "encoder": transformer,
        "state_word": "emitted" if getattr(model.decoder, "moved_by_emitted", 0) else "previous",
        "reset": "before" if getattr(first, "reset_before", True) else "after",
        "readout": "maxout" if model.decoder.maxout else "tanh",
        "attention": kind,
        "option": option,
    }
    if isinstance(model.decoder, StackedDecoder):
        place = {name: getattr(model.decoder, name) for name in ("attend", "input_feeding")}
        reading |= place | {"layers": 1 + len(model.decoder.upper)}
        oracle = StackedOracle(weights, add_below=model.decoder.residual, **reading)
    else:
        papers = model.decoder.unit.__class__ is GatedUnit and not stacked
        oracle = (Oracle if papers else CellOracle)(weights, **reading)
    oracle.residual = stacked and model.encoder.layers[-1].residual
    return oracle


def loss_of(objective, model, batch, keys):
    """The loss of a batch by an objective, as an update computes it."""
    task = objective.prepare(model, batch, keys)
    with keyed(task.keys):
        part = task.batch
        return task.loss(model.follow(part.src, part.src_mask, part.tgt, part.tgt_mask))


def follow(model: EncoderDecoder, batch: Batch, seed: int = 0, *, number: int = 0) -> Followed:
    """The model along the targets of a batch; in training mode with the draws of a seed."""
    with keyed(entry_keys(seed, 1, batch.num_sentences, number=number)):
        return model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)


def run(model: EncoderDecoder, batch: Batch, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p (N, K), the summed loss and alpha (B, Ty, Tx)."""
    followed = follow(model, batch, seed)
    logits = model.logits(followed.t)
    _, loss = smoothed_loss(logits, batch.tgt[batch.tgt_mask], 0.0)
    return torch.log_softmax(logits, dim=-1), loss, followed.alpha


def per_sentence(rows: Tensor, batch: Batch) -> list[Tensor]:
    """Cut rows that belong to real target tokens (N, ...) by sentence."""
    return list(rows.split(batch.tgt_mask.sum(dim=1).tolist()))


def draws_of(texts: Sequence[str], seed: int) -> list[Callable[[], float]]:
    """What each text is cut by."""
    return [stream(fold(seed, number)) for number in range(len(texts))]


# Whole runs: one to share, and scripts called as a process would be.


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser; ask for it where `browser.BROWSER` is one."""
    with browser.browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="session", autouse=True)
def _sharing_of_workers(tmp_path_factory):
    if "PYTEST_XDIST_WORKER" in os.environ:  # their directories are side by side, and of this run
        composed_by_workers.append(tmp_path_factory.getbasetemp().parent / "composed")


@pytest.fixture(scope="session", name="run")
def trained_run(tmp_path_factory) -> Path:
    """The directory of `tiny_run`; a test that changes it works on a copy."""
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session", name="layers_run")
def run_with_layers(tmp_path_factory) -> Path:
    """The directory of `layers_run`."""
    return layers_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session", name="characters_run")
def run_on_characters(tmp_path_factory) -> Path:
    """The directory of `characters_run`."""
    return characters_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def script(monkeypatch):
    return functools.partial(run_here, monkeypatch)


# Whole runs, by the hundred.


@pytest.fixture(scope="session")
def micro(tmp_path_factory):
    """A run of a second, and processes that make more of it at once: two where that is alone."""
    folder = tmp_path_factory.mktemp("micro")
    runs = Micro(folder)
    with contextlib.ExitStack() as stack:
        for number in range(1 if "PYTEST_XDIST_WORKER" in os.environ else 2):
            runs.zygotes.put(stack.enter_context(Zygote(folder / f"zygote{number}")))
        yield runs


# The table that ends a test run: what each storm survived.

STORMS = pytest.StashKey[dict[tuple[str, str], tuple[int, int, str]]]()


@pytest.fixture
def tally(request):
    """Record a row of the reliability table: `tally("K1", "what happened", held, tried, note)`.

    Of two rows about the same the one with more trials is shown.
    """
    rows = request.config.stash.setdefault(STORMS, {})

    def record(row: str, fault: str, held: int, tried: int, note: str = "") -> None:
        if tried >= rows.get((row, fault), (0, 0))[1]:
            rows[row, fault] = (held, tried, note)

    return record


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # one of several processes: hand the rows on
        rows = session.config.stash.get(STORMS, {})
        session.config.workeroutput["storms"] = [[*key, *row] for key, row in rows.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    rows = node.config.stash.setdefault(STORMS, {})
    for row, fault, *held_tried_note in getattr(node, "workeroutput", {}).get("storms", []):
        rows[row, fault] = tuple(held_tried_note)


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(STORMS, {})
    if not rows:
        return
    terminalreporter.section("reliability")
    terminalreporter.write_line("| row | fault | held | of | note |")
    terminalreporter.write_line("|---|---|---|---|---|")
    for (row, fault), (held, tried, note) in sorted(rows.items()):
        terminalreporter.write_line(f"| {row} | {fault} | {held:,} | {tried:,} | {note} |")


def batch_loss(model: EncoderDecoder, batch: Batch, label_smoothing: float = 0.0) -> Loss:
    """The loss of a batch, as an update computes it."""
    return loss_along(model, follow(model, batch), batch, label_smoothing)
