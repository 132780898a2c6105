"""L3, L4, L5: the Hugging Face Hub that fails, that changed, that holds programs.

A server on this machine plays the Hub; directories of its layout need none.
"""

import csv
import hashlib
import io
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_hub import FakeHub, serving
from runs import composed
from test_corpus import config, fails, flat, json_lines, parquet, write
from test_filters import pairs_of

from seq2seq.data.pair import Pair
from seq2seq.data.readers import Place, hub, scan_pairs
from seq2seq.run.errors import ConfigError, DataError, PlatformError, UntrustedError

PAIRS = [Pair(f"a {number}", f"b {number}") for number in range(5)]
README = (
    b"---\nconfigs:\n- config_name: en-fr\n  data_files:\n"
    b"  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n---\n"
)
LOCAL = "name local files instead, data.train=[train.en,train.fr], or a directory, [hub:./DIR]."
UNREACHABLE = "hub:me/pairs: cannot be fetched from the Hugging Face Hub ("

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of connections that break
]


def files(pairs: list[Pair]) -> dict[str, bytes]:
    data = json_lines(map(flat, pairs))
    return {"README.md": README, "train.jsonl": data, "test.jsonl": data}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The libraries keep what they get and convert below tmp_path; they are as they were after."""
    import datasets
    import huggingface_hub.constants as constants

    for library in map(logging.getLogger, ("datasets", "huggingface_hub")):
        monkeypatch.setattr(library, "level", library.level)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "files"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "sets")
    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    return tmp_path / "sets"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The libraries ask the fake Hub, and do not sleep."""
    import datasets
    import huggingface_hub.constants as constants
    from huggingface_hub import HfFileSystem

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    HfFileSystem.clear_instance_cache()
    with serving(FakeHub()) as server:
        path = "/{repo_id}/resolve/{revision}/"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}{path}{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        template = f"{server.url}/datasets{path}{{path}}"
        monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", template)
        yield server
        # A search that was given up must end here, not on the real network.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        server.stop()
        for thread in threading.enumerate():
            if thread.name == hub.SEARCH_THREAD:
                thread.join(30)
                assert not thread.is_alive()
    HfFileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def slept(monkeypatch) -> list[float]:
    """Seconds that the library would have waited between its tries."""
    import huggingface_hub.utils._http as http

    seconds: list[float] = []
    monkeypatch.setattr(http.time, "sleep", seconds.append)
    return seconds


def read(tmp_path: Path, spec: str = "hub:me/pairs") -> list[Pair]:
    return list(pairs_of(config(tmp_path, spec)))


# The Hub that fails


def test_L3_the_fake_hub_serves(served, tmp_path):
    """Otherwise every refusal below would prove nothing."""
    served.add(files(PAIRS))
    assert read(tmp_path) == PAIRS
    assert any(line.startswith("GET") and "train.jsonl" in line for line in served.asked)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ("404", "hub:me/pairs: does not exist on the Hub, or you may not read it. "),
        ("401", "hub:me/pairs: does not exist on the Hub, or you may not read it. "),
        ("403", "hub:me/pairs: does not exist on the Hub, or you may not read it. "),
        ("429", f"{UNREACHABLE}429 Too Many Requests for url: "),
        ("500", f"{UNREACHABLE}Server error '500 Internal Server Error' for url "),
        ("late 404", "hub:me/pairs: does not exist on the Hub, or you may not read it. "),
        ("late 429", f"{UNREACHABLE}429 Too Many Requests for url: "),
        ("late 500", f"{UNREACHABLE}Server error '500 Internal Server Error' for url "),
        ("cut", f"{UNREACHABLE}peer closed connection without sending "),
    ],
)
def test_L3_the_hub_refuses_or_breaks_off(served, slept, tmp_path, capfd, fault, wanted):
    served.add(files(PAIRS))
    served.fault = fault
    started = time.monotonic()
    line = fails(PlatformError, wanted, read, tmp_path)
    assert line.endswith(LOCAL)
    assert len(line) < 500
    assert capfd.readouterr().err == ""
    assert time.monotonic() - started + sum(slept) < 60


@pytest.mark.parametrize("fault", ["404", "429", "500", "silent", "late 429"])
def test_L3_the_cache_serves_while_the_hub_does_not(served, slept, tmp_path, monkeypatch, fault):
    served.add(files(PAIRS))
    assert read(tmp_path) == PAIRS
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    served.fault = fault
    assert read(tmp_path) == PAIRS
    assert not slept or "late" in fault


def test_L3_a_hub_that_never_answers(served, tmp_path, monkeypatch):
    """It takes the connection and says nothing, as behind some firewalls."""
    assert hub.PROBE_SECONDS < 60
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    served.fault = "silent"
    started = time.monotonic()
    fails(PlatformError, UNREACHABLE, read, tmp_path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("seconds", [0.5, pytest.param(None, marks=pytest.mark.slow)])
def test_L3_a_hub_that_falls_silent(served, tmp_path, monkeypatch, seconds):
    """After the first answer the library alone would wait for minutes."""
    import datasets
    import huggingface_hub.constants as constants

    served.fault = "late silent"
    served.add(files(PAIRS))
    whole = hub.SEARCH_SECONDS
    monkeypatch.setattr(hub, "SEARCH_SECONDS", seconds or whole)
    started = time.monotonic()
    wanted = f"{UNREACHABLE}no answer within {hub.SEARCH_SECONDS:g} s)"
    assert fails(PlatformError, wanted, read, tmp_path).endswith(LOCAL)
    assert time.monotonic() - started < hub.SEARCH_SECONDS + 5 < 60
    if seconds is None:
        return
    for fault, limit in (("", whole), ("late silent", seconds)):  # in two new processes
        for module in (constants, datasets.config):
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "SEARCH_SECONDS", limit)
        served.fault = fault
        assert read(tmp_path) == PAIRS
    started = time.monotonic()
    assert read(tmp_path) == PAIRS  # of the cache, and it does not wait again
    assert time.monotonic() - started < 0.5


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
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        from huggingface_hub import close_session

        close_session()
        line = fails(PlatformError, UNREACHABLE, read, tmp_path)
        monkeypatch.undo()
        close_session()
    assert line.endswith(LOCAL)
    assert not served.asked
    assert sum(slept) < 60


def in_a_process(tmp_path, spec: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from test_filters import data_config, pairs_of\n"
        "from seq2seq.run import errors\n"
        f"try: list(pairs_of(data_config(root={str(tmp_path)!r}, train=[{spec!r}])))\n"
        "except errors.UserError as error: sys.exit(errors.print_error(error))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    changes = {"PYTHONPATH": paths, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **changes},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://192.0.2.1", "http://x.invalid"])
def test_L3_unreachable_host(tmp_path, endpoint):
    """Refused, never answered (an address reserved for documentation), and unknown by name."""
    done = in_a_process(tmp_path, "hub:me/pairs", endpoint)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith(f"error: {UNREACHABLE}")
    assert done.stderr.count("\n") == 1


def test_L3_the_cache_of_a_download_serves_without_network(cache, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    write(tmp_path / "multi30k/train.jsonl", json_lines(map(flat, PAIRS)))
    assert read(tmp_path, "hub:multi30k") == PAIRS
    (cache / "multi30k").rename(cache / "bentrevett___multi30k")  # where a download would lie
    for spec in ("hub:bentrevett/multi30k", "hub:bentrevett/multi30k:default:train"):
        assert read(tmp_path, spec) == PAIRS


def test_L3_local_data_asks_nobody(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write(tmp_path / "a.en", b"a\n")
    write(tmp_path / "a.fr", b"b\n")
    write(tmp_path / "set/train.jsonl", json_lines(map(flat, PAIRS)))
    assert list(pairs_of(config(tmp_path, "a.en", "a.fr"))) == [Pair("a", "b")]
    assert read(tmp_path, "hub:./set") == PAIRS
    cfg = composed("debug").data
    assert len(list(pairs_of(cfg))) == cfg.grammar.train_pairs


# What changed on the Hub


def test_L4_a_dataset_that_is_missing_or_renamed(served, tmp_path):
    """Under its old name the Hub has nothing (it may also redirect, which the library follows)."""
    served.add(files(PAIRS))
    served.name = "me/newname"
    fails(PlatformError, "hub:me/pairs: does not exist on the Hub", read, tmp_path)
    assert read(tmp_path, "hub:me/newname") == PAIRS


def test_L4_columns_that_changed(served, tmp_path):
    rows = json_lines({"text": "a", "label": n} for n in range(3))
    served.add({"README.md": README, "train.jsonl": rows, "test.jsonl": rows})
    wanted = "hub:me/pairs row 1: has 'text', 'label'; wanted 'en' and 'fr'"
    fails(DataError, wanted, read, tmp_path)


def test_L4_a_pinned_commit_stays_what_it_was(served, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    old, new = served.add(files(PAIRS)), served.add(files(PAIRS[:3]))
    caplog.clear()  # of what was logged before, if an earlier test turned that on
    with caplog.at_level(logging.INFO, "seq2seq"):
        assert read(tmp_path) == PAIRS[:3]  # the newest, and it says which
        assert read(tmp_path, f"hub:me/pairs@{old}") == PAIRS
        assert read(tmp_path, f"hub:me/pairs@{old[:8]}:en-fr:train[:2]") == PAIRS[:2]
    assert caplog.messages == [
        f"hub:me/pairs: commit {new}",
        f"hub:me/pairs@{old}: commit {old}",
        f"hub:me/pairs@{old[:8]}:en-fr:train[:2]: commit {old}",
    ]


def test_L4_commit_rows_and_their_checksum_are_recorded(served, tmp_path):
    commit = served.add(files(PAIRS))
    write(tmp_path / "set/train.jsonl", json_lines(map(flat, PAIRS)))
    rows = "".join(f'{{"en": "{pair.src}", "fr": "{pair.tgt}"}}\n' for pair in PAIRS)
    for spec, name in (("hub:me/pairs", f"me/pairs@{commit}"), (f"hub:{tmp_path}/set", "set")):
        place = Place(config(tmp_path, spec), "train")
        assert len(list(scan_pairs(place))) == len(PAIRS)
        [summary] = place.inputs
        assert (summary.name, summary.lines) == (name, len(PAIRS))
        assert summary.sha256 == hashlib.sha256(rows.encode()).hexdigest()


def test_L4_a_commit_that_is_not_there(served, tmp_path):
    served.add(files(PAIRS))
    missing = "0" * 40
    wanted = f"hub:me/pairs@{missing}: has no revision '{missing}' on the Hub"
    fails(PlatformError, wanted, read, tmp_path, f"hub:me/pairs@{missing}")


@pytest.mark.parametrize("fault", ["silent", "500", "late 500"])
def test_L4_the_cache_does_not_pass_for_another_commit(served, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    old, new = served.add(files(PAIRS)), served.add(files(PAIRS[:3]))
    assert read(tmp_path) == PAIRS[:3]
    served.fault = fault
    assert read(tmp_path, f"hub:me/pairs@{new}") == PAIRS[:3]
    for revision in (old, "v1.0"):
        wanted = f"the cache has only commit {new}, and the Hub does not give {revision}. Connect"
        if fault != "late 500" or revision != "v1.0":  # the Hub itself says that it has no v1.0
            fails(PlatformError, wanted, read, tmp_path, f"hub:me/pairs@{revision}")


# Programs


@pytest.mark.parametrize("spec", ["hub:me/pairs", "hub:./pairs"])
def test_L5_a_dataset_that_is_a_program(served, tmp_path, spec):
    ran = tmp_path / "ran"
    program = {"pairs.py": f"open({str(ran)!r}, 'w')".encode()}
    served.add({**files(PAIRS), **program})
    write(tmp_path / "pairs/pairs.py", program["pairs.py"])
    wanted = f"{spec}: the dataset is a program, which is never run (Dataset scripts are no"
    fails(UntrustedError, wanted, read, tmp_path, spec)
    assert not ran.exists()


# Names, and directories laid out like datasets


def test_a_name_is_taken_apart(tmp_path):
    place = Place(config(tmp_path, "hub:me/pairs@abc:en-fr:train[:2]"), "train")
    found = hub.parse_hub_name(place)
    assert (found.name, found.revision, found.config) == ("me/pairs", "abc", "en-fr")
    assert (found.local, found.split) == (None, "train[:2]")
    found = hub.parse_hub_name(Place(config(tmp_path, "hub:me/pairs"), "train"))
    assert (found.revision, found.config, found.split) == (None, None, "train")
    fails(ConfigError, "'hub::x' names no dataset", read, tmp_path, "hub::x")


def test_flat_rows_of_a_directory(tmp_path, monkeypatch):
    """One JSON Lines file a split, no config."""
    for split in ("train", "validation", "test"):
        rows = [flat(Pair(f"{split} {number}", "x\ny")) for number in range(5)]
        write(tmp_path / f"multi30k/{split}.jsonl", json_lines(rows))
    cfg = config(tmp_path, "hub:multi30k", validation=["hub:./multi30k"])
    cfg.test = [f"hub:{tmp_path}/multi30k::test[1:3]"]
    assert [pair.src for pair in pairs_of(cfg)] == [f"train {n}" for n in range(5)]
    assert next(pairs_of(cfg, "validation")).src == "validation 0"
    assert list(pairs_of(cfg, "test")) == [Pair("test 1", "x y"), Pair("test 2", "x y")]
    monkeypatch.chdir(tmp_path)
    cfg.root = "elsewhere"
    assert len(list(pairs_of(cfg))) == 5


@pytest.fixture
def wmt14(tmp_path) -> Path:
    """A `translation` struct, Parquet in shards, several configs, named in README.md."""
    header = ["configs:"]
    for name in ("fr-en", "de-en"):
        header += [f"- config_name: {name}", f"  data_files: {name}/train-*"]
        for shard in (0, 1):
            path = tmp_path / f"wmt14/{name}/train-0000{shard}-of-00002.parquet"
            row = {name[:2]: f"{name} {shard}", "en": "train"}
            write(path, parquet([{"translation": row}] * 2))
    write(tmp_path / "wmt14/README.md", "\n".join(["---", *header, "---", "# WMT"]).encode())
    return tmp_path


@pytest.mark.parametrize("spec", ["hub:wmt14:fr-en", "hub:wmt14:fr-en:train"])
def test_a_translation_struct_in_either_direction(wmt14, spec):
    expected = [Pair("train", f"fr-en {shard}") for shard in (0, 0, 1, 1)]
    assert read(wmt14, spec) == expected
    cfg = config(wmt14, spec, source_language="fr", target_language="en")
    assert list(pairs_of(cfg)) == [Pair(pair.tgt, pair.src) for pair in expected]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("hub:wmt14", "Please pick one among the available configs: ['fr-en', 'de-en']"),
        ("hub:wmt14:ru-en", "BuilderConfig 'ru-en' not found. Available: ['fr-en', 'de-en']"),
        ("hub:wmt14:fr-en:dev", """cannot be read (Unknown split "dev". Should be one of ['tr"""),
        ("hub:wmt14:de-en", "row 1: has 'de', 'en'; wanted 'en' and 'fr'"),
        ("hub:./wmt15", "wmt15: no such directory"),
        ("hub:./pairs.tsv", "pairs.tsv: no such directory"),  # of the latest form that matches
        ("hub:/no/such", "/no/such: no such directory"),
        ("hub:~/no/such", "no/such: no such directory"),
        ("hub:data/some/where", "data/some/where: no such directory"),
        ("hub:./bare", "doesn't contain any data files"),
        ("hub:./broken", "hub:./broken: cannot be read ("),
    ],
)
def test_mistakes_in_the_name(wmt14, capfd, spec, wanted):
    (wmt14 / "bare").mkdir()
    write(wmt14 / "broken/train.jsonl", b'{"en": \n')
    fails(DataError, wanted, read, wmt14, spec)
    assert capfd.readouterr().err == ""


def test_the_library_is_quiet(tmp_path):
    """Left alone, it logs what is wrong with the JSON, and draws bars."""
    write(tmp_path / "broken/train.jsonl", b'{"en": \n')
    done = in_a_process(tmp_path, "hub:./broken", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: hub:./broken: cannot be read (")
    assert done.stderr.count("\n") == 1


def test_a_bug_of_the_library_stays_a_bug(tmp_path, monkeypatch):
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    write(tmp_path / "set/train.jsonl", json_lines(map(flat, PAIRS)))
    with pytest.raises(RuntimeError, match="something else"):
        read(tmp_path, "hub:set")


# Tables of text: a cell is what it says

ODD = {
    "nothing": "None null NA N/A n/a nan NaN #N/A NULL <NA> -nan 1.#IND",
    "numbers": "inf TRUE false 2020 01 1.50 1e5 0x10 1,000 2020-01-01 12:30",
    "marks": """ "Stop, ""Stop"" a"b 'tis # // =1+1 @x""",
}
CELLS = [cell for cells in ODD.values() for cell in cells.split()]
CELLS += ["a, b", " a ", ""]


def table(pairs: list[Pair], separator: str) -> bytes:
    """As a program writes CSV, or as TSV is: no quotes at all."""
    text = io.StringIO()
    if separator == ",":
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([("fr", "id", "en"), *((p.tgt, "7", p.src) for p in pairs)])
    else:
        text.write("fr\tid\ten\n" + "".join(f"{p.tgt}\t7\t{p.src}\n" for p in pairs))
    return text.getvalue().encode()


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t")])
def test_cells_of_a_table_stay_what_they_say(tmp_path, ending, separator):
    """Each odd text alone in its column, and all of them together."""
    for number, pairs in enumerate([[Pair(x, f"y {x}")] * 2 for x in CELLS[3::7]]):
        write(tmp_path / f"{number}/train.{ending}", table(pairs, separator))
        assert read(tmp_path, f"hub:./{number}") == pairs
    pairs = [Pair(x, y) for x, y in zip(CELLS, reversed(CELLS), strict=True)]
    write(tmp_path / f"all/train.{ending}", table(pairs, separator))
    assert read(tmp_path, "hub:./all") == pairs


def test_a_quotation_mark_of_a_csv_that_has_no_end_is_an_error(tmp_path):
    data = b'en,fr\n"Stop,Arr\xc3\xaate\nthe cat,le chat\na "b",c\nd,e\n'
    write(tmp_path / "set/train.csv", data)
    wanted = (
        "the cat,le chat\\na ' goes on over a line end: double a lone quotation mark). Correct the"
    )
    fails(DataError, wanted, read, tmp_path, "hub:./set")


def test_a_table_of_the_hub_is_served_from_the_cache_as_well(served, tmp_path, monkeypatch):
    pairs = [Pair("None", "2020"), Pair('"a', "1.50")]
    readme = README.replace(b"jsonl", b"tsv")
    data = table(pairs, "\t")
    served.add({"README.md": readme, "train.tsv": data, "test.tsv": data})
    assert read(tmp_path, "hub:me/pairs:en-fr") == pairs
    served.fault = "500"
    assert read(tmp_path, "hub:me/pairs:en-fr") == pairs
