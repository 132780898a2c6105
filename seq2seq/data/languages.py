"""What is known of a language by its code: whether its words stand apart, and what follows.

Chinese, Japanese, Thai, Khmer, Lao, Burmese, Tibetan and their kin write no space between words. A
space there separates sentences or phrases, and so neither a length in words nor a list of
space-separated words means anything: lengths are counted in characters.
"""

from typing import Literal

import regex

Unit = Literal["words", "characters"]

# Scripts (ISO 15924) without spaces between words and languages (ISO 639) written in them. Min Nan,
# Hakka and Min Dong are left to the text: they are as often written in Latin letters.
_SCRIPTS = {
    "hani": "zh zho chi cmn yue wuu gan hsn lzh cjy mnp",
    "hans": "",
    "hant": "",
    "jpan": "ja jpn jp ryu",
    "hrkt": "",
    "hira": "",
    "kana": "",
    "bopo": "",
    "thai": "th tha nod tts sou",
    "laoo": "lo lao",
    "khmr": "km khm kxm",
    "mymr": "my mya bur rki shn mnw kht",
    "tibt": "bo bod tib dz dzo lbj adx khg",
    "yiii": "ii iii",
    "tang": "txg",
    "nshu": "",
    "lana": "",
    "talu": "khb",
    "tale": "tdd",
    "java": "",
    "bali": "",
}
_SCRIPT_OF = {code: name for name, codes in _SCRIPTS.items() for code in codes.split()}

_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    r"\p{Yi}\p{Tangut}\p{Nushu}\p{Tai_Tham}\p{New_Tai_Lue}\p{Tai_Le}\p{Javanese}\p{Balinese}]"
)
# A run of letters of other scripts, which says about as much as two characters of Chinese.
_SPACED_WORD = regex.compile(rf"(?:(?!{_UNSPACED.pattern})\p{{L}}\p{{M}}*)+")


def script(language: str) -> str | None:
    """Return the unspaced script of a language code, or None for one with spaces or unknown.

    Codes may have two letters or three, and say the script or region: `zh`, `zh-TW`, `zho_Hans`.
    """
    code, *rest = language.lower().replace("_", "-").split("-")
    named = next((part for part in rest if len(part) == 4 and part.isalpha()), None)
    found = named or _SCRIPT_OF.get(code)
    return found if found in _SCRIPTS else None


def is_spaced(language: str) -> bool:
    """Return whether words stand between spaces; where nothing is known of a language, they do."""
    return script(language) is None


def language_is_spaced(language: str, sample: str) -> bool:
    """Return the same for text, which decides where the code does not know the language.

    Text without spaces counts as such also under a code that is thought to have them: a corpus may
    come with the wrong one.
    """
    if not is_spaced(language):
        return False
    unspaced = sum(1 for _ in _UNSPACED.finditer(sample))
    return unspaced <= 2 * sum(1 for _ in _SPACED_WORD.finditer(sample))


def length_unit(language: str, sample: str = "") -> Unit:
    """Return what lengths are counted in: `words`, or `characters` where no space separates them.

    `sample` is some of the text, where there is some.
    """
    return "words" if language_is_spaced(language, sample) else "characters"
