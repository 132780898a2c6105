"""What a run shows in TensorBoard: read from the event files, and asked of a real server."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from runs import composed, copy_of, environment, go, tokenized_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as ServerAccumulator,
)

from seq2seq.evaluation.error_rates import NAMES
from seq2seq.run.directory import RunDir
from seq2seq.training import checkpoint
from seq2seq.training.board import Board
from seq2seq.training.layout import LAYOUT, hyperparameters, line_of
from seq2seq.training.monitor import Monitor
from seq2seq.training.trainer import Trainer

pytestmark = pytest.mark.e2e

PARTS = {"train", "validation", "best", "update_ratio", "gates", "attention", "loss_by_length"}
TIMES = {"train/tokens_per_second", "train/data_wait"}


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of the run and of the lines of its charts; no tag is in two of them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for folder in {path.parent for path in run.glob("tensorboard/**/events*")}:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            assert tag not in found
            found[tag] = [(e.step, e.value) for e in events.Scalars(tag)]
    return found


def metrics_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        for tag, value in values.items():
            if "/" in tag:
                found.setdefault(tag, []).append((values["update"], pytest.approx(value, rel=1e-6)))
    return found


def test_scalars_are_those_of_the_metrics_file(run):
    scalars = scalars_of(run)
    [(_, best)] = scalars.pop("best/validation")
    expected = metrics_of(run)
    assert {tag.split("/")[0] for tag in expected} | {"best"} == PARTS
    assert scalars == expected
    assert [step for step, _ in scalars["validation/bleu"]] == [80, 160]
    assert best == pytest.approx(json.loads((run / "checkpoints/best.json").read_text())["value"])


# A run that was interrupted.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    changes = ["trainer.max_updates=8", "trainer.validate_every=4", "trainer.checkpoint_every=3"]
    changes += ["trainer.batch_tokens=150", "logging.every=1", "logging.samples=1"]
    changes += ["logging.tensorboard=true"]
    base = tmp_path_factory.mktemp("tensorboard")
    return tokenized_run(base, *changes, "logging.heatmaps=0", pairs=50, held_out=3)


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> dict[str, list[tuple[int, float]]]:
    root = copy_of(prepared, tmp_path_factory.mktemp("whole") / "run")
    go(root)
    return scalars_of(root)


class CrashError(Exception):
    """Power cut, out of memory, kill -9."""


@pytest.mark.parametrize(
    ("place", "update", "kept"),
    [
        ("_is_to_stop", 2, None),
        ("_is_to_stop", 5, 4),
        ("_save", 8, 6),
    ],
    ids=["no checkpoint yet", "one later", "at the end"],
)
def test_no_step_appears_twice_after_a_crash(
    prepared, whole, tmp_path, monkeypatch, place, update, kept
):
    root = copy_of(prepared, tmp_path / "run")

    def fragile(self: Trainer) -> object:
        if self.progress.update == update:
            raise CrashError
        return original(self)

    original = getattr(Trainer, place)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, place, fragile)
        with pytest.raises(CrashError):
            go(root)
    newest = checkpoint.newest(RunDir(root))
    assert newest == (kept and root / f"checkpoints/update-{kept:08d}")
    logged = [step for step, _ in scalars_of(root)["train/loss"]]
    assert logged == list(range(1, update + 1)), "the crash should leave events"
    go(root)
    scalars = scalars_of(root)
    for tag, points in scalars.items():
        assert len({step for step, _ in points}) == len(points), f"{tag}: {points}"
    assert [step for step, _ in scalars["train/loss"]] == list(range(1, 9))
    assert scalars.keys() == whole.keys()
    assert {tag.split("/")[0] for tag in scalars} == PARTS
    for tag in scalars.keys() - TIMES:
        assert scalars[tag] == whole[tag]
    scalars.pop("best/validation")
    assert scalars == metrics_of(root)
    # The accumulator above never hides texts; the one behind the server does.
    texts = ServerAccumulator(str(root / "tensorboard")).Reload()
    assert [e.step for e in texts.Tensors("config/text_summary")] == [0]
    assert [e.step for e in texts.Tensors("validation/samples/text_summary")] == [4, 8]
    assert len(texts.Tensors("custom_scalars__config__")) == 1


def test_O1_killed_between_the_last_checkpoint_and_the_last_event(
    prepared, whole, tmp_path, monkeypatch
):
    root = copy_of(prepared, tmp_path / "run")
    original = Monitor.close

    def fragile(self: Monitor, best: float | None = None) -> None:
        if best is not None:
            raise CrashError
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "close", fragile)
        with pytest.raises(CrashError):
            go(root)
    assert "best/validation" not in scalars_of(root)
    for _ in range(2):
        go(root)
        assert scalars_of(root)["best/validation"] == whole["best/validation"]


# A real server.


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run a TensorBoard; yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder]
    command += ["--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            said = ""
            for line in process.stderr:
                said += line
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    break
            else:
                pytest.fail(f"TensorBoard did not start: {said}")
            yield found.group()
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="module")
def server(run) -> Iterator[str]:
    with served(run) as address:
        yield address


def ask(server: str, path: str, **query: str) -> object:
    address = f"{server}data/{path}" + (f"?{urlencode(query)}" if query else "")
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_server_shows_it(server, run):
    lines = {f"tensorboard/{line_of(tag)}" for tag in metrics_of(run)}
    assert set(ask(server, "runs")) == {"tensorboard", *lines}
    scalars = ask(server, "plugin/scalars/tags")
    assert {"train/loss", "train/lr"} <= scalars["tensorboard/train"].keys()
    assert {"validation/loss", "validation/bleu"} <= scalars["tensorboard/validation"].keys()
    points = ask(server, "plugin/scalars/scalars", run="tensorboard/train", tag="train/loss")
    assert [(step, value) for _, step, value in points] == metrics_of(run)["train/loss"]
    texts = ask(server, "plugin/text/tags")["tensorboard"]
    assert set(texts) == {"config/text_summary", "validation/samples/text_summary"}
    [config] = ask(server, "plugin/text/text", run="tensorboard", tag="config/text_summary")
    assert "\nname: tiny\n" in config["text"]
    images = ask(server, "plugin/images/tags")["tensorboard"]
    assert "alignment/1" in images
    shown = ask(server, "plugin/images/images", run="tensorboard", tag="alignment/1", sample="0")
    assert [image["step"] for image in shown] == [80, 160]
    with urllib.request.urlopen(
        f"{server}data/plugin/images/individualImage?{shown[-1]['query']}", timeout=30
    ) as answer:
        assert answer.read().startswith(b"\x89PNG")
    experiment = ask(server, "plugin/hparams/experiment", request="{}")
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"model.hidden_size", "optimizer.lr", "seed"} <= names
    assert not [name for name in names if name.startswith(("data.", "decode.", "logging."))]
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert "best/validation" in metrics


def test_a_server_shows_the_layout_and_its_curves(server, run):
    layout = ask(server, "plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == list(LAYOUT)
    expected, seen = metrics_of(run), set()
    for category in layout["category"]:
        assert [chart["title"] for chart in category["chart"]] == list(LAYOUT[category["title"]])
        for pattern in (tag for chart in category["chart"] for tag in chart["multiline"]["tag"]):
            for line in {line_of(tag) for tag in expected}:
                query = {"run": f"tensorboard/{line}", "tag": pattern}
                found = ask(server, "plugin/custom_scalars/scalars", **query)
                assert found["regex_valid"]
                for tag, points in found["tag_to_events"].items():
                    assert [(step, value) for _, step, value in points] == expected[tag]
                    seen.add(tag)
    assert seen == expected.keys()


@pytest.mark.parametrize("chart", [chart for charts in LAYOUT.values() for chart in charts])
def test_each_line_of_a_chart_has_a_colour_of_its_own(run, chart):
    """TensorBoard colours by run: no two lines of a chart are of one run."""
    [(_, patterns)] = [charts[chart] for charts in LAYOUT.values() if chart in charts]
    tags = [*metrics_of(run), "bleu/en-fr", "bleu/en-de", "gates/decoder_1_z_low"]
    tags += [f"validation/{by.name}" for by in NAMES]  # where they suit the task
    tags = [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
    assert len({line_of(tag) for tag in tags}) == len(tags) > 0


def test_every_scalar_has_a_description(server, run):
    for line, tags in ask(server, "plugin/scalars/tags").items():
        for tag, about in tags.items():
            if line != "tensorboard":  # best/validation is that of the hyperparameters
                assert len(about["description"]) > 10, tag
    bleu = ask(server, "plugin/scalars/tags")["tensorboard/validation"]["validation/bleu"]
    assert "Smoothing to 0" in bleu["description"]


def test_hyperparameters_of_two_optimizers_have_all_columns(tmp_path):
    for name in ("adam", "adadelta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        shown = Board(RunDir(tmp_path / name), 0, wanted=True)
        cfg = composed("debug", [f"optimizer={name}"])
        shown.hyperparameters(hyperparameters(cfg), {"best/validation": 1.0}, 1)
        shown.close()
    with served(tmp_path) as address:
        experiment = ask(address, "plugin/hparams/experiment", request="{}")
    columns = {info["name"]: info for info in experiment["hparamInfos"]}
    assert {"optimizer.beta1", "optimizer.rho", "optimizer.name"} <= columns.keys()
    assert "None" not in json.dumps(experiment)
    assert columns["optimizer.name"]["differs"]
    assert [info["name"]["tag"] for info in experiment["metricInfos"]] == ["best/validation"]
