"""A synchronous grammar that draws sentences of a given length.

For every constituent and number of English words, `choices` lists the ways to make it with their
probabilities, those of its parts included (the inside algorithm, over lengths). A sentence of
exactly `n` words is thus drawn directly, with the probability given by the rules' weights, and none
is rejected for its length.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate, product
from math import prod
from typing import NamedTuple

from seq2seq.data.toy.lexicon import Lexicon
from seq2seq.data.toy.phrase import LIKE, Agreement, Clause, Phrase
from seq2seq.data.toy.rules import Rule
from seq2seq.data.toy.verbs import Verb


class Choices(NamedTuple):
    """All ways to make a constituent with a given number of words."""

    ways: "list[tuple[Rule | Verb, Parts]]"  # a rule or verb, and the choices for each child
    masses: list[float]  # the probability of each
    cumulative: list[float]  # cumulative sums of the masses


Parts = tuple[Choices, ...]
Production = tuple[str, float, Rule, tuple[str, ...]]  # symbol, probability for it, rule, children


class Grammar:
    """Rules and words.

    Args:
        rows: The lines of rules.txt.
        lexicon: The entries of constituents that consist of words only.

    Raises:
        ValueError: a line is not a rule, or a French part has no English counterpart.
    """

    def __init__(self, rows: list[list[str]], lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._variables: dict[str, dict[str, float]] = {}
        self._longest: dict[str, int] = {}
        self._choices: dict[tuple[str, int], Choices] = {}
        self._deals: dict[tuple[tuple[str, ...], int], list[tuple[Parts, float]]] = {}
        self._lengths = {symbol: sorted({e.words for e in lexicon[symbol]}) for symbol in lexicon}

        # Keep the productions whose constituents can be made.
        made = [production for row in rows for production in self._read(*row)]
        alive: list[Production] = []
        while len(alive) != len(made):
            alive, known = made, {symbol for symbol, *_ in made} | lexicon.keys()
            made = [production for production in alive if known.issuperset(production[3])]

        # The productions of a rule for a symbol share its weight.
        shares: dict[tuple[str, Rule], float] = defaultdict(float)
        for symbol, weight, rule, _ in alive:
            shares[symbol, rule] += weight
        totals: dict[str, float] = defaultdict(float)
        for symbol, rule in shares:
            totals[symbol] += rule.weight
        self.productions: dict[str, list[Production]] = defaultdict(list)
        for symbol, weight, rule, children in alive:
            share = weight / shares[symbol, rule] * rule.weight / totals[symbol]
            self.productions[symbol].append((symbol, share, rule, children))

    def _read(self, head: str, *sides: str) -> Iterator[Production]:
        """Parse a line; yield its rule for all values of its variables, with their weights."""
        match head.split(), sides:
            case ["let", variable, "=", *values], []:
                weighted = [value.partition("*") for value in values]
                self._variables[variable] = {v: float(weight or 1) for v, _, weight in weighted}
            case ["max", name, words], []:
                self._longest[name] = int(words)
            case [symbol, *weight], [english, french]:
                try:
                    rule = Rule(english, french, float(weight[0]) if weight else 1.0)
                except ValueError as error:
                    raise ValueError(f"{head} | {english} | {french}: {error}") from None
                patterns = [pattern.split(".") for pattern in (symbol, *rule.children)]
                # `a,b` is an anonymous variable.
                own = {f: dict.fromkeys(f.split(","), 1.0) for f in patterns[0] if "," in f}
                domains = {**self._variables, **own}
                used = [v for v in domains if any(v in pattern[1:] for pattern in patterns)]
                for pairs in product(*[domains[variable].items() for variable in used]):
                    chosen = {v: value for v, (value, _) in zip(used, pairs, strict=True)}
                    made = [".".join([chosen.get(f, f) for f in p]) for p in patterns]
                    yield made[0], prod([share for _, share in pairs]), rule, tuple(made[1:])
            case _:
                raise ValueError(f"{' | '.join([head, *sides])}: no rule")

    def draw(self, symbol: str, words: int, random: Callable[[], float]) -> Phrase:
        """Draw a constituent with a number of English words, as counted by `str.split`.

        There must be `choices` for it; `random` draws from [0, 1).
        """

        def grow(choices: Choices, agreement: Agreement, clause: Clause) -> Phrase:
            ways, _, cumulative = choices
            item, parts = ways[bisect(cumulative, random() * cumulative[-1])]
            return item.make(parts, grow, agreement, clause)

        return grow(self.choices(symbol, words), LIKE["il"], Clause())

    def choices(self, symbol: str, words: int) -> Choices:
        """List the ways to make a constituent with a number of words."""
        key = symbol, words
        if key not in self._choices:
            found = list(self._ways(symbol, words))
            # Not `sum`, whose result depends on the Python version, and with it the sentences.
            masses = [mass for _, _, mass in found]
            ways = [(item, parts) for item, parts, _ in found]
            self._choices[key] = Choices(ways, masses, list(accumulate(masses)))
        return self._choices[key]

    def _ways(self, symbol: str, words: int) -> Iterator[tuple[Rule | Verb, Parts, float]]:
        if symbol in self.lexicon:
            entries = self.lexicon[symbol]
            *_, total = accumulate([entry.weight for entry in entries])
            yield from [(e.item, (), e.weight / total) for e in entries if e.words == words]
        elif words <= self._longest.get(symbol.partition(".")[0], words):
            for _, share, rule, children in self.productions[symbol]:
                if rule.passes:
                    ways, masses, _ = self.choices(children[0], words)
                    yield from [(*way, share * m) for way, m in zip(ways, masses, strict=True)]
                else:
                    deals = self._deal(children, words - rule.words)
                    yield from [(rule, parts, share * mass) for parts, mass in deals]

    def _deal(self, children: tuple[str, ...], words: int) -> list[tuple[Parts, float]]:
        """Distribute words to children in all possible ways, with their probabilities."""
        if not children:
            return [((), 1.0)] if words == 0 else []
        key = children, words
        if key not in self._deals:
            first, rest = children[0], children[1:]
            lengths = self._lengths.get(first, range(1, words + 1)) if rest else [words]
            self._deals[key] = [
                ((choices, *parts), choices.cumulative[-1] * mass)
                for length in lengths
                if length <= words and (choices := self.choices(first, length)).ways
                for parts, mass in self._deal(rest, words - length)
            ]
        return self._deals[key]
