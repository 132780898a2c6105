"""Text of a corpus or a vocabulary that is shown: nothing in it is code for whoever shows it."""

import html
import json
import logging
import re
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from runs import composed, tiny_run
from tensorboard.plugin_util import markdown_to_safe_html

from seq2seq.alignment.heatmap import plot_alignment, to_png
from seq2seq.cli import stages
from seq2seq.decoding.translation import Candidate, Translation
from seq2seq.run.directory import RunDir
from seq2seq.training.board import Board
from seq2seq.training.checkpoint import Progress
from seq2seq.training.monitor import METRICS, Monitor, Validated

pytestmark = pytest.mark.e2e

TEXTS = {
    "script": "<script>alert(1)</script>",
    "image": '<img src=x onerror="alert(1)">',
    "entity": "&lt;b&gt; &amp;",
    "markdown": "[x](javascript:alert(1)) `a` **b** | c | # d",
    "mathematics": "$_$ $x^$ _^{} \\frac $\\foo$",
    "red": "\x1b[31mred\x1b[0m",
    "window title": "\x1b]0;title\x07 \x9b2J",
    "NUL": "a\0b",
    "turned around": "\u202eabc\u2066d",
    "line ends": "a\rb\u2028c\x85d\x0be",
}


def shown(text: str) -> str:
    """What a person may see of it: controls are spelt out."""
    harmful = {"Cc", "Cf", "Zl", "Zp"}
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in harmful else c for c in text)


def translation(text: str) -> Translation:
    alpha = np.full((2, 2), 0.5, np.float32)
    best = Candidate(text, (text, "</s>"), (-1.0, -1.0), -2.0, -1.0, alpha, finished=True)
    return Translation(text, (text, "</s>"), (best,))


@pytest.mark.parametrize("kind", TEXTS)
def test_U9_in_a_heatmap(kind):
    text = TEXTS[kind]
    one = translation(text)
    figure = plot_alignment(one.alignment, one.source_tokens, one.candidates[0].tokens, title=text)
    assert to_png(figure).startswith(b"\x89PNG")
    axes, _ = figure.axes
    label = shown(text)
    label = label if len(text) <= 32 else shown(text[:31]) + "\u2026"
    for axis in (axes.xaxis, axes.yaxis):
        assert [t.get_text() for t in axis.get_ticklabels()] == [label, "</s>"]
    assert axes.get_title().split("\n")[0] == shown(text)
    drawn = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]
    assert not any(t.get_parse_math() for t in drawn)


class Writer:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.figures: list[str] = []

    def add_text(self, tag: str, text: str, _step: int) -> None:
        self.texts[tag] = text

    @property
    def file_writer(self) -> SimpleNamespace:
        return SimpleNamespace(add_summary=lambda *_: None)

    def add_figure(self, tag: str, _figure: object, _step: int) -> None:
        self.figures.append(tag)


@pytest.mark.parametrize("kind", TEXTS)
def test_U9_in_tensorboard(kind, tmp_path, caplog):
    """As its server makes HTML of it."""
    text = TEXTS[kind]
    found = Monitor.__new__(Monitor)  # without the files of a run
    found.run, found.cfg, found.warned = RunDir(tmp_path), composed("debug"), set()
    found.board, found.progress = Board.__new__(Board), Progress(update=7)
    writer = Writer()
    found.board.on, found.board._writer = True, lambda _line: writer
    with caplog.at_level(logging.WARNING):
        found.validation(Validated(1.0, 2.0, [translation(text)], [text]), verdict="best")
    assert not caplog.records
    assert writer.figures == ["alignment/1"]
    assert json.loads((tmp_path / METRICS).read_text("utf-8"))["update"] == 7
    page = markdown_to_safe_html(writer.texts["validation/samples"].encode())
    assert set(re.findall(r"</?(\w+)", page)) == {"pre", "code"}
    [block] = re.findall(r"<pre><code>(.*)\n</code></pre>", page, re.DOTALL)
    line = shown(text)
    # Escaped by us, for any reader of the event file, and once more by the server.
    written = html.unescape(html.unescape(block))
    assert written == f"source:    {line}\noutput:    {line}\nreference: {line}"


@pytest.mark.parametrize("kind", TEXTS)
def test_U9_in_the_terminal_at_the_end_of_a_run(kind, tmp_path, tmp_path_factory):
    text = TEXTS[kind]
    run = RunDir(tmp_path / "run")
    run.write("scores.json", (tiny_run(tmp_path_factory.getbasetemp()) / "scores.json").read_text())
    for name in ("corpus/test.source", "corpus/test.target", "decode/test.txt"):
        run.write(name, f"{text}\n")
    lines = stages.summary(run).split("\n")
    assert f"source     {shown(text)}" in lines
    assert f"output     {shown(text)}" in lines
    assert f"reference  {shown(text)}" in lines


def test_U9_blanks_and_joiners_of_a_sentence_stay(tmp_path, tmp_path_factory):
    text = "5\u00a0% \u3000 \u0645\u06cc\u200c\u0631\u0648\u0645 \u202f!"
    run = RunDir(tmp_path / "run")
    run.write("scores.json", (tiny_run(tmp_path_factory.getbasetemp()) / "scores.json").read_text())
    for name in ("corpus/test.source", "corpus/test.target", "decode/test.txt"):
        run.write(name, f"{text}\n")
    assert f"source     {text}\n" in stages.summary(run)
