"""Bytes do not depend on the locale, nor on what python makes of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, begin, composed, environment, locked, template_pairs, write_corpus

import seq2seq
from seq2seq.cli import stages
from seq2seq.cli.console import check_command_line
from seq2seq.run.errors import PlatformError
from seq2seq.run.signals import StopRequest

BARE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TURKISH, LATIN = ("tr_TR", "ISO-8859-9"), ("en_US", "ISO-8859-1")
SETTINGS = {
    "bare C": {"LC_ALL": "C", **BARE},
    "Turkish": {"LC_ALL": ".".join(TURKISH), **BARE},
    "POSIX": {"LC_ALL": "POSIX"},
    "Latin-1": {"LC_ALL": ".".join(LATIN)},
    "ascii streams": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    "UTF-16 streams in Latin-1": {"LC_ALL": ".".join(LATIN), "PYTHONIOENCODING": "utf-16"},
    "nothing": {"LC_ALL": "", "LANG": "", **BARE},
}
LINES = [
    "the \u00e9l\u00e8ve sees the cat .",
    "the \U0001f600 \u732b",
    "THE ISTANBUL I\u0307 \u0131 .",
    "",
    *(source for source, _ in template_pairs(6)),
]


@pytest.fixture(scope="module")
def locales(tmp_path_factory) -> Path:
    """Compiled from the sources of the C library, where these are installed."""
    folder = tmp_path_factory.mktemp("locales")
    for name, charmap in (TURKISH, LATIN):
        command = ["localedef", "-i", name, "-f", charmap, folder / f"{name}.{charmap}"]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue  # python then takes the C locale, which is worth a try, too
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory, run) -> dict[str, bytes]:
    """Lines and their translations; a corpus and what its tiny run says of the test set."""
    folder = tmp_path_factory.mktemp("expected")
    pairs = [(f"{a} \u0130\u0131", f"{b} \u00e9\u732b") for a, b in template_pairs(60)]
    corpus = write_corpus(folder / "corpus", pairs, held_out=3)
    overrides = [
        *corpus,
        "tokenizer.vocab_size=90",
        "tokenizer.sampling=0",
        "trainer.max_updates=2",
        "trainer.validate_every=2",
        "trainer.checkpoint_every=2",
        "evaluate.heatmaps=[1]",
        "logging.tensorboard=false",
        "decode.max_ratio=0.5",
    ]
    cfg = composed("debug", overrides)
    with locked(begin(folder / "run", cfg)) as trained:
        stages.run_stages(cfg, trained, StopRequest())
    translations = [t.text for t in seq2seq.load(run).translate(LINES)]
    return {
        "overrides": json.dumps(overrides).encode(),
        "lines": "".join(f"{line}\n" for line in LINES).encode(),
        "translations": "".join(f"{line}\n" for line in translations).encode(),
        "summary": stages.summary(trained).encode(),
        "root": str(trained.root).encode(),
        "decoded": (trained.root / "decode/test.txt").read_bytes(),
    }


@pytest.mark.e2e
@pytest.mark.parametrize(
    "setting",
    [
        name if number < 1 else pytest.param(name, marks=pytest.mark.slow)
        for number, name in enumerate(SETTINGS)
    ],
)
def test_L1_L2_all_entry_points_write_the_same_bytes(setting, run, text, locales, tmp_path, tally):
    """Three scripts in one setting here, all settings in the long run; and no implicit encoding.

    Each of them also fails once, over a name that is not ASCII.
    """
    (tmp_path / "\u00e9.txt").write_bytes(text["lines"])
    for name in ("out.txt", "ref.txt"):
        (tmp_path / name).write_bytes(text["translations"])
    training = ["+experiment=debug", "threads=1", *json.loads(text["overrides"])]
    jobs = [
        ("scripts/decode.py", [run], "stdin.txt"),
        ("scripts/decode.py", [run, "--input", "\u00e9.txt"], None),
        ("scripts/evaluate.py", ["--hypotheses", "out.txt", "--reference", "ref.txt"], None),
        ("train.py", [*training, "run_dir=trained"], None),
        ("scripts/decode.py", [run, "--input", "\u00fc.txt"], None),
        ("scripts/evaluate.py", ["--hypotheses", "\u00fc", "--reference", "ref.txt"], None),
        ("train.py", [*training, 'data.train="\u00fc.tsv"', "run_dir=failed"], None),
    ]
    (tmp_path / "stdin.txt").write_bytes(text["lines"])
    written = [
        [str(ROOT / script), [str(a) for a in arguments], stdin, f"stdout-{i}", f"stderr-{i}"]
        for i, (script, arguments, stdin) in enumerate(jobs)
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(written), "utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", ROOT / "tests/every_entry.py", "jobs.json"],
        capture_output=True, cwd=tmp_path, timeout=180, check=False,
        env={**environment(), "LOCPATH": str(locales), **SETTINGS[setting]},
    )  # fmt: skip
    utf_16 = SETTINGS[setting].get("PYTHONIOENCODING") == "utf-16"  # what stderr is asked to be
    encoding = "utf-16" if utf_16 else "latin-1"
    errors = [(tmp_path / f"stderr-{i}").read_bytes().decode(encoding) for i in range(len(jobs))]
    assert done.returncode == 0, (done.stderr, errors)
    codes = json.loads(done.stdout)
    assert codes[:6] == [0, 0, 0, 0, 3, 3], errors
    assert codes[6] in (3, 5), errors
    out = [(tmp_path / f"stdout-{i}").read_bytes() for i in range(len(jobs))]
    assert out[0] == out[1] == text["translations"]
    assert out[2].splitlines()[1].startswith(b"BLEU    100.00  ")
    assert b"  nrefs:1" in out[2].splitlines()[1]
    assert (tmp_path / "trained/decode/test.txt").read_bytes() == text["decoded"]
    assert out[3] == text["summary"].replace(text["root"], b"trained") + b"\n"
    assert errors[:3] == ["", "", ""]
    for message in errors[4:]:
        last = message.splitlines()[-1]
        assert last.startswith("error: "), message
        assert "Traceback" not in message
    if codes[6] == 5:
        assert "cannot be read in this locale" in errors[6]
    tally("L1", f"three entry points in locale {setting!r}", 3, 3, "same bytes")


def test_L1_a_command_that_the_records_cannot_hold_is_refused():
    check_command_line(["train.py", "data.root=\u00e9"])
    with pytest.raises(
        PlatformError, match=r"'run_dir=.udcc3.udca9' cannot be read in this locale"
    ):
        check_command_line(["train.py", "run_dir=\udcc3\udca9"])
