"""What requests cost: required words, forbidden words and prefixes on the test set of a run.

    python docs/results/requests/measure.py RUN [COUNT] [decode.beam_size=5 ...]

Of each sentence a word of the reference is required that the plain translation lacks, a word of the
plain translation is forbidden, and the first half of the reference is the prefix. Prints a table.
"""

import json
import sys
import time
from pathlib import Path

import regex

import seq2seq
from seq2seq.cli.console import show
from seq2seq.data.prepare import SIDES, load_text
from seq2seq.evaluation.scoring import bleu
from seq2seq.run.directory import RunDir


def words(text: str) -> list[str]:
    """Return the words of at least four letters, the longest first."""
    return sorted({*regex.findall(r"\p{L}{4,}", text)}, key=lambda word: (-len(word), word))


def has(text: str, word: str) -> bool:
    """Return whether a word stands in a text, from boundary to boundary."""
    return regex.search(rf"(?<!\w){regex.escape(word)}(?!\w)", text) is not None


def main() -> None:
    """Translate in five ways and print what came of it."""
    path, *rest = sys.argv[1:]
    count, overrides = (int(rest[0]), rest[1:]) if rest and rest[0].isdigit() else (300, rest)
    model, run = seq2seq.load(path, overrides), RunDir.open(Path(path))
    every, references = (list(load_text(run, "test", side)) for side in SIDES)
    language = model.config.data.target_language

    # Sentences of which both words can be had, and that the model can write.
    plain = [translation.text for translation in model.translate(every)]
    cases = []
    for source, reference, text in zip(every, references, plain, strict=True):
        missing = [word for word in words(reference) if not has(text, word)]
        if missing and (own := words(text)):
            cases.append((source, reference, missing[0], own[0]))
    cases = cases[:count]
    sources, references, required, forbidden = map(list, zip(*cases, strict=True))
    prefixes = [" ".join(text.split()[: len(text.split()) // 2]) for text in references]

    ways = {
        "plain": [*sources],
        "required": [
            seq2seq.Request(s, required=[[w]]) for s, w in zip(sources, required, strict=True)
        ],
        "forbidden": [
            seq2seq.Request(s, forbidden=[w]) for s, w in zip(sources, forbidden, strict=True)
        ],
        "prefix": [seq2seq.Request(s, prefix=p) for s, p in zip(sources, prefixes, strict=True)],
    }
    rows = []
    for name, requests in ways.items():
        start = time.perf_counter()
        texts = [translation.text for translation in model.translate(requests)]
        seconds = time.perf_counter() - start
        rows.append(
            {
                "way": name,
                "has the required word": sum(map(has, texts, required)) / len(texts),
                "has the forbidden word": sum(map(has, texts, forbidden)) / len(texts),
                "begins with the prefix": sum(map(str.startswith, texts, prefixes)) / len(texts),
                "BLEU": round(bleu(texts, references, None, language), 2),
                "seconds": round(seconds, 1),
            }
        )
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*map(str, row.values())] for row in rows)]
    shown = [f"| {' | '.join(line)} |" for line in lines]
    show("\n".join([*shown, json.dumps({"sentences": len(cases), "rows": rows})]))


main()
