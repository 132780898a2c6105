"""T7, T8: what 12 updates make of the weights, and what they translate to, to the last bit.

`tests/golden/README.md` says how to record anew.
"""

import functools
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from recorded import checksums, kind, newest_checkpoint, without_compiler
from runs import ROOT, composed, run_new
from torch import nn

import seq2seq
from seq2seq.config.schema import Config
from seq2seq.kernels import native
from seq2seq.training.trainer import Trainer

CORPUS = ROOT / "tests/golden"  # committed text, so that no generator can change it
RECORDS = CORPUS / "weights.json"

# On the paper's preset. Words and no subwords: then the numbers depend on torch and on the
# processor alone. No size fills the registers of a processor.
BASE = ["data=multi30k", f"data.root={CORPUS}", "data.test=[test.en,test.fr]"]
BASE += ["tokenizer.vocab_size=55", "model.embedding_size=12", "model.hidden_size=18"]
BASE += ["model.align_size=12", "model.readout_size=10", "model.output_rank=8"]
BASE += ["trainer.batch_sentences=24", "trainer.pool_batches=5", "trainer.max_updates=12"]
BASE += ["trainer.validate_every=6", "trainer.checkpoint_every=100"]
BASE += ["trainer.validation_sentences=4", "logging.tensorboard=false"]
BASE += ["evaluate.examples=[]", "stages=[tokenize,train]", "device=cpu"]

# Dropout, averaging, label smoothing, costs per word.
MODERN = ["model=small", "optimizer=adam", "optimizer.lr=0.03", "trainer=modern"]
MODERN += ["trainer.ema_decay=0.9", "decode=modern"]
PRINTED = ["model.state_word=previous", "model.output_rank=null", "model.bias=false"]
PRINTED += ["model.embedding_bias=false", "trainer.normalize=sentences", "optimizer.lr=50"]

PLATEAU = ["scheduler=plateau", "scheduler.patience=0", "trainer.validate_every=3"]
BY_TOKENS = ["trainer.batch_sentences=null", "trainer.batch_tokens=200"]
UNKNOWN = ["decode.forbid_unknown=false", "decode.replace_unknown=true"]
SUBWORDS = ["tokenizer=sentencepiece", "tokenizer.vocab_size=90", "decode.n_best=2"]
SUBWORDS += ["tokenizer.target_normalization=null"]  # as the source, as in 0.1.0

CONFIGS = {
    # The authors' model: words, Adadelta, sums over words, clipped, biases, a low-rank output.
    "paper": ["optimizer.lr=20"],
    "printed": PRINTED,  # the equations as they stand in the paper
    "modern": [*MODERN, *PLATEAU, *BY_TOKENS],
    "subwords": [*MODERN, *SUBWORDS, "scheduler=linear", "scheduler.warmup=4"],
    "sampled subwords": [*MODERN, *SUBWORDS, "tokenizer.sampling=0.1", "tokenizer.joint=true"],
    "fixed": [*MODERN, "attention=fixed", "scheduler=cosine", "scheduler.warmup=4"],
    "dot": [*MODERN, "attention=dot", "scheduler=inverse_sqrt", "scheduler.warmup=4"],
    "scaled_dot": [*MODERN, "attention=scaled_dot", *UNKNOWN],
    "general": [*MODERN, "attention=general"],
    "multi_head": [*MODERN, "attention=multi_head", "attention.heads=2"],
    "local": [*MODERN, "attention=local", "attention.window=2"],
    "hard": [*MODERN, "attention=hard", "attention.discount=0.5"],
    "previous": [*MODERN, "model.state_word=previous"],
    "after": [*MODERN, "model.reset=after", "model.output_rank=null"],
    "tanh": [*MODERN, "model.readout=tanh", "trainer.normalize=sentences"],
    "bf16": [*MODERN, "trainer.precision=bf16", "decode.precision=bf16"],
    "reference": [*MODERN, "model.backend=reference"],
    "split": [*MODERN, "trainer.on_out_of_memory=split"],
}


@functools.cache
def config(name: str, *changes: str) -> Config:
    return composed("rnnsearch50", [*BASE, *CONFIGS[name], *changes])


def trained(root: Path, name: str, *changes: str) -> Path:
    """A run of one of the configs."""
    with cramped() if name == "split" else nullcontext():
        return run_new(root, config(name, *changes)).root


@contextmanager
def cramped() -> Iterator[None]:
    """Memory in which no more than eight sentences can be trained on at once."""
    plain = nn.Embedding.forward

    def forward(self: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(ids) > 8:
            raise torch.OutOfMemoryError("more than eight sentences")
        return plain(self, ids)

    with mock.patch.object(nn.Embedding, "forward", forward):
        yield


def results(root: Path, name: str) -> dict[str, Any]:
    """Checksums of the newest checkpoint; what the best weights make of a few sentences."""
    run = trained(root, name)
    sources, references = (
        (CORPUS / f"test.{side}").read_text("utf-8").splitlines()[:10] for side in ("en", "fr")
    )
    wide = seq2seq.load(run, ["decode.beam_size=5"])
    greedy = seq2seq.load(run, ["decode.beam_size=1", "decode.n_best=1"])
    return checksums(newest_checkpoint(run)) | {
        "beam": [[c.score, c.text] for t in wide.translate(sources) for c in t.candidates],
        "greedy": [[t.score, t.text] for t in greedy.translate(sources)],
        "forced": [t.score for t in wide.force(zip(sources, references, strict=True))],
    }


def mode(compiled: bool) -> AbstractContextManager[object]:
    return nullcontext() if compiled else without_compiler()


# Each with the native library; without it, where test_kernels.py has compared the two, a sample.
SAMPLE = ("paper", "printed", "modern", "fixed", "hard", "bf16")
MODES = [("compiled", True, ()), ("torch", False, pytest.mark.slow)]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        pytest.param(name, compiled, id=f"{name}-{mode}", marks=() if name in SAMPLE else marks)
        for name in CONFIGS
        for mode, compiled, marks in MODES
    ],
)
def test_T8_weights_and_translations_after_12_updates_are_those_of_record(tmp_path, name, compiled):
    if compiled and native.library() is None:
        pytest.skip("no C compiler here")
    with mode(compiled):
        known = json.loads(RECORDS.read_text("utf-8")).get(kind())
        if known is None:
            pytest.skip(f"no record of {kind()}; tests/golden/README.md says how to add it")
        now = results(tmp_path / "run", name)
    different = [key for key in known[name] | now if known[name].get(key) != now.get(key)]
    assert not different, (
        f"{name} computes something else than before. If that is meant, say so in the commit and "
        "in CHANGELOG.md, and record anew as tests/golden/README.md says"
    )


@pytest.mark.e2e
def test_T8_one_weight_more_or_less_is_noticed(tmp_path):
    rates = ("20", "20.000002")
    runs = [trained(tmp_path / rate, "paper", f"optimizer.lr={rate}") for rate in rates]
    first, second = (checksums(newest_checkpoint(run)) for run in runs)
    assert first["model"] != second["model"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_T7_training_on_a_gpu_repeats_itself(tmp_path, monkeypatch):
    """With deterministic algorithms asked of torch, as `train.py` does not yet."""
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    monkeypatch.setattr(Trainer, "_validate", lambda _: None)  # it decodes, and that takes time
    changes = ("device=cuda", "trainer.validate_every=100", "trainer.checkpoint_every=12")
    try:
        runs = [trained(tmp_path / str(n), "modern", *changes) for n in range(10)]
        assert len({str(checksums(newest_checkpoint(run))) for run in runs}) == 1
    finally:
        torch.use_deterministic_algorithms(False)


def record() -> None:
    """Write what this machine computes, with its compiler and without, over its own records."""
    records = json.loads(RECORDS.read_text("utf-8")) if RECORDS.exists() else {}
    with tempfile.TemporaryDirectory() as root:
        for compiled in (True, False):
            with mode(compiled):
                records[kind()] = {
                    name: results(Path(root) / str(compiled) / name, name) for name in CONFIGS
                }
    RECORDS.write_text(lines(records) + "\n", "utf-8")


def lines(value: Any, indent: int = 0) -> str:
    """JSON with a line for each value of a record."""
    if indent == 3:
        return json.dumps(value, ensure_ascii=False)
    space = " " * indent
    rows = [f"{space} {json.dumps(key)}: {lines(value[key], indent + 1)}" for key in value]
    return "{\n" + ",\n".join(rows) + f"\n{space}}}"


if __name__ == "__main__":
    record()
