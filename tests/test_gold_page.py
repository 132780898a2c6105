"""The page on which gold links are made: what it holds, and a person at work in a browser."""

import re
from functools import partial

import browser
import pytest
from runs import assert_fails
from test_report import HARMFUL, Elements, data_of
from test_report_browser import NOTHING_NAMED

from seq2seq.alignment.links import read_gold
from seq2seq.data.words import blank_spans, word_spans
from seq2seq.report.gold import gold_page

pytestmark = pytest.mark.e2e

PAIRS = [
    ("the big cat .", "le gros chat ."),
    ("القط ينام", "the cat sleeps"),
    ("", "x"),
    ("a", "b"),
]
LINKS = "0-0 1?1\n1-2\n\n0p0\n"


@pytest.fixture
def files(tmp_path):
    for side, name in enumerate(("source", "target")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in PAIRS), "utf-8")
    (tmp_path / "links").write_text(LINKS)
    return "--source", tmp_path / "source", "--target", tmp_path / "target"


# The file -----------------------------------------------------------------------------------------


def test_the_page_holds_the_words_and_the_links(script, files, tmp_path):
    html = tmp_path / "gold.html"
    done = script("score", *files, "--edit-gold", html, "--gold", tmp_path / "links")
    assert (done.code, done.out.decode()) == (0, f"page  {html}\n")
    data = data_of(html.read_text("utf-8"))
    assert data["file"] == "gold.links"
    first, second, third, fourth = data["sentences"]
    assert first["source"] == ["the", "big", "cat", "."]
    assert [s["links"] for s in (first, second)] == [[[0, 0, 1], [1, 1, 2]], [[1, 2, 1]]]
    assert third == {"source": [], "target": ["x"], "links": []}
    assert fourth["links"] == [[0, 0, 2]]
    (tmp_path / "source").write_text("l'homme\n\n\n\n")
    for level, words in (("words", ["l'", "homme"]), ("blanks", ["l'homme"])):
        assert script("score", *files, "--edit-gold", html, "--level", level).code == 0
        assert data_of(html.read_text("utf-8"))["sentences"][0]["source"] == words


@pytest.mark.parametrize("harmful", [*HARMFUL, "\u202eevil"])
def test_text_cannot_leave_the_data(harmful):
    text = gold_page(harmful, [(harmful, harmful)], blank_spans, [None])
    found = Elements(text)
    assert [tag for tag, _ in found.tags if tag in ("script", "img")] == ["script", "script"]
    assert all(character not in text for character in ("\u202e", "<img", "<!--<"))
    data = data_of(text)
    words = data["sentences"][0]["source"]
    assert words == [word.replace("\u202e", "\\u202e") for word in harmful.split()]


def test_other_options_have_no_part_in_it(script, files, tmp_path):
    fails = partial(script, "score", *files)
    page = ("--edit-gold", tmp_path / "x.html")
    what = "--edit-gold: scores nothing, it takes only --source, --target, --level and --gold."
    for more in ((tmp_path,), ("--format", "tsv"), ("--aligners",), ("--reverse", tmp_path)):
        assert_fails(fails(*page, *more), 2, f"{what} Leave out RUN and other options.")
    assert_fails(fails(*page, "--level", "pieces"), 2, "--edit-gold: links words. Add --level")
    assert_fails(fails(), 2, "score: nothing to score with. Give RUN.")
    (tmp_path / "links").write_text("0-9\n\n\n\n")
    assert_fails(fails(*page, "--gold", tmp_path / "links"), 3, f"{tmp_path}/links:1: links target")
    assert not (tmp_path / "x.html").exists()


# At work ------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium (Debian: chromium)")
FOCUSED = "(({row, column}) => [+row, +column])(document.activeElement.dataset)"
STATUS = "document.querySelector('[role=status]').textContent"
TOLD = "document.querySelector('.explanation').textContent"


@pytest.fixture
def page(chromium, tmp_path):
    """The page, opened; nothing may be asked of the network, and no complaint made."""
    folder = tmp_path / "saved"
    folder.mkdir()
    chromium.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    gold = tmp_path / "links"
    gold.write_text(LINKS)
    sizes = [tuple(len(word_spans(text)) for text in pair) for pair in PAIRS]
    text = gold_page("gold.links", PAIRS, word_spans, read_gold(gold, sizes))
    (tmp_path / "gold.html").write_text(text, "utf-8")
    chromium.open(tmp_path / "gold.html")
    yield chromium
    chromium.js("saved = true")  # otherwise the next page would be asked about this one
    assert [url for url in chromium.requests() if not url.startswith("blob:")] == []
    assert chromium.complaints() == []


def cell(row, column):
    return f'button[data-row="{row}"][data-column="{column}"]'


def label(page, row, column):
    return page.js(f"document.querySelector('{cell(row, column)}').ariaLabel")


def saved(page, tmp_path, count=1):
    """Press the button and read the file, which the browser writes a little later."""
    page.mouse("#save", click=True)
    while not [e for e in page.events if e["params"].get("state") == "completed"][count - 1 :]:
        page.events.append(page._next())
    return sorted((tmp_path / "saved").iterdir(), key=lambda path: path.stat().st_mtime_ns)[-1]


@needs_browser
def test_links_are_made_by_mouse_and_saved(page, tmp_path):
    assert page.all(".gold thead .word") == ["the", "big", "cat", "."]
    assert page.all(".gold tbody .word") == ["le", "gros", "chat", "."]
    shown = [["\u25cf", "", "", ""], ["", "\u25cb", "", ""], [""] * 4, [""] * 4]
    assert page.all(".gold tbody tr", "[...n.querySelectorAll('td')].map(c => c.textContent)") == (
        shown
    )
    assert label(page, 1, 1) == "“big”, “gros”: possible"
    assert page.js(STATUS) == "1 sure, 1 possible; 4 words without a link"
    page.mouse(cell(2, 1))
    assert page.all(".word.on") == ["big", "chat"]
    page.mouse(cell(2, 2), click=True)
    assert page.js(TOLD) == "“cat” and “chat”: sure"
    for kind in ("possible", "no link", "sure"):
        page.mouse(cell(3, 3), click=True)
        page.mouse(cell(3, 3), click=True) if kind == "possible" else None
        assert label(page, 3, 3) == f"“.”, “.”: {kind}"
    page.mouse(cell(1, 1), click=True)
    assert page.js(STATUS) == "3 sure, 0 possible; 2 words without a link"
    text = saved(page, tmp_path)
    assert text.name == "gold.links"
    assert text.read_text() == "0-0 2-2 3-3\n1-2\n\n0?0\n"
    sizes = [tuple(len(word_spans(text)) for text in pair) for pair in PAIRS]
    assert [len(g.possible) for g in read_gold(text, sizes)] == [3, 1, 0, 1]


@needs_browser
def test_the_keyboard_is_enough_in_both_directions_of_writing(page, tmp_path):
    page.js("document.getElementById('save').focus()")
    page.key("Tab")
    assert page.js(FOCUSED) == [0, 0]
    page.key("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowUp", " ")
    assert page.js(FOCUSED) == [0, 2]
    assert label(page, 0, 2) == "“cat”, “le”: sure"
    page.key("End", "Enter", "Home", "ArrowLeft")
    assert page.js(FOCUSED) == [0, 0]
    page.js("[...document.querySelectorAll('button')].find(n => n.textContent === 'Next').click()")
    places = page.all(".gold thead .word", "n.getBoundingClientRect().left")
    assert places == sorted(places, reverse=True), "Arabic runs to the left"
    page.js(f"document.querySelector('{cell(0, 0)}').focus()")
    page.key("ArrowLeft", " ")
    assert label(page, 0, 1) == "“ينام”, “the”: sure"
    page.key("ArrowRight")
    assert page.js(FOCUSED) == [0, 0]
    assert saved(page, tmp_path).read_text() == "0-0 1?1 2-0 3-0\n1-0 1-2\n\n0?0\n"


@needs_browser
def test_sentences_are_chosen_and_an_empty_side_says_so(page):
    def go(number):
        page.js(f"(n => {{ n.value = '{number}'; n.dispatchEvent(new Event('change')) }})"
                "(document.getElementById('number'))")  # fmt: skip
        return page.js("document.getElementById('number').value")

    assert go(3) == "3"
    assert page.js("document.querySelector('.gold').textContent").startswith("A side is empty")
    assert [go(99), go("-5"), go("")] == ["4", "1", "1"]
    buttons = "[...document.querySelectorAll('.tools button')].slice(0, 2).map(n => n.disabled)"
    assert page.js(buttons) == [True, False]
    go(4)
    assert page.js(buttons) == [False, True]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_everything_is_named(page, tmp_path, dark):
    assert page.js(NOTHING_NAMED) == []
    page.open(tmp_path / "gold.html", 320, 640, dark=dark)
    assert page.js("document.documentElement.scrollWidth") == 320
    colour = "getComputedStyle(document.querySelector('{}')).{}"
    ink, ground = (
        [int(x) for x in re.findall(r"\d+", page.js(colour.format(cell(0, 0), name)))]
        for name in ("color", "backgroundColor")
    )
    assert abs(sum(ink[:3]) - sum(ground[:3])) > 300
    assert (sum(ground[:3]) > 350) is dark
