"""The page of `seq2seq play` in a headless Chromium: typed on, pointed at, forced, compared.

Every test ends with a look at the console and at the network: no complaint, no other address.
"""

import time

import browser
import pytest
from runs import template_pairs
from test_report import HARMFUL
from test_report_browser import NOTHING_NAMED

import seq2seq
from seq2seq import Request
from seq2seq.data.tokenizer import SPACE

pytest.importorskip("starlette", reason="play needs the extra `play`")
pytest.importorskip("uvicorn", reason="play needs the extra `play`")
from play_client import players, served

from seq2seq.play.answers import Question

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium (Debian: chromium)"),
]

[LINE, OTHER], OUTPUT = [source for source, _ in template_pairs(2, seed=9)], ".output"
TOLD = "document.querySelector('.explanation').textContent"
FOCUSED = "(({side, index}) => side + index)(document.activeElement.dataset)"


@pytest.fixture(scope="module")
def model(run):
    return seq2seq.load(run)


@pytest.fixture(scope="module")
def address(run):
    with players(run) as made, served(made) as url:
        yield url


@pytest.fixture
def page(chromium, address):
    """A page that must have been quiet at the end, and asked nobody else."""
    chromium.open(address)
    yield chromium
    home = chromium.js("location.origin + '/'")
    assert [url for url in chromium.requests() if not url.startswith(home)] == []
    assert chromium.complaints() == []


def until(page: browser.Page, holds: str) -> None:
    deadline = time.monotonic() + browser.PATIENCE
    while not page.js(holds):
        assert time.monotonic() < deadline, holds
        time.sleep(0.02)


def settle(page: browser.Page) -> None:
    """Wait for the final translations and for a menu that is complete."""
    done = "[...document.querySelectorAll('.side')].every(n => n.querySelector('h2 .note')"
    done += ".textContent.startsWith('beam')) && !document.querySelector('[aria-busy]')"
    until(page, done)


def typed(page: browser.Page, text: str) -> None:
    page.js("document.querySelector('#source').select()")
    page.call("Input.insertText", text=text)
    settle(page)


def word(side: str, index: int) -> str:
    return f'.word[data-side="{side}"][data-index="{index}"]'


def pressed(page: browser.Page, label: str, within: str = ".menu") -> None:
    node = f"[...document.querySelectorAll('{within} button')]"
    page.js(f"{node}.find(n => n.textContent.startsWith('{label}')).click()")


def test_typed_letter_by_letter_it_ends_with_what_decode_says(page, model):
    for letter in LINE:
        page.call("Input.insertText", text=letter)
    settle(page)
    [t] = model.translate([LINE])
    assert page.all(OUTPUT) == [t.text]
    assert page.all(OUTPUT, "n.lang + n.dir") == ["frauto"]
    assert page.all(".word[data-side=source]") == [*LINE.split(), "</s>"]
    assert page.js("document.querySelector('[role=status]').textContent") == t.text
    assert page.js("document.activeElement.id") == "source"
    page.js("document.querySelector('#source').select()")
    page.call("Input.insertText", text=" ")
    until(page, "!document.querySelector('.panel')")
    assert page.all(OUTPUT) == [""]


def test_pointing_shows_both_directions(page, model):
    typed(page, LINE)
    [t] = model.translate([LINE])
    words = t.words()
    weights = words.alignment
    for side, other, index, row in (
        ("target", "source", 1, weights[1]),
        ("source", "target", 2, weights[:, 2]),
    ):
        page.mouse(word(side, index))
        tints = page.all(f".word[data-side={other}]", "+n.style.getPropertyValue('--w')")
        assert tints == pytest.approx(row.tolist(), abs=0.003)
        names = words.source_tokens if side == "source" else words.candidates[0].tokens
        verb = "is attended to by" if side == "source" else "attends to"
        assert page.js(TOLD).startswith(f"“{names[index]}” {verb} ")


def test_another_word_is_taken_and_released(page, model):
    typed(page, LINE)
    free = page.all(OUTPUT)
    page.mouse(word("target", 1), click=True)
    settle(page)
    others = page.all(".other bdi")
    assert others[0] == free[0].split()[1]
    until(page, "document.querySelectorAll('.places li').length === 3")
    assert page.all(".places mark")[0] == others[0]
    page.mouse(".other:nth-child(2)", click=True)
    settle(page)
    begin = f"{free[0].split()[0]} {others[1]}"
    assert page.all(OUTPUT) == [model.translate([Request(LINE, begin)])[0].text]
    assert page.all(".forced", "n.textContent.split('.')[0]") == [f"Begins with “{begin}”"]
    pressed(page, "Let it choose", ".forced")
    settle(page)
    assert page.all(OUTPUT) == free
    assert page.all(".forced", "n.hidden") == [True]


def test_source_words_are_dropped_and_repeated(page, model):
    typed(page, LINE)
    words = LINE.split()
    for label, index, expected in (
        ("Repeat", 1, [*words[:2], *words[1:]]),
        ("Drop", 1, words),
        ("Drop", 0, words[1:]),
    ):
        page.mouse(word("source", index), click=True)
        pressed(page, label)
        settle(page)
        assert page.js("document.querySelector('#source').value") == " ".join(expected)
        assert page.all(OUTPUT) == [model.translate(" ".join(expected)).text]


def test_attention_is_flattened_permuted_and_moved(page, model, address):
    typed(page, LINE)
    page.mouse(word("target", 1), click=True)
    settle(page)
    for label, how in (("Flatten", "equal attention on"), ("Permute", "its attention permuted")):
        pressed(page, label)
        until(page, f"document.querySelector('.told').textContent.includes('{how}')")
    # The shared run translates word by word: it says the word that it is made to attend to.
    source, aim = "the cat sees the dog .", 4
    typed(page, source)
    page.mouse(word("target", 1), click=True)
    settle(page)
    page.js(
        f"(n => {{ n.value = {aim}; n.dispatchEvent(new Event('change')) }})"
        "(document.querySelector('.menu select'))"
    )
    until(page, "document.querySelector('.told').textContent.includes('\u201cdog\u201d')")
    told = page.js("document.querySelector('.told').textContent")
    assert told.startswith("With all attention on “dog”, it says chien "), told
    assert ", no longer chat " in told


def test_the_keyboard_is_enough(page, model):
    typed(page, LINE)
    page.key("Tab", "Tab", "Tab", "Tab")  # the switches
    while page.js(FOCUSED) != "target0":
        page.key("Tab")
    page.key("ArrowDown", "Enter")
    settle(page)
    others = page.all(".other bdi")
    page.key("Tab", "ArrowDown")
    assert page.js("document.activeElement.querySelector('bdi').textContent") == others[1]
    page.key("Escape")
    assert page.js(FOCUSED) == "target1"
    assert page.all(".menu button") == []
    page.key("Enter")
    settle(page)
    page.key("Tab", "ArrowRight", "Enter")
    settle(page)
    assert page.all(OUTPUT)[0].split()[1] == others[1]


def test_text_is_text_in_every_script_and_size(page):
    for text in (
        *HARMFUL,
        "\u05d0\u05d1 \u05d2\u05d3 .",
        "\u732b\u304c\u5bdd\u308b\u3002",
        "\u202e&amp; \u2066",
    ):
        typed(page, text)
        assert page.js("document.querySelectorAll('img, main script').length") == 0
    typed(page, "\u05d0\u05d1 .")
    assert page.js("getComputedStyle(document.querySelector('#source')).direction") == "rtl"
    typed(page, "\u732b\u304c\u5bdd\u308b")
    assert page.all(".word[data-side=source]") == [*"\u732b\u304c\u5bdd\u308b", "</s>"]
    page.mouse(word("source", 1), click=True)
    pressed(page, "Drop")
    settle(page)
    assert page.js("document.querySelector('#source').value") == "\u732b\u5bdd\u308b"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_in_light_and_dark(chromium, address, dark):
    chromium.open(address, 390, 800, dark=dark)
    typed(chromium, f"{LINE} {OTHER}")
    chromium.mouse(word("target", 1), click=True)
    settle(chromium)
    assert chromium.js("document.documentElement.scrollWidth") <= 390
    back = chromium.js("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 150) == dark
    assert chromium.js(NOTHING_NAMED) == []
    menu = chromium.js(
        "(b => [b.top, b.bottom])(document.querySelector('.menu').getBoundingClientRect())"
    )
    assert 0 < menu[0] < menu[1] <= 800


def test_two_runs_stand_side_by_side(chromium, run, layers_run, model):
    with players(run, layers_run) as made, served(made) as url:
        chromium.open(url)
        typed(chromium, LINE)
        texts = [model.translate(LINE).text, seq2seq.load(layers_run).translate(LINE).text]
        assert chromium.all(OUTPUT) == texts
        assert chromium.all(".side h2 bdi") == [run.name, layers_run.name]
        chromium.mouse(f".side:nth-child(1) {word('target', 1)}", click=True)
        settle(chromium)
        chromium.mouse(".other:nth-child(2)", click=True)
        settle(chromium)
        first, second = chromium.all(OUTPUT)
        assert first != texts[0]
        assert second == texts[1]
        assert chromium.complaints() == []


def test_characters_are_taken_dropped_and_repeated(chromium, characters_run):
    """Spaces too: they are seen, and the beginning ends where one does."""
    source, settings = "the cat .", ["decode.min_ratio=1", "decode.max_ratio=1"]
    with players(characters_run, overrides=settings) as made, served(made) as url:
        chromium.open(url)
        typed(chromium, source)
        chromium.js(f"sides[0].translate('{source}', 'ce ')")
        settle(chromium)
        assert chromium.all(OUTPUT)[0].startswith("ce ")
        assert chromium.all(".word[data-side=source]") == [*source.replace(" ", SPACE), "</s>"]
        for index, begin in ((2, "ce"), (3, "ce ")):
            chromium.mouse(word("target", index), click=True)
            settle(chromium)
            asked = Question(source, prefix=begin)
            answer = made[0].engine.ask("alternatives", asked, "test").result(30)
            others = [other["word"] for other in answer["alternatives"]]
            assert chromium.all(".other bdi") == others
            chosen = chromium.all(OUTPUT)[0][index].replace(" ", SPACE)
            assert chromium.all(".menu h3 bdi")[0] == chosen
        chromium.mouse(".other:nth-child(2)", click=True)
        settle(chromium)
        begin = f"ce {others[1]}".replace(SPACE, " ")
        assert chromium.all(OUTPUT)[0].startswith(begin)
        assert chromium.all(".forced", "n.textContent.split('. ')[0]") == [f"Begins with “{begin}”"]
        for label, index, expected in (("Repeat", 4, "the ccat ."), ("Drop", 3, "theccat .")):
            chromium.mouse(word("source", index), click=True)
            pressed(chromium, label)
            settle(chromium)
            assert chromium.js("document.querySelector('#source').value") == expected
        assert chromium.complaints() == []


def test_an_error_is_shown_and_so_is_a_server_that_is_gone(chromium, run):
    with players(run) as made, served(made) as url:
        chromium.open(url)
        typed(chromium, LINE)
        chromium.js("sides[0].translate('a\\0b')")
        until(chromium, "!document.querySelector('[role=alert]').hidden")
        shown = "document.querySelector('[role=alert]').textContent"
        assert chromium.js(shown) == "source is not a single line of text"
        typed(chromium, OTHER)
        assert chromium.js("document.querySelector('[role=alert]').hidden")
    chromium.call("Input.insertText", text=" x")
    until(chromium, "!document.querySelector('[role=alert]').hidden")
    assert chromium.js(shown) == "The server does not answer. Is it still running?"
