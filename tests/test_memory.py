"""Memory that runs out: one line, nothing left behind, or the same gradient from parts."""

import copy
import errno
import json
import re
import weakref
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import FAMILY, SIZES, STACKED, random_batch, tiny_model
from runs import composed, copy_of, go, metrics_of, run_here, tokenized_run
from torch.utils._python_dispatch import TorchDispatchMode

import seq2seq
from seq2seq.cli import stages
from seq2seq.config.registry import build
from seq2seq.config.schema import Config, Normalize, OnOutOfMemory
from seq2seq.data.batching import Batch
from seq2seq.decoding import translate
from seq2seq.model import EncoderDecoder
from seq2seq.model.draws import entry_keys
from seq2seq.run import memory
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.memory import OutOfMemory
from seq2seq.training import checkpoint, trainer, validation
from seq2seq.training import gradient as gradients
from seq2seq.training.gradient import Gradient, sentence_losses, split
from seq2seq.training.monitor import Validated
from seq2seq.training.trainer import Trainer

CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
CPU += "you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)"
EXHAUSTED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(CPU),
    MemoryError(),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
OTHERS = [
    RuntimeError("view size is not compatible"),
    ValueError("out of memory"),
    OSError(errno.ENOSPC, "No space left on device"),
    KeyError("DefaultCPUAllocator"),
]


def test_N5_memory_that_runs_out_is_known_in_every_form_and_nothing_else():
    """2^55 bytes are more than an address space holds, so nothing is touched."""
    for error in EXHAUSTED:
        with OutOfMemory() as oom:
            raise error
        assert oom, error
        assert "\n" not in oom.message
    with OutOfMemory() as oom:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert oom
    for error in OTHERS:
        with pytest.raises(type(error)) as caught, OutOfMemory() as oom:
            raise error
        assert caught.value is error


# The gradient in parts ------------------------------------------------------------------------


@cache
def base() -> Config:
    return composed("debug")


def config(normalize: Normalize, **changes) -> Config:
    cfg = copy.deepcopy(base())
    cfg.trainer.normalize, cfg.trainer.on_out_of_memory = normalize, OnOutOfMemory.split
    for name, value in changes.items():
        setattr(cfg, name, value)
    return cfg


@contextmanager
def room_for(model: torch.nn.Module, sentences: int):
    """A machine on which so many sentences fit, and fail half way through the forward pass."""

    def check(_module, args, _output) -> None:
        sizes.append(len(args[0]))
        if sizes[-1] > sentences:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    sizes: list[int] = []
    handle = model.encoder.register_forward_hook(check)
    try:
        yield sizes
    finally:
        handle.remove()


def accumulated_gradient(model: EncoderDecoder, batch: Batch, parts: int, cfg: Config) -> Gradient:
    """With the draws of some keys."""
    keys, objective = keys_of(batch)[:, None], build(cfg.objective, cfg, ())
    return gradients.accumulated_gradient(model, objective, batch, keys, parts, cfg)


def keys_of(batch: Batch) -> torch.Tensor:
    return entry_keys(3, 5, batch.num_sentences)


def gradient(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    error = sum((found[n] - g).double().square().sum() for n, g in expected.items())
    return float((error / sum(g.double().square().sum() for g in expected.values())).sqrt())


RAGGED = (*SIZES, (6, 2), (3, 3), (1, 1), (2, 7))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("kind", "normalize"),
    [*((kind, Normalize.none) for kind in (*FAMILY, "between, residual", "top"))]
    + [(kind, n) for kind in ("additive", "hard") for n in (Normalize.sentences, Normalize.words)],
)
def test_T6_N5_a_gradient_in_parts_is_that_of_the_batch(kind, normalize):
    """2 x b against 1 x 2b, and down to single sentences; smoothing and dropout on, float32."""
    parts = {"decoder": STACKED[kind]} if kind in STACKED else {"attention": FAMILY[kind]}
    cfg = config(normalize, **parts)
    dropout = ["embedding_dropout", "annotation_dropout", "readout_dropout"]
    dropout += ["dropout"] if kind in STACKED else []
    changes = parts | dict.fromkeys(dropout, 0.3)
    model = tiny_model(3, align_size=4, **changes).float().train()
    batch = random_batch(3, RAGGED)
    once = accumulated_gradient(model, batch, 1, cfg)
    whole = gradient(model)
    assert (once.parts, once.shortage, once.tokens) == (1, None, sum(ty for _, ty in RAGGED))
    assert cfg.trainer.label_smoothing > 0
    for fits, tries in ((4, [8, 4, 4]), (3, [8, 4, 2, 2, 2, 2]), (1, [8, 4, 2, *[1] * 8])):
        asked = accumulated_gradient(model, batch, 8 // fits, cfg)
        in_parts = gradient(model)
        with room_for(model, fits) as sizes:
            split_up = accumulated_gradient(model, batch, 1, cfg)
        assert sizes == tries
        assert split_up.shortage == "CUDA out of memory."
        for found, grads in ((asked, in_parts), (split_up, gradient(model))):
            assert distance(grads, whole) <= 1e-6
            assert found.total.item() == pytest.approx(once.total.item(), rel=1e-6)
            assert found.tokens == once.tokens


def test_N5_memory_that_fails_in_the_middle_of_a_backward_pass_adds_nothing_twice():
    model = tiny_model(4).float().train()
    cfg, batch = config(Normalize.words), random_batch(4, RAGGED)
    accumulated_gradient(model, batch, 1, cfg)
    whole = gradient(model)
    failed = []

    def fail(grad):  # of the source words: the last that a backward pass comes to
        if len(failed) < 2:
            failed.append(1)
            raise MemoryError
        return grad

    handle = model.encoder.embedding.E.weight.register_hook(fail)
    found = accumulated_gradient(model, batch, 1, cfg)
    handle.remove()
    assert (len(failed), found.parts) == (2, 4)
    assert distance(gradient(model), whole) <= 1e-6


def test_N5_one_sentence_that_does_not_fit_is_the_end():
    model = tiny_model(5).train()
    for batch, tries in ((random_batch(5), [4, 2, 1]), (random_batch(5, ((3, 4),)), [1])):
        with room_for(model, 0) as sizes, pytest.raises(MemoryError, match="CUDA out of memory"):
            accumulated_gradient(model, batch, 1, config(Normalize.none))
        assert sizes == tries
        assert not gradient(model)


def test_N5_parts_are_the_batch_and_no_wider_than_they_must_be():
    batch = random_batch(6, (*RAGGED, (5, 2)))
    first, second = split(batch, 2)
    assert (first.num_sentences, second.num_sentences) == (4, 5)
    assert (first.src.shape, first.tgt.shape) == ((4, 5), (4, 5))
    assert (second.src.shape, second.tgt.shape) == ((5, 6), (5, 7))
    for parts in (1, 2, 4, 9):
        rows = [
            ids[mask].tolist()
            for part in split(batch, parts)
            for ids, mask in zip(part.src, part.src_mask, strict=True)
        ]
        assert rows == [i[m].tolist() for i, m in zip(batch.src, batch.src_mask, strict=True)]


def test_losses_of_sentences_add_up_to_that_of_the_batch():
    """Each is that of the sentence alone; in training mode with the draws of their keys."""
    cfg = config(Normalize.none)
    model, batch = tiny_model(7, embedding_dropout=0.4).train(), random_batch(7, RAGGED)
    losses = sentence_losses(model, batch, keys_of(batch), cfg)
    total = accumulated_gradient(model, batch, 1, cfg).total.item()
    assert sum(losses) == pytest.approx(total, rel=1e-6)
    parts = zip(split(batch, len(RAGGED)), keys_of(batch)[:, None], losses, RAGGED, strict=True)
    for alone, key, loss, (_, width) in parts:
        assert alone.tgt.shape[1] == width
        total = gradients.accumulated_gradient(
            model, build(cfg.objective, cfg, ()), alone, key[:, None], 1, cfg
        ).total.item()
        assert loss == pytest.approx(total, rel=1e-5)


# Whole trainings ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    changes = ["tokenizer.sampling=0", "trainer.batch_tokens=300", "trainer.max_updates=6"]
    changes += ["trainer.validate_every=3", "trainer.checkpoint_every=2"]
    changes += ["trainer.validation_sentences=2", "decode.extra_steps=0"]
    changes += ["logging.every=2", "logging.tensorboard=false"]
    return tokenized_run(tmp_path_factory.mktemp("memory"), *changes, pairs=60, held_out=5)


@pytest.fixture
def root(prepared, tmp_path) -> Path:
    return copy_of(prepared, tmp_path / "run")


class Shortage(TorchDispatchMode):
    """Let the n-th operation of an update fail, and remember every tensor that was made."""

    def __init__(self, at: int, error: Exception | None = None) -> None:
        super().__init__()
        self.at, self.error, self.seen, self.bytes = at, error, 0, 0
        self.made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen += 1
        if self.seen == self.at:
            raise copy.copy(self.error)
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.made.append(weakref.ref(tensor))
                self.bytes += tensor.nbytes
        return out

    def kept(self, known: set[int]) -> int:
        """Bytes of what was made and is still there, outside the known storages."""
        alive = [tensor for ref in self.made if (tensor := ref()) is not None]
        sizes = {t.untyped_storage().data_ptr(): t.nbytes for t in alive}
        return sum(size for place, size in sizes.items() if place not in known)


def places(trainer: Trainer) -> set[int]:
    """Where the tensors are that outlive an update."""
    state = trainer.state
    moments = [t for each in state.optimizer.state.values() for t in each.values()]
    every = [*trainer.model.parameters(), *state.average.weights.values(), *moments]
    return {t.untyped_storage().data_ptr() for t in every}


@pytest.mark.e2e
def test_N5_memory_is_given_back_wherever_it_ran_out(root, monkeypatch, tally):
    """20 operations of an update, from the first of the forward pass to the last of the step."""
    held = []

    class Short(Trainer):
        def _update(self, rows):
            if self.progress.update != 1:
                return super()._update(rows)
            with Shortage(at=0) as watched:
                super()._update(rows)
            assert watched.seen > 200
            assert watched.bytes > 1e6
            for case in range(20):
                self.progress.update = 1
                shortage = Shortage(1 + case * (watched.seen - 1) // 19, EXHAUSTED[case % 3])
                with OutOfMemory() as oom, shortage:
                    super()._update(rows)
                assert oom
                error = self._too_large(rows)
                kept = shortage.kept(places(self))
                assert kept <= 0.01 * watched.bytes, f"operation {shortage.at}"
                check_line(root, error)
                held.append(case)
            self.progress.update = 2  # or it would be the second again

    monkeypatch.setattr(stages, "Trainer", Short)
    monkeypatch.setattr(trainer, "validate", lambda *_: Validated(1.0, 1.0))
    go(root, "trainer.max_updates=1")
    assert checkpoint.updates(RunDir(root)) == [1]
    # Where it is not logged: looking into the model may fail, and then an update is made.
    go(root, "trainer.max_updates=2", "logging.every=3")
    tally("N5", "out of memory: E8, all of it given back", len(held), 20)


def check_line(run: Path, error: MemoryLimitError) -> None:
    assert (error.exit_code, error.where) == (8, str(run))
    form = r"out of memory at update 2 with (\d+) pairs of up to (\d+) and (\d+) tok.* line (\d+) "
    count, tx, ty, line = map(int, re.match(form, error.what).groups())
    text = (run / "corpus/train.source").read_text("utf-8").splitlines()[line - 1]
    assert len(text.split()) <= tx
    assert count * max(tx, ty) <= 300
    assert error.fix == (
        "Resume with trainer.on_out_of_memory=split, or lower trainer.batch_tokens (now 300) or "
        "data.max_words in a new run."
    )


class Cramped(Trainer):
    """From the third update on, no batch of more than five pairs fits."""

    def _update(self, rows):
        if self.progress.update < 2:
            return super()._update(rows)
        with room_for(self.model, 5):
            super()._update(rows)


@pytest.mark.e2e
def test_N5_a_split_update_is_made_logged_and_recorded(root, monkeypatch, caplog):
    monkeypatch.setattr(stages, "Trainer", Cramped)
    with pytest.raises(MemoryLimitError, match="out of memory at update 3 with"):
        go(root)
    assert checkpoint.updates(RunDir(root)) == [2]
    run = go(root, "trainer.on_out_of_memory=split")
    state = json.loads((checkpoint.newest(run) / "state.json").read_bytes())
    assert (state["update"], state["updates_in_parts"]) == (6, 4)
    rows = metrics_of(root)
    parts = {r["update"]: r["train/out_of_memory_parts"] for r in rows if len(r) == 4}
    assert sorted(parts) == [3, 4, 5, 6]
    assert all(2 <= n <= 8 for n in parts.values())
    said = [r.getMessage() for r in caplog.records if "so this run is not exact" in r.getMessage()]
    assert len(said) == 4
    assert said[0].startswith("update 3: out of memory (CUDA out of memory.); computed in ")


@pytest.mark.e2e
def test_N5_a_pair_that_never_fits_ends_a_split_training_too(root, monkeypatch):
    class Tiny(Trainer):
        def _update(self, rows):
            with room_for(self.model, 0):
                super()._update(rows)

    monkeypatch.setattr(stages, "Trainer", Tiny)
    with pytest.raises(MemoryLimitError) as caught:
        go(root, "trainer.on_out_of_memory=split")
    assert (
        caught.value.fix == "Lower trainer.batch_tokens (now 300) or data.max_words in a new run."
    )


@pytest.mark.e2e
def test_N5_a_validation_names_its_batch(root, monkeypatch):
    def no_room(*_):
        raise RuntimeError(CPU)

    monkeypatch.setattr(validation, "sentence_losses", no_room)
    with pytest.raises(MemoryLimitError) as caught:
        go(root)
    assert str(caught.value).startswith("validation: out of memory with 5 pairs of up to ")
    assert "in line " in caught.value.what
    assert caught.value.what.endswith(" of corpus/validation.source")
    assert caught.value.fix == "Resume with a decode.batch_sentences below 64."


# Decoding -------------------------------------------------------------------------------------


LINES = ["the cat sees .", "", "the teacher waits for the boy today .", "the dog ."]


@pytest.mark.e2e
@pytest.mark.parametrize("error", EXHAUSTED[:3], ids=lambda e: type(e).__name__)
def test_N5_decoding_names_its_longest_line(run, monkeypatch, error):
    def no_room(*_):
        raise error

    monkeypatch.setattr(translate, "beam_search", no_room)
    with pytest.raises(MemoryLimitError) as caught:
        seq2seq.load(run).translate(LINES)
    text = str(caught.value)
    assert text.startswith("line 3: out of memory with 3 sentences of up to ")
    assert " tokens, this the longest, and a beam of 5. Lower decode.batch_sentences (" in text


@pytest.mark.e2e
def test_N5_a_script_says_it_in_one_line(run, monkeypatch, tmp_path):
    def no_room(*_):
        raise MemoryError

    (tmp_path / "in.txt").write_text("\n".join(LINES), "utf-8")
    monkeypatch.setattr(translate, "beam_search", no_room)
    result = run_here(monkeypatch, "decode", run, "--input", tmp_path / "in.txt")
    assert (result.code, result.out) == (8, b"")
    assert result.err.startswith("error: line 3: out of memory")
    monkeypatch.setattr(seq2seq, "load", no_room)  # where nobody expects it
    result = run_here(monkeypatch, "decode", run, "--input", tmp_path / "in.txt")
    assert (result.code, result.out) == (8, b"")
    assert result.err == f"error: decode.py: out of memory. {memory.ADVICE}\n"
