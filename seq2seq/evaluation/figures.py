"""Draws the figures of a run: heatmaps, the paper's examples, learning curves.

Each figure has a name and is drawn on demand, so a failure affects only that figure.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from seq2seq.alignment.heatmap import plot_alignment, printable_line, to_png
from seq2seq.alignment.words import SoftAlignment, Spans, group_pieces, merge_words
from seq2seq.config.schema import Config
from seq2seq.data.prepare import load_tokenizers, splitter_of
from seq2seq.data.tokenizer import RightToLeft
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translation import END
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import UserError
from seq2seq.run.reading import expected, parse_json, read_lines_of
from seq2seq.training.curves import plot_curves, read_metrics

log = logging.getLogger(__name__)

HARDLY_LEARNT = "the model has hardly learnt yet: train longer or add data"
"""Note on the heatmaps of a model whose scores say so; see `evaluation.test_set.not_learnt`."""

DETAILS = "decode/test.jsonl"  # tokens, scores and attention of the translations of the test set
Drawing = tuple[str, Callable[[], bytes]]
"""The name of a file in the run, and a function that draws its content."""


def examples_of(name: str) -> list[list[str]]:
    """Return label, source and published translation of each sentence of a set.

    The paper shows tokenised text; here it is detokenised, as models read it. Worth seeing in
    Figure 3: in (a) "zone" attends to "Area" and the words after it step back one at a time; in (d)
    "l'" attends to "the" and to "man".
    """
    text = Path(__file__).with_name(f"{name}.tsv").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()]


def drawn(drawings: Iterable[Drawing]) -> Iterator[tuple[str, bytes]]:
    """Draw figures; a failure is only a warning, as nothing depends on a figure."""
    for name, draw in drawings:
        try:
            data = draw()
        except UserError:
            raise
        except Exception as error:  # matplotlib missing, no font, invalid numbers
            log.warning("no %s: %s", name, error)
        else:
            yield name, data


def draw_heatmaps(cfg: Config, run: RunDir, note: str | None = None) -> Iterator[Drawing]:
    """Draw the attention of the best hypothesis of each test sentence in `evaluate.heatmaps`.

    The note goes below the title of each.
    """
    source, target = load_tokenizers(run, cfg)
    if isinstance(target, RightToLeft):  # the translations are in reading order
        target = target.left_to_right
    for number, line in enumerate(read_lines_of(run.checked(DETAILS)), start=1):
        if number not in cfg.evaluate.heatmaps:
            continue
        # The best translation, as it was saved, with the places of its pieces
        with expected(f"{run.path(DETAILS)}:{number}"):
            translation = parse_json(line.encode(), f"{run.path(DETAILS)}:{number}")
            if not translation["hypotheses"]:
                continue
            best = translation["hypotheses"][0]
            text, labels = str(translation["source"]), tuple(translation["source_tokens"])
            spans = tuple(token.span for token in source.tokens([text])[0])
            written = tuple(best["tokens"])
            ended = written[-1] == END
            own_text, own_spans = target.write(written[: len(written) - ended])
            tokens = SoftAlignment(
                source=text,
                target=own_text,
                source_tokens=labels,
                target_tokens=written,
                log_probs=(),
                weights=np.array(best["attention"], np.float32),
                ended=ended,
                source_spans=spans[: len(labels) - 1],  # a long sentence was cut
                target_spans=tuple(own_spans),
            )
        title = f"{cfg.name}, test sentence {number}"
        draw = partial(heatmap_png, cfg, tokens, title=title, note=note)
        yield f"heatmaps/test-{number:04d}.png", draw


def draw_examples(cfg: Config, run: RunDir, note: str | None = None) -> Iterator[Drawing]:
    """Translate and draw the sets in `evaluate.examples`.

    Each sentence gives two figures: the run's own translation, and, ending in `-paper`, the
    attention along the translation that the paper prints.
    """
    if not cfg.evaluate.examples:
        return
    model, language = Pretrained(run, cfg), "fr"
    for examples in cfg.evaluate.examples:
        for label, source, target in examples_of(examples.name):
            name = f"{examples.name}-{label}"
            [own] = model.translate([source], language)
            log.info("%s: %s", name, printable_line(own.text))
            [paper] = model.force([(source, target)], target_language=language)
            of_both = ("", own, "own translation"), ("-paper", paper, "the paper's translation")
            for ending, found, what in of_both:
                if found.candidates:
                    tokens, title = found.soft_alignment(), f"{cfg.name}, {name}: {what}"
                    draw = partial(heatmap_png, cfg, tokens, title=title, note=note)
                    yield f"heatmaps/{name}{ending}.png", draw


def draw_curves(cfg: Config, run: RunDir) -> Iterator[Drawing]:
    """Draw the learning curves, if the run has trained."""
    if rows := read_metrics(run):
        yield "curves.png", lambda: to_png(plot_curves(rows, cfg.name))


def heatmap_png(
    cfg: Config, pieces: SoftAlignment, *, title: str | None = None, note: str | None = None
) -> bytes:
    """Draw attention in the layout of the paper's Fig. 3."""
    columns: Sequence[str] = pieces.source_tokens
    rows: Sequence[str] = pieces.target_tokens
    alpha, font = pieces.weights, cfg.evaluate.heatmap_font
    if cfg.evaluate.heatmap_words and splitter_of(cfg):
        columns, source_groups = _words(pieces.source, pieces.source_spans, columns)
        rows, target_groups = _words(pieces.target, pieces.target_spans, rows)
        alpha = merge_words(alpha, source_groups, target_groups)
    return to_png(plot_alignment(alpha, columns, rows, title=title, note=note, font=font))


def _words(
    text: str, spans: Spans | None, tokens: Sequence[str]
) -> tuple[list[str], list[list[int]]]:
    """Return words and the pieces of each; the end symbol stays a word of its own."""
    words, groups = group_pieces(text, spans or ())
    if tokens[-1] == END:
        words, groups = [*words, END], [*groups, [len(tokens) - 1]]
    return words, groups
