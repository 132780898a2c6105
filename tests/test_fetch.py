"""Corpora that can be downloaded: from a server on this machine."""

import gzip
import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seq2seq.cli import fetch as cli
from seq2seq.data import fetch as module
from seq2seq.data.fetch import Corpus, corpora, fetch
from seq2seq.run.errors import DataError, PlatformError, UsageError

TEXTS = {"train.en": b"a cat\n", "train.gd": b"cat\n" * 1000}


@contextmanager
def serving(answers: dict[str, bytes]):
    """Serve these files; yields the address of their directory and the names asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            asked.append(name)
            self.send_response(200 if name in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(name, b""))

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/d/", asked
        server.shutdown()


@pytest.fixture
def listed(monkeypatch):
    files = {n: (len(text), hashlib.sha256(text).hexdigest()) for n, text in TEXTS.items()}
    corpus = Corpus("about", "licence", "http://127.0.0.1:9/", ".gz", "+experiment=x", files)
    monkeypatch.setattr(module, "corpora", lambda: {"mine": corpus})
    return corpus


def packed() -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(text) for name, text in TEXTS.items()}


def test_a_corpus_is_downloaded_once(listed, tmp_path):
    with serving(packed()) as (url, asked):
        fetch("mine", tmp_path / "new", url)
        assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == TEXTS
        (tmp_path / "new" / "train.gd").unlink()
        fetch("mine", tmp_path / "new", url)
    assert asked == ["train.en.gz", "train.gd.gz", "train.gd.gz"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"a dog\n"), "its checksum differs"),
        (gzip.compress(b"a cat\n" * 100_000), "its checksum differs"),
        (gzip.compress(TEXTS["train.en"])[:-9], "cannot be downloaded"),
        (b"<html>moved</html>", "cannot be downloaded (Not a gzipped file"),
        (None, "cannot be downloaded (status 404)"),
    ],
    ids=["another text", "too long", "cut off", "a page", "nothing"],
)
def test_a_wrong_file_is_not_kept(listed, tmp_path, content, what):
    answers = packed() | {"train.en.gz": content}
    if content is None:
        del answers["train.en.gz"]
    with serving(answers) as (url, _), pytest.raises(PlatformError) as error:
        fetch("mine", tmp_path, url)
    assert what in str(error.value)
    assert not list(tmp_path.iterdir())


def test_errors_name_the_cause(listed, tmp_path):
    with pytest.raises(UsageError, match="Choose one of: mine"):
        fetch("other", tmp_path)
    with pytest.raises(PlatformError, match="cannot be downloaded"):  # nobody listens there
        fetch("mine", tmp_path)
    (tmp_path / "train.en").write_text("mine\n")
    with pytest.raises(DataError, match="differs from the file of mine"):
        fetch("mine", tmp_path)
    assert (tmp_path / "train.en").read_text() == "mine\n"


def test_the_list_matches_the_presets():
    for name, corpus in corpora().items():
        assert corpus.url.endswith("/"), name
        assert corpus.use.startswith("+experiment="), name
        assert {"train.en"} < set(corpus.files), name


def test_the_command_lists_corpora_and_says_how_to_train_on_one(
    listed, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    cli.main([])
    assert "multi30k  " in capsys.readouterr().out
    with serving(packed()) as (url, _):
        cli.main(["mine", "--mirror", url.rstrip("/")])
    out = capsys.readouterr().out
    assert "data/mine: 2 files, licence licence" in out
    assert "train +experiment=x data.root=data/mine\n" in out
    assert sorted(p.name for p in (tmp_path / "data/mine").iterdir()) == sorted(TEXTS)
