"""A cell and an encoder from outside of the package go through the whole pipeline."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import extension
import pytest
import torch
from conftest import FAMILY, follow, random_batch, tiny_model
from runs import ROOT, call, environment
from test_search import RULES, random_sources, search

from seq2seq.config import registry
from seq2seq.config.schema import Backend
from seq2seq.decoding.forced import force_ids

LSTM, BAG = extension.LSTMConfig(), extension.BagOfWordsConfig()
OUTSIDE = {"lstm": {"cell": LSTM}, "bag of words": {"encoder": BAG}}
OUTSIDE["both"] = {"cell": LSTM, "encoder": BAG}


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Other tests list the options of the package."""
    yield
    for group, name in (("cell", "lstm"), ("encoder", "bag_of_words")):
        registry._options[group].pop(name)


def test_an_extension_is_short():
    assert len(Path(extension.__file__).read_text("utf-8").splitlines()) <= 80


def torch_lstm(cell: extension.LSTM) -> torch.nn.LSTM:
    """torch's unit with the same weights; it orders its gates i, f, new, o."""
    lstm = torch.nn.LSTM(cell.W.in_features, cell.hidden_size, batch_first=True).double()
    with torch.no_grad():
        for kind, layer in (("ih", cell.W), ("hh", cell.U)):
            for name in ("weight", "bias"):
                i, f, o, new = getattr(layer, name).chunk(4)
                getattr(lstm, f"{name}_{kind}_l0").copy_(torch.cat([i, f, new, o]))
    return lstm


def test_the_encoder_runs_the_lstm_of_torch_in_both_directions():
    model, batch = tiny_model(3, cell=LSTM), random_batch(3)
    encoder, lengths = model.encoder, batch.src_mask.sum(dim=1).tolist()
    with torch.no_grad():
        memory = encoder(batch.src, batch.src_mask)
        for b, length in enumerate(lengths):
            Ex = encoder.embedding(batch.src[b : b + 1, :length])
            fwd, _ = torch_lstm(encoder.forward_unit)(Ex)
            bwd, _ = torch_lstm(encoder.backward_unit)(Ex.flip(1))
            expected = torch.cat([fwd, bwd.flip(1)], dim=-1)[0]
            torch.testing.assert_close(memory.states[b, :length], expected)
            torch.testing.assert_close(memory.summary[b], bwd[0, -1])


@pytest.mark.parametrize("parts", OUTSIDE.values(), ids=OUTSIDE)
def test_search_and_teacher_forcing_agree(parts):
    """State of two tensors, summary of another width; also padding and batch mates."""
    model, sources = tiny_model(4, vocab=9, **parts), random_sources(4, [4, 1, 6], 9)
    for source, found in zip(sources, search(model, sources, RULES), strict=True):
        again = force_ids(model, [(source, h.ids) for h in found], 0.0)
        for h, forced in zip(found, again, strict=True):
            assert h.log_prob == pytest.approx(forced.log_prob, abs=1e-5)
            assert h.alpha == pytest.approx(forced.alpha, abs=1e-6)


@pytest.mark.parametrize(
    ("parts", "kind"), [*itertools.product(OUTSIDE.values(), ("additive", "general", "hard"))]
)
def test_gradients_of_both_backends_are_equal(parts, kind):
    models = [
        tiny_model(5, attention=FAMILY[kind], backend=Backend[name], **parts)
        for name in ("reference", "auto")
    ]
    batch, grads = random_batch(5), []
    for model in models:
        model.zero_grad()
        follow(model, batch).t.sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@pytest.mark.e2e
@pytest.mark.parametrize("option", ["cell=lstm", "encoder=bag_of_words"])
def test_it_trains_is_killed_resumes_decodes_and_is_reported(tmp_path, option):
    train, named = ROOT / "train.py", ["--extension", "extension"]
    path = {"PYTHONPATH": str(ROOT / "tests")}
    few = ["+experiment=debug", "run_dir=run", "trainer.checkpoint_every=2", "decode.beam_size=5"]
    command = [sys.executable, train, *named, option, *few]
    child = subprocess.Popen(command, cwd=tmp_path, env=environment(**path), stderr=-1)
    while child.poll() is None and not list(tmp_path.glob("run/checkpoints/*-*/manifest.json")):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL, "it should not have come to its end"

    done = call(train, "resume=run", *named, cwd=tmp_path, **path)
    assert done.returncode == 0, done.stderr.decode()
    name = option.partition("=")[2]
    assert (
        call(
            ROOT / "scripts/report.py",
            "run",
            "--output",
            "run/report.html",
            *named,
            cwd=tmp_path,
            **path,
        ).returncode
        == 0
    )
    for file in ("report.html", "heatmaps/test-0001.png", "decode/test.txt"):
        assert (tmp_path / "run" / file).stat().st_size > 0
    assert f"{name}, not " in (tmp_path / "run/fidelity.md").read_text("utf-8")

    metrics = (tmp_path / "run/metrics.jsonl").read_text("utf-8").splitlines()
    tags = set().union(*map(json.loads, metrics))
    shown = {tag.rpartition("_")[0] for tag in tags if tag.startswith("gates/encoder")}
    letters = "ifo" if name == "lstm" else ""
    assert shown == {f"gates/encoder_{letter}" for letter in letters}
    decode = ROOT / "scripts" / "decode.py"
    done = call(decode, "run", *named, stdin=b"the cat sees .\n", cwd=tmp_path, **path)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 1
