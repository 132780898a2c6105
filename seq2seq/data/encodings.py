"""Identifies files that are not UTF-8 text: their format by the first bytes, encoding by a line."""

from collections.abc import Sequence
from contextlib import suppress

import regex

from seq2seq.data.languages import short_code, unspaced_script

# First bytes of a file, its format, and the fix.
_FORMS = (
    (b"\x1f\x8b", "a gzip archive", "Unpack it: gunzip."),
    (b"\xfd7zXZ\x00", "an xz archive", "Unpack it: unxz."),
    (b"PK\x03\x04", "a zip archive", "Unpack it: unzip; or save a document as plain text."),
    *((b"BZh%d1AY&SY" % n, "a bzip2 archive", "Unpack it: bunzip2.") for n in range(1, 10)),
    (b"\x28\xb5\x2f\xfd", "a Zstandard (zst) archive", "Unpack it: unzstd."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it: 7z x."),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it: unrar x."),
    (b"\x04\x22\x4d\x18", "an LZ4 archive", "Unpack it: unlz4."),
    (b"LZIP\x01", "an lzip archive", "Unpack it: lzip -d."),
    (b"\x1f\x9d", "a compress (.Z) archive", "Unpack it: uncompress."),
    (b"%PDF-", "a PDF document", "Save it as plain text."),
    (b"{\\rtf", "an RTF document", "Save it as plain text."),
    (b"\xd0\xcf\x11\xe0", "an Office document", "Save it as plain text."),
    (b"PAR1", "a Parquet file", "Name it .parquet, and alone: it holds both sides."),
    (b"ARROW1", "an Arrow file", "Convert it to Parquet."),
    (b"SQLite format 3", "an SQLite database", "Export its text."),
    (b"<!DOCTYPE html", "an HTML page", "Save it as plain text."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Fetch the file: git lfs pull."),
)
# The magic of a tar archive and its offset.
_TAR, _TAR_AT = b"ustar", 257

PACKED = tuple(".zip .bz2 .zst .7z .rar .lz4 .lz .z .tar .tgz .tbz2 .txz .gz .xz".split())  # noqa: SIM905
"""Extensions of compressed files, for a hint in the error about an unknown form."""

# By group of languages: their codes, the usual encodings (Python's name and the common one), and
# the letters expected beyond ASCII; capitals are rare in running text.
_LATIN, _MARKED = r"\p{Latin}", r"[\p{Latin}\p{M}]"
_RUSSIAN = r"[\u0430-\u044f\u0451\u0454\u0456\u0457\u0491\u045e]"
_GROUPS: dict[str, tuple[str, str, str]] = {
    "western": (
        "af br ca da de en es eu fi fo fr ga gd gl id is it lb ms nl no oc pt rm sq sv sw tl wa "
        "xh zu",
        "cp1252=Latin-1",
        _LATIN,
    ),
    "han": ("zh", "gb18030=GB18030 big5hkscs=Big5", r"\p{Han}"),
    "kana": ("ja", "cp932=Shift-JIS euc_jp=EUC-JP", r"[\p{Hiragana}\u30a0-\u30ff]"),
    "hangul": ("ko", "cp949=EUC-KR", r"\p{Hangul}"),
    "cyrillic": (
        "ru uk be bg kk ky tg mn tt ba",
        "cp1251=Windows-1251 koi8_r=KOI8-R koi8_u=KOI8-U iso8859_5=ISO-8859-5 cp866=CP866",
        _RUSSIAN,
    ),
    "serbian": ("sr mk", "cp1251=Windows-1251 iso8859_5=ISO-8859-5", r"[\p{Cyrillic}--\p{Lu}]"),
    "greek": ("el", "iso8859_7=ISO-8859-7 cp1253=Windows-1253", r"[\p{Greek}--\p{Lu}]"),
    "hebrew": ("he yi", "cp1255=Windows-1255 iso8859_8=ISO-8859-8", r"\p{Hebrew}"),
    "arabic": ("ar fa ur ps ug", "cp1256=Windows-1256 iso8859_6=ISO-8859-6", r"\p{Arabic}"),
    "thai": ("th", "cp874=TIS-620", r"\p{Thai}"),
    "central": (
        "pl cs sk sl hr bs hu ro hsb dsb",
        "iso8859_2=ISO-8859-2 cp1250=Windows-1250",
        _LATIN,
    ),
    "turkish": ("tr az", "cp1254=Windows-1254", _LATIN),
    "baltic": ("lt lv et", "cp1257=Windows-1257", _LATIN),
    "vietnamese": ("vi", "cp1258=Windows-1258", _MARKED),
}
_GROUP_OF = {code: name for name, (codes, _, _) in _GROUPS.items() for code in codes.split()}
_OF_SCRIPT = {"Han": "han", "Hiragana": "kana"}
# First bytes of the more common half of the characters in Chinese encodings.
_COMMON = {"gb18030": range(0xB0, 0xD8), "big5hkscs": range(0xA4, 0xC7)}
# Characters that discriminate between encodings; most encodings share the typographic marks.
_TELLING = regex.compile(
    r"[[^\p{ASCII}\s\p{P}\p{Nd}\p{Sc}\u00b0\u00a9\u00ae\u2122\u2116\uff00-\uff65]\u0080-\u009f]",
    regex.V1,
)
_LEAST = 0.7  # minimal fraction of these characters that must be expected ones


def form_of(start: bytes) -> tuple[str, str] | None:
    """Return the format of a file that is not text, by its first bytes, and the fix; or None."""
    if start[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return "a tar archive", "Unpack it: tar -xf."
    return next(((what, fix) for magic, what, fix in _FORMS if start.startswith(magic)), None)


def likeliest(raw: bytes, languages: Sequence[str]) -> list[str]:
    """Return the likely encodings of a line that is not UTF-8, by their common names.

    Args:
        raw: The bytes of the line.
        languages: Languages it may be in, the likeliest first; empty if unknown.
    """
    groups = [group for group in map(_group_of, languages) if group] if languages else _GROUPS
    best, found = _LEAST, []
    for group in groups:
        _, encodings, letters = _GROUPS[group]
        shares = {}
        for codec, _, name in (each.partition("=") for each in encodings.split()):
            with suppress(UnicodeDecodeError):
                shares[name] = _expected_share(raw.decode(codec), codec, letters)
        if max(shares.values(), default=0.0) > best:
            best = max(shares.values())
            found = [name for name, share in shares.items() if share == best]
    return found


def _group_of(language: str) -> str | None:
    script = unspaced_script(language) or ""
    return _OF_SCRIPT.get(script) or _GROUP_OF.get(short_code(language))


def _expected_share(text: str, codec: str, letters: str) -> float:
    """Return the fraction of letters beyond ASCII that the languages of an encoding would use."""
    telling = _TELLING.findall(text)
    latin = letters in (_LATIN, _MARKED)
    if not telling:
        return float(latin)  # only typographic marks, as in Windows encodings
    ascii_letters = sum(char.isascii() and char.isalpha() for char in text)
    sparse = len(telling) <= ascii_letters
    if latin and not sparse:
        return 0.0
    expected = regex.findall(letters, "".join(telling), regex.V1)
    if letters == _RUSSIAN:  # a capital begins a word
        expected += regex.findall(r"(?<!\p{L})[\u0410-\u042f](?=\P{Lu})", text)
    if codec in _COMMON:
        expected = [char for char in expected if char.encode(codec)[0] in _COMMON[codec]]
    elif codec in ("cp932", "euc_jp"):
        telling = [char for char in telling if not regex.match(r"\p{Han}", char)] or telling
    return len(expected) / len(telling) - 0.1 * (sparse and not latin)
