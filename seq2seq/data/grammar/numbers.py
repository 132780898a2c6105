"""Numbers in words, in both languages.

21 -> twenty-one / vingt et un        82 -> eighty-two / quatre-vingt-deux
71 -> seventy-one / soixante et onze  95 -> ninety-five / quatre-vingt-quinze
"""

from seq2seq.data.grammar.orthography import row
from seq2seq.data.grammar.phrase import Phrase, Word, each, english, french, join, linked

EN_ONES = row("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen
""")
EN_TENS = row("twenty thirty forty fifty sixty seventy eighty ninety")
FR_ONES = row("""
    zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze
    seize dix-sept dix-huit dix-neuf
""")
FR_TENS = row("vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")
ORDINALS = row("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
    fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth
""")


def english_number(n: int) -> str:
    """Write 1 to 99."""
    if n < 20:
        return EN_ONES[n]
    tens, ones = divmod(n, 10)
    return EN_TENS[tens - 2] + (f"-{EN_ONES[ones]}" if ones else "")


def english_ordinal(n: int) -> str:
    """Write 1st to 99th: twentieth, twenty-first."""
    if n < 20:
        return ORDINALS[n - 1]
    tens, ones = divmod(n, 10)
    return f"{EN_TENS[tens - 2]}-{ORDINALS[ones - 1]}" if ones else EN_TENS[tens - 2][:-1] + "ieth"


def french_number(n: int, *, feminine: bool = False) -> str:
    """Write 1 to 99; only `un` agrees, and quatre-vingts keeps its s when nothing follows."""
    one = "une" if feminine else "un"
    if n < 20:
        return one if n == 1 else FR_ONES[n]
    if n == 80:
        return "quatre-vingts"
    tens = FR_TENS[n // 10 - 2]
    rest = n % 10 + (10 if n // 10 in (7, 9) else 0)  # seventy is sixty and ten
    if rest == 0:
        return tens
    if rest in (1, 11) and n < 80:
        return f"{tens} et {one if rest == 1 else FR_ONES[11]}"
    return f"{tens}-{one if rest == 1 else FR_ONES[rest]}"


def number(n: int, *, feminine: bool = False) -> Phrase:
    """Translate 1 to 99 as a block."""
    return linked(english_number(n), french_number(n, feminine=feminine))


def hundreds(n: int, *, feminine: bool = False) -> Phrase:
    """Translate 100 to 999: three hundred and five / trois cent cinq.

    `one hundred` is `cent`, and `cents` loses its s before another number. English `and` has no
    counterpart and stays without a link.
    """
    count, rest = divmod(n, 100)
    cents = "cents" if count > 1 and not rest else "cent"
    whole = (
        linked("one hundred", cents)
        if count == 1
        else join(number(count), linked("hundred", cents))
    )
    if not rest:
        return whole
    return join(whole, Phrase((Word("and"),)), number(rest, feminine=feminine))


def year(n: int) -> Phrase:
    """Translate 1101 to 2099: nineteen eighty-four / mille neuf cent quatre-vingt-quatre.

    English counts years in hundreds, so that `nineteen` is `mille neuf cent`.
    """
    century, rest = divmod(n, 100)
    if century == 20:
        whole = each(("two", "deux"), ("thousand", "mille"))
        return join(whole, Phrase((Word("and"),)), number(rest)) if rest else whole
    words = english(english_number(century))
    return join(Phrase(words, french(f"mille {FR_ONES[century - 10]} cent", words)), number(rest))
