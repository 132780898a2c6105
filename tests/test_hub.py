"""L3, L4, L5: the Hugging Face Hub that fails, that changed, that holds programs.

A server on this machine plays the Hub; what reads folders of its layout is in `test_corpus.py`.
"""

import hashlib
import json
import logging
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_hub import FakeHub, serving
from runs import composed
from test_corpus import fails, flat, json_lines, write
from test_filters import data_config

from seq2seq.data import hub
from seq2seq.data.corpus import fingerprint, read_pairs, scan_pairs
from seq2seq.data.pair import Pair
from seq2seq.run.errors import ConfigError, DataError, PlatformError, UntrustedError, one_line

PAIRS = [Pair(f"a {number}", f"b {number}") for number in range(5)]
README = (
    b"---\nconfigs:\n- config_name: en-fr\n  data_files:\n"
    b"  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n---\n"
)
LOCAL = "name local files instead, data.train=[train.en,train.fr], or a folder, [hub:./FOLDER]."

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of connections that break
]


def files(pairs: list[Pair]) -> dict[str, bytes]:
    data = json_lines(map(flat, pairs))
    return {"README.md": README, "train.jsonl": data, "test.jsonl": data}


@dataclass
class Slept:
    """Seconds that the library would have waited."""

    total: float = 0.0

    def __call__(self, seconds: float) -> None:
        self.total += seconds


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The libraries ask the fake Hub, keep what they get below tmp_path, and wait for nothing."""
    import datasets
    import huggingface_hub.constants as constants
    import huggingface_hub.utils._http as http
    from huggingface_hub import HfFileSystem

    library = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(library, "level", library.level)

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    HfFileSystem.clear_instance_cache()
    with serving(FakeHub()) as server:
        file = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + file)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "files"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        config = datasets.config
        monkeypatch.setattr(config, "HF_ENDPOINT", server.url)
        url = server.url + "/datasets/{repo_id}/resolve/{revision}/{path}"
        monkeypatch.setattr(config, "HUB_DATASETS_URL", url)
        monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "sets")
        monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
        yield server
        # A search that was given up must end here, not on the real network.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(http.time, "sleep", lambda seconds: None)
        server.stop()
        for thread in threading.enumerate():
            if thread.name == hub.SEARCH_THREAD:
                thread.join(30)
                assert not thread.is_alive()
    HfFileSystem.clear_instance_cache()


@pytest.fixture
def slept(monkeypatch) -> Slept:
    import huggingface_hub.utils._http as http

    seconds = Slept()
    monkeypatch.setattr(http.time, "sleep", seconds)
    return seconds


def config(tmp_path: Path, spec: str):
    return data_config(root=str(tmp_path), train=[spec])


def read(tmp_path: Path, spec: str = "hub:me/pairs") -> list[Pair]:
    return list(read_pairs(config(tmp_path, spec), "train"))


def test_L3_the_fake_hub_serves(served, tmp_path):
    """Otherwise every refusal below would prove nothing."""
    served.add(files(PAIRS))
    assert read(tmp_path) == PAIRS
    assert any(line.startswith("GET") and "train.jsonl" in line for line in served.asked)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (
            "404",
            "hub:me/pairs: Dataset 'me/pairs' doesn't exist on the Hub or cannot be accessed. ",
        ),
        (
            "401",
            "hub:me/pairs: Dataset 'me/pairs' doesn't exist on the Hub or cannot be accessed. ",
        ),
        ("403", "hub:me/pairs: Dataset 'me/pairs' is a gated dataset on the Hub. "),
        ("429", "hub:me/pairs: the Hugging Face Hub cannot be reached and its cache has no such"),
        ("500", "hub:me/pairs: the Hugging Face Hub cannot be reached and its cache has no such"),
        ("late 404", "hub:me/pairs: Dataset 'me/pairs' doesn't exist on the Hub or cannot be"),
        ("late 429", "hub:me/pairs: cannot be fetched (429 Too Many Requests for url: "),
        ("late 500", "hub:me/pairs: cannot be fetched (Server error '500 Internal Server Error' f"),
        ("cut", "hub:me/pairs: cannot be fetched (peer closed connection without sending "),
    ],
)
def test_L3_the_hub_refuses_or_breaks_off(served, slept, tmp_path, capfd, fault, wanted):
    served.add(files(PAIRS))
    served.fault = fault
    started = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        read(tmp_path)
    line = one_line(caught.value)
    assert line.startswith(f"error: {wanted}")
    assert line.endswith(LOCAL)
    assert "\n" not in line
    assert len(line) < 400
    assert capfd.readouterr().err == ""
    assert time.monotonic() - started + slept.total < 60


@pytest.mark.parametrize("fault", ["404", "429", "500", "silent", "late 429"])
def test_L3_the_cache_serves_while_the_hub_does_not(served, slept, tmp_path, monkeypatch, fault):
    served.add(files(PAIRS))
    assert read(tmp_path) == PAIRS
    monkeypatch.setattr(hub.answers, "__defaults__", (0.3,))
    served.fault = fault
    assert read(tmp_path) == PAIRS
    assert slept.total == 0 or "late" in fault


def test_L3_a_hub_that_never_answers(served, tmp_path, monkeypatch):
    """It takes the connection and says nothing, as behind some firewalls."""
    monkeypatch.setattr(hub.answers, "__defaults__", (0.3,))
    served.fault = "silent"
    started = time.monotonic()
    wanted = "hub:me/pairs: the Hugging Face Hub cannot be reached and its cache has no such"
    fails(PlatformError, wanted, read, tmp_path)
    assert time.monotonic() - started < 5
    assert hub.PROBE_SECONDS < 60


@pytest.mark.parametrize("seconds", [0.5, pytest.param(None, marks=pytest.mark.slow)])
def test_L3_a_hub_that_falls_silent(served, tmp_path, monkeypatch, seconds):
    """After the probe the library alone would wait for minutes; in real time where it is slow."""
    monkeypatch.setattr(hub, "answers", lambda url: True)
    if seconds is not None:
        monkeypatch.setattr(hub, "SEARCH_SECONDS", seconds)
    served.add(files(PAIRS))
    served.fault = "silent"
    started = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        read(tmp_path)
    assert one_line(caught.value).endswith(LOCAL)
    assert time.monotonic() - started < hub.SEARCH_SECONDS + 5 < 60
    if seconds is not None:  # what it has seen before it finds in its cache
        served.fault = ""
        monkeypatch.setattr(hub, "SEARCH_SECONDS", 40)
        ask_again(monkeypatch)
        assert read(tmp_path) == PAIRS
        ask_again(monkeypatch)
        served.fault = "silent"
        monkeypatch.setattr(hub, "SEARCH_SECONDS", seconds)
        assert read(tmp_path) == PAIRS
        started = time.monotonic()
        assert read(tmp_path) == PAIRS  # and it does not wait again
        assert time.monotonic() - started < 0.5


def ask_again(monkeypatch) -> None:
    """As a new process would."""
    import datasets
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("reply", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b""])
def test_L3_a_proxy_that_fails(served, slept, tmp_path, monkeypatch, reply):
    """It answers for the Hub with an error, or hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def answer() -> None:
            while True:
                try:
                    connection, _ = proxy.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4000)
                    connection.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        from huggingface_hub import close_session

        close_session()
        with pytest.raises(PlatformError) as caught:
            read(tmp_path)
        proxy.shutdown(socket.SHUT_RDWR)
    close_session()
    assert one_line(caught.value).endswith(LOCAL)
    assert not [line for line in served.asked if "resolve" in line]
    assert slept.total < 60


def test_L3_local_data_asks_nobody(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write(tmp_path / "a.en", b"a\n")
    write(tmp_path / "a.fr", b"b\n")
    write(tmp_path / "set/train.jsonl", json_lines(map(flat, PAIRS)))
    cfg = data_config(root=str(tmp_path), train=["a.en", "a.fr"])
    assert list(read_pairs(cfg, "train")) == [Pair("a", "b")]
    assert read(tmp_path, "hub:./set") == PAIRS
    cfg = composed("debug").data
    assert len(list(read_pairs(cfg, "train"))) == cfg.grammar.train_pairs


# What changed on the Hub


def test_L4_a_dataset_that_is_missing_or_renamed(served, tmp_path):
    """Under its old name the Hub has nothing (it may also redirect, which the library follows)."""
    served.add(files(PAIRS))
    served.name = "me/newname"
    wanted = "hub:me/pairs: Dataset 'me/pairs' doesn't exist on the Hub or cannot be accessed."
    fails(PlatformError, wanted, read, tmp_path)
    assert read(tmp_path, "hub:me/newname") == PAIRS


def test_L4_columns_that_changed(served, tmp_path):
    rows = b"".join(json.dumps({"text": "a", "label": n}).encode() + b"\n" for n in range(3))
    served.add({"README.md": README, "train.jsonl": rows, "test.jsonl": rows})
    with pytest.raises(DataError, match=r"^hub:me/pairs row 1: has 'text', 'label'; wanted 'en' a"):
        read(tmp_path)


def test_L4_a_pinned_commit_stays_what_it_was(served, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    old = served.add(files(PAIRS))
    first = fingerprint(config(tmp_path, "hub:me/pairs"), "train")
    new = served.add(files(PAIRS[:3]))
    caplog.clear()  # of what was logged before, if an earlier test turned that on
    with caplog.at_level(logging.INFO, "seq2seq"):
        assert read(tmp_path) == PAIRS[:3]  # the newest, and it says which
        assert read(tmp_path, f"hub:me/pairs@{old}") == PAIRS
        assert read(tmp_path, f"hub:me/pairs@{old}:en-fr:train[:2]") == PAIRS[:2]
    assert [record.getMessage() for record in caplog.records] == [
        f"hub:me/pairs: commit {new}",
        f"hub:me/pairs@{old}: commit {old}",
        f"hub:me/pairs@{old}:en-fr:train[:2]: commit {old}",
    ]
    assert fingerprint(config(tmp_path, "hub:me/pairs"), "train") != first
    assert fingerprint(config(tmp_path, f"hub:me/pairs@{old}"), "train") == first


def test_L4_rows_and_their_sum_are_recorded(served, tmp_path):
    commit = served.add(files(PAIRS))
    scan = scan_pairs(config(tmp_path, "hub:me/pairs"), "train")
    assert len(list(scan)) == len(PAIRS)
    rows = "".join(f'{{"en": "{pair.src}", "fr": "{pair.tgt}"}}\n' for pair in PAIRS)
    [report] = scan.files
    assert (report.name, report.lines) == (f"me/pairs@{commit}", len(PAIRS))
    assert report.sha256 == hashlib.sha256(rows.encode()).hexdigest()
    write(tmp_path / "set/train.jsonl", json_lines(map(flat, PAIRS)))
    again = scan_pairs(config(tmp_path, f"hub:{tmp_path}/set"), "train")
    assert len(list(again)) == len(PAIRS)
    assert [(r.name, r.sha256) for r in again.files] == [("set", report.sha256)]


def test_L4_a_commit_that_is_not_there(served, tmp_path):
    served.add(files(PAIRS))
    missing = "0" * 40
    wanted = f"hub:me/pairs@{missing}: Revision '{missing}' doesn't exist for dataset 'me/pairs'"
    fails(PlatformError, wanted, read, tmp_path, f"hub:me/pairs@{missing}")


def test_L4_the_cache_does_not_pass_for_another_commit(served, slept, tmp_path, monkeypatch):
    monkeypatch.setattr(hub.answers, "__defaults__", (0.3,))
    old = served.add(files(PAIRS))
    new = served.add(files(PAIRS[:3]))
    assert read(tmp_path) == PAIRS[:3]
    for served.fault in ("silent", "500"):
        assert read(tmp_path, f"hub:me/pairs@{new}") == PAIRS[:3]
        wanted = f"the cache has only commit {new}, and the Hub cannot be asked for {old}. Connect"
        fails(PlatformError, wanted, read, tmp_path, f"hub:me/pairs@{old}")
    served.fault = "silent"
    wanted = f"the cache has only commit {new}, and the Hub cannot be asked for v1.0"
    fails(PlatformError, wanted, read, tmp_path, "hub:me/pairs@v1.0")


def test_L4_a_revision_is_part_of_the_name():
    cfg = data_config()
    place = hub.parse_hub_name("hub:me/pairs@abc:en-fr:train", cfg, "train")
    assert (place.name, place.revision, place.config, place.split) == (
        "me/pairs", "abc", "en-fr", "train",
    )  # fmt: skip
    assert hub.parse_hub_name("hub:me/pairs", cfg, "train").revision == ""
    fails(ConfigError, "'hub::x' names no dataset", hub.parse_hub_name, "hub::x", cfg, "train")


def test_L5_a_dataset_that_is_a_program(served, tmp_path):
    ran = tmp_path / "ran"
    served.add({**files(PAIRS), "pairs.py": f"open({str(ran)!r}, 'w')".encode()})
    wanted = "hub:me/pairs: the dataset is a program, which is never run (Dataset scripts are no"
    fails(UntrustedError, wanted, read, tmp_path)
    assert not ran.exists()
