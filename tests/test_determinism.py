"""The seed decides, and nothing else: no thread of another kind, no look, no place, no pause."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pytest
from runs import composed
from storms import Micro, Zygote, difference

from seq2seq.config.compose import flatten
from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir
from seq2seq.training import checkpoint

pytestmark = pytest.mark.e2e

FEW = ["trainer.max_updates=12", "stages=[tokenize,train]"]


def weights(root: Path) -> dict[str, bytes]:
    """The tensors of the newest checkpoint."""
    newest = checkpoint.newest(RunDir.open(root))
    assert newest is not None
    files = {k: v for k, v in read_directory(newest).items() if k.endswith(".safetensors")}
    assert set(files) == {f"{k}.safetensors" for k in ("model", "optimizer", "average")}
    return files


def finish_all(micro: Micro, base: Path, changes: Sequence[Sequence[str]]) -> list[Path]:
    """One run for each set of changes."""

    def one(zygote: Zygote, number: int) -> Path:
        root = base / f"run{number}" / "run"
        micro.finish(zygote, root, *changes[number])
        return root

    return micro.many(len(changes), one)


# Seeds and threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_T1_the_same_seed_twice(micro, tmp_path, tally, times):
    """At one thread and at two; which need not agree with each other at larger sizes."""
    large = ["model.hidden_size=96", *FEW]
    changes = [["threads=1", *large], ["threads=2", *large]] * (times + 1)
    roots = finish_all(micro, tmp_path, changes)
    found = [difference(roots[kind], other) for kind in (0, 1) for other in roots[kind + 2 :: 2]]
    tally("T1", "the same seed twice, at 1 and at 2 threads", found.count(None), 2 * times)
    assert found == [None] * 2 * times


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_T2_another_seed_gives_other_weights(micro, tmp_path, tally, count):
    roots = finish_all(micro, tmp_path, [[f"seed={1 + n}", *FEW] for n in range(count + 1)])
    models = {weights(root)["model.safetensors"] for root in roots}
    tally("T2", "other seeds give other weights", len(models) - 1, count)
    assert len(models) == count + 1


# Looking changes nothing ------------------------------------------------------------------------

LOOKS = {
    "saving": {
        "trainer.checkpoint_every": "5",
        "trainer.keep_checkpoints": "4",
    },
    "logging": {
        "logging.every": "1",
        "logging.samples": "3",
        "logging.heatmaps": "2",
        "logging.tensorboard": "true",
    },
    "no logging": {
        "logging.every": "1000",  # nobody looks into the model
        "logging.tensorboard": "false",
        "logging.samples": "0",
        "logging.heatmaps": "0",
    },
    "validation": {
        "trainer.validate_every": "4",
        "trainer.validation_sentences": "2",
        "trainer.validation_beam": "2",
        "trainer.select_by": "loss",
        "decode.batch_sentences": "3",
    },
    "evaluation": {
        "stages": "[tokenize,train,decode,evaluate]",
        "evaluate.heatmaps": "[3]",
        "evaluate.examples": "[figure3]",
        "evaluate.heatmap_words": "false",
        "evaluate.heatmap_font": f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf",
        "evaluate.bleu_tokenizer": "char",
    },
}
UNWATCHED = ["scheduler.patience=1000", "trainer.patience=null", *FEW]
"""Where nothing is decided by a validation, which is all that validating can change."""


def test_T3_looking_leaves_the_weights_alone(micro, tmp_path, tally):
    """Every setting of logging, evaluation, heatmaps and saving, against a run without them."""
    changed = {key for looks in LOOKS.values() for key in looks}
    known = flatten(composed("debug"))
    for group in ("logging.", "evaluate.", "trainer.validat", "trainer.checkpoint", "trainer.keep"):
        unchanged = {key for key in known if key.startswith(group)} - changed
        assert not unchanged, f"not tried: {unchanged}"
    sets = [
        [f"{k}={v!r}" if " " in v else f"{k}={v}" for k, v in x.items()] for x in LOOKS.values()
    ]
    roots = finish_all(micro, tmp_path, [UNWATCHED, *([*UNWATCHED, *looks] for looks in sets)])
    plain = weights(roots[0])
    same = [weights(root) == plain for root in roots[1:]]
    tally("T3", "logging, evaluation, heatmaps, saving changed", sum(same), len(same))
    assert all(same), dict(zip(LOOKS, same, strict=True))
    assert (roots[-1] / "heatmaps/figure3-a.png").exists()
    assert not (roots[3] / "tensorboard").exists(), "of the run without logging"


# Where and when ---------------------------------------------------------------------------------


def test_T4_neither_place_nor_time_nor_user_changes_anything(micro, tmp_path, tally):
    """The user is who the environment says; all that a run asks of it is a home for caches."""
    corpus = micro.folder / "corpus"
    found: dict[str, str | None] = {}

    def compare(name: str, zygote: Zygote, **options) -> None:
        root = tmp_path / name / "run"
        micro.finish(zygote, root, *FEW, **options)
        found[name] = difference(root, base)

    base = tmp_path / "base/run"
    with micro.zygote() as zygote:
        micro.finish(zygote, base, *FEW)
        compare("directory é", zygote)
        compare("time zone", zygote, environment={"TZ": "Asia/Tokyo"})
        compare("user", zygote, environment={"USER": "x", "HOME": "/nonexistent"})
        for path in corpus.iterdir():
            os.utime(path, (1, 1))
        compare("times of files", zygote)
        for path in corpus.iterdir():
            os.utime(path)
    started = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with Zygote(tmp_path / "zygote", **started) as other:
        compare("hash seed and locale", other)
    tally("T4", "hash seed, locale, directory, file times, time zone, user", 6, 6)
    assert found == dict.fromkeys(found)
    assert len(found) == 5  # one of them is two
