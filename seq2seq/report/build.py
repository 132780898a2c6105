"""Builds the HTML report of one run, or of several on the same sentences."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from seq2seq.alignment.heatmap import printable_line
from seq2seq.config.schema import Config, Direction
from seq2seq.data.batching import spread
from seq2seq.data.prepare import SIDES, directions_of, lengths_of, load_text, splitter_of
from seq2seq.data.words import is_blank
from seq2seq.decoding.pretrained import Pretrained, load
from seq2seq.decoding.translation import Translation
from seq2seq.evaluation.by_length import run_names
from seq2seq.report.of_run import describe_fidelity, describe_run
from seq2seq.report.page import page
from seq2seq.report.sentence import describe
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.models import NamedRun, named_runs
from seq2seq.run.progress import tqdm
from seq2seq.run.reading import expected

MAX_MAPS = 4_000_000  # maximum characters of a page for the attention of layers and heads


def default_path(texts: Sequence[str]) -> Path:
    """Return where the report of runs goes: into the first, under a name of its own.

    The report of a run alone is not overwritten by one with others, or of another checkpoint.
    """
    first, *others = (run for text in texts for run in named_runs(text))
    parts = ["report", first.selector]
    for run in others:
        parts += [run.path.resolve().name, run.selector]
    return first.path / f"{'-'.join(filter(None, parts))}.html"


def build(
    texts: Sequence[str | Path],
    overrides: Sequence[str],
    sentences: int,
    n_best: int,
    directory: Path | None = None,
) -> str:
    """Return the report of runs as a page, with links to the files of a run in its `directory`.

    It shows a number of sentences, evenly spread over the test set, whose sources must be those of
    all runs, each with `n_best` hypotheses, at most the beam size.

    Raises:
        RunDirError: not a run, a damaged run, or a test set with different sources.
        ConfigError: an override is invalid.
    """
    # The sentences to show: the same for every run.
    named = [run for text in texts for run in named_runs(str(text))]
    runs = [RunDir.open(each.path) for each in named]
    sources = _sources(runs)
    rows = spread([i for i, text in enumerate(sources) if not is_blank(text)], sentences)
    lines = [sources[i] for i in rows]

    # Every run translates the same lines.
    described, configs = [], []
    decoded: list[list[dict[str, Any]]] = []  # by run, by sentence
    for text, each, run, name in zip(texts, named, runs, _names(named), strict=True):
        model = load(text, overrides)
        with expected(run.path("corpus")):  # one reference per source
            references = [load_text(run, "test", SIDES[1])[i] for i in rows]
        directions = directions_of(run, model.config, "test")
        decoded.append(
            [*_sentences(model, lines, references, [directions[i] for i in rows], n_best)]
        )
        linked = directory is not None and directory.resolve() == run.root.resolve()
        scored = each.selector is None
        described.append(describe_run(run, name, model, scored=scored, linked=linked))
        configs.append(model.config)

    # The page lists sentences, each with the translations of every run.
    shown = list(_by_sentence(configs[0], rows, lines, decoded))
    for about, by_run in zip(described, decoded, strict=True):
        about["layers"] = any(map(_maps, by_run))
    title = " and ".join(run["name"] for run in described)
    data = {
        "title": title,
        "runs": described,
        "fidelity": describe_fidelity(configs),
        "sentences": shown,
        "withHeads": _limit_maps(shown),
    }
    return page(title, data, ("attention.js", "heads.js", "report.js"))


def _by_sentence(
    cfg: Config, rows: Sequence[int], lines: Sequence[str], decoded: Sequence[Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Yield each sentence with the translations of every run."""
    length, _ = lengths_of(cfg)
    for row, line, *in_runs in zip(rows, lines, *decoded, strict=True):
        if all(in_run["found"] for in_run in in_runs):  # a broken model may give no translation
            source = printable_line(line)
            yield {"number": row + 1, "source": source, "length": length(line), "runs": in_runs}


def _names(runs: Sequence[NamedRun]) -> list[str]:
    """Name runs so that names differ; shorten paths to their last component."""
    names = []
    for name, run in zip(run_names([run.path for run in runs]), runs, strict=True):
        name = run.path.resolve().name if name == str(run.path) else name
        names.append(name if run.selector is None else f"{name}@{run.selector}")
    counts = Counter(names)
    return [n if counts[n] == 1 else f"{n} ({i})" for i, n in enumerate(names, start=1)]


def _sources(runs: Sequence[RunDir]) -> list[str]:
    """Return the source sentences of the test set, which must be those of all runs."""
    first, *others = runs
    sources = list(load_text(first, "test", SIDES[0]))
    for other in others:
        if list(load_text(other, "test", SIDES[0])) != sources:
            what = f"its test set has other source sentences than that of {first.root}"
            raise RunDirError(other.root, what, "Name runs with one test set.")
    return sources


def _maps(in_run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the maps of layers and heads of a sentence, of every candidate and level."""
    levels = (found[unit] for found in in_run["found"] for unit in ("words", "pieces"))
    return [level["maps"] for level in levels if "maps" in level]


def _limit_maps(sentences: Sequence[dict[str, Any]]) -> int | None:
    """Drop maps beyond `MAX_MAPS`; return how many sentences keep theirs, None if all do."""
    size, kept = 0, 0
    for sentence in sentences:
        maps = [maps for in_run in sentence["runs"] for maps in _maps(in_run)]
        size += sum(len(packed["weights"]) for each in maps for packed in each.values())
        kept += size <= MAX_MAPS
        if size > MAX_MAPS:
            for each in maps:
                each.clear()
    return kept if size > MAX_MAPS else None


def _sentences(
    model: Pretrained,
    lines: Sequence[str],
    references: Sequence[str],
    directions: Sequence[Direction],
    n_best: int,
) -> Iterator[dict[str, Any]]:
    """Yield the candidates for each line: beam, greedy, and the reference."""
    cfg = replace(model.config.decode, sample=False, mbr=None)
    languages = [target for _, target in directions]
    decoded = partial(model.stream, lines, target_language=languages)
    results = zip(
        references,
        directions,
        decoded(maps=True, rules=replace(cfg, n_best=min(n_best, cfg.beam_size))),
        decoded(rules=replace(cfg, beam_size=1, n_best=1)),
        model.force(zip(lines, references, strict=True), target_language=languages),
        strict=True,
    )
    bar = tqdm(results, total=len(lines), unit=" sentences", disable=None)
    for reference, direction, *found in bar:
        yield {
            "reference": printable_line(reference),
            "found": [*_candidates(model, reference, *found)],
            "languages": html_languages(direction),
        }


def html_languages(direction: Direction) -> dict[str, str | None]:
    """Return the languages of both sides as an HTML `lang`, or None where a code is not safe."""
    safe = (c if c.isascii() and c.replace("-", "").isalnum() else None for c in direction)
    return dict(zip(SIDES, safe, strict=True))


def _candidates(
    model: Pretrained, reference: str, beam: Translation, greedy: Translation, forced: Translation
) -> Iterator[dict[str, Any]]:
    from sacrebleu.metrics import CHRF

    metric, split = CHRF(), splitter_of(model.config)
    for translation, name in ((beam, "Beam"), (greedy, "Greedy"), (forced, "Reference")):
        for i, candidate in enumerate(translation.candidates):
            label = f"{name} {i + 1}" if translation is beam else name
            chrf = float(metric.sentence_score(candidate.text, [reference]).score)
            pieces = translation.soft_alignment(i)
            if i:  # layers and heads only for the first, to keep the page small
                pieces = replace(pieces, maps={})
            shown = None if translation is forced else chrf
            flags = model.flags(translation, i)
            yield describe(label, pieces, candidate.score, shown, split, flags)
