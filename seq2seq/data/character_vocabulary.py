"""Characters, or tokens between spaces: each distinct one of the training text has an id.

A character is an extended grapheme cluster, what a reader takes for one in any script; a space is
one, too. So text is written exactly as it was read.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import regex

from seq2seq.config.registry import builds
from seq2seq.config.schema import CharactersConfig, Units
from seq2seq.data.lengths import count_characters
from seq2seq.data.tokenizer import (
    EOS,
    LINE_BREAKS,
    PAD,
    SPACE,
    UNK,
    Draws,
    Names,
    Texts,
    Token,
    composed,
    parted_at,
    places_before_composing,
)
from seq2seq.data.words import Span, WordCounter, is_blank
from seq2seq.run.errors import DataError, RunDirError

_SPECIAL = {PAD: "<pad>", UNK: "<unk>", EOS: "</s>"}
_WRITTEN = {"<pad>": "", "<unk>": "\ufffd", "</s>": ""}

# In pieces, U+2581 is a space; in a text, it becomes a noncharacter, which occurs in none.
_RESERVED = {ord(" "): SPACE, ord(SPACE): "\ufdd0"}
_UNRESERVED = {ord(standing): chr(reserved) for reserved, standing in _RESERVED.items()}

_UNIT = {Units.characters: regex.compile(r"\X"), Units.tokens: regex.compile(r"\S+")}


class UnitTokenizer:
    """A list of units; ids are the special ones, then the units in order.

    Args:
        units: The list.
        kind: What a unit is.
        symbols: Texts that are units of their own wherever they occur.
    """

    def __init__(self, units: Sequence[str], kind: Units, symbols: Sequence[str] = ()) -> None:
        self._cut = Cutter(kind, symbols)
        self._spaced = SPACE if kind is Units.tokens else ""  # in front of each unit
        self._pieces = [*_SPECIAL.values(), *(self._spaced + unit for unit in units)]
        self._ids = {unit: i for i, unit in enumerate(units, start=len(_SPECIAL))}

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; a blank text gives no ids."""
        return [[self._ids.get(unit, UNK) for unit, _ in self._cut(text)] for text in texts]

    def sample(self, texts: Sequence[str], rate: float, draws: Draws) -> list[list[int]]:
        """Return the same as `encode`: there is only one way to split a text."""
        return self.encode(texts)

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Return the units of texts, one per id of `encode`, unknown ones as in the text."""
        return [
            [Token(self._ids.get(u, UNK), self._spaced + u, span) for u, span in self._cut(text)]
            for text in texts
        ]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, with spaces as U+2581."""
        return [self._pieces[int(i)] for i in ids]

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces into text; padding and end symbols are dropped."""
        text, spans = "", []
        for piece in pieces:
            start, unit = len(text), _WRITTEN.get(piece, piece)
            if self._spaced and (unit := unit.lstrip(SPACE)):
                unit = SPACE * bool(text) + unit
            text += unit.translate(_UNRESERVED).translate(LINE_BREAKS)
            spans.append(Span(start, len(text)))
        return text, spans

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return the first unit of each text that has no id, or None."""
        units = ((unit for unit, _ in self._cut(text)) for text in texts)
        return [next((unit for unit in each if unit not in self._ids), None) for each in units]


class Cutter:
    """Splits a text into units."""

    def __init__(self, kind: Units, symbols: Sequence[str] = ()) -> None:
        self._unit, self._parted, self._symbols = _UNIT[kind], parted_at(symbols), {*symbols}

    def __call__(self, text: str) -> list[tuple[str, Span]]:
        """Return each unit of a text, with spaces as U+2581, and its span."""
        if is_blank(text):
            return []
        at, found, start = places_before_composing(text), [], 0
        for part in self._parted(composed(text)):
            units = (match.span() for match in self._unit.finditer(part))
            for a, b in [(0, len(part))] if part in self._symbols else units:
                span = Span(at[start + a], at[start + b])
                found.append((part[a:b].translate(_RESERVED), span))
            start += len(part)
        return found


@builds(CharactersConfig)
class Characters:
    """Lists of units, one per side, the most frequent unit first."""

    ending = "characters"

    def __init__(self, cfg: CharactersConfig) -> None:
        self.cfg = cfg

    def learn(self, texts: Texts, languages: Names, names: Names, workers: int = 1) -> list[bytes]:
        """Take the units of each text, or of all texts, one per line.

        Raises:
            DataError: no unit is frequent enough.
        """
        kinds = (self.cfg.source, self.cfg.target)
        if self.cfg.joint:
            return [self._units(chain(*texts), kinds[0], " and ".join(names))] * len(texts)
        return [*map(self._units, texts, kinds, names)]

    def _units(self, lines: Iterable[str], kind: Units, name: str) -> bytes:
        cut, symbols = Cutter(kind, self.cfg.symbols), self.cfg.symbols
        counts = Counter(unit for line in lines for unit, _ in cut(line))
        known = [unit for unit, n in counts.items() if n >= self.cfg.min_count]
        ranked = sorted({*known} - {*symbols}, key=lambda unit: (-counts[unit], unit))
        if not ranked:
            what = f"no vocabulary could be learnt from {name}"
            raise DataError("tokenizer", what, "Give more text, or lower tokenizer.min_count.")
        if self.cfg.vocab_size is not None:
            ranked = ranked[: self.cfg.vocab_size - len(_SPECIAL) - len(symbols)]
        return _lines([*symbols, *ranked])

    def load(self, data: bytes, side: int, language: str, where: str) -> UnitTokenizer:
        """Build a vocabulary from what `learn` returned, and refuse anything else."""
        units = [*dict.fromkeys(data.decode(errors="replace").split("\n")[:-1])]
        if not units or "" in units or _lines(units) != data:
            what = "is not a list of characters, each of them on one line of its own"
            raise RunDirError(where, what, "Restore it from a copy.")
        kind = (self.cfg.source, self.cfg.target)[side]
        return UnitTokenizer(units, kind, self.cfg.symbols)

    def grown(self, data: bytes, size: int, symbols: Sequence[str], pieces: Sequence[str]) -> bytes:
        """Add units at the end."""
        kept = data.decode().split("\n")[: size - len(_SPECIAL)]
        return _lines([*dict.fromkeys([*kept, *symbols, *pieces])])

    def parts(self, piece: str) -> Sequence[str]:
        """Return the unit itself."""
        return [piece.removeprefix(SPACE) or SPACE]

    def word_counter(self, language: str) -> WordCounter:
        """Count characters: a text may be a single word."""
        return count_characters


def _lines(units: Iterable[str]) -> bytes:
    return "".join(f"{unit}\n" for unit in units).encode()
