"""The report of one run, or of several on the same sentences."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seq2seq.data.prepare import SIDES, load_text, word_counters
from seq2seq.errors import RunDirError
from seq2seq.inference.alignment import printable_line
from seq2seq.inference.by_length import run_names
from seq2seq.inference.translate import translate
from seq2seq.pretrained import Pretrained, load
from seq2seq.progress import tqdm
from seq2seq.reading import expected
from seq2seq.report.of_run import describe_fidelity, describe_run
from seq2seq.report.page import page
from seq2seq.report.sentence import Found, describe
from seq2seq.run import RunDir


def build(folders: Sequence[Path], overrides: Sequence[str], sentences: int, n_best: int) -> str:
    """Return the report of runs as a page.

    Args:
        folders: Runs with a test set; several have the same source sentences there.
        overrides: Of their settings.
        sentences: How many are shown, evenly spread over the test set.
        n_best: Hypotheses of the beam that are shown of each, at most the beam's size.

    Raises:
        RunDirError: no run, a damaged one, or one whose test set has other sources.
        ConfigError: an override is wrong.
    """
    runs = [RunDir.open(folder) for folder in folders]
    names = _names(folders)
    sources = _sources(runs)
    rows = _spread([i for i, text in enumerate(sources) if text.strip()], sentences)
    lines = [sources[i] for i in rows]
    described, configs = [], []
    decoded: list[list[dict[str, Any]]] = []  # of each run, of each sentence
    for run, name in zip(runs, names, strict=True):
        model = load(run.root, overrides)
        references = load_text(run, "test", SIDES[1])
        with expected(run.path("corpus")):  # as many as sources
            chosen = [references[i] for i in rows]
        decoded.append(list(_sentences(model, lines, chosen, n_best)))
        described.append(describe_run(run, name, model))
        configs.append(model.config)
    count, _ = word_counters(configs[0])
    shown = [
        {
            "number": row + 1,
            "source": printable_line(line),
            "length": count(line),
            "runs": list(in_runs),
        }
        for row, line, *in_runs in zip(rows, lines, *decoded, strict=True)
        if all(found["found"] for found in in_runs)  # not where a broken model says nothing
    ]
    title = " and ".join(run["name"] for run in described)
    data = {
        "title": title,
        "runs": described,
        "fidelity": describe_fidelity(configs),
        "sentences": shown,
    }
    return page(title, data, ("attention.js", "report.js"))


def _names(folders: Sequence[Path]) -> list[str]:
    """Name runs by what tells them apart; where that would be a path, by the end of it."""
    pairs = zip(run_names(folders), folders, strict=True)
    names = [folder.resolve().name if name == str(folder) else name for name, folder in pairs]
    counts = Counter(names)
    return [n if counts[n] == 1 else f"{n} ({i})" for i, n in enumerate(names, start=1)]


def _sources(runs: Sequence[RunDir]) -> list[str]:
    """Return the source sentences of the test set that all runs have.

    Raises:
        RunDirError: they have not the same.
    """
    first, *others = runs
    sources = list(load_text(first, "test", SIDES[0]))
    for other in others:
        if list(load_text(other, "test", SIDES[0])) != sources:
            what = f"its test set has other source sentences than that of {first.root}"
            raise RunDirError(other.root, what, "Name runs with one test set.")
    return sources


def _spread(rows: Sequence[int], most: int) -> list[int]:
    """Take at most so many rows, evenly over all."""
    most = min(most, len(rows))
    return [rows[i * len(rows) // most] for i in range(most)]


def _sentences(
    model: Pretrained, lines: Sequence[str], references: Sequence[str], n_best: int
) -> Iterator[dict[str, Any]]:
    """Yield for each line what a reader can choose from: beam, greedy, and the reference."""
    from sacrebleu.metrics import CHRF

    cfg, parts = model.config.decode, (model.model, model.tokenizers)
    metric = CHRF()
    results = zip(
        references,
        translate(*parts, lines, replace(cfg, n_best=min(n_best, cfg.beam_size))),
        translate(*parts, lines, replace(cfg, beam_size=1, n_best=1)),
        model.force(zip(lines, references, strict=True)),
        strict=True,
    )
    for reference, beam, greedy, forced in tqdm(
        results, total=len(lines), unit=" sentences", disable=None
    ):
        named = [(f"Beam {rank}", beam, c) for rank, c in enumerate(beam.candidates, start=1)]
        named += [("Greedy", greedy, c) for c in greedy.candidates]
        found = [
            Found(name, of, c, float(metric.sentence_score(c.text, [reference]).score))
            for name, of, c in named
        ]
        found += [Found("Reference", forced, c, chrf=None) for c in forced.candidates]
        yield {"reference": printable_line(reference), "found": list(map(describe, found))}
