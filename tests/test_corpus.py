"""Reading: lines against an independent count, every fault with its file and line, all places."""

import gzip
import hashlib
import io
import json
import logging
import lzma
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from urllib.error import URLError

import pytest
from test_filters import data_config

from seq2seq.data import hub, text
from seq2seq.data.corpus import fingerprint, read_pairs, scan_pairs
from seq2seq.data.filters import keep
from seq2seq.data.pair import Pair
from seq2seq.data.text import FileReport, read_lines, read_parallel, scan_lines, scan_stream
from seq2seq.errors import ConfigError, DataError, PlatformError, UntrustedError, one_line
from seq2seq.settings import OnBadLine

PAIRS = [Pair("the cat .", "le chat ."), Pair("é\u2028ü", '"'), Pair("NA", "null")]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fails(error, wanted: str, call, *args) -> None:
    """The call raises exactly this class, with `wanted` in a message of one line."""
    with pytest.raises(error) as caught:
        list(call(*args))
    assert caught.type is error
    line = one_line(caught.value)
    assert wanted in line
    assert "\n" not in line
    assert caught.value.fix


# Lines


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_C5_only_newline_ends_a_line(tmp_path, tally, count):
    seed = 5
    draw = random.Random(seed)
    breaks = ["\n", "\r\n", "\r", "\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "a", "é", " "]
    path = tmp_path / "random.txt"
    for _ in range(count):
        data = "".join(draw.choices(breaks, k=draw.randrange(12))).encode()
        path.write_bytes(data)
        lines = list(read_lines(path))
        unterminated = data != b"" and not data.endswith(b"\n")
        assert len(lines) == data.count(b"\n") + unterminated, (seed, data)
        assert len(lines) == len(list(scan_stream(io.BytesIO(data), "stdin", FileReport("stdin"))))
        parts = data.split(b"\n")[: len(lines)]
        assert [line.encode() for line in lines] == [
            part[:-1] if part.endswith(b"\r") else part for part in parts
        ], (seed, data)
        report = FileReport("random.txt")
        list(scan_lines(path, report))
        assert report.carriage_returns == sum(part.endswith(b"\r") for part in parts), (seed, data)
        assert report.sha256 == hashlib.sha256(data).hexdigest()
    tally("C5", "random line ends", count, count, "as many lines as line feeds say")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\n", ["a", ""]),
        (b"a\r\r\n", ["a\r"]),  # one \r goes
        (b"a\r", ["a"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),  # the mark goes from line 1 only
        (b"\xef\xbb\xbf", [""]),
        (b"\x01\x1b\x7f\n", ["\x01\x1b\x7f"]),
        ("\U0010ffff\ue000e\u0301\n".encode(), ["\U0010ffff\ue000e\u0301"]),
    ],
)
def test_lines(tmp_path, data, expected):
    assert list(read_lines(write(tmp_path / "a.txt", data))) == expected


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"a\n0123456789abcdef\xff\n", "a.txt:2: invalid UTF-8 byte 0xff at byte 17. If the file"),
        (b"caf\xe9\n", "a.txt:1: invalid UTF-8 byte 0xe9 at byte 4. If the file is Latin-1"),
        (b"caf\xe9 noir\n", "ISO-8859-1"),
        (b"a\n\xe2\x82", "a.txt:2: invalid UTF-8 byte 0xe2 at byte 1. The file ends inside"),
        (b"/\xc0\xaf\n", "a.txt:1: invalid UTF-8 byte 0xc0 at byte 2. It is an overlong"),
        (
            b"\xed\xa0\x80\xed\xb0\x80\n",
            "byte 0xed at byte 1. It is half a surrogate pair (CESU-8)",
        ),
        ("hé\n".encode("utf-16"), "a.txt:1: invalid UTF-8 byte 0xff at byte 1. It is UTF-16"),
        ("h\n".encode("utf-16-le"), "a.txt:1: NUL at byte 2"),
        ("hello\n".encode("utf-16-be"), "a.txt:1: NUL at byte 1. It looks like UTF-16"),
        (b"a\nb\0\n", "a.txt:2: NUL at byte 2. Remove it."),
        (
            b"x\n" * 1233 + b"0123456789abcdef\xff\n",
            "a.txt:1234: invalid UTF-8 byte 0xff at byte 17",
        ),
    ],
)
def test_C3_C4_bad_bytes(tmp_path, data, wanted):
    fails(DataError, wanted, read_lines, write(tmp_path / "a.txt", data))


def test_line_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 10)
    path = write(tmp_path / "a.gz", gzip.compress(b"123456789\n" + b"1234567890\n"))
    fails(DataError, "a.gz:2: line above 10 bytes", read_lines, path)


# Archives


@pytest.mark.parametrize("name", ["a.gz", "a.xz", "a.txt"])
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_C9_archives_by_content(tmp_path, name, pack):
    path = write(tmp_path / name, pack("é\nb".encode()) + pack(b"c\n"))  # joined members
    if (name, pack) in [("a.gz", lzma.compress), ("a.xz", gzip.compress)]:
        fails(DataError, f"is named {name[1:]} but holds something else", read_lines, path)
    else:
        assert list(read_lines(path)) == ["é", "bc"]


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_C9_damaged_archives(tmp_path, ending, pack):
    packed = pack(random.Random(1).randbytes(300).hex().encode() + b"\n")
    path = tmp_path / f"train.en{ending}"
    flipped = bytearray(packed)
    flipped[-6 if ending == ".gz" else -20] ^= 1
    for damaged in (packed[: len(packed) // 2], packed[:8], bytes(flipped)):
        fails(DataError, f"train.en{ending}: damaged archive", read_lines, write(path, damaged))
    fails(DataError, f"is named {ending} but is empty", read_lines, write(path, b""))
    wanted = f"is named {ending} but holds something else"
    fails(DataError, wanted, read_lines, write(path, b"plain text\n"))


def test_C9_gzip_checksum(tmp_path):
    packed = bytearray(gzip.compress(b"a\n" * 100))
    packed[-8] ^= 1
    fails(DataError, "CRC", read_lines, write(tmp_path / "a.gz", bytes(packed)))


# Files that are none


@pytest.mark.parametrize("name", ["missing", "file/below", "folder", "pipe", "loop", "n" * 300])
def test_C10_no_file(tmp_path, name):
    write(tmp_path / "file", b"a\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    wanted = {
        "missing": "missing: no such file",
        "file/below": "no such file",
        "folder": "folder: is a directory",
        "pipe": "pipe: is not a regular file",
        "loop": "loop: cannot be opened (Too many levels of symbolic links)",
    }
    fails(DataError, wanted.get(name, "File name too long"), read_lines, tmp_path / name)


def test_C10_devices_and_odd_names():
    for device in ("/dev/null", "/dev/zero"):
        fails(DataError, f"{device}: is not a regular file", read_lines, Path(device))
    fails(DataError, "cannot be opened", read_lines, Path("a\0b"))


def test_C10_unreadable(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", b"a\n")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # as root, no mode would stop us
    fails(PlatformError, "a.txt: may not be read", read_lines, path)


def test_disk_fails(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gz", gzip.compress(b"a\n"))

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(gzip.GzipFile, "readline", fail)
    fails(PlatformError, "a.gz: cannot be read (Input/output error)", read_lines, path)


# Two files


@pytest.mark.parametrize("difference", [1, -1, 1000, -1000])
@pytest.mark.parametrize("ending", ["\n", ""])
def test_C1_unequal_counts(tmp_path, difference, ending):
    counts = {"train.fr": 1500, "train.en": 1500 + difference}
    for name, count in counts.items():
        write(tmp_path / name, ("\n".join(["x"] * count) + ending).encode())
    for first, second in (("train.fr", "train.en"), ("train.en", "train.fr")):
        wanted = f"{first} has {counts[first]} lines, {second} has {counts[second]}"
        fails(DataError, wanted, read_parallel, tmp_path / first, tmp_path / second)


def test_unequal_counts_of_one_name(tmp_path):
    paths = [write(tmp_path / "en/train", b"a\n"), write(tmp_path / "fr/train", b"")]
    fails(DataError, f"{paths[0]} has 1 lines, {paths[1]} has 0", read_parallel, *paths)


def test_C1_limit_does_not_hide_unequal_counts(tmp_path):
    write(tmp_path / "train.en", b"a\nb\nc\n")
    write(tmp_path / "train.fr", b"a\nb\n")
    cfg = data_config(root=str(tmp_path), limit=1)
    fails(DataError, "train.en has 3 lines", keep, read_pairs(cfg, "train"), cfg)


def test_C17_one_file_for_both_sides_warns(tmp_path, caplog):
    path = write(tmp_path / "a", b"x\n")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "other").hardlink_to(path)
    for name in ("a", "link", "other"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert list(read_parallel(path, tmp_path / name)) == [("x", "x")]
        assert "is both source and target" in caplog.text
    caplog.clear()
    write(tmp_path / "equal", b"x\n")
    assert list(read_parallel(path, tmp_path / "equal")) == [("x", "x")]
    assert not caplog.text


# Places: every form gives the same pairs


def nested(pair: Pair) -> dict[str, object]:
    return {"id": "1", "translation": {"fr": pair.tgt, "en": pair.src}}


def flat(pair: Pair) -> dict[str, object]:
    return {"fr": pair.tgt, "other": 3, "en": pair.src}


def json_lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_parquet(path: Path, rows) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def place(tmp_path, *names, **changes):
    return data_config(root=str(tmp_path), train=list(names), **changes)


@pytest.mark.parametrize("pack", [None, gzip.compress, lzma.compress])
@pytest.mark.parametrize("form", ["parallel", "tsv", "flat.jsonl", "nested.json"])
def test_text_forms(tmp_path, form, pack):
    ending = {None: "", gzip.compress: ".gz", lzma.compress: ".xz"}[pack]
    contents = {
        "parallel": {
            "p.en": "".join(f"{p.src}\n" for p in PAIRS).encode(),
            "p.fr": "".join(f"{p.tgt}\n" for p in PAIRS).encode(),
        },
        "tsv": {"p.tsv": "".join(f"{p.src}\t{p.tgt}\n" for p in PAIRS).encode()},
        "flat.jsonl": {"p.jsonl": json_lines(map(flat, PAIRS))},
        "nested.json": {"p.json": json_lines(map(nested, PAIRS))},
    }[form]
    for name, data in contents.items():
        write(tmp_path / f"{name}{ending}", pack(data) if pack else data)
    cfg = place(tmp_path, *(f"{name}{ending}" for name in contents))
    assert list(read_pairs(cfg, "train")) == PAIRS


@pytest.mark.parametrize("shape", [nested, flat])
def test_parquet(tmp_path, shape):
    write_parquet(tmp_path / "p.parquet", [shape(pair) for pair in PAIRS * 700])
    assert list(read_pairs(place(tmp_path, "p.parquet"), "train")) == PAIRS * 700


def test_each_split_reads_its_own_file(tmp_path):
    for split in ("train", "validation", "test"):
        write(tmp_path / f"{split}.tsv", f"{split}\tx\n".encode())
    cfg = place(tmp_path, "train.tsv")
    cfg.validation, cfg.test = ["validation.tsv"], [str(tmp_path / "test.tsv")]  # absolute
    for split in ("train", "validation", "test"):
        assert list(read_pairs(cfg, split)) == [Pair(split, "x")]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"a\tb\nc\n", "p.tsv:2: expected 2 columns, found 1"),
        (b"a\tb\tc\n", "p.tsv:1: expected 2 columns, found 3"),
        (b"a\tb\t\n", "p.tsv:1: expected 2 columns, found 3"),
        (b'"a\tb"\tc\n', "p.tsv:1: expected 2 columns, found 3"),
        (b"a\tb\n\n", "p.tsv:2: expected 2 columns, found 1"),
        (b"a\t\xff\n", "p.tsv:1: invalid UTF-8 byte 0xff at byte 3"),
        (b"", "p.tsv: holds no sentence pair"),
    ],
)
def test_C8_bad_tsv(tmp_path, data, wanted):
    write(tmp_path / "p.tsv", data)
    fails(DataError, wanted, read_pairs, place(tmp_path, "p.tsv"), "train")


def test_C8_tsv_takes_quotes_and_empty_fields_as_they_are(tmp_path):
    write(tmp_path / "p.tsv", b'"a\tb\n\tb\na\t\n')
    pairs = list(read_pairs(place(tmp_path, "p.tsv"), "train"))
    assert pairs == [Pair('"a', "b"), Pair("", "b"), Pair("a", "")]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('{"en": "a"', "p.jsonl:2: not JSON (Expecting"),
        ("", "p.jsonl:2: not JSON"),
        ("[" * 100_000, "p.jsonl:2: not JSON (maximum recursion depth"),
        ("[]", "p.jsonl:2: expected an object, found list"),
        ('{"en": "a", "de": "b"}', "p.jsonl:2: has 'en', 'de'; wanted 'en' and 'fr'"),
        ('{"translation": {"de": "b"}}', "p.jsonl:2: has 'de'; wanted"),
        ("{}", "p.jsonl:2: has no column; wanted"),
        ('{"en": 3, "fr": "b"}', "p.jsonl:2, en: expected text, found int"),
        (r'{"en": "a\u0000", "fr": "b"}', "p.jsonl:2, en: NUL at character 2"),
        (r'{"en": "a", "fr": "\ud800"}', "p.jsonl:2, fr: half a surrogate pair at character 1"),
    ],
)
def test_bad_json_lines(tmp_path, line, wanted):
    write(tmp_path / "p.jsonl", b'{"en": "a", "fr": "b"}\n' + line.encode() + b"\n")
    fails(DataError, wanted, read_pairs, place(tmp_path, "p.jsonl"), "train")


def test_line_ends_inside_texts_and_null(tmp_path):
    rows = [{"en": "a\r\n\nb\u2028c", "fr": "d\re\n"}, {"en": "x", "fr": None}]
    expected = [Pair("a b\u2028c", "d e "), Pair("x", "")]
    write(tmp_path / "p.jsonl", json_lines(rows))
    write_parquet(tmp_path / "p.parquet", rows)
    for name in ("p.jsonl", "p.parquet"):
        assert list(read_pairs(place(tmp_path, name), "train")) == expected


def test_bad_parquet(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", [{"en": "a", "de": "b"}])
    read = (read_pairs, place(tmp_path, "p.parquet"), "train")
    fails(DataError, "p.parquet row 1: has 'en'; wanted 'en' and 'fr'", *read)
    write_parquet(path, [{"x": 1}])
    fails(DataError, "p.parquet row 1: has 'x'; wanted", *read)
    write(path, b"PAR1 no")
    fails(DataError, "p.parquet: damaged Parquet file", *read)
    write_parquet(path, [flat(PAIRS[0])] * 3)
    write(path, path.read_bytes()[:-20])
    fails(DataError, "p.parquet: damaged Parquet file", *read)
    path.unlink()
    fails(DataError, "p.parquet: no such file", *read)


@pytest.mark.parametrize(
    "names", [[], ["a", "b", "c"], ["train.txt"], ["grammar"], ["embeded"], ["p.tsv.bz2"]]
)
def test_unknown_place_is_refused_at_once(tmp_path, names):
    with pytest.raises(ConfigError, match=r"data.train=\[.*\] is no place to read pairs from. Use"):
        read_pairs(place(tmp_path, *names), "train")


def test_embedded(monkeypatch):
    asked = []

    def generate(split, count, **settings):
        asked.append((split, count, settings))
        yield Pair("a", "b", ((0, 0),))

    module = types.SimpleNamespace(generate=generate)
    monkeypatch.setitem(sys.modules, "seq2seq.data.toy", module)
    cfg = place(Path(), "embedded")
    for split, count in (("train", 10), ("validation", 5)):
        assert list(read_pairs(cfg, split)) == [Pair("a", "b", ((0, 0),))]
        assert asked.pop() == (split, count, {"seed": 1, "min_words": 3, "max_words": 9})
    cfg.target_language = "de"
    wanted = "config: the embedded corpus is en-fr, not en-de"
    fails(ConfigError, wanted, read_pairs, cfg, "train")


# The Hub, seen through folders of the same layout


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The libraries keep what they convert below tmp_path, and no host answers."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "answers", lambda url: False)
    return tmp_path / "cache"


@pytest.fixture
def multi30k(tmp_path):
    """Flat columns, one JSON Lines file a split, no config, `val` for validation."""
    for split in ("train", "val", "test"):
        rows = [flat(Pair(f"{split} {number}", "x\ny")) for number in range(5)]
        write(tmp_path / f"multi30k/{split}.jsonl", json_lines(rows))
    return tmp_path


@pytest.fixture
def wmt14(tmp_path):
    """A `translation` struct, Parquet in shards, configs in one direction, named in README.md."""
    header = ["configs:"]
    for config in ("fr-en", "de-en", "cs-en"):
        header += [f"- config_name: {config}", "  data_files:"]
        for split in ("train", "validation", "test"):
            header += [f"  - split: {split}", f"    path: {config}/{split}-*"]
            for shard in (0, 1):
                path = tmp_path / f"wmt14/{config}/{split}-0000{shard}-of-00002.parquet"
                row = {config[:2]: f"{config} {shard}", "en": split}
                write_parquet(path, [{"translation": row}] * 2)
    write(tmp_path / "wmt14/README.md", "\n".join(["---", *header, "---", "# WMT"]).encode())
    return tmp_path


@pytest.mark.usefixtures("cache")
def test_hub_flat_rows(multi30k, monkeypatch):
    cfg = place(multi30k, "hub:multi30k")
    cfg.validation = ["hub:./multi30k"]
    cfg.test = [f"hub:{multi30k}/multi30k::test[1:3]"]
    assert [pair.src for pair in read_pairs(cfg, "train")] == [f"train {n}" for n in range(5)]
    assert next(read_pairs(cfg, "validation")).src.startswith("val ")
    assert list(read_pairs(cfg, "test")) == [Pair("test 1", "x y"), Pair("test 2", "x y")]
    monkeypatch.chdir(multi30k)
    cfg.root = "elsewhere"
    assert len(list(read_pairs(cfg, "train"))) == 5


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("spec", ["hub:wmt14", "hub:wmt14:fr-en", "hub:wmt14:en-fr:train"])
def test_hub_translation_struct_in_either_direction(wmt14, spec):
    expected = [Pair("train", f"fr-en {shard}") for shard in (0, 0, 1, 1)]
    cfg = place(wmt14, spec)
    assert list(read_pairs(cfg, "train")) == expected
    cfg.source_language, cfg.target_language = "fr", "en"
    assert list(read_pairs(cfg, "train")) == [Pair(pair.tgt, pair.src) for pair in expected]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("hub:wmt14:ru-en", "has no config 'ru-en'; there are fr-en, de-en, cs-en"),
        ("hub:wmt14:fr-en:dev", 'cannot be read (Unknown split "dev"'),
        ("hub:wmt14:de-en", "row 1: has 'de', 'en'; wanted 'en' and 'fr'"),
        ("hub:multi30k:x-y", "cannot be read (BuilderConfig 'x-y' not found"),
        ("hub:./wmt15", "wmt15: no such folder"),
        ("hub:/no/such", "/no/such: no such folder"),
        ("hub:~/no/such", "no/such: no such folder"),
        ("hub:data/some/where", "data/some/where: no such folder"),
        ("hub:json", "hub:json: is a file format, no dataset"),
        ("hub:./bare", "doesn't contain any data files"),
        ("hub:./broken", "hub:./broken: cannot be read ("),
        ("hub:./books", "has no split 'validation'; there are train. Write one"),
    ],
)
def test_hub_mistakes(wmt14, multi30k, capfd, spec, wanted):
    (wmt14 / "bare").mkdir()
    write(wmt14 / "broken/train.jsonl", b'{"en": \n')
    write(wmt14 / "books/train.jsonl", json_lines(map(flat, PAIRS)))
    cfg = place(multi30k, spec)
    cfg.validation = cfg.train
    split = "validation" if "books" in spec else "train"
    with pytest.raises(DataError) as caught:
        list(read_pairs(cfg, split))
    line = one_line(caught.value)
    assert wanted in line
    assert "\n" not in line
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["val", "dev", "valid"])
def test_hub_other_names_of_validation(tmp_path, name):
    header = (
        f"---\nconfigs:\n- config_name: x\n  data_files:\n  - {{split: {name}, path: a.jsonl}}\n"
    )
    write(tmp_path / "set/README.md", f"{header}---\n".encode())
    write(tmp_path / "set/a.jsonl", json_lines(map(flat, PAIRS)))
    cfg = place(tmp_path)
    cfg.validation = ["hub:set"]
    assert len(list(read_pairs(cfg, "validation"))) == len(PAIRS)


@pytest.mark.usefixtures("cache")
def test_L5_hub_program_is_refused_and_not_run(tmp_path):
    write(tmp_path / "evil/evil.py", f"open({str(tmp_path / 'ran')!r}, 'w')".encode())
    wanted = "hub:./evil: the dataset is a program, which is never run"
    fails(UntrustedError, wanted, read_pairs, place(tmp_path, "hub:./evil"), "train")
    assert not (tmp_path / "ran").exists()


def test_hub_without_a_name(tmp_path):
    fails(ConfigError, "'hub::x' names no dataset", read_pairs, place(tmp_path, "hub::x"), "train")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("raised", "error", "wanted"),
    [
        ("DatasetNotFoundError", PlatformError, "hub:a/b: Dataset 'a/b' doesn't exist. Check the"),
        ("HTTPError", PlatformError, "hub:a/b: cannot be fetched (503 Server Error). Try again"),
        ("RuntimeError", RuntimeError, ""),  # a bug stays a bug
    ],
)
def test_L3_L4_hub_answers_with_an_error(tmp_path, monkeypatch, raised, error, wanted):
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError

    kinds = {
        "DatasetNotFoundError": DatasetNotFoundError("Dataset 'a/b' doesn't exist."),
        "HTTPError": HfHubHTTPError.__bases__[0]("503 Server Error\nand more"),
        "RuntimeError": RuntimeError("something else"),
    }

    def refuse(path, revision):
        raise kinds[raised]

    monkeypatch.setattr(hub, "answers", lambda url: True)
    monkeypatch.setattr(datasets, "get_dataset_config_names", refuse)
    with pytest.raises(error) as caught:
        list(read_pairs(place(tmp_path, "hub:a/b"), "train"))
    assert raised == "RuntimeError" or wanted in one_line(caught.value)


@pytest.mark.usefixtures("multi30k")
def test_L3_hub_without_network_uses_the_cache(cache, tmp_path):
    cfg = place(tmp_path, "hub:multi30k")
    pairs = list(read_pairs(cfg, "train"))
    (cache / "multi30k").rename(cache / "bentrevett___multi30k")  # where a download would lie
    for spec in ("hub:bentrevett/multi30k", "hub:bentrevett/multi30k:default:train"):
        assert list(read_pairs(place(tmp_path, spec), "train")) == pairs


@pytest.mark.usefixtures("cache")
def test_L3_hub_without_network_or_cache(tmp_path, capfd, monkeypatch):
    import datasets
    import huggingface_hub.constants

    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    wanted = "hub:wmt/wmt14:fr-en: the Hugging Face Hub cannot be reached and its cache has no"
    fails(PlatformError, wanted, read_pairs, place(tmp_path, "hub:wmt/wmt14:fr-en"), "train")
    wanted = "name local files instead, data.train=[train.en,train.fr]"
    fails(PlatformError, wanted, read_pairs, place(tmp_path, "hub:wmt/wmt14"), "train")
    assert time.monotonic() - started < 5
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert capfd.readouterr().err == ""


def in_a_process(tmp_path, spec: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from test_filters import data_config; from seq2seq import errors; import sys\n"
        "from seq2seq.data.corpus import read_pairs\n"
        f"try: list(read_pairs(data_config(root={str(tmp_path)!r}, train=[{spec!r}]), 'train'))\n"
        "except errors.UserError as error: sys.exit(errors.report(error))\n"
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


@pytest.mark.e2e
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://192.0.2.1", "http://x.invalid"])
def test_L3_unreachable_host(tmp_path, endpoint):
    """Refused, never answered (an address reserved for documentation), and unknown by name."""
    done = in_a_process(tmp_path, "hub:bentrevett/multi30k", endpoint)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("error: hub:bentrevett/multi30k: the Hugging Face Hub cannot")
    assert done.stderr.count("\n") == 1


@pytest.mark.e2e
def test_the_library_is_quiet(tmp_path):
    """Left alone, it logs what is wrong with the JSON, and draws bars."""
    write(tmp_path / "broken/train.jsonl", b'{"en": \n')
    done = in_a_process(tmp_path, "hub:./broken", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: hub:./broken: cannot be read (")
    assert done.stderr.count("\n") == 1


def test_L3_probe():
    """A refusal is an answer; silence, a closed port and nonsense are none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def answer(reply: bytes) -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        for reply, expected in ((b"HTTP/1.1 403 Forbidden\r\n\r\n", True), (b"?\r\n\r\n", False)):
            thread = threading.Thread(target=answer, args=(reply,))
            thread.start()
            assert hub.answers(url) == expected
            thread.join()
        started = time.monotonic()
        assert not hub.answers(url, seconds=0.2)  # accepted by the system, never answered
        assert time.monotonic() - started < 2
    assert not hub.answers(url)
    assert not hub.answers("nonsense")


def test_L3_probe_does_not_wait_for_a_slow_name_server(monkeypatch):
    end = threading.Event()

    def wait(*_, **__):
        end.wait(20)
        raise URLError("no such host")

    monkeypatch.setattr(hub, "urlopen", wait)
    started = time.monotonic()
    assert not hub.answers("http://x.invalid", seconds=0.2)
    assert time.monotonic() - started < 2
    end.set()


def test_L3_probe_leaves_certificates_to_the_library(monkeypatch):
    def refuse(*_, **__):
        raise URLError(ssl.SSLError("certificate verify failed"))

    monkeypatch.setattr(hub, "urlopen", refuse)
    assert hub.answers("https://x.invalid")


# What was met in the files


@pytest.mark.parametrize(
    ("data", "carriage_returns", "byte_order_marks", "control_characters"),
    [
        (b"", 0, 0, 0),
        (b"a\tb\n\n", 0, 0, 0),
        (b"a\r\nb\nc\r", 2, 0, 0),
        (b"a\r\r\nb\rc\n", 1, 0, 2),  # what is left of a \r counts among the others
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", 0, 1, 0),
        (b"a\n\xef\xbb\xbfb\n", 0, 0, 0),
        *((b"a\n" + bytes([i]) + b"\n", 0, 0, 1) for i in (*range(1, 9), 11, 12, *range(14, 32))),
        (b"\x7f\n\x7f\x01\n", 0, 0, 2),
        ("\u0085\u2028\u200b\n".encode(), 0, 0, 0),
    ],
)
def test_C4_C6_what_is_dropped_or_odd_is_counted(
    tmp_path, data, carriage_returns, byte_order_marks, control_characters
):
    report = FileReport("a")
    lines = list(scan_lines(write(tmp_path / "a", data), report))
    unterminated = data != b"" and not data.endswith(b"\n")
    assert report == FileReport(
        "a",
        hashlib.sha256(data).hexdigest(),
        data.count(b"\n") + unterminated,
        carriage_returns,
        byte_order_marks,
        control_characters,
    )
    assert len("".join(lines).encode()) == (
        len(data) - data.count(b"\n") - carriage_returns - 3 * byte_order_marks
    )


def test_C3_C4_skipped_lines_leave_the_others_as_they_were(tmp_path):
    seed = 11
    draw = random.Random(seed)
    bad = [b"\xff", b"a\0b", b"\xed\xa0\x80", b"\xc0\xaf", b"caf\xe9", b"\xf0\x9f\x98"]
    sides: list[list[bytes]] = [[], []]
    for number in range(600):
        for side in sides:
            side.append(draw.choice(bad) if draw.random() < 0.1 else f"é {number}".encode())
    for name, side in zip(("train.en", "train.fr"), sides, strict=True):
        write(tmp_path / name, b"\n".join(side) + b"\n")
    wanted = [n for n in range(600) if sides[0][n] not in bad and sides[1][n] not in bad]
    cfg = data_config(root=str(tmp_path), on_bad_line=OnBadLine.skip)
    kept = keep(scan_pairs(cfg, "train"), cfg)
    assert [(p.src, p.tgt) for p in kept] == [(f"é {n}", f"é {n}") for n in wanted], seed
    dropped = [n + 1 for n in range(600) if n not in wanted]
    assert kept.report.bad_line == len(dropped)
    assert kept.report.examples["bad_line"] == dropped[:20]
    assert kept.report.read == 600
    cfg = data_config(root=str(tmp_path))
    wanted = rf"train\.(en|fr):{dropped[0]}: "
    with pytest.raises(DataError, match=wanted):
        list(keep(scan_pairs(cfg, "train"), cfg))
    with pytest.raises(DataError, match=wanted):
        list(read_pairs(data_config(root=str(tmp_path), on_bad_line=OnBadLine.skip), "train"))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("p.tsv", [b"a\tb", b"c", b"a\tb\tc", b"\xff\tb", b"d\te"]),
        (
            "p.jsonl",
            [b'{"en":"a","fr":"b"}', b"{", b"[]", b'{"en":1,"fr":""}', b'{"en":"d","fr":"e"}'],
        ),
    ],
)
def test_C3_C8_skipped_rows(tmp_path, caplog, name, rows):
    write(tmp_path / name, b"\n".join(rows) + b"\n")
    cfg = place(tmp_path, name, on_bad_line=OnBadLine.skip)
    kept = keep(scan_pairs(cfg, "train"), cfg)
    with caplog.at_level(logging.WARNING):
        assert list(kept) == [Pair("a", "b"), Pair("d", "e")]
    assert (kept.report.bad_line, kept.report.examples["bad_line"]) == (3, [2, 3, 4])
    assert f"{name}: 3 of 5 pairs cannot be read and were skipped. The first" in caplog.text
    assert f"{name}:2: " in caplog.text


def test_C3_C8_skipped_rows_of_parquet(tmp_path):
    rows = [flat(PAIRS[0]), {"en": "a\0", "fr": "b"}, flat(PAIRS[2])]
    write_parquet(tmp_path / "p.parquet", rows)
    cfg = place(tmp_path, "p.parquet", on_bad_line=OnBadLine.skip)
    scan = scan_pairs(cfg, "train")
    assert list(keep(scan, cfg)) == [PAIRS[0], PAIRS[2]]
    assert scan.files[0].lines == 3


def test_C3_nothing_but_bad_lines(tmp_path):
    write(tmp_path / "train.en", "the cat\nthe dog\n".encode("utf-16"))
    write(tmp_path / "train.fr", "le chat\nle chien\n".encode("utf-16"))
    cfg = data_config(root=str(tmp_path), on_bad_line=OnBadLine.skip)
    wanted = "no training pair is left: 3 pairs read, 0 kept (dropped: 3 unreadable). The first"
    fails(DataError, wanted, keep, scan_pairs(cfg, "train"), cfg)
    fails(DataError, "It is UTF-16: convert it", keep, scan_pairs(cfg, "train"), cfg)


def test_C1_skipping_does_not_hide_unequal_counts(tmp_path):
    write(tmp_path / "train.en", b"a\n\xff\nc\n")
    write(tmp_path / "train.fr", b"a\nb\n")
    cfg = data_config(root=str(tmp_path), on_bad_line=OnBadLine.skip)
    wanted = "train.en has 3 lines, train.fr has 2"
    fails(DataError, wanted, keep, scan_pairs(cfg, "train"), cfg)


@pytest.mark.parametrize("side", ["en", "fr"])
@pytest.mark.parametrize(
    "fault", ["empty", "missing", "folder", "null", "loop", "pipe", "forbidden"]
)
def test_C10_either_side(tmp_path, monkeypatch, side, fault):
    """Through the reader of pairs, at once."""
    for name in ("train.en", "train.fr"):
        write(tmp_path / name, b"a\n")
    path = tmp_path / f"train.{side}"
    path.unlink()
    make = {
        "empty": path.touch,
        "missing": lambda: None,
        "folder": path.mkdir,
        "null": lambda: path.symlink_to("/dev/null"),
        "loop": lambda: path.symlink_to(path.name),
        "pipe": lambda: os.mkfifo(path),
        "forbidden": path.touch,
    }
    make[fault]()
    if fault == "forbidden":
        real = Path.open

        def refuse(self, *args, **options):
            if self == path:
                raise PermissionError(13, "Permission denied")
            return real(self, *args, **options)

        monkeypatch.setattr(Path, "open", refuse)
    started = time.monotonic()
    error = PlatformError if fault == "forbidden" else DataError
    fails(error, f"train.{side}", read_pairs, data_config(root=str(tmp_path)), "train")
    if fault == "empty":
        write(tmp_path / f"train.{'fr' if side == 'en' else 'en'}", b"")
        wanted = "holds no sentence pair"
        fails(DataError, wanted, read_pairs, data_config(root=str(tmp_path)), "train")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("source", "target", "warns"),
    [
        ("train.fr", "train.en", True),
        ("train.fr.gz", "train.en.gz", True),
        ("corpus.en-fr.fr", "corpus.en-fr.en", True),
        ("fr/train.txt", "en/train.txt", True),
        ("train.fr.txt", "train.en.txt", True),
        ("train.fr", "train.txt", True),
        ("train.txt", "train.en", True),
        ("train.en", "train.fr", False),
        ("corpus.fr.en", "corpus.fr.fr", False),
        ("en/train", "fr/train", False),
        ("source.txt", "target.txt", False),
        ("train.de", "train.es", False),
    ],
)
def test_C17_file_names_of_swapped_languages_warn(tmp_path, caplog, source, target, warns):
    for name in (source, target):
        write(tmp_path / name, gzip.compress(b"a\n") if name.endswith("gz") else b"a\n")
    with caplog.at_level(logging.WARNING):
        list(read_pairs(place(tmp_path, source, target), "train"))
    assert ("are the languages swapped?" in caplog.text) == warns
    assert not warns or f"{source} is read as en and" in caplog.text


@pytest.mark.parametrize("change", ["appended", "cut", "rewritten"])
@pytest.mark.parametrize("name", ["train.en", "train.fr", "p.tsv", "p.jsonl", "p.parquet"])
def test_C18_a_file_that_changes_while_it_is_read(tmp_path, name, change):
    """By whole lines, which as such are as good as the others."""
    names = ["train.en", "train.fr"] if name.startswith("train") else [name]
    rows = [flat(Pair("a", "b"))] * 2000
    contents = {
        "train.en": b"a\n" * len(rows),
        "train.fr": b"b\n" * len(rows),
        "p.tsv": b"a\tb\n" * len(rows),
        "p.jsonl": json_lines(rows[:1]) * len(rows),
    }
    for one in names:
        if one == "p.parquet":
            write_parquet(tmp_path / one, rows)
        else:
            write(tmp_path / one, contents[one])
    path = tmp_path / name
    os.utime(path, ns=(0, 0))  # so that the clock's grain cannot hide the change
    data = path.read_bytes()
    line = data[: data.index(b"\n") + 1] if name != "p.parquet" else b"PAR1"
    pairs = read_pairs(place(tmp_path, *names), "train")
    assert next(pairs) == Pair("a", "b")
    if change == "appended":
        with path.open("ab") as file:
            file.write(line)
    elif change == "cut":
        os.truncate(path, len(data) - len(line))
    else:
        with path.open("r+b") as file:
            file.write(data)
    with pytest.raises(DataError) as caught:
        list(pairs)
    message = one_line(caught.value)
    assert name in message
    assert "was changed while it was read (" in message


def test_C18_fingerprint_of_a_file_that_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "p.tsv", b"a\tb\n")
    os.utime(path, ns=(0, 0))
    real = hashlib.file_digest

    def slow(file, name):
        digest = real(file, name)
        path.write_bytes(b"a\tb\nc\td\n")
        return digest

    monkeypatch.setattr(hashlib, "file_digest", slow)
    cfg = place(tmp_path, "p.tsv")
    wanted = "p.tsv: was changed while it was read (4 bytes, then 8). Let nothing write to it"
    with pytest.raises(DataError) as caught:
        fingerprint(cfg, "train")
    assert wanted in str(caught.value)


def test_C18_a_fingerprint_is_of_the_bytes_that_were_read(tmp_path):
    """Not of those that lie there when it is asked for."""
    write(tmp_path / "a.en", b"a\n")
    write(tmp_path / "a.fr", gzip.compress(b"b\n"))
    write(tmp_path / "p.tsv", b"a\tb\n")
    write(tmp_path / "p.jsonl", json_lines([flat(PAIRS[0])]))
    write_parquet(tmp_path / "p.parquet", [flat(PAIRS[0])])
    for names in (["a.en", "a.fr"], ["p.tsv"], ["p.jsonl"], ["p.parquet"], ["embedded"]):
        cfg = place(tmp_path, *names)
        scan = scan_pairs(cfg, "train")
        list(scan)
        expected = fingerprint(cfg, "train")
        assert scan.fingerprint == expected
        if names != ["embedded"]:
            path = tmp_path / names[0]
            path.write_bytes(path.read_bytes() + b" ")
            assert fingerprint(cfg, "train") != expected == scan.fingerprint


# Fingerprints


@pytest.mark.usefixtures("cache")
def test_fingerprint(wmt14, multi30k):
    tmp_path = wmt14
    write(tmp_path / "a.en", b"a\n")
    write(tmp_path / "a.fr", b"b\n")
    write(tmp_path / "p.tsv", b"a\tb\n")
    places = [
        ["a.en", "a.fr"], ["a.fr", "a.en"], ["p.tsv"], ["embedded"], ["hub:wmt14"],
        ["hub:wmt14:fr-en:test"], ["hub:wmt14:de-en"], ["hub:multi30k"],
    ]  # fmt: skip
    prints = [fingerprint(place(tmp_path, *names), "train") for names in places]
    assert len(set(prints)) == len(places)
    assert all(len(print_) == 64 for print_ in prints)
    assert prints == [fingerprint(place(tmp_path, *names), "train") for names in places]
    cfg = place(tmp_path, "a.en", "a.fr")
    write(tmp_path / "a.fr", b"c\n")
    assert fingerprint(cfg, "train") != prints[0]
    write(tmp_path / "a.fr", b"b\n")
    assert fingerprint(cfg, "train") == prints[0]
    cfg = place(tmp_path, "embedded")
    cfg.grammar.seed = 2
    assert fingerprint(cfg, "train") != prints[3]
    assert fingerprint(cfg, "test") != fingerprint(cfg, "validation")
    (tmp_path / "a.en").unlink()
    with pytest.raises(DataError, match=r"a.en: no such file"):
        fingerprint(place(tmp_path, "a.en", "a.fr"), "train")


def test_importing_the_reader_imports_no_library():
    code = "import sys, seq2seq.data.corpus; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
