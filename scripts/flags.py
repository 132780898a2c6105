"""Measure how well flags find planted errors: precision and recall of each kind.

Errors are planted in every second pair of a text; the others calibrate the limits. Planted and
clean pairs are scored alike. Precision is that of a planted pair for each clean one.
"""

import argparse
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import checkout  # noqa: F401
from seq2seq.cli.console import option_parser, run_script, show, table, write_json
from seq2seq.data.text import read_parallel
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded
from seq2seq.run.reading import read_json

if TYPE_CHECKING:
    from seq2seq.decoding.pretrained import Pretrained

Pair = tuple[str, str]
Plant = Callable[[int, Sequence[Pair], random.Random], str]

LETTERS = 4
"""Least number of letters of a word that is dropped."""


def truncated(i: int, pairs: Sequence[Pair], _: random.Random) -> str:
    """Keep the first half of the words."""
    words = pairs[i][1].split()
    return " ".join(words[: max(1, len(words) // 2)])


def phrase(i: int, pairs: Sequence[Pair], draw: random.Random) -> str:
    """Say three words three times."""
    words = pairs[i][1].split()
    start = draw.randrange(max(1, len(words) - 2))
    end = start + 3
    return " ".join([*words[:end], *words[start:end] * 2, *words[end:]])


def dropped(i: int, pairs: Sequence[Pair], draw: random.Random) -> str:
    """Leave out a word of `LETTERS` letters or more."""
    words = pairs[i][1].split()
    long = [k for k, word in enumerate(words) if len(word.strip(".,!?")) >= LETTERS]
    left_out = draw.choice(long or [0])
    return " ".join(words[:left_out] + words[left_out + 1 :])


KINDS: Mapping[str, Plant] = {
    "clean": lambda i, pairs, _: pairs[i][1],
    "truncated to its half": truncated,
    "translated twice": lambda i, pairs, _: f"{pairs[i][1]} {pairs[i][1]}",
    "three words repeated": phrase,
    "source copied": lambda i, pairs, _: pairs[i][0],
    "of another sentence": lambda i, pairs, _: pairs[(i + len(pairs) // 2) % len(pairs)][1],
    "a word dropped": dropped,
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("run", type=run_paths, help="a trained run")
    parser.add_argument("--source", type=expanded, required=True, help="not of the training data")
    parser.add_argument("--target", type=expanded, required=True, help="its translations")
    parser.add_argument("--limits", type=expanded, help="use those that another call's --json has")
    parser.add_argument("--json", type=expanded, help="write limits and shares to this file, too")
    parser.add_argument("overrides", nargs="*", help="threads=1, ...")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Plant, score and print."""
    args = parse(argv)
    import seq2seq
    from seq2seq.decoding.flags import calibrated

    model = seq2seq.load(args.run, args.overrides)
    pairs = list(read_parallel(args.source, args.target))
    # The limits, of half of the pairs.
    if args.limits:
        model.limits = read_json(args.limits)["limits"]
    else:
        model.limits = calibrated([*map(model.measures, scored(model, pairs[::2]))])
    # For each kind of error in the other half, the flags of every pair.
    rows, draw = pairs[1::2], random.Random(1)
    flags = {
        kind: flags_of(
            model, scored(model, [(src, plant(i, rows, draw)) for i, (src, _) in enumerate(rows)])
        )
        for kind, plant in KINDS.items()
    }
    flags["the model's own"] = flags_of(model, model.stream(src for src, _ in rows))
    text, shares = summary(flags)
    show(text)
    if args.json:
        write_json(args.json, {"limits": model.limits, "pairs": len(rows), "shares": shares})


def scored(model: "Pretrained", pairs: Sequence[Pair]) -> Iterable[Any]:
    """Return the scored pairs whose sides are not empty."""
    return (t for t in model.force(pairs) if t.candidates)


def flags_of(model: "Pretrained", translations: Iterable[Any]) -> list[list[str]]:
    """Return the flags of each translation."""
    return [model.flags(translation) for translation in translations]


def summary(flags: Mapping[str, Sequence[Sequence[str]]]) -> tuple[str, Any]:
    """Return a table with a row for each kind of error, and its numbers."""
    names = sorted({name for rows in flags.values() for row in rows for name in row})
    shares: dict[str, dict[str, float]] = {}
    cells: list[list[str]] = []
    clean = fmean(bool(row) for row in flags["clean"])
    for kind, rows in flags.items():
        own = {name: fmean(name in row for row in rows) for name in names}
        found = fmean(map(bool, rows))
        shares[kind] = own | {"any": found}
        precise = kind not in ("clean", "the model's own") and found > 0
        precision = f"{found / (found + clean):.1%}" if precise else ""
        cells.append([kind, precision, *(f"{share:.1%}" for share in (found, *own.values()))])
    return table(cells, ["", "precision", "flagged", *names], "lr"), shares


if __name__ == "__main__":
    run_script(main)
