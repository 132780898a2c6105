"""What given translations of a whole file are worth to a model: probability and alignment."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seq2seq.alignment.gold import AttentionScores, AttentionTally
from seq2seq.alignment.links import GoldLinks, LinkScores
from seq2seq.data.words import Splitter
from seq2seq.decoding.translate import Translation, perplexity


@dataclass(frozen=True)
class ForcedScores:
    """Of all pairs together."""

    pairs: int  # those that were scored
    blank: int  # those that were not, as a side is blank
    tokens: int  # target tokens, end symbols included; words at the level of words
    log_prob: float  # nats, summed over all tokens
    attention: AttentionScores

    @property
    def perplexity(self) -> float:
        """Of a token of the corpus: e to the negative mean log-probability over all tokens."""
        return perplexity(self.log_prob, self.tokens)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = asdict(self) | {"perplexity": self.perplexity}
        del values["attention"]
        values["attention"] = asdict(self.attention.measures)
        if self.attention.gold is not None:
            values["alignment"] = asdict(self.attention.gold)
        return values

    def __str__(self) -> str:
        lines = [
            f"pairs      {self.pairs:,}, {self.blank:,} left out as a side is blank",
            f"tokens     {self.tokens:,}, ends included",
            f"log-prob   {self.log_prob:.4f} nats",
            f"perplexity {self.perplexity:.4f}",
            f"attention  {self.attention.measures}",
        ]
        if (gold := self.attention.gold) is not None:
            lines += [f"alignment  {gold}", f"           {gold.advice}"]
        return "\n".join(lines)


class Tally:
    """Sums up pair after pair.

    Args:
        split: What a word is; None counts pieces.
    """

    def __init__(self, split: Splitter | None) -> None:
        self._split = split
        self._attention = AttentionTally(split)
        self._pairs = self._blank = self._tokens = 0
        self._log_prob = 0.0

    def count(
        self, found: Iterable[Translation], gold: Iterable[GoldLinks | None]
    ) -> Iterator[Translation]:
        """Count forced translations and pass them on.

        Args:
            found: One a pair, between pieces.
            gold: Links of each pair between words, or None.
        """
        for translation, links in zip(found, gold, strict=True):
            self._attention.add(translation, links)
            if translation.candidates:
                shown = translation if self._split is None else translation.words(self._split)
                self._pairs += 1
                self._tokens += len(shown.candidates[0].tokens)
                self._log_prob += shown.candidates[0].log_prob
            else:
                self._blank += 1
            yield translation

    def scores(self) -> ForcedScores:
        """Return the sums."""
        attention = self._attention.scores()
        return ForcedScores(self._pairs, self._blank, self._tokens, self._log_prob, attention)


def as_table(counts: Mapping[str, int], scores: Mapping[str, LinkScores]) -> str:
    """Return an aligned table of sets of links: their number, and how they agree with gold ones.

    Args:
        counts: Links of each set by its name.
        scores: Of each set; empty without gold links.
    """
    rows = [["", "links", *(["error rate", "precision", "recall"] if scores else [])]]
    for name, count in counts.items():
        found = scores.get(name)
        rates = (found.error_rate, found.precision, found.recall) if found else ()
        rows.append([name, f"{count:,}", *(f"{rate:.1%}" for rate in rates)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
