"""The report in a headless Chromium: pointed at, clicked, searched, on a phone, in the dark.

Every test ends with a look at the console and at the network: no complaint, no request.
"""

from pathlib import Path

import browser
import pytest
from runs import copy_of
from test_report import HARMFUL, data_of, translation, unpacked

from seq2seq.report.build import build

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium (Debian: chromium)"),
]

FORMS = ("ribbons", "matrix", "table")
FIRST = "article:first-of-type "
SOURCE = f"{FIRST}.word[data-side=source]"
TOLD = f"document.querySelector('{FIRST}.explanation').textContent"
CELLS = "[...n.cells].map(c => c.textContent)"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium):
    """A page that must have been quiet at the end."""
    yield chromium
    assert chromium.requests() == []
    assert chromium.complaints() == []


@pytest.fixture(scope="module")
def report(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build([run], [], sentences=20, n_best=3), "utf-8")
    return path


@pytest.fixture(scope="module")
def sentences(report) -> list[dict]:
    return data_of(report.read_text("utf-8"))["sentences"]


def rows_of(level: dict) -> list[list[float]]:
    flat, width = unpacked(level["weights"]), len(level["source"])
    return [flat[i : i + width] for i in range(0, len(flat), width)]


def strongest(weights: list[float]) -> int:
    return max(range(len(weights)), key=lambda i: weights[i])


def word(side: str, index: int) -> str:
    return f'{FIRST}.word[data-side="{side}"][data-index="{index}"]'


def choose(page: browser.Page, value: str) -> None:
    page.mouse(f'input[value="{value}"] + span', click=True)


def shown_numbers(page: browser.Page) -> list[int]:
    return page.all("article", "+n.id.slice(1)")


# Pointing -----------------------------------------------------------------------------------------


def test_a_word_that_is_pointed_at_shows_both_directions(page, report, sentences):
    page.open(report)
    level = sentences[0]["runs"][0]["found"][0]["words"]
    weights = rows_of(level)
    for index, row in enumerate(weights[:-1]):
        page.mouse(word("target", index))
        best = strongest(row)
        said = page.js(TOLD)
        names = level["target"][index], level["source"][best]
        assert said.startswith("“{}” attends to “{}” {}".format(*names, round(100 * row[best])))
        assert f"probability was {round(100 * level['probability'][index])}" in said
        tints = page.all(SOURCE, "+n.style.getPropertyValue('--w')")
        assert tints == pytest.approx(row, abs=1e-6)
        lit = page.all(f"{FIRST}path.on", "+n.dataset.column")
        assert set(lit) == {i for i, w in enumerate(row) if w >= 0.02}
    column = [row[1] for row in weights]
    page.mouse(word("source", 1))
    best = strongest(column)
    names = level["source"][1], level["target"][best]
    share = round(100 * column[best])
    assert page.js(TOLD).startswith("“{}” is attended to by “{}” {}".format(*names, share))
    page.mouse("h1")
    assert "Point at a word" in page.js(TOLD)


def test_the_keyboard_is_enough(page, report, sentences):
    page.open(report)
    level = sentences[0]["runs"][0]["found"][0]["words"]
    page.js(f"document.querySelector('{FIRST}.hypotheses input').focus()")
    page.key("Tab")
    focused = "(({side, index}) => side + index)(document.activeElement.dataset)"
    assert page.js(focused) == "target0"
    assert page.js(TOLD).startswith(f"“{level['target'][0]}” attends to")
    assert page.js("document.activeElement.matches(':focus-visible')")
    page.key("ArrowDown", "ArrowDown")
    assert page.js(focused) == "target2"
    page.key("ArrowLeft")  # along the strongest link
    best = strongest(rows_of(level)[2])
    assert page.js(focused) == f"source{best}"
    page.key("End")
    assert page.js(focused) == f"source{len(level['source']) - 1}"
    page.key("Home", "ArrowUp")
    assert page.js(focused) == "source0"
    page.key("Enter")
    assert page.js("document.activeElement.ariaPressed") == "true"
    page.key("Escape")
    assert page.js("document.activeElement.ariaPressed") == "false"
    page.key("Tab")
    assert page.js("document.activeElement.className") == "more", "one stop a figure"
    page.key("Enter")
    assert len(page.all(".panel")) == 2


# Switching ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["words", "pieces"])
def test_the_matrix_is_a_table_of_the_weights(page, report, sentences, unit):
    page.open(report)
    choose(page, "matrix")
    choose(page, unit)
    level = sentences[0]["runs"][0]["found"][0][unit]
    read = page.all(f"{FIRST}.matrix tr", CELLS)
    assert read[0][1:] == level["source"]
    assert [row[0] for row in read[1:]] == level["target"]
    shares = [[int(cell.split("\u202f")[0]) for cell in row[1:]] for row in read[1:]]
    assert shares == [[round(100 * w) for w in row] for row in rows_of(level)]
    page.mouse(f'{FIRST}td[data-row="1"][data-column="2"]')
    pair = f"“{level['target'][1]}” attends to “{level['source'][2]}”"
    assert page.js(TOLD).startswith(f"{pair} {shares[1][2]}")
    page.js(f"document.querySelector('{word('target', 0)}').focus()")
    page.key("ArrowRight", "Home", "ArrowRight")
    assert page.js("document.activeElement.dataset.index") == "1"


# Searching and sorting ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["score", "number"])
def test_sorting(page, report, sentences, key):
    page.open(report)
    page.js(f"document.getElementById('sort').value = '{key}'")
    page.js("document.getElementById('sort').dispatchEvent(new Event('change'))")

    def value(sentence: dict) -> float:
        return sentence.get(key, sentence["runs"][0]["found"][0].get(key))

    wanted = sorted(sentences, key=lambda s: (value(s), s["number"]))
    assert shown_numbers(page) == [s["number"] for s in wanted]
    page.js("document.querySelector('.tools > button').click()")
    wanted = sorted(sentences, key=lambda s: (-value(s), s["number"]))
    assert shown_numbers(page) == [s["number"] for s in wanted]


def test_searching(page, report, sentences):
    page.open(report)
    best = [s["runs"][0]["found"][0] for s in sentences]
    bound = sorted(found["score"] for found in best)[10]
    wolves = {
        s["number"]
        for s in sentences
        for texts in [[s["source"], s["runs"][0]["reference"]]]
        if any("wolf" in t for t in texts + [f["text"] for f in s["runs"][0]["found"]])
    }
    low = {s["number"] for s, found in zip(sentences, best, strict=True) if found["score"] < bound}
    covered = {s["number"] for s, f in zip(sentences, best, strict=True) if f["coverage"] > 0.6}
    for query, wanted in (
        ("WOLF", wolves),
        (f"score<{bound}", low),
        (f"score<{bound} wolf", low & wolves),
        ("coverage>60%", covered),
        ("number<3", {1, 2}),
        ("length>7 length<7", set()),
        ("no such words", set()),
        ("", {s["number"] for s in sentences}),
    ):
        page.mouse("#search", click=True)
        page.js("document.getElementById('search').select()")
        page.call("Input.insertText", text=query)  # in place of what was there
        assert set(shown_numbers(page)) == wanted, query
        status = page.js("document.querySelector('[role=status]').textContent")
        assert status == f"{len(wanted)} of {len(sentences)} sentences"
    assert 0 < len(wolves) < len(sentences)


# Everywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 1280])
def test_no_page_is_wider_than_its_window(page, report, width):
    page.open(report, width, 800)
    page.all("details", "n.open = true")
    for form in FORMS:
        for unit in ("pieces", "words"):
            choose(page, form)
            choose(page, unit)
            assert page.js("document.documentElement.scrollWidth") == width, (form, unit)


# Text of strangers, and of the world --------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_harmful_text_is_shown_as_text(page, tmp_path, form):
    texts = [*HARMFUL, "{{7*7}} ${alert(1)} &lt;b&gt;", "javascript:alert(1)"]
    one = translation(" ".join(texts), *texts)
    (tmp_path / "one.html").write_text(one.to_html(), "utf-8")
    page.open(tmp_path / "one.html")
    choose(page, form)
    assert page.js("document.querySelector('.top p').textContent") == one.source
    read = page.all(".hypotheses .text")
    assert read == texts
    assert len(page.all("img, iframe, script")) == 2
    for index in range(len(texts)):
        page.mouse(f".hypotheses label:nth-of-type({index + 1})", click=True)
    assert len(page.all("img, iframe, script")) == 2


def test_right_to_left_and_chinese(page, tmp_path):
    hebrew, chinese = "הילד הקטן ישן .", "小 男孩 在 睡觉 。"
    one = translation(hebrew, chinese, "\u202ereversed \u2066 x")
    (tmp_path / "one.html").write_text(one.to_html(), "utf-8")
    for width in (390, 1280):
        page.open(tmp_path / "one.html", width, 800)
        assert page.js("getComputedStyle(document.querySelector('.top p')).direction") == "rtl"
        source, target = (f".word[data-side={side}] bdi" for side in ("source", "target"))
        assert page.all(source, "getComputedStyle(n).direction")[:3] == ["rtl"] * 3
        assert page.all(source) == [*hebrew.split(), "</s>"]
        assert page.all(target) == [*chinese.split(), "</s>"]
        assert page.js("document.documentElement.scrollWidth") == width
        # What reverses text is spelt out, so its neighbours stay where they are.
        assert page.all(".hypotheses .text")[1] == "\\u202ereversed \\u2066 x"
        page.mouse(".hypotheses label:nth-of-type(2)", click=True)
        choose(page, "pieces")
        assert page.all(target) == ["\\u202ereversed", "\\u2066", "x", "</s>"]


# Whole runs ---------------------------------------------------------------------------------------


def look_around(page: browser.Page, path: Path) -> None:
    """What a reader does first: open, point, switch, choose the reference, search."""
    page.open(path)
    for form in FORMS:
        choose(page, form)
        for unit in ("pieces", "words"):
            choose(page, unit)
            for index in range(len(page.all(f"{FIRST}.panel"))):
                panel = f"{FIRST}.panel:nth-of-type({index + 1}) "
                page.mouse(f'{panel}.word[data-side="target"][data-index="0"]')
                told = page.js(f"document.querySelector('{panel}.explanation').textContent")
                assert "attends to" in told
                page.mouse(f"{panel}.hypotheses label:last-of-type", click=True)
    page.mouse("#search", click=True)
    page.call("Input.insertText", text="number<2")
    assert shown_numbers(page) == [1]


def test_runs_side_by_side(page, run, tmp_path):
    """The same sources, other references, no scores."""
    other = copy_of(run, tmp_path / "other")
    (other / "scores.json").unlink()
    references = (other / "corpus/test.target").read_text("utf-8").replace("chat", "lion")
    (other / "corpus/test.target").write_text(references, "utf-8")
    path = tmp_path / "r.html"
    path.write_text(build([run, other], ["decode.beam_size=2"], sentences=50, n_best=2), "utf-8")
    look_around(page, path)
    assert len(page.all(f"{FIRST}.panel")) == 2
    heads = page.all(".card thead tr, .wide thead tr")
    assert len(heads) == 4
    assert all(run.name in head and "other" in head for head in heads)
    assert len({*page.all(f"{FIRST}.reference dd")}) == 2
    page.size(390, 800)
    assert page.js("document.documentElement.scrollWidth") == 390
