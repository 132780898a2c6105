"""sacreBLEU's test sets, from a cache of the shape that sacreBLEU itself writes and reads."""

import hashlib
import io
import socket
import tarfile
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from sacrebleu.dataset import DATASETS
from test_corpus import fails
from test_filters import data_config, pairs_of

from seq2seq.data.pair import Pair
from seq2seq.data.readers import test_sets
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
READ = {
    "wmt12": [Pair("One .", "Un."), Pair("AT&amp;T wins", "AT&amp;T gagne")],
    "wmt13": [Pair("Two.", "Deux.")],
    "wmt14/full": [Pair("Three four.", "Trois quatre.")],
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

    def refuse(url):
        raise OSError(113, "No route to host")

    for name in SETS:
        monkeypatch.setattr(DATASETS[name], "_outdir", str(tmp_path / name))
        monkeypatch.setattr(DATASETS[name], "_rawdir", str(tmp_path / name / "raw"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path


def fill(cache: Path) -> None:
    """Put there what a download leaves: the archive, and beside it what was in it."""
    for name in SETS:
        raw = cache / name / "raw"
        for path, text in files_of(name).items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_text(text, "utf-8")
        [url] = DATASETS[name].data
        archive = f"{name.replace('/', '_')}.{url.rpartition('/')[2]}"
        (raw / archive).write_bytes(packed(name))


@pytest.fixture
def filled(cache) -> Path:
    fill(cache)
    return cache


def read(spec: str, **changes) -> list[Pair]:
    return list(pairs_of(data_config(validation=[spec], **changes), "validation"))


@pytest.mark.usefixtures("filled")
def test_sets_are_joined_in_the_order_given(capfd):
    for names in (["wmt12"], ["wmt12", "wmt13"], ["wmt13", "wmt12"], ["wmt14/full"]):
        assert read(f"sacrebleu:{'+'.join(names)}") == [pair for n in names for pair in READ[n]]
    swapped = read("sacrebleu:wmt13", source_language="fr", target_language="en")
    assert swapped == [Pair("Deux.", "Two.")]
    assert capfd.readouterr() == ("", "")


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
    fails(error, wanted, lambda: read(spec, target_language="gd" if "full" in spec else "fr"))


def test_sides_of_unequal_length_are_named(filled):
    (filled / "wmt12/raw" / SETS["wmt12"][1]).write_text(sgm(["Un."]), "utf-8")
    wanted = "wmt12.en-fr.src has 2 lines, wmt12.en-fr.ref has 1"
    fails(DataError, wanted, read, "sacrebleu:wmt12")


# Downloads --------------------------------------------------------------------------------------


def serve(monkeypatch, body: bytes | Exception, md5: str | None = None) -> None:
    """Let the host answer, with this body for wmt12."""

    def urlopen(url):
        assert socket.getdefaulttimeout() == test_sets.TIMEOUT_SECONDS
        if isinstance(body, Exception):
            raise body
        return io.BytesIO(body)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    if isinstance(body, bytes):
        monkeypatch.setattr(DATASETS["wmt12"], "md5", [md5 or hashlib.md5(body).hexdigest()])


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # tarfile, theirs
@pytest.mark.usefixtures("cache")
def test_a_set_is_downloaded_once(monkeypatch, capfd):
    serve(monkeypatch, packed("wmt12"))
    assert read("sacrebleu:wmt12") == READ["wmt12"]
    serve(monkeypatch, AssertionError("asked again"))
    assert read("sacrebleu:wmt12") == READ["wmt12"]
    assert capfd.readouterr().err == ""
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("body", "md5", "error", "wanted"),
    [
        (b"x", "0" * 32, PlatformError, "the download of wmt12 is damaged or its host is not"),
        (b"no archive", None, DataError, "sacrebleu:wmt12: the archive of wmt12 is damaged. Delet"),
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
    fails(error, wanted, read, "sacrebleu:wmt12")
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cache")
def test_L3_without_network_or_cache_it_fails_before_anything_is_read(capfd):
    wanted = "sacrebleu:wmt12+wmt13: wmt12 cannot be fetched ([Errno 113] No route to host). Try"
    cfg = data_config(validation=["sacrebleu:wmt12+wmt13"])
    fails(PlatformError, wanted, lambda: pairs_of(cfg, "validation") and [])
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the connection that breaks
def test_L3_a_host_that_never_answers(tmp_path, monkeypatch):
    """It takes the connection and says nothing; left alone the library would wait forever."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(test_sets, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(DATASETS["wmt12"], "_outdir", str(tmp_path))
    monkeypatch.setattr(DATASETS["wmt12"], "_rawdir", str(tmp_path / "raw"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/dev.tgz"
        monkeypatch.setattr(DATASETS["wmt12"], "data", [url])
        started = time.monotonic()
        fails(PlatformError, "wmt12 cannot be fetched (", read, "sacrebleu:wmt12")
    assert time.monotonic() - started < 5


# The library ------------------------------------------------------------------------------------


def test_the_papers_sets_are_known_to_the_library():
    """And newstest2014 is the full one: the paper has 3,003 sentences."""
    for name, files in SETS.items():
        assert tuple(DATASETS[name].langpairs["en-fr"]) == files
    assert DATASETS["wmt14/full"].data[0].endswith("/test-full.tgz")
    assert DATASETS["wmt14"].data[0].endswith("/test-filtered.tgz")
