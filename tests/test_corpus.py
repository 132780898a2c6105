"""Reading files: lines against an independent count, every fault with its file and line."""

# ruff: noqa: RUF001

import bz2
import gzip
import hashlib
import io
import json
import logging
import lzma
import os
import random
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from test_filters import data_config, filtered, pairs_of

from seq2seq.config.schema import DataConfig, OnBadLine
from seq2seq.data import text, toy
from seq2seq.data.pair import Pair
from seq2seq.data.readers import Place, place, scan_pairs
from seq2seq.data.text import FileSummary, read_lines, read_parallel, scan_lines, scan_stream
from seq2seq.run.errors import ConfigError, DataError, PlatformError, one_line

PAIRS = [Pair("the cat .", "le chat ."), Pair("é\u2028ü", '"'), Pair("NA", "null")]
PACK = {"": lambda data: data, ".gz": gzip.compress, ".xz": lzma.compress}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fails(error, wanted: str, call, *args) -> str:
    """The call raises exactly this class, with `wanted` in a message of one line."""
    with pytest.raises(error) as caught:
        list(call(*args))
    assert caught.type is error
    line = one_line(caught.value)
    assert wanted in line
    assert "\n" not in line
    assert caught.value.fix
    return line


def flat(pair: Pair) -> dict[str, object]:
    return {"fr": pair.tgt, "other": 3, "en": pair.src}


def nested(pair: Pair) -> dict[str, object]:
    return {"id": "1", "translation": {"fr": pair.tgt, "en": pair.src}}


def json_lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), data)
    return data.getvalue()


def config(tmp_path, *names, **changes) -> DataConfig:
    return data_config(root=str(tmp_path), train=list(names or ["train.en", "train.fr"]), **changes)


def kept_of(cfg: DataConfig):
    return filtered(scan_pairs(Place(cfg, "train")), **vars(cfg))


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
        if b"\r" in data.rstrip(b"\r\n") and b"\n" not in data[:-1]:
            fails(DataError, "its lines end in CR alone", read_lines, path)
            continue
        summary = FileSummary("random.txt")
        lines = list(scan_lines(path, summary))
        unterminated = data != b"" and not data.endswith(b"\n")
        assert len(lines) == data.count(b"\n") + unterminated, (seed, data)
        assert lines == list(scan_stream(io.BytesIO(data), "stdin", FileSummary("stdin")))
        parts = data.split(b"\n")[: len(lines)]
        assert [line.encode() for line in lines] == [
            part[:-1] if part.endswith(b"\r") else part for part in parts
        ], (seed, data)
        assert summary.carriage_returns == sum(part.endswith(b"\r") for part in parts), (seed, data)
    tally("C5", "random line ends", count, count, "as many lines as line feeds say")


# data, its lines, and how many ends with \r, byte order marks and lines of control characters
LINES = [
    (b"", [], (0, 0, 0)),
    (b"\n", [""], (0, 0, 0)),
    (b"a", ["a"], (0, 0, 0)),
    (b"a\tb\n\n", ["a\tb", ""], (0, 0, 0)),
    (b"a\r\nb\nc\r", ["a", "b", "c"], (2, 0, 0)),
    (b"a\r\r\nb\rc\n", ["a\r", "b\rc"], (1, 0, 2)),  # one \r goes; what is left counts
    (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"], (0, 1, 0)),  # from line 1 only
    (b"\xef\xbb\xbf", [""], (0, 1, 0)),
    (b"a\n\xef\xbb\xbfb\n", ["a", "\ufeffb"], (0, 0, 0)),
    (b"\x7f\n\x7f\x01\x1b\n", ["\x7f", "\x7f\x01\x1b"], (0, 0, 2)),
    ("\u0085\u2028\u200b\n".encode(), ["\u0085\u2028\u200b"], (0, 0, 0)),
    ("\U0010ffff\ue000e\u0301\n".encode(), ["\U0010ffff\ue000e\u0301"], (0, 0, 0)),
    *((bytes([i, 97]), [f"{chr(i)}a"], (0, 0, 1)) for i in (*range(1, 9), 11, 12, *range(14, 32))),
]


@pytest.mark.parametrize(("data", "lines", "counts"), LINES)
def test_C4_C5_C6_lines_and_what_is_counted(tmp_path, data, lines, counts):
    path, summary = write(tmp_path / "a", data), FileSummary("a")
    assert list(read_lines(path)) == list(scan_lines(path, summary)) == lines
    assert summary == FileSummary("a", hashlib.sha256(data).hexdigest(), len(lines), *counts)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"a\n0123456789abcdef\xff\n", "a.txt:2: invalid UTF-8 byte 0xff at byte 17. If the file"),
        (b"x\n" * 1233 + b"ab\xff\n", "a.txt:1234: invalid UTF-8 byte 0xff at byte 3"),
        (b"caf\xe9\n", "a.txt:1: invalid UTF-8 byte 0xe9 at byte 4. If the file is Latin-1"),
        (b"caf\xe9 noir\n", "ISO-8859-1"),
        (b"a\n\xe2\x82", "a.txt:2: invalid UTF-8 byte 0xe2 at byte 1. The file ends inside"),
        (b"/\xc0\xaf\n", "a.txt:1: invalid UTF-8 byte 0xc0 at byte 2."),  # overlong
        (b"\xed\xa0\x80\xed\xb0\x80\n", "a.txt:1: invalid UTF-8 byte 0xed at byte 1."),  # CESU-8
        ("hé\n".encode("utf-16"), "a.txt:1: invalid UTF-8 byte 0xff at byte 1. It is UTF-16"),
        ("h\n".encode("utf-16-le"), "a.txt:1: NUL at byte 2. Remove it; if the file is UTF-16"),
        (b"a\nb\0\n", "a.txt:2: NUL at byte 2. Remove it"),
    ],
)
def test_C3_C4_bad_bytes(tmp_path, data, wanted):
    fails(DataError, wanted, read_lines, write(tmp_path / "a.txt", data))


CR_ONLY = [b"a\rb", b"a\rb\r", b"a\rb\n", b"a\rb\r\n", b"\xef\xbb\xbfa\rb\rc"]


@pytest.mark.parametrize("data", CR_ONLY)
def test_a_file_of_CR_line_ends_is_named(tmp_path, data):
    count = data.removesuffix(b"\n").count(b"\r")
    wanted = f"a.txt: its lines end in CR alone ({count} of them, no line feed). Convert it: tr"
    fails(DataError, wanted, read_lines, write(tmp_path / "a.txt", data))
    fails(
        DataError,
        "stdin: its lines",
        lambda: scan_stream(io.BytesIO(data), "stdin", FileSummary("stdin")),
    )


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_corpus_of_one_endless_line_is_named(tmp_path, split):
    write(tmp_path / "a.en", b"The cat sleeps. " * 70)
    write(tmp_path / "a.fr", b"Le chat dort. " * 70)
    cfg = config(tmp_path, "a.en", "a.fr", validation=["a.en", "a.fr"], test=["a.en", "a.fr"])
    wanted = "a.en, a.fr: has a single line of 1,120 characters. Write one sentence per line"
    fails(DataError, wanted, pairs_of, cfg, split)
    if split == "train":
        fails(DataError, wanted, kept_of, cfg)


SENTENCES = {
    "zh": "船在港口，他们今天不会来。",
    "zh_TW": "船在港口，他們今天不會來。",
    "ja": "船は港にあります。インクはある。",
    "ko": "배가 항구에 있다.",
    "ru": "Корабль стоит в порту.",
    "uk": "Корабель стоїть у порту.",
    "el": "Το πλοίο είναι εδώ.",
    "he": "האניה בנמל.",
    "ar": "السفينة في الميناء.",
    "th": "เรืออยู่ที่นี่",
    "pl": "Statek stoi w porcie, żółta łódź też.",
    "fr": "Déjà l'été, et le navire est là.",
    "tr": "Gemi limanda, şimdi değil.",
}
# language, encoding, what is said of it
ENCODINGS = [
    ("zh", "gb18030", "If the file is GB18030, convert it: iconv -f GB18030 -t UTF-8."),
    ("zh_TW", "big5", "If the file is Big5, convert it: iconv -f Big5"),
    ("ja", "shift_jis", "If the file is Shift-JIS, convert it: iconv -f CP932"),
    ("ja", "euc_jp", "If the file is EUC-JP, "),
    ("ko", "euc_kr", "If the file is EUC-KR, "),
    ("ru", "koi8_r", "If the file is KOI8-R or KOI8-U, convert it: iconv -f KOI8-R "),
    ("ru", "cp1251", "If the file is Windows-1251, "),
    ("ru", "iso8859_5", "If the file is ISO-8859-5, "),
    ("ru", "cp866", "If the file is CP866, "),
    ("uk", "koi8_u", "If the file is KOI8-U, "),
    ("el", "iso8859_7", "If the file is ISO-8859-7 or Windows-1253, "),
    ("he", "cp1255", "If the file is Windows-1255"),
    ("ar", "cp1256", "If the file is Windows-1256, "),
    ("th", "tis_620", "If the file is TIS-620, "),
    ("pl", "cp1250", "If the file is Windows-1250, "),
    ("tr", "cp1254", "If the file is Windows-1254, "),
    ("fr", "latin_1", "If the file is Latin-1, convert it: iconv -f ISO-8859-1 -t UTF-8."),
]


@pytest.mark.parametrize(("language", "encoding", "wanted"), ENCODINGS)
def test_an_encoding_is_named_for_what_it_is(tmp_path, language, encoding, wanted):
    """By the language of the file, on either side and in a table; never as Latin-1."""
    other, line = "The ship.\n", f"{SENTENCES[language]}\n".encode(encoding)
    write(tmp_path / "a.en", other.encode())
    write(tmp_path / "a.xx", line)
    write(tmp_path / "a.tsv", other.strip().encode() + b"\t" + line)
    pairs = {"source_language": "en", "target_language": language}
    back = {"source_language": language, "target_language": "en"}
    for names, languages in (
        (["a.en", "a.xx"], pairs),
        (["a.xx", "a.en"], back),
        (["a.tsv"], pairs),
    ):
        said = fails(DataError, wanted, pairs_of, config(tmp_path, *names, **languages))
        assert ("Latin-1" in said) == (language == "fr")


@pytest.mark.parametrize("language", ["hi", "yo", "am"])
def test_no_encoding_is_guessed_for_a_language_that_has_none(tmp_path, language):
    path = write(tmp_path / "a.txt", b"caf\xe9\n")
    wanted = (
        "a.txt:1: invalid UTF-8 byte 0xe9 at byte 4. Convert it to UTF-8: iconv -f ITS_ENCODING"
    )
    fails(
        DataError,
        wanted,
        lambda: text.strict(scan_lines(path, FileSummary("a", languages=(language,)))),
    )


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("h\n".encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("h\n".encode("utf-32"), "It is UTF-32: convert it, iconv -f UTF-32"),
        (
            "\u8239\u306f\n".encode("iso2022_jp"),
            "ISO-2022 escape at byte 1. Convert it: iconv -f ISO",
        ),
    ],
)
def test_other_encodings_of_unicode_and_of_mail(tmp_path, data, wanted):
    fails(DataError, wanted, read_lines, write(tmp_path / "a.txt", data))


def test_C7_line_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 10)
    path = write(tmp_path / "a.gz", gzip.compress(b"123456789\n" + b"1234567890\n"))
    fails(DataError, "a.gz:2: line above 10 bytes", read_lines, path)


# Archives


@pytest.mark.parametrize("name", ["a.gz", "a.xz", "a.txt"])
@pytest.mark.parametrize("packed", [".gz", ".xz"])
def test_C9_archives_by_content(tmp_path, name, packed):
    pack = PACK[packed]
    path = write(tmp_path / name, pack("é\nb".encode()) + pack(b"c\n"))  # joined members
    if name in ("a.txt", f"a{packed}"):
        assert list(read_lines(path)) == ["é", "bc"]
    else:
        fails(DataError, f"is named {name[1:]} but holds something else", read_lines, path)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_C9_damaged_archives(tmp_path, ending):
    packed = PACK[ending](random.Random(1).randbytes(300).hex().encode() + b"\n")
    path, flipped = tmp_path / f"train.en{ending}", bytearray(packed)
    flipped[-6 if ending == ".gz" else -20] ^= 1
    for damaged in (packed[: len(packed) // 2], packed[:8], bytes(flipped)):
        fails(DataError, f"train.en{ending}: damaged archive", read_lines, write(path, damaged))
    for data, what in ((b"", "is empty"), (b"plain text\n", "holds something else")):
        fails(DataError, f"is named {ending} but {what}", read_lines, write(path, data))


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", data)  # stored: its header may hold a line feed
    return file.getvalue()


def tarred(data: bytes) -> bytes:
    file, member = io.BytesIO(), tarfile.TarInfo("a.txt")
    member.size = len(data)
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


TEXT = b"the cat\nthe dog\n"
FOREIGN = {
    "a zip archive": zipped(TEXT),
    "a bzip2 archive": bz2.compress(TEXT),
    "a Zstandard (zst) archive": b"\x28\xb5\x2f\xfd\x24\x10\x81\0\0" + TEXT,
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\x04" + TEXT,
    "a RAR archive": b"Rar!\x1a\x07\x01\0" + TEXT,
    "a tar archive": tarred(TEXT),
    "a PDF document": b"%PDF-1.7\n" + TEXT,
    "an Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + TEXT,
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_text_is_named_for_what_it_is(tmp_path, what):
    """Whatever its name is, packed once more, piped in, or with bad lines skipped."""
    path, wanted = write(tmp_path / "a.en", FOREIGN[what]), f"is {what}, not text. "
    fails(DataError, f"a.en: {wanted}", read_lines, path)
    fails(
        DataError,
        f"stdin: {wanted}",
        lambda: scan_stream(io.BytesIO(FOREIGN[what]), "stdin", FileSummary("stdin")),
    )
    fails(
        DataError,
        f"is named .gz but holds something else, {what}",
        read_lines,
        write(tmp_path / "a.gz", FOREIGN[what]),
    )
    twice = write(tmp_path / "b.gz", gzip.compress(FOREIGN[what]))
    fails(DataError, f"b.gz: {wanted}", read_lines, twice)
    cfg = config(tmp_path, "a.en", "a.en", on_bad_line=OnBadLine.skip)
    fails(DataError, f"a.en: {wanted}", kept_of, cfg)


# Files that cannot be read


NOT_FILES = {
    "missing": (lambda path: None, "no such file"),
    "directory": (Path.mkdir, "is a directory"),
    "pipe": (os.mkfifo, "is not a regular file"),
    "null": (lambda path: path.symlink_to("/dev/null"), "is not a regular file"),
    "loop": (lambda path: path.symlink_to(path.name), "cannot be opened (Too many levels of"),
}


@pytest.mark.parametrize("fault", NOT_FILES)
@pytest.mark.parametrize("side", ["en", "fr", "tsv"])
def test_C10_what_is_no_readable_file(tmp_path, side, fault):
    """Named at once, before a line is read, and without hanging."""
    make, what = NOT_FILES[fault]
    write(tmp_path / f"train.{'fr' if side == 'en' else 'en'}", b"a\n")
    make(tmp_path / f"train.{side}")
    cfg = config(tmp_path, *(["train.tsv"] if side == "tsv" else []))
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        pairs_of(cfg)
    assert f"train.{side}: {what}" in str(caught.value)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/dev/zero", "is not a regular file"),
        ("a\0b", "embedded null"),  # in the words of this Python
        (f"{__file__}/below", "no such file"),
        ("n" * 300, "cannot be opened (File name too long)"),
    ],
)
def test_C10_devices_and_odd_names(path, what):
    fails(DataError, what, read_lines, Path(path))


def test_C10_faults_of_the_system(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gz", gzip.compress(b"a\n"))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)  # as root, no mode would stop us
        fails(PlatformError, "a.gz: may not be read", read_lines, path)
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


def test_C1_unequal_counts_of_one_name(tmp_path):
    paths = [write(tmp_path / "en/train", b"a\n"), write(tmp_path / "fr/train", b"")]
    fails(DataError, f"{paths[0]} has 1 lines, {paths[1]} has 0", read_parallel, *paths)


@pytest.mark.parametrize("changes", [{"limit": 1}, {"on_bad_line": OnBadLine.skip}])
def test_C1_nothing_hides_unequal_counts(tmp_path, changes):
    write(tmp_path / "train.en", b"a\nb\nc\n")
    write(tmp_path / "train.fr", b"a\nb\n" if "limit" in changes else b"\xff\nb\n")
    wanted = "train.en has 3 lines, train.fr has 2"
    fails(DataError, wanted, kept_of, config(tmp_path, **changes))


def test_C17_one_file_for_both_sides_warns(tmp_path, caplog):
    path = write(tmp_path / "a", b"x\n")
    write(tmp_path / "equal", b"x\n")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "other").hardlink_to(path)
    for name in ("a", "link", "other", "equal"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            list(pairs_of(config(tmp_path, "a", name)))
        assert ("is both source and target" in caplog.text) == (name != "equal")


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
        write(tmp_path / name, PACK[".gz" if name.endswith("gz") else ""](b"a\n"))
    with caplog.at_level(logging.WARNING):
        list(pairs_of(config(tmp_path, source, target)))
    assert ("are the languages swapped?" in caplog.text) == warns
    assert not warns or f"{source} is read as en and" in caplog.text


# Forms: every one gives the same pairs


FORMS = {
    "p.en": "".join(f"{p.src}\n" for p in PAIRS).encode(),
    "p.fr": "".join(f"{p.tgt}\n" for p in PAIRS).encode(),
    "p.tsv": "".join(f"{p.src}\t{p.tgt}\n" for p in PAIRS).encode(),
    "flat.jsonl": json_lines(map(flat, PAIRS)),
    "nested.json": json_lines(map(nested, PAIRS)),
}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("names", [["p.en", "p.fr"], ["p.tsv"], ["flat.jsonl"], ["nested.json"]])
def test_text_forms(tmp_path, names, ending):
    for name in names:
        write(tmp_path / f"{name}{ending}", PACK[ending](FORMS[name]))
    cfg = config(tmp_path, *(f"{name}{ending}" for name in names))
    assert list(pairs_of(cfg)) == PAIRS


@pytest.mark.parametrize("shape", [nested, flat])
def test_parquet(tmp_path, shape):
    write(tmp_path / "p.parquet", parquet([shape(pair) for pair in PAIRS * 700]))
    assert list(pairs_of(config(tmp_path, "p.parquet"))) == PAIRS * 700


def test_each_split_reads_its_own_file(tmp_path):
    for split in ("train", "validation", "test"):
        write(tmp_path / f"{split}.TSV", f"{split}\tx\n".encode())
    cfg = config(tmp_path, "train.TSV")
    cfg.validation, cfg.test = ["validation.TSV"], [str(tmp_path / "test.TSV")]  # absolute
    for split in ("train", "validation", "test"):
        assert list(pairs_of(cfg, split)) == [Pair(split, "x")]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"a\tb\nc\n", "p.tsv:2: expected 2 columns, found 1"),
        (b"a\tb\tc\n", "p.tsv:1: expected 2 columns, found 3"),
        (b'"a\tb"\tc\n', "p.tsv:1: expected 2 columns, found 3"),
        (b"a\tb\n\n", "p.tsv:2: expected 2 columns, found 1"),
        (b"a\t\xff\n", "p.tsv:1: invalid UTF-8 byte 0xff at byte 3"),
        (b"", "p.tsv: holds no sentence pair"),
    ],
)
def test_C8_bad_tsv(tmp_path, data, wanted):
    write(tmp_path / "p.tsv", data)
    fails(DataError, wanted, pairs_of, config(tmp_path, "p.tsv"))


# header, languages, whether it is one
HEADERS = [
    ("en\tfr", ("en", "fr"), True),
    ("fr\ten", ("en", "fr"), True),
    ("id\tFR\tnote\tEN", ("en", "fr"), True),
    ('"en"\t"fr"', ("en", "fr"), True),
    ("pt_BR\tpt_PT", ("pt-PT", "pt-BR"), True),
    ("zh\ten-GB", ("en", "zh_CN"), True),
    ("en\tde", ("en", "fr"), False),
    ("en\ten", ("en", "en"), False),
    ("in\tno", ("en", "no"), False),
]


@pytest.mark.parametrize(("header", "languages", "is_one"), HEADERS)
def test_a_header_of_codes_is_no_pair_and_gives_the_order(tmp_path, header, languages, is_one):
    codes = [text.strip('"').lower().replace("_", "-") for text in header.split("\t")]
    write(
        tmp_path / "p.tsv",
        f"\ufeff{header}\n".encode()
        + b"".join("\t".join(f"{code} {n}" for code in codes).encode() + b"\n" for n in range(2)),
    )
    cfg = config(tmp_path, "p.tsv", source_language=languages[0], target_language=languages[1])
    where = Place(cfg, "train")
    pairs = list(text.strict(scan_pairs(where)))
    assert (len(pairs), where.inputs[0].lines, where.inputs[0].header_lines) == (
        3 - is_one,
        3,
        is_one,
    )
    if is_one:
        for side, language in zip((pairs[0].src, pairs[0].tgt), languages, strict=True):
            assert side.partition(" ")[0][:2] == language[:2]
            assert "-" not in language or side.partition(" ")[0][3:] in ("", language[3:].lower())
    write(tmp_path / "p.tsv", f"{header}\na\n".encode())
    fails(DataError, "p.tsv:2: expected ", pairs_of, cfg)


def test_C8_tsv_takes_quotes_and_empty_fields_as_they_are(tmp_path):
    write(tmp_path / "p.tsv", b'"a\tb\n\tb\na\t\n')
    pairs = list(pairs_of(config(tmp_path, "p.tsv")))
    assert pairs == [Pair('"a', "b"), Pair("", "b"), Pair("a", "")]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('{"en": "a"', "p.jsonl:2: not JSON (Expecting"),
        ("", "p.jsonl:2: not JSON"),
        ("[" * 100_000, "p.jsonl:2: not JSON ("),  # in other words by each version of Python
        ("[]", "p.jsonl:2: expected an object, found list"),
        ('{"en": "a", "de": "b"}', "p.jsonl:2: has 'en', 'de'; wanted 'en' and 'fr'"),
        ('{"translation": {"de": "b"}}', "p.jsonl:2: has 'de'; wanted"),
        ("{}", "p.jsonl:2: has no column; wanted"),
        ('{"en": 3, "fr": "b"}', "p.jsonl:2, en: expected text, found int"),
        (r'{"en": "a\u0000", "fr": "b"}', "p.jsonl:2, en: NUL at character 2"),
        (r'{"en": "a", "fr": "\ud800"}', "p.jsonl:2, fr: half a surrogate pair at character 1"),
    ],
)
def test_C8_bad_json_lines(tmp_path, line, wanted):
    write(tmp_path / "p.jsonl", b'{"en": "a", "fr": "b"}\n' + line.encode() + b"\n")
    fails(DataError, wanted, pairs_of, config(tmp_path, "p.jsonl"))


def test_C8_line_ends_inside_texts_and_null(tmp_path):
    rows = [{"en": "a\r\n\nb\u2028c", "fr": "d\re\n"}, {"en": "x", "fr": None}]
    for name, data in (("p.jsonl", json_lines(rows)), ("p.parquet", parquet(rows))):
        write(tmp_path / name, data)
        expected = [Pair("a b\u2028c", "d e "), Pair("x", "")]
        assert list(pairs_of(config(tmp_path, name))) == expected


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (lambda: parquet([{"en": "a", "de": "b"}]), " row 1: has 'en'; wanted 'en' and 'fr'"),
        (lambda: parquet([{"x": 1}]), " row 1: has 'x'; wanted"),
        (lambda: b"PAR1 no", ": damaged Parquet file"),
        (lambda: parquet([flat(PAIRS[0])] * 3)[:-20], ": damaged Parquet file"),
    ],
)
def test_C8_bad_parquet(tmp_path, data, wanted):
    write(tmp_path / "p.parquet", data())
    fails(DataError, f"p.parquet{wanted}", pairs_of, config(tmp_path, "p.parquet"))


@pytest.mark.parametrize("names", [["a", "b", "c"], ["train.txt"], ["embeded"], ["p.tsv.bz2"]])
def test_an_unknown_form_is_refused_at_once(tmp_path, names):
    wanted = r"data.train=\[.*\] is no known form of corpus. Use one of \[.*\[train.en,train.fr\]."
    with pytest.raises(ConfigError, match=wanted):
        pairs_of(config(tmp_path, *names))


def test_another_form_is_a_reader(tmp_path, monkeypatch):
    """From outside of the package, by the call that its own readers use."""
    monkeypatch.setattr(place, "_forms", [*place._forms])

    @place.reads(r".*\.words", example="x.words")
    def read_words(where):
        for line in read_lines(where.path(where.names[0])):
            yield Pair(*line.split())

    write(tmp_path / "x.words", b"the le\ncat chat\n")
    assert list(pairs_of(config(tmp_path, "x.words"))) == [Pair("the", "le"), Pair("cat", "chat")]


def test_embedded(monkeypatch):
    asked = []

    def generate(split, count, **settings):
        asked.append((split, count, settings))
        yield Pair("a", "b", ((0, 0),))

    monkeypatch.setattr(toy, "generate", generate)
    cfg = config(Path(), "embedded")
    for split, count in (("train", 10), ("validation", 5)):
        assert list(pairs_of(cfg, split)) == [Pair("a", "b", ((0, 0),))]
        assert asked.pop() == (split, count, {"seed": 1, "min_words": 3, "max_words": 9})
    cfg.target_language = "de"
    fails(ConfigError, "config: the embedded corpus is en-fr, not en-de", pairs_of, cfg)


def test_importing_the_readers_imports_no_library():
    code = "import sys, seq2seq.data.readers; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Lines that are skipped


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
    cfg = config(tmp_path, on_bad_line=OnBadLine.skip)
    kept, summary = kept_of(cfg)
    assert [(p.src, p.tgt) for p in kept] == [(f"é {n}", f"é {n}") for n in wanted], seed
    dropped = [n + 1 for n in range(600) if n not in wanted]
    assert summary.dropped["bad_line"] == len(dropped)
    assert summary.examples["bad_line"] == dropped[:20]
    assert summary.read == 600
    first = rf"train\.(en|fr):{dropped[0]}: "
    with pytest.raises(DataError, match=first):
        kept_of(config(tmp_path))
    with pytest.raises(DataError, match=first):
        list(pairs_of(cfg))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("p.tsv", [b"a\tb", b"c", b"a\tb\tc", b"\xff\tb", b"d\te"]),
        (
            "p.jsonl",
            [b'{"en":"a","fr":"b"}', b"{", b"[]", b'{"en":1,"fr":""}', b'{"en":"d","fr":"e"}'],
        ),
        ("p.parquet", [("a", "b"), ("\0", "b"), ("a", "\0"), ("\0", ""), ("d", "e")]),
    ],
)
def test_C3_C8_skipped_rows(tmp_path, caplog, name, rows):
    if name == "p.parquet":
        write(tmp_path / name, parquet([{"en": en, "fr": fr} for en, fr in rows]))
    else:
        write(tmp_path / name, b"\n".join(rows) + b"\n")
    with caplog.at_level(logging.WARNING):
        cfg = config(tmp_path, name, on_bad_line=OnBadLine.skip)
        kept, summary = kept_of(cfg)
    assert kept == [Pair("a", "b"), Pair("d", "e")]
    assert (summary.dropped["bad_line"], summary.examples["bad_line"]) == (3, [2, 3, 4])
    assert f"{name}: 3 of 5 pairs cannot be read and were skipped. The first" in caplog.text
    assert f"{name} row 2, en: " in caplog.text or f"{name}:2: " in caplog.text


def test_C3_nothing_but_bad_lines(tmp_path):
    write(tmp_path / "train.en", "the cat\nthe dog\n".encode("utf-16"))
    write(tmp_path / "train.fr", "le chat\nle chien\n".encode("utf-16"))
    wanted = "no training pair is left: 3 pairs read, 0 kept (dropped: 3 unreadable). The first"
    line = fails(DataError, wanted, kept_of, config(tmp_path, on_bad_line=OnBadLine.skip))
    assert "It is UTF-16: convert it" in line


# Files that change


@pytest.mark.parametrize("change", ["appended", "cut", "rewritten"])
@pytest.mark.parametrize("name", ["train.en", "train.fr", "p.tsv", "p.jsonl", "p.parquet"])
def test_C18_a_file_that_changes_while_it_is_read(tmp_path, name, change):
    """By whole lines, which as such are as good as the others."""
    rows = [flat(Pair("a", "b"))] * 2000
    contents = {
        "train.en": b"a\n" * len(rows),
        "train.fr": b"b\n" * len(rows),
        "p.tsv": b"a\tb\n" * len(rows),
        "p.jsonl": json_lines(rows),
        "p.parquet": parquet(rows),
    }
    names = ["train.en", "train.fr"] if name.startswith("train") else [name]
    for one in names:
        write(tmp_path / one, contents[one])
    path, data = tmp_path / name, contents[name]
    os.utime(path, ns=(0, 0))  # so that the clock's grain cannot hide the change
    line = data[: data.index(b"\n") + 1] if name != "p.parquet" else b"PAR1"
    where = Place(config(tmp_path, *names), "train")
    pairs = scan_pairs(where)
    assert next(pairs) == Pair("a", "b")
    if change == "appended":
        with path.open("ab") as file:
            file.write(line)
    elif change == "cut":
        os.truncate(path, len(data) - len(line))
    else:
        with path.open("r+b") as file:
            file.write(data)
    fails(DataError, f"{name}: was changed while it was read (", lambda: pairs)
    [summary] = [file for file in where.inputs if file.name == name]
    assert summary.sha256 == hashlib.sha256(data).hexdigest()
