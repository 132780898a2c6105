"""T7, T8: what 20 updates make of the weights, to the last bit."""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import ROOT, begin, composed, locked

from seq2seq.config.schema import Config, WordsConfig
from seq2seq.data.prepare import load_pairs, load_text, load_tokenizers, prepare
from seq2seq.decoding.pretrained import new_model
from seq2seq.kernels import native
from seq2seq.run.directory import RunDir
from seq2seq.run.signals import StopRequest
from seq2seq.training.trainer import Trainer
from seq2seq.training.validation import TrainingData

GOLDEN = ROOT / "tests" / "golden.json"
# Words and no subword sampling: then the numbers depend on torch and on the processor alone.
# Dropout, averaging, label smoothing and the plateau scheduler of the preset stay on.
SETTINGS = ["trainer.ema_decay=0.9", "seed=1", "optimizer=adadelta"]
SETTINGS += ["trainer.max_updates=20", "trainer.validate_every=100", "trainer.patience=null"]
SETTINGS += ["logging.tensorboard=false", "trainer.checkpoint_every=100", "trainer.precision=fp32"]


def compiler() -> str:
    asked = [*shlex.split(os.environ.get("CC", "cc")), "-dumpfullversion"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def kind() -> str:
    """What orders sums in its own way: torch, the processor and the C compiler, if there is one."""
    vendor = platform.processor() or "unknown"
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^vendor_id\s*: (\S+)", Path("/proc/cpuinfo").read_text(), re.M)
        vendor = found.group(1) if found else vendor
    capability = torch.backends.cpu.get_cpu_capability()
    compiled = f", cc {compiler()}" if native.programs() is not None else ""
    machine = f"{platform.machine()} {vendor} {capability}"
    return f"torch {torch.__version__}, {machine}{compiled}, 1 thread"


def config(device: str = "cpu") -> Config:
    cfg = composed("debug", [*SETTINGS, f"device={device}"])
    return replace(cfg, tokenizer=WordsConfig(vocab_size=120))


def trained(folder: Path, cfg: Config) -> str:
    """SHA-256 of the weights after 20 updates, tensor by tensor in the order of their names."""
    with locked(begin(folder, cfg)) as run:
        prepare(run, cfg)
        model = train(run, cfg)
    weights = sorted(model.named_parameters())
    found = [name.encode() + p.detach().cpu().numpy().tobytes() for name, p in weights]
    return hashlib.sha256(b"".join(found)).hexdigest()


def train(run: RunDir, cfg: Config) -> torch.nn.Module:
    """Train without validating."""
    tokenizers = load_tokenizers(run, cfg)
    texts = [load_text(run, "validation", side) for side in ("source", "target")]
    pairs = [load_pairs(run, split, tokenizers) for split in ("train", "validation")]
    model = new_model(cfg, tokenizers)
    data = TrainingData(pairs[0], None, pairs[1], *texts, tokenizers)
    trainer = Trainer(model, data, cfg, run, StopRequest())
    trainer._validate = lambda: None  # at the end; it decodes, and that takes time
    assert trainer.fit().update == 20
    return model


@pytest.mark.e2e
def test_T8_the_weights_after_20_updates_are_those_of_record(tmp_path):
    known = json.loads(GOLDEN.read_text("utf-8"))
    found = trained(tmp_path / "run", config())
    line = f"{json.dumps(kind())}: {json.dumps(found)}"
    if kind() not in known:
        pytest.skip(f"no record for this torch and processor; add to tests/golden.json: {line}")
    assert found == known[kind()], (
        f"training computes something else than before. If that is meant, say so in the commit "
        f"and in CHANGELOG.md, and put into tests/golden.json: {line}"
    )


@pytest.mark.e2e
def test_T8_one_weight_more_or_less_is_noticed(tmp_path):
    cfg = config()
    first = trained(tmp_path / "a", cfg)
    cfg.optimizer.lr *= 1.0000001
    assert trained(tmp_path / "b", cfg) != first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_T7_training_on_a_gpu_repeats_itself(tmp_path, monkeypatch):
    """With deterministic algorithms asked of torch, as `train.py` does not yet."""
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        found = {trained(tmp_path / str(n), config("cuda")) for n in range(10)}
        assert len(found) == 1
    finally:
        torch.use_deterministic_algorithms(False)
