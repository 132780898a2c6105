"""sacreBLEU's test sets, from a cache of the shape that sacreBLEU itself writes and reads."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from sacrebleu.dataset import DATASETS
from test_corpus import fails
from test_filters import data_config

from seq2seq.data import test_sets
from seq2seq.data.corpus import fingerprint, read_pairs
from seq2seq.data.pair import Pair
from seq2seq.run.errors import ConfigError, DataError, PlatformError

SETS = {
    "wmt12": ("test/newstest2012-src.en.sgm", "test/newstest2012-src.fr.sgm"),
    "wmt13": ("test/newstest2013-src.en.sgm", "test/newstest2013-src.fr.sgm"),
    "wmt14/full": (
        "test-full/newstest2014-fren-src.en.sgm",
        "test-full/newstest2014-fren-ref.fr.sgm",
    ),
}
TEXTS = {
    "wmt12": [("One .", "Un."), ("AT&amp;T  wins", "AT&amp;T gagne")],
    "wmt13": [("Two.", "Deux.")],
    "wmt14/full": [("Three\u2028four.", "Trois\u2028quatre.")],
}


def sgm(lines: list[str]) -> str:
    """Laid out as WMT did: a document, a headline and paragraphs around the segments."""
    segments = "".join(
        f'<p>\n<seg id="{n}">{line}</seg>\n</p>\n' for n, line in enumerate(lines, 1)
    )
    head = '<srcset setid="newstest" srclang="any">\n<doc docid="a" genre="news" origlang="en">\n'
    return f"{head}{segments}</doc>\n</srcset>\n"


def files_of(name: str) -> dict[str, str]:
    sides = zip(*TEXTS[name], strict=True)
    return {path: sgm(list(side)) for path, side in zip(SETS[name], sides, strict=True)}


def archive_name(name: str) -> str:
    [url] = DATASETS[name].data
    return f"{name.replace('/', '_')}.{url.rpartition('/')[2]}"


def packed(name: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, text in files_of(name).items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache; no host answers."""
    for name in SETS:
        monkeypatch.setattr(DATASETS[name], "_outdir", str(tmp_path / name))
        monkeypatch.setattr(DATASETS[name], "_rawdir", str(tmp_path / name / "raw"))
    monkeypatch.setattr(test_sets, "answers", lambda url: False)
    return tmp_path


def fill(cache: Path) -> None:
    """Put there what a download leaves: the archive, and beside it what was in it."""
    for name in SETS:
        raw = cache / name / "raw"
        for path, text in files_of(name).items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_text(text, "utf-8")
        (raw / archive_name(name)).write_bytes(packed(name))


@pytest.fixture
def filled(cache) -> Path:
    fill(cache)
    return cache


def place(spec: str, **changes):
    return data_config(validation=[spec], **changes)


def pairs(spec: str) -> list[Pair]:
    return list(read_pairs(place(spec), "validation"))


@pytest.mark.usefixtures("filled")
def test_sets_are_joined_in_the_order_given(capfd):
    one, two = (
        [Pair("One .", "Un."), Pair("AT&amp;T wins", "AT&amp;T gagne")],
        [Pair("Two.", "Deux.")],
    )
    assert pairs("sacrebleu:wmt12") == one
    assert pairs("sacrebleu:wmt12+wmt13") == one + two
    assert pairs("sacrebleu:wmt13+wmt12") == two + one
    assert pairs("sacrebleu:wmt14/full") == [Pair("Three four.", "Trois quatre.")]
    swapped = place("sacrebleu:wmt13", source_language="fr", target_language="en")
    assert list(read_pairs(swapped, "validation")) == [Pair("Deux.", "Two.")]
    assert capfd.readouterr() == ("", "")


def test_fingerprint_is_that_of_the_text(filled):
    specs = ["sacrebleu:wmt12", "sacrebleu:wmt13", "sacrebleu:wmt12+wmt13", "sacrebleu:wmt13+wmt12"]
    prints = [fingerprint(place(spec), "validation") for spec in specs]
    assert len(set(prints)) == 4
    assert prints == [fingerprint(place(spec), "validation") for spec in specs]
    text = filled / "wmt13/wmt13.en-fr.ref"
    text.write_text("Zwei.\n", "utf-8")
    changed = [fingerprint(place(spec), "validation") for spec in specs]
    assert [a == b for a, b in zip(prints, changed, strict=True)] == [True, False, False, False]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("spec", "error", "wanted"),
    [
        ("sacrebleu:", ConfigError, "'sacrebleu:' names no test set. Write sacrebleu:NAME, or"),
        ("sacrebleu:wmt12+", ConfigError, "'sacrebleu:wmt12+' names no test set"),
        ("sacrebleu:wmt12+wnt13", DataError, "no test set 'wnt13'. Did you mean wmt13"),
        ("sacrebleu:zzzzzz", DataError, "no test set 'zzzzzz'. List them: sacrebleu --list."),
        ("sacrebleu:wmt14/full", DataError, "wmt14/full has no pair en-gd; there are cs-en, de-en"),
    ],
)
def test_mistakes_in_the_name(spec, error, wanted):
    cfg = place(spec, target_language="gd" if "full" in spec else "fr")
    fails(error, wanted, read_pairs, cfg, "validation")


def test_without_network_or_cache_it_fails_at_once(cache, capfd):
    started = time.monotonic()
    wanted = (
        "sacrebleu:wmt12+wmt13: wmt12 is not in sacreBLEU's cache and its host cannot be reached"
    )
    fails(PlatformError, wanted, read_pairs, place("sacrebleu:wmt12+wmt13"), "validation")
    wanted = "Connect, or name local files instead, data.test=[test.en,test.fr]."
    fails(PlatformError, wanted, fingerprint, place("sacrebleu:wmt12"), "validation")
    assert time.monotonic() - started < 5
    assert list(cache.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_an_archive_cut_to_nothing_is_fetched_again(filled):
    (filled / "wmt12/raw" / archive_name("wmt12")).write_bytes(b"")
    wanted = "wmt12 is not in sacreBLEU's cache"
    fails(PlatformError, wanted, read_pairs, place("sacrebleu:wmt12"), "validation")


def test_sides_of_unequal_length_are_named(filled):
    path = filled / "wmt12/raw" / SETS["wmt12"][1]
    path.write_text(sgm(["Un."]), "utf-8")
    wanted = "wmt12.en-fr.src has 2 lines, wmt12.en-fr.ref has 1"
    fails(DataError, wanted, read_pairs, place("sacrebleu:wmt12"), "validation")


# Downloads --------------------------------------------------------------------------------------


def serve(monkeypatch, body: bytes | Exception, md5: str | None = None) -> None:
    """Let the host answer, with this body for wmt12."""

    def urlopen(url):
        if isinstance(body, Exception):
            raise body
        return io.BytesIO(body)

    monkeypatch.setattr(test_sets, "answers", lambda url: True)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    if isinstance(body, bytes):
        found = hashlib.md5(body).hexdigest()
        monkeypatch.setattr(DATASETS["wmt12"], "md5", [md5 or found])


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # tarfile, theirs
def test_a_set_is_downloaded_once(cache, monkeypatch, capfd):
    archive = packed("wmt12")
    serve(monkeypatch, archive)
    found = pairs("sacrebleu:wmt12")
    assert [pair.src for pair in found] == ["One .", "AT&amp;T wins"]
    serve(monkeypatch, AssertionError("asked again"))
    monkeypatch.setattr(test_sets, "answers", lambda url: False)
    assert pairs("sacrebleu:wmt12") == found
    assert (cache / "wmt12/raw" / archive_name("wmt12")).read_bytes() == archive
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("body", "md5", "error", "wanted"),
    [
        (
            b"x",
            "0" * 32,
            PlatformError,
            "the download of wmt12 is damaged or its host is not trusted",
        ),
        (
            b"no archive",
            None,
            DataError,
            "sacrebleu:wmt12: the archive of wmt12 is damaged. Delete ",
        ),
        (
            HTTPError("https://x", 503, "Busy", None, None),
            None,
            PlatformError,
            "wmt12 cannot be fetched (HTTP Error 503: Busy). Try again, or name local files",
        ),
        (TimeoutError(), None, PlatformError, "wmt12 cannot be fetched (TimeoutError). Try again"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_a_download_that_fails(monkeypatch, capfd, body, md5, error, wanted):
    serve(monkeypatch, body, md5)
    fails(error, wanted, read_pairs, place("sacrebleu:wmt12"), "validation")
    assert capfd.readouterr() == ("", "")


# The library ------------------------------------------------------------------------------------


def test_the_papers_sets_are_known_to_the_library():
    """And newstest2014 is the full one: the paper has 3,003 sentences."""
    for name, files in SETS.items():
        assert tuple(DATASETS[name].langpairs["en-fr"]) == files
    assert DATASETS["wmt14/full"].data[0].endswith("/test-full.tgz")
    assert DATASETS["wmt14"].data[0].endswith("/test-filtered.tgz")


@pytest.mark.e2e
def test_the_variable_moves_the_cache(tmp_path):
    fill(tmp_path)
    code = (
        "from test_filters import data_config; from seq2seq.data.corpus import read_pairs\n"
        "print(len(list(read_pairs(data_config(test=['sacrebleu:wmt12+wmt13']), 'test'))))"
    )
    paths = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SACREBLEU": str(tmp_path), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
