"""The faithfulness sheet of a run: how far its attention may be believed, and a plain reading.

Whether attention explains a model is disputed (Jain & Wallace 2019, Wiegreffe & Pinter 2019,
arXiv:1908.04626); the sheet answers for one model by what changing and erasing does to its words.
`faithfulness_of_run.py` measures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seq2seq.alignment.measures import formatted
from seq2seq.cli.console import table
from seq2seq.evaluation.erasure import SHARES
from seq2seq.run.errors import printable

CLASSES = ("function", "copied", "content")
"""Function words; others that also stand in the source; all the rest."""

WEIGHTS = ("uniform", "permuted", "last", "adversarial")
RANKINGS = ("attention", "gradient", "integrated", "random")
WAYS = ("zeroed", "removed")

FAR = 0.5
"""Total variation from which adversarial weights count as other weights: half the weight moved."""

NEEDLESS, NEEDED, CLOSE = 0.95, 0.6, 0.02
"""Shares of words that stay, and differences of probability, that the reading judges by; ours."""

NAMES = {
    "gradient": "gradient x input",
    "integrated": "integrated gradients",
    "rollout": "attention rollout",
    "last": "last state",
}

LEGEND = f"""\
Words that stay: share of the model's words that are still the most probable if the weights of that
word are exchanged, all before it as it was. Adversarial: some weights at least {FAR:.0%} away keep
the word. Moved: mean total variation from the model's weights; adversarial: of the farthest that
keep the word, 0 if none does. Comprehensiveness: loss of a word's probability without the source
words ranked first (high: they matter); sufficiency: with them alone (low: they are enough); area:
the mean. Tau: Kendall's rank correlation over source words. Words are pieces of the vocabulary."""

LIMITS = (
    "This does not show whether a model could learn the task without attention; only retraining "
    "does. An annotation holds more than its own word, so weight on it is not weight on that word "
    "alone. Gradients are no ground truth either, and the model was not trained on sentences with "
    "words erased."
)


@dataclass(frozen=True)
class Curve:
    """Mean loss of probability at each share of `erasure.SHARES`, and the mean of these (AOPC)."""

    values: Sequence[float]
    area: float


@dataclass(frozen=True)
class Erased:
    """The loss of a word's probability without the words ranked first, and with them alone."""

    comprehensiveness: Curve
    sufficiency: Curve


@dataclass(frozen=True)
class Heads:
    """Of each layer and head to the source."""

    stays: Sequence[Sequence[float | None]]  # share of words that stay if it is uniform
    agreement: Sequence[Sequence[float | None]]  # tau with integrated gradients


@dataclass(frozen=True)
class Retrained:
    """Another run, retrained with uniform weights, on the whole test set."""

    name: str
    bleu: float
    loss: float  # BLEU of the run itself minus its BLEU


@dataclass(frozen=True)
class Seeds:
    """The attention of runs with other seeds along the references."""

    runs: int  # the run itself included
    distance: float  # total variation, mean over words and pairs of runs


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """A sheet; None where nothing could be measured."""

    settings: Mapping[str, Any]  # everything that the numbers depend on
    words: Mapping[str, int]  # target words by class, end symbols left out; and "all"
    stays: Mapping[str, Mapping[str, float | None]]  # share by `WEIGHTS`, by class
    distance: Mapping[str, float | None]  # mean total variation from the model's weights
    asked: int  # words that erasure and gradients are about
    probability: float | None  # their mean probability
    erasure: Mapping[str, Mapping[str, Erased]]  # by ranking, by way; empty if none was asked
    agreement: Mapping[str, float | None]  # mean tau of attention with other rankings
    heads: Heads | None = None  # of a model with several
    uniform: Retrained | None = None  # if such a run was given
    seeds: Seeds | None = None  # if such runs were given

    def tables(self) -> Iterator[tuple[Sequence[str], Sequence[Sequence[str]]]]:
        """Yield the headings and rows of each table."""
        # Other weights
        classes, rows = ("all", *CLASSES), []
        for name in WEIGHTS:
            shares = [formatted(self.stays[name][c], ".1%") for c in classes]
            rows.append([NAMES.get(name, name), *shares, formatted(self.distance[name], ".2f")])
        yield ["words that stay", *(f"{c} ({self.words[c]:,})" for c in classes), "moved"], rows
        # Erasure and gradients
        for name in ("comprehensiveness", "sufficiency"):
            rows = [
                [f"{NAMES.get(ranking, ranking)}, {way}", *_cells(getattr(ways[way], name))]
                for ranking, ways in self.erasure.items()
                for way in WAYS
            ]
            yield [f"{name} ({self.asked:,})", *(f"{share:.0%}" for share in SHARES), "area"], rows
        rows = [[NAMES[name], formatted(tau, ".2f")] for name, tau in self.agreement.items()]
        yield ["agreement of attention", "tau"], rows
        # Layers and heads
        if self.heads is None:
            return
        for name, layers, form in (
            ("stay if uniform", self.heads.stays, ".1%"),
            ("tau, integrated gradients", self.heads.agreement, ".2f"),
        ):
            rows = [
                [f"layer {i}", *(formatted(value, form) for value in heads)]
                for i, heads in enumerate(layers, start=1)
            ]
            yield [name, *(f"head {i}" for i in range(1, len(layers[0]) + 1))], rows


def as_text(sheets: Mapping[str, Faithfulness]) -> str:
    """Return the tables of runs, a legend, and a reading of each."""
    parts = []
    for name, sheet in sheets.items():
        tables = [table(rows, headings, "lr") for headings, rows in sheet.tables() if rows]
        tables[0] = f"{printable(name)}\n{tables[0]}" if len(sheets) > 1 else tables[0]
        parts += tables
    readings = [f"{printable(name)}: {' '.join(reading(s))}" for name, s in sheets.items()]
    return "\n\n".join([*parts, LEGEND, *readings])


def _cells(curve: Curve) -> list[str]:
    return [f"{round(value, 3) + 0.0:.3f}" for value in (*curve.values, curve.area)]  # no -0.000


def reading(sheet: Faithfulness) -> list[str]:
    """Return the sheet in a few sentences, with what it does not show."""
    if not sheet.words["all"]:
        return ["There is no word to measure."]
    parts = (_of_weights, _of_erasure, _of_heads, _of_other_runs)
    return [*(sentence for part in parts for sentence in part(sheet)), LIMITS]


def _of_weights(sheet: Faithfulness) -> Iterator[str]:
    shares = {name: by_class["all"] or 0.0 for name, by_class in sheet.stays.items()}
    # Needed: how many words stay if the weights say nothing.
    others = [shares[name] for name in WEIGHTS[:-1]]
    verdict = "Attention is needed for part of the words"
    if min(others) >= NEEDLESS:
        verdict = "Attention is not needed"
    elif max(others) <= NEEDED:
        verdict = "Attention is needed"
    yield (
        f"{verdict}: {shares['uniform']:.0%} of the model's words stay if the weights are uniform, "
        f"{shares['permuted']:.0%} if they are permuted, {shares['last']:.0%} if all weight is on "
        "the last state."
    )
    # By which words: function words need attention least.
    function, content = (sheet.stays["permuted"][name] for name in ("function", "content"))
    if function is not None and content is not None and abs(function - content) > CLOSE:
        more, less = ("function", "content") if function > content else ("content", "function")
        yield f"With permuted weights {more} words stay more often than {less} words."
    yield (
        f"At {shares['adversarial']:.0%} of the words half of the weight or more could be "
        "elsewhere and the word would stay: there a heatmap is one story among several."
    )


def _of_erasure(sheet: Faithfulness) -> Iterator[str]:
    if not sheet.erasure:
        return
    attention, gradients, chance = (
        sheet.erasure[name]["removed"].comprehensiveness.area
        for name in ("attention", "integrated", "random")
    )
    # Found: whether what is attended to is what matters, between chance and gradients.
    verdict = "better than chance, but not as well as gradients"
    if attention < chance + CLOSE:
        verdict = "no better than chance"
    elif attention > gradients - CLOSE:
        verdict = "as well as gradients"
    yield (
        f"Without the source words it attends to most, a word of probability "
        f"{sheet.probability:.2f} loses {attention:.2f} on average, without random ones "
        f"{chance:.2f}, without those that integrated gradients name {gradients:.2f}: attention "
        f"finds the words that matter {verdict}."
    )
    if (tau := sheet.agreement["integrated"]) is not None:
        ranks = "much as" if tau > 0.5 else "partly as" if tau > 0.2 else "unlike"
        yield f"It ranks source words {ranks} integrated gradients do (tau {tau:.2f})."


def _of_heads(sheet: Faithfulness) -> Iterator[str]:
    if sheet.heads is not None:
        shares = [share or 0.0 for layer in sheet.heads.stays for share in layer]
        idle = sum(share >= NEEDLESS for share in shares)
        yield (
            f"{idle} of {len(shares)} heads could be uniform, one at a time, and "
            f"{NEEDLESS:.0%} or more of the words would stay."
        )


def _of_other_runs(sheet: Faithfulness) -> Iterator[str]:
    if sheet.uniform is not None:
        yield (
            f"Retrained with uniform weights ({printable(sheet.uniform.name)}) it has "
            f"{sheet.uniform.bleu:.1f} BLEU, {sheet.uniform.loss:.1f} less: that is what its "
            "weights are worth."
        )
    if sheet.seeds is not None:
        yield (
            f"Between {sheet.seeds.runs} seeds {sheet.seeds.distance:.0%} of the weight is "
            f"elsewhere; permuting moves {sheet.distance['permuted'] or 0:.0%} of it."
        )
