"""Restores carried-over texts in translations: each appears once, as in the source.

A hypothesis that omits, repeats or invents a symbol is repaired and rescored by forced decoding.
Hypotheses that need no repair come first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seq2seq.data.placeholders import CarryingTokenizer
from seq2seq.data.tokenizer import EOS, SPACE, Tokenizer
from seq2seq.data.words import Span
from seq2seq.decoding.chunks import Tokens
from seq2seq.decoding.forced import force_ids
from seq2seq.decoding.ranking import Ranking
from seq2seq.decoding.search import Hypothesis
from seq2seq.model.ensemble import Decodable


@dataclass(frozen=True)
class Carried:
    """The texts that a source carries over, by target id."""

    texts: Mapping[int, str]
    places: Mapping[int, int]  # position of each among the source tokens
    shift: int  # number of ids before those of the source
    written: Mapping[int, str]  # all symbols, in this source or not

    def whole_first(
        self,
        model: Decodable,
        target: Tokenizer,
        src: Sequence[int],
        found: Iterable[Hypothesis],
        ranking: Ranking,
    ) -> Iterator[Hypothesis]:
        """Yield hypotheses that have each symbol once: first unchanged ones, then repaired ones.

        Repaired ones are ordered by their new scores, best first.
        """
        others = []
        for h in found:
            if sorted(i for i in h.ids if i in self.written) == sorted(self.texts):
                yield h
            else:
                others.append(h)
        repaired: list[Hypothesis] = []
        for h in others:
            ids = self._mended(h, target)
            pair = ([*src, EOS], [*ids, EOS] if h.finished or not ids else ids)
            repaired += force_ids(model, [pair], ranking)
        yield from sorted(repaired, key=lambda h: -h.score)

    def _mended(self, h: Hypothesis, target: Tokenizer) -> list[int]:
        """Return the ids of a hypothesis with each symbol once, without the end symbol."""
        # Replace a surplus symbol by the missing one with the most attention there.
        missing = [symbol for symbol in self.texts if symbol not in h.ids]
        ids, rows = [], []
        for row, token in enumerate(h.ids[:-1] if h.finished else h.ids):
            if token in self.written and (token not in self.texts or token in ids):
                if not missing:
                    continue
                token = max(missing, key=lambda symbol: float(h.alpha[row, self._column(symbol)]))
                missing.remove(token)
            ids.append(token)
            rows.append(row)

        # Insert each symbol still missing before the word that attends to it most, or at the end.
        begins = [i for i, piece in enumerate(target.pieces(ids)) if piece[0] == SPACE]
        weights = [h.alpha[row] for row in rows]
        if h.finished:  # the end symbol has attention, too
            begins, weights = [*begins, len(ids)], [*weights, h.alpha[len(h.ids) - 1]]
        before: dict[int, list[int]] = {}
        for symbol in missing:
            place = self._column(symbol)
            most = int(np.argmax([row[place] for row in weights] or [0]))
            at = max((i for i in begins if i <= most), default=0)
            before.setdefault(at, []).extend(target.encode([self.written[symbol]])[0])
        return [x for i in range(len(ids) + 1) for x in (*before.get(i, ()), *ids[i : i + 1])]

    def _column(self, symbol: int) -> int:
        """Return where attention to a symbol stands, as the model has it."""
        return self.places[symbol] + self.shift

    def restored(
        self, ids: Sequence[int], pieces: Sequence[str], text: str, spans: Sequence[Span]
    ) -> tuple[list[str], str, list[Span]]:
        """Replace symbols by their texts; return the pieces, the text and the pieces' spans."""
        shown, written, places = list(pieces), "", []
        for i, (token, span) in enumerate(zip(ids, spans, strict=True)):
            part, start = text[slice(*span)], len(written)
            if token in self.texts:
                symbol, own = self.written[token], self.texts[token]
                shown[i] = pieces[i].replace(symbol, own.replace(" ", SPACE))
                part = part.replace(symbol, own)
            written += part
            places.append(Span(start, len(written)))
        return shown, written, places


def carried(source: Tokenizer, line: str, src: Tokens, *, shift: int = 0) -> Carried | None:
    """Return the texts that a line carries over; None if the vocabulary does not carry texts.

    `shift` is the number of ids before those of the line.
    """
    if not isinstance(source, CarryingTokenizer):
        return None
    found = source.carried(line, src.ids, src.spans)
    texts = {token: text for token, (text, _) in found.items()}
    places = {token: place for token, (_, place) in found.items()}
    return Carried(texts, places, shift, source.written)
