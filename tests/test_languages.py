"""Which languages have spaces between words: by code, and by text where the code says nothing."""

import pytest

from seq2seq.data.languages import is_spaced, length_unit

UNSPACED = (
    "zh zh-TW zh_CN zho zho_Hans cmn yue ja jpn ja-JP th tha lo km khm my mya bo dz dzo jv-Java"
)
SPACED = "en fr ko kor vi hi ar am ka tr zh-Latn ja_Latn und sr-Cyrl xx"


@pytest.mark.parametrize("code", UNSPACED.split())
def test_a_code_of_an_unspaced_language_counts_characters(code: str) -> None:
    assert not is_spaced(code)
    assert length_unit(code, "Latin letters all the same") == "characters"


@pytest.mark.parametrize("code", [*SPACED.split(), ""])
def test_every_other_code_counts_words(code: str) -> None:
    assert is_spaced(code)
    assert length_unit(code) == "words"


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("", True),
        ("12, 34!", True),
        ("the word 你好 means hello", True),
        ("나는 漢字를 배운다", True),
        ("यह एक घर है", True),
        ("我爱 Python 和北京", False),
        ("สวัสดีชาวโลก", False),
        ("សួស្តីពិភពលោក", False),
        ("ສະບາຍດີ", False),
        ("མི་ཚེ་རིང་པོ།", False),
        ("မင်္ဂလာပါ", False),
    ],
)
def test_text_decides_where_the_code_does_not(text: str, spaced: bool) -> None:
    assert is_spaced("xx", text) == is_spaced("", text) == spaced
