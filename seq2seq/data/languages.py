"""Properties of a language by its code: whether it puts spaces between words, and what follows.

Chinese, Japanese, Thai, Khmer, Lao, Burmese, Tibetan and some others write no space between words.
A space separates sentences or phrases there, so neither lengths in words nor lists of
space-separated words are meaningful: lengths are counted in characters.
"""

from typing import Literal

import regex

Unit = Literal["words", "characters"]

# Scripts without spaces between words: Unicode's name, codes (ISO 15924), and the languages (ISO
# 639) written in them. For Min Nan, Hakka and Min Dong the text decides: they are also written in
# Latin letters.
_SCRIPTS = {
    "Han": ("hani hans hant", "zh zho chi cmn yue wuu gan hsn lzh cjy mnp"),
    "Bopomofo": ("bopo", ""),
    "Hiragana": ("jpan hira hrkt", "ja jpn jp ryu"),
    "Katakana": ("kana", ""),
    "Thai": ("thai", "th tha nod tts sou"),
    "Lao": ("laoo", "lo lao"),
    "Khmer": ("khmr", "km khm kxm"),
    "Myanmar": ("mymr", "my mya bur rki shn mnw kht"),
    "Tibetan": ("tibt", "bo bod tib dz dzo lbj adx khg"),
    "Yi": ("yiii", "ii iii"),
    "Tangut": ("tang", "txg"),
    "Nushu": ("nshu", ""),
    "Tai_Tham": ("lana", ""),
    "New_Tai_Lue": ("talu", "khb"),
    "Tai_Le": ("tale", "tdd"),
    "Javanese": ("java", ""),
    "Balinese": ("bali", ""),
}
_SCRIPT_CODES, _SCRIPT_OF = (
    {code: name for name, codes in _SCRIPTS.items() for code in codes[i].split()} for i in range(2)
)

# Two-letter codes, each followed by other codes of the same language.
_CODES = """
af afr, am amh, ar ara, az aze, ba bak, be bel, bg bul, bn ben, br bre, bs bos, ca cat, cs ces cze,
cy cym wel, da dan, de deu ger, el ell gre, en eng, es spa, et est, eu eus baq, fa fas per pes,
fi fin, fo fao, fr fra fre, ga gle, gd gla, gl glg, gu guj, ha hau, he heb iw, hi hin, hr hrv,
hu hun, hy hye arm, id ind in, ig ibo, is isl ice, it ita, ja jpn, ka kat geo, kk kaz, km khm,
ko kor, ky kir, lb ltz, lo lao, lt lit, lv lav, mk mkd mac, ml mal, mn mon, mr mar, ms msa may,
mt mlt, my mya bur, ne nep, nl nld dut, no nor nb nob nn nno, oc oci, om orm, pa pan, pl pol,
ps pus, pt por, rm roh, ro ron rum, ru rus, rw kin, si sin, sk slk slo, sl slv, sn sna, so som,
sq sqi alb, sr srp, sv swe, sw swa swh, ta tam, te tel, tg tgk, th tha, ti tir, tl tgl, tr tur,
tt tat, ug uig, uk ukr, ur urd, uz uzb, vi vie, wa wln, wo wol, xh xho, yi yid, yo yor,
zh zho chi cmn, zu zul
"""
_SHORT_CODES = {c: short for short, *codes in map(str.split, _CODES.split(",")) for c in codes}

UNSPACED = "".join(rf"\p{{{name}}}" for name in sorted(_SCRIPTS))
"""Characters of these scripts, for use inside a set in a regular expression."""

_CHARACTER = regex.compile(f"[{UNSPACED}]")
# A run of letters of other scripts, which carries about as much as two characters of Chinese.
_SPACED_WORD = regex.compile(rf"(?V1)(?:[\p{{L}}--[{UNSPACED}]]\p{{M}}*)+")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")


def unspaced_script(language: str, sample: str = "") -> str | None:
    """Return Unicode's name of a language's script if it is written without spaces, or None.

    Codes have two or three letters and may name a script or region: `zh`, `zh-TW`, `zho_Hans`.
    If the code implies no such script, `sample`, some of the text, decides: the code may be unknown
    or wrong.
    """
    code, *rest = _parts(language)
    if named := next((part for part in rest if len(part) == 4 and part.isalpha()), None):
        return _SCRIPT_CODES.get(named)
    if code in _SCRIPT_OF:
        return _SCRIPT_OF[code]
    characters = "".join(_CHARACTER.findall(sample))
    if len(characters) <= 2 * sum(1 for _ in _SPACED_WORD.finditer(sample)):
        return None
    if 20 * len(_KANA.findall(characters)) > len(characters):
        return "Hiragana"  # Han characters without kana are Chinese
    return max(sorted(_SCRIPTS), key=lambda name: len(regex.findall(rf"\p{{{name}}}", characters)))


def short_code(code: str) -> str:
    """Return the language of a code, with two letters if there is such a code: `pt` of `por-BR`."""
    language = _parts(code)[0]
    return _SHORT_CODES.get(language, language)


def is_spaced(language: str, sample: str = "") -> bool:
    """Return whether spaces separate words; without a sample, True for unknown languages."""
    return unspaced_script(language, sample) is None


def length_unit(language: str, sample: str = "") -> Unit:
    """Return the unit of lengths: `words`, or `characters` if spaces do not separate words."""
    return "words" if is_spaced(language, sample) else "characters"


def bleu_tokenizers(language: str, sample: str = "") -> tuple[str, ...]:
    """Return sacreBLEU's tokenizers for a language, best first; the last is always available.

    For Chinese, Japanese and Korean the first is the default of sacreBLEU's command. 13a splits at
    spaces and punctuation, and would not split other unspaced scripts.
    """
    match unspaced_script(language, sample):
        case None:
            return ("ko-mecab", "char") if short_code(language) == "ko" else ("13a",)
        case "Han" | "Bopomofo":
            return ("zh",)
        case "Hiragana" | "Katakana":
            return ("ja-mecab", "char")
    return ("flores200", "flores101", "char")


def _parts(code: str) -> list[str]:
    return code.lower().replace("_", "-").split("-")
