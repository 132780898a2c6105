"""A model directory has all that `load` needs and a model card; `hf:NAME` loads it from the Hub."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants, errors
from runs import assert_fails, copy_of

import seq2seq
from seq2seq.cli.export import main as export
from seq2seq.cli.train import reopen
from seq2seq.decoding.flags import FIXED, SAVED
from seq2seq.run import hub
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import PlatformError, RunDirError

pytestmark = pytest.mark.e2e

LINES = ["the cat sees the dog .", "", "the teacher waits for the boy today ."]
LIMITS = {**FIXED, "long": 1.5}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", name="model")
def model_directory(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models") / "tiny"
    calibrated = RunDir(copy_of(run, out.parent / "run"))  # as more references would have
    calibrated.write_json(SAVED, {"limits": LIMITS, "lines": {"long": [2]}})
    calibrated.record(SAVED)
    export([str(calibrated.root), str(out), "--format", "model", "--license", "apache-2.0"])
    return out


def texts(name: str | Path) -> list[str]:
    return [x.text for x in seq2seq.load(name, ["device=cpu"]).translate(LINES)]


def test_it_translates_as_the_run(run, model, script):
    assert texts(model) == texts(run)
    assert script("verify", model).code == 0


def test_it_cannot_be_trained_on_and_stays_as_it_is(model):
    before = sorted(model.rglob("*"))
    with pytest.raises(RunDirError, match=r"model without data.*new one with init\.run"):
        reopen(model, ["resume=x"])
    assert sorted(model.rglob("*")) == before


def test_its_limits_of_flags_are_those_of_the_run(model):
    assert seq2seq.load(model, ["device=cpu"]).limits == LIMITS
    assert json.loads((model / "decode/flags.json").read_text("utf-8"))["lines"] == {}


def test_other_weights_than_the_best_come_without_scores(run, tmp_path):
    export([f"{run}@last2", str(tmp_path / "mean"), "--format", "model"])
    assert texts(tmp_path / "mean") == texts(f"{run}@last2")
    card = (tmp_path / "mean" / "README.md").read_text("utf-8")
    assert "These weights have not been evaluated." in card
    assert "model-index" not in card
    assert "- No license was given." in card


def test_the_card_has_data_scores_and_limits(run, model):
    card = (model / "README.md").read_text("utf-8")
    _, header, body = card.split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["language"] == ["en", "fr"]
    assert about["license"] == "apache-2.0"
    metrics = about["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["bleu", "ter", "chrf"]
    for part in ("| train.en", "300 training pairs", r"nrefs:1\|case:mixed", "## Limits"):
        assert part in body
    assert str(run.parent) not in card


def test_the_card_names_other_settings_of_its_scores(run, tmp_path):
    """The Hub's header, which has no place for them, has no scores then."""
    own = RunDir(copy_of(run, tmp_path / "run"))
    results = json.loads(own.path("scores.json").read_text("utf-8"))
    results["flags"]["decode"] |= {"beam_size": 31, "coverage_penalty": 0.2}
    own.write_json("scores.json", results)
    own.record("scores.json")
    export([str(own.root), str(tmp_path / "model"), "--format", "model"])
    card = (tmp_path / "model/README.md").read_text("utf-8")
    settings = "`decode.beam_size=31 decode.coverage_penalty=0.2`"
    assert f"On the 20 sentences of the test set, translated with {settings}." in card
    assert "model-index" not in card
    saved = json.loads((tmp_path / "model" / SAVED).read_text("utf-8"))
    assert saved["decode"] is None


def in_cache(model: Path, home: Path) -> None:
    """Lay a model out as the Hub's cache does: links to files named after their content."""
    repository = home / "hub" / "models--me--tiny"
    for folder in ("refs", "blobs"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for path in filter(Path.is_file, model.rglob("*")):
        blob = repository / "blobs" / hashlib.sha1(path.read_bytes()).hexdigest()
        link = repository / "snapshots" / COMMIT / path.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture(name="home")
def offline(model, tmp_path, monkeypatch) -> Path:
    hub.fetched.cache_clear()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    in_cache(model, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["hf:me/tiny", f"hf:me/tiny@{COMMIT}", "hf:me/tiny+hf:me/tiny"])
def test_the_hub_cache_is_loaded_without_a_network(run, home, name):
    assert texts(name) == texts(run)
    assert seq2seq.load(name, ["device=cpu"]).limits == LIMITS


def test_the_command_line_takes_it(home, run, script):
    result = script("decode", "hf:me/tiny", "device=cpu", stdin="\n".join(LINES).encode())
    assert result.code == 0
    assert result.out.decode().splitlines() == texts(run)
    assert b"/model.safetensors  ok\n" in script("verify", "hf:me/tiny").out


def test_an_interrupted_download_is_copied_again(run, home):
    part = home / "hub" / "models--me--tiny" / "snapshots" / COMMIT / "tokenizers"
    part.rename(home / "aside")
    with pytest.raises(RunDirError):
        texts("hf:me/tiny")
    (home / "aside").rename(part)
    hub.fetched.cache_clear()
    assert texts("hf:me/tiny") == texts(run)


def test_what_is_not_there_is_one_line(home):
    with pytest.raises(PlatformError, match=r"^hf:me/none: is not in the cache"):
        seq2seq.load("hf:me/none")
    (home / "hub" / "models--me--tiny" / "snapshots" / COMMIT / "config.yaml").unlink()
    with pytest.raises(RunDirError, match=r"^hf:me/tiny: holds no model of this program"):
        seq2seq.load("hf:me/tiny")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.RepositoryNotFoundError, "does not exist on the Hub, or you may not read it"),
        (errors.RevisionNotFoundError, "the Hub has no such revision"),
        (errors.HFValidationError, "cannot be fetched from the Hugging Face Hub"),
        (OSError, "cannot be fetched from the Hugging Face Hub"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, error, message):
    def refuse(*_args, **_kwargs):
        raise error.__new__(error)

    hub.fetched.cache_clear()
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(PlatformError, match=rf"^hf:me/x@v1: {message}"):
        seq2seq.load("hf:me/x@v1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "--license", "mit"], "--license: is for a model card. "),
        (["--format", "model", "--license", "a b"], "--license: 'a b' is not an identifier. "),
    ],
)
def test_a_license_is_an_identifier_for_a_card(run, script, tmp_path, arguments, message):
    assert_fails(script("export", run, tmp_path / "out", *arguments), 2, message)


def test_a_damaged_run_makes_no_directory(run, script, tmp_path):
    damaged = copy_of(run, tmp_path / "run")
    (damaged / "tokenizers" / "source.model").write_bytes(b"x")
    assert_fails(script("export", damaged, tmp_path / "out", "--format", "model"), 4)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
