"""The report in a headless Chromium: pointed at, clicked, searched, on a phone, in the dark.

Every test ends with a look at the console and at the network: no complaint, no request.
"""

import json
import re
from pathlib import Path

import browser
import numpy as np
import pytest
from runs import composed, copy_of, run_new
from strangers import forge
from test_report import HARMFUL, RATES, data_of, maps_of, translation, unpacked, with_rates

import seq2seq
from seq2seq.report.build import build
from seq2seq.report.sentence import pack

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium (Debian: chromium)"),
]

FORMS = ("auto", "ribbons", "matrix", "table")
FIRST = "article:first-of-type "
SOURCE = f"{FIRST}.word[data-side=source]"
TOLD = f"document.querySelector('{FIRST}.explanation').textContent"
CELLS = "[...n.cells].map(c => c.textContent)"
NOTHING_NAMED = """
[...document.querySelectorAll('button, input, select, a, summary, [role=region], svg[role=img]')]
  .filter(n => !(n.textContent.trim() || n.ariaLabel || n.labels?.length)).map(n => n.outerHTML)
"""


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


def test_colours_follow_the_weights(page, report, sentences):
    """As painted, not only as set: the word with most attention is the furthest from the paper."""
    page.open(report)
    row = rows_of(sentences[0]["runs"][0]["found"][0]["words"])[1]
    page.mouse(word("target", 1))
    alphas = page.all(
        SOURCE, "+(getComputedStyle(n).backgroundColor.match(/\\/ ([\\d.]+)\\)/) ?? [0, 1])[1]"
    )
    assert alphas == pytest.approx([0.45 * w for w in row], abs=0.01)


def test_a_click_keeps_a_word_until_the_next(page, report):
    page.open(report)
    page.mouse(word("target", 0), click=True)
    kept = page.js(TOLD)
    page.mouse("h1")
    assert page.js(TOLD) == kept
    assert page.js(f"document.querySelector('{word('target', 0)}').ariaPressed") == "true"
    page.mouse(word("target", 0), click=True)
    page.mouse("h1")
    page.js("document.activeElement.blur()")
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


def test_the_table_says_where_each_word_looks(page, report, sentences):
    page.open(report)
    choose(page, "table")
    level = sentences[0]["runs"][0]["found"][0]["words"]
    rows = page.all(f"{FIRST}.attention tbody tr", CELLS)
    assert [row[0] for row in rows] == level["target"]
    for (_, chance, looks), row, probability in zip(
        rows, rows_of(level), level["probability"], strict=True
    ):
        assert chance == f"{round(100 * probability)}\u202f%"
        assert looks.startswith(f"“{level['source'][strongest(row)]}” {round(100 * max(row))}")


def test_every_hypothesis_can_be_chosen(page, report, sentences):
    page.open(report)
    for index, found in enumerate(sentences[0]["runs"][0]["found"]):
        page.mouse(f"{FIRST}.hypotheses label:nth-of-type({index + 1})", click=True)
        assert page.all(f"{FIRST}.word[data-side=target]") == found["words"]["target"]
        label = page.js(f"document.querySelector('{FIRST}.attention').ariaLabel")
        assert label == f"Attention of {found['label']}"
    assert found["label"] == "Reference"
    assert found["text"] == sentences[0]["runs"][0]["reference"]


def test_ribbons_join_the_words(page, report, sentences):
    page.open(report)
    drawn = page.all(
        f"{FIRST}.columns path",
        "[n.dataset.row, n.dataset.column, n.getPointAtLength(0).y,"
        " n.getPointAtLength(n.getTotalLength()).y, n.closest('svg').getBoundingClientRect().top,"
        " +n.getAttribute('stroke-width')]",
    )
    middle = "(b => b.top + b.height / 2)(document.querySelector('{}').getBoundingClientRect())"
    weights = rows_of(sentences[0]["runs"][0]["found"][0]["words"])
    assert len(drawn) == sum(w >= 0.02 for row in weights for w in row)
    for row, column, left, right, top, width in drawn[:5]:
        assert top + left == pytest.approx(page.js(middle.format(word("source", column))), abs=1)
        assert top + right == pytest.approx(page.js(middle.format(word("target", row))), abs=1)
        assert width >= 1
    thick = max(drawn, key=lambda path: path[-1])
    assert weights[int(thick[0])][int(thick[1])] == max(w for row in weights for w in row)


def changed(report: Path, to: Path, change) -> dict:
    """Write a report with other data; return the data."""
    text = report.read_text("utf-8")
    data = data_of(text)
    change(data)
    start = text.index('id="data">') + len('id="data">')
    to.write_text(text[:start] + json.dumps(data) + text[text.index("</script>", start) :], "utf-8")
    return data


@pytest.mark.parametrize(
    ("rows", "columns", "weight", "form"),
    [
        (3, 4, 1.0, "ribbons"),
        (3, 8, 0.125, "matrix"),
        (31, 4, 1.0, "matrix"),
        (3, 31, 1.0, "matrix"),
    ],
    ids=["sharp", "flat", "long target", "long source"],
)
def test_ribbons_that_nobody_could_read_are_a_matrix(
    page, report, tmp_path, rows, columns, weight, form
):
    """Unless the reader asks for ribbons."""
    alpha = np.zeros((rows, columns))
    alpha[:, : round(1 / weight)] = weight

    def change(data: dict) -> None:
        level = data["sentences"][0]["runs"][0]["found"][0]["words"]
        level |= {"source": ["a"] * columns, "target": ["b"] * rows, "probability": [1] * rows}
        level["weights"] = pack(alpha)

    changed(report, tmp_path / "r.html", change)
    page.open(tmp_path / "r.html")
    assert page.js(f"document.querySelector('{FIRST}.attention').className") == f"attention {form}"
    choose(page, "ribbons")
    assert page.js(f"document.querySelector('{FIRST}.attention').className") == "attention ribbons"


def test_words_units_numbers_languages_and_files(page, report, tmp_path):
    def change(data: dict) -> None:
        first, second, third = data["sentences"][:3]
        for sentence, languages in (
            (first, ["en", "ja"]),
            (second, ["de", "fr"]),
            (third, [None] * 2),
        ):
            sentence["runs"][0]["languages"] = dict(
                zip(("source", "target"), languages, strict=True)
            )
        for found, score in zip(first["runs"][0]["found"], (-0.0014, -0.5, -1e-9, 0), strict=False):
            found["score"] = score
        data["runs"][0] |= {
            "files": ["scores.json", "heatmaps"],
            "warning": "It has hardly learnt.",
        }

    changed(report, tmp_path / "r.html", change)
    page.open(tmp_path / "r.html")
    values = page.all(f"{FIRST}.hypotheses .value")
    assert values[:4] == ["\u22120.0014", "\u22120.50", "\u22121.0e\u22129", "0.00"]
    assert page.all(".switch input[name=unit] + span") == ["Words", "Pieces"]
    assert page.all(f"{FIRST}.texts dd", "n.lang") == ["en", "ja", "ja"]
    assert page.all("article:nth-of-type(2) .texts dd", "n.lang") == ["de", "fr", "fr"]
    assert set(page.all("article:nth-of-type(3) .texts dd", "n.getAttribute('lang')")) == {""}
    assert set(page.all(f"{FIRST}.word[data-side=target] bdi", "n.lang")) == {"ja"}
    assert page.all(".files a", "n.getAttribute('href')") == ["scores.json", "heatmaps"]
    assert page.all(".warning") == ["It has hardly learnt."]
    # A single translation does not know its languages: that of the page would be wrong.
    (tmp_path / "one.html").write_text(translation("a b", "c d").to_html(), "utf-8")
    page.open(tmp_path / "one.html")
    assert page.all(".switch input[name=unit] + span") == ["Words", "Pieces"]
    assert set(page.all("header p, .word bdi, .text bdi", "n.getAttribute('lang')")) == {""}


# Layers and heads --------------------------------------------------------------------------------

PICKER = f"{FIRST}.picker "
SELECT = f"document.querySelector('{PICKER}select')"
FOCUSED = "(n => n.name?.split('-').at(-1) || n.id.split('-').at(-1))(document.activeElement)"


@pytest.fixture(scope="module")
def layered(layers_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("layered")
    run = with_rates(layers_run, folder / "run")
    (folder / "r.html").write_text(build([run], [], sentences=2, n_best=2), "utf-8")
    return folder / "r.html"


def matrix_shown(page: browser.Page) -> list[list[int]]:
    rows = page.all(f"{FIRST}.matrix tbody tr", CELLS)
    return [[int(cell.split("\u202f")[0]) for cell in row[1:]] for row in rows]


def assert_shown(page: browser.Page, level: dict, kind: str, layer: int, head: int) -> list:
    """The matrix has the weights of a layer and of a head, 0 being the mean, from the data."""
    weights = maps_of(level, kind)[layer - 1]
    wanted = 100 * (weights[head - 1] if head else weights.mean(axis=0))
    shown = matrix_shown(page)
    assert shown == pytest.approx(wanted, abs=0.501), (kind, layer, head)
    label = page.js(f"document.querySelector('{FIRST}.attention').ariaLabel")
    name = f"layer {layer}, {f'head {head}' if head else 'mean of heads'}"
    assert label.endswith(f", {name}"), label
    assert page.js(f"{SELECT}.selectedOptions[0].text").lower() == name
    return shown


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("unit", ["words", "pieces"])
def test_layer_and_head_are_chosen_by_keys(page, layered, unit, dark):
    page.open(layered, dark=dark)
    choose(page, "matrix")
    choose(page, unit)
    level = data_of(layered.read_text("utf-8"))["sentences"][0]["runs"][0]["found"][0][unit]
    seen = [assert_shown(page, level, "heads", 2, 0)]
    page.js(f"document.querySelector('{FIRST}.hypotheses input').focus()")
    page.key("Tab")
    assert page.js(FOCUSED) == "kind"
    page.key("Tab")
    assert page.js(FOCUSED) == "head"
    assert page.js("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    for layer, head in ((1, 2), (1, 1), (1, 0)):
        page.key("ArrowUp")
        seen.append(assert_shown(page, level, "heads", layer, head))
    page.key("End")
    seen.append(assert_shown(page, level, "heads", 2, 2))
    assert page.js(FOCUSED) == "head", "the list stays where it was"
    page.js(f"document.querySelector('{PICKER}input:checked').focus()")
    for kind in ("encoder", "decoder"):
        page.key("ArrowRight")
        seen.append(assert_shown(page, level, kind, 2, 0))
        page.mouse(f'{PICKER}input[value="{kind}"] + span', click=True)
    assert len({json.dumps(each) for each in seen}) == len(seen), "no two show the same"
    # What attends and what is attended to: within the translation the start comes first.
    columns = page.all(f"{FIRST}.matrix thead .word")
    assert columns == ["(start)", *level["target"]][: len(columns)]
    assert page.all(f"{FIRST}.matrix tbody .word") == level["target"]
    page.key("ArrowLeft")
    assert page.all(f"{FIRST}.matrix thead .word") == level["source"]
    assert page.all(f"{FIRST}.matrix tbody .word") == level["source"]
    assert contrast(page, f"{PICKER}select") >= 4.5
    assert contrast(page, f"{PICKER}input:checked + span") >= 4.5


def test_a_word_stays_pinned_from_head_to_head(page, layered):
    page.open(layered)
    level = data_of(layered.read_text("utf-8"))["sentences"][0]["runs"][0]["found"][0]["words"]
    page.mouse(word("target", 1), click=True)
    page.mouse("h1")
    page.js(f"{SELECT}.focus()")
    for head in (2, 1):
        page.key("ArrowUp")
        row = maps_of(level, "heads")[0, head - 1, 1].tolist()
        best = strongest(row)
        assert page.js(TOLD).startswith(
            f"“{level['target'][1]}” attends to “{level['source'][best]}” {round(100 * row[best])}"
        )
    # Entropy and coverage are those of the weights that stand for all.
    assert "Entropy" not in page.all(f"{FIRST}.numbers dt")
    page.key("ArrowDown", "ArrowDown")
    assert "Entropy" in page.all(f"{FIRST}.numbers dt")
    # Within the source nothing has a probability; the ribbons join it with itself.
    page.mouse(f'{PICKER}input[value="encoder"] + span', click=True)
    assert "Entropy" not in page.all(f"{FIRST}.numbers dt")
    page.mouse(word("target", 0))
    assert "probability" not in page.js(TOLD)
    choose(page, "ribbons")
    assert page.all(f"{FIRST}.column h5") == ["Attended to", "Attends"]
    choose(page, "table")
    assert page.all(f"{FIRST}.attention thead th") == ["Word", "Attends to"]


def test_other_translations_and_sentences(page, layered):
    """The choice holds for the next sentence; what has no layers here says so."""
    page.open(layered)
    page.js(f"{SELECT}.focus()")
    page.key("ArrowUp")
    page.mouse("article:last-of-type .more", click=True)
    assert page.all(".picker select", "n.value") == ["1.2", "1.2"]
    page.key("Tab", "Tab")
    page.mouse(f"{FIRST}.hypotheses label:last-of-type", click=True)
    assert page.js(f"{SELECT}.disabled")
    assert page.js(f"{SELECT}.value") == "2.0"
    note = "Layers and heads can be chosen for “Beam 1”, to keep this page small."
    assert page.all(f"{PICKER}.note") == [note]
    page.mouse(f"{FIRST}.hypotheses label:first-of-type", click=True)
    assert page.js(f"{SELECT}.value") == "1.2"
    assert page.all(f"{PICKER}.note") == [""]


def test_a_recurrent_decoder_over_self_attention_shows_that_alone(page, layered, tmp_path):
    """Its weights have no heads; they are what is shown first."""

    def change(data: dict) -> None:
        for in_run in data["sentences"][0]["runs"]:
            for level in (found[unit] for found in in_run["found"] for unit in ("words", "pieces")):
                if "maps" in level:
                    level["maps"] = {"encoder": level["maps"]["encoder"]}

    data = changed(layered, tmp_path / "r.html", change)
    page.open(tmp_path / "r.html")
    level = data["sentences"][0]["runs"][0]["found"][0]["words"]
    assert page.js(f"{SELECT}.offsetParent") is None
    assert page.all(f"{PICKER}.note") == [""]
    assert "Entropy" in page.all(f"{FIRST}.numbers dt")
    page.js(f"document.querySelector('{PICKER}input:checked').focus()")
    page.key("ArrowRight")
    choose(page, "matrix")
    assert_shown(page, level, "encoder", 2, 0)
    assert page.all(f"{FIRST}.matrix thead .word") == level["source"]


def test_sentences_beyond_the_bound_say_so(page, layers_run, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.report.build.MAX_MAPS", 1)
    (tmp_path / "r.html").write_text(build([layers_run], [], sentences=1, n_best=1), "utf-8")
    page.open(tmp_path / "r.html")
    note = (
        "Layers and heads can be chosen for “Beam 1” of shorter sentences, to keep this page small."
    )
    assert page.all(f"{PICKER}.note") == [note]
    assert page.all(f"{PICKER}select, {PICKER}input") == []
    assert len(page.all(SOURCE)) > 1


def test_runs_and_single_translations_have_pickers_of_their_own(page, layers_run, tmp_path):
    other = copy_of(layers_run, tmp_path / "other")
    text = build([layers_run, other], ["decode.beam_size=1"], sentences=1, n_best=1)
    (tmp_path / "two.html").write_text(text, "utf-8")
    page.open(tmp_path / "two.html")
    page.js(f"{SELECT}.focus()")
    page.key("ArrowUp")
    assert page.all(".picker select", "n.value") == ["1.2", "2.0"]
    [one] = seq2seq.load(layers_run).force([("the cat", "le chat")], maps=True)
    (tmp_path / "one.html").write_text(one.to_html(), "utf-8")
    page.open(tmp_path / "one.html")
    choose(page, "pieces")
    choose(page, "matrix")
    page.js("document.querySelector('.picker select').focus()")
    page.key("Home", "ArrowDown")
    shown = [cell for row in page.all(".matrix tbody tr", CELLS) for cell in row[1:]]
    weights = one.candidates[0].maps["heads"][0, 0].ravel()
    assert [int(cell.split("\u202f")[0]) for cell in shown] == pytest.approx(100 * weights, abs=0.8)


def test_a_report_with_layers_is_whole(page, layered, report):
    look_around(page, layered)
    assert page.js(NOTHING_NAMED) == []
    assert page.all('[aria-label^="Alignment error rate"] tr', CELLS) == [
        ["", "Head 1", "Head 2", "Mean"],
        *(
            [f"Layer {i}", *(f"{100 * rate:.1f}\u202f%" for rate in row)]
            for i, row in enumerate(RATES, start=1)
        ),
    ]
    for width in (320, 1280):
        page.open(layered, width, 800)
        assert page.js("document.documentElement.scrollWidth") == width
    page.open(report)
    assert page.all(".picker") == [], "nothing changes for a recurrent model"


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


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_as_the_system_and_as_asked(page, report, dark):
    page.open(report, dark=dark)
    brightness = (
        "getComputedStyle(document.documentElement)"
        ".backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0) / 3"
    )
    assert (page.js(brightness) < 60) is dark
    page.mouse(".top button", click=True)
    assert (page.js(brightness) > 200) is dark


@pytest.mark.parametrize("width", [320, 1280])
def test_no_page_is_wider_than_its_window(page, report, width):
    page.open(report, width, 800)
    page.all("details", "n.open = true")
    for form in FORMS:
        for unit in ("pieces", "words"):
            choose(page, form)
            choose(page, unit)
            assert page.js("document.documentElement.scrollWidth") == width, (form, unit)


def test_a_screen_reader_finds_names_and_order(page, report):
    page.open(report)
    assert page.js(NOTHING_NAMED) == []
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    read = [
        (n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]
    ]
    for role in ("button", "radio", "combobox", "searchbox", "region", "table", "image"):
        names = [name for kind, name in read if kind == role]
        assert names, role
        assert all(names), (role, names)
    levels = page.all("h1,h2,h3,h4,h5", "+n.tagName[1]")
    assert levels[0] == 1
    assert page.js("document.documentElement.lang") == "en"
    assert {"fr", "en"} <= set(page.all("[lang]", "n.lang"))
    live = "document.querySelector('.explanation').ariaLive"
    assert page.js(live) == "polite"


def colour(text: str) -> list[float]:
    """Red, green, blue and opacity, each up to 1, of what `getComputedStyle` says."""
    numbers = [float(n) for n in re.findall(r"[\d.]+(?:e-?\d+)?", text.removeprefix("color(srgb"))]
    scale = 1 if text.startswith("color(") else 255
    return [n / scale for n in numbers[:3]] + [*numbers[3:], 1][:1]


def contrast(page: browser.Page, selector: str) -> float:
    """The contrast of an element's text by WCAG 2, against all that is painted behind it."""
    node = f"document.querySelector({json.dumps(selector)})"
    text, *layers = page.js(
        f"(n => {{ const found = [getComputedStyle(n).color]; for (; n; n = n.parentElement)"
        f" found.push(getComputedStyle(n).backgroundColor); return found }})({node})"
    )
    behind = [1.0, 1.0, 1.0]
    for layer in reversed(layers):
        *paint, opacity = colour(layer)
        behind = [opacity * p + (1 - opacity) * b for p, b in zip(paint, behind, strict=True)]

    def light(rgb: list[float]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
        return 0.05 + sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(colour(text)[:3]), light(behind)))
    return high / low


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(page, report, dark):
    page.open(report, dark=dark)
    for selector in (
        *("h1", "h3", ".note", ".texts dt", ".reference dd", ".hypotheses .kind", ".legend li"),
        *("summary", "tbody th", ".switch input:checked + span", ".word", ".word.end"),
    ):
        assert contrast(page, selector) >= 4.5, selector
    for side in ("target", "source"):
        page.mouse(word(side, 0))
        for index in range(4):
            for selector in (word("target", index), word("source", index)):
                assert contrast(page, selector) >= 4.5, (side, selector)


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


def test_a_run_of_a_stranger(page, run, tmp_path):
    copy = copy_of(run, tmp_path / "copy")
    (copy / "corpus/test.source").write_text("".join(f"{t} cat\n" for t in HARMFUL), "utf-8")
    (copy / "corpus/test.target").write_text("".join(f"{t} chat\n" for t in HARMFUL), "utf-8")
    forge(copy)
    text = build([copy], [], sentences=9, n_best=2)
    (tmp_path / "r.html").write_text(text, "utf-8")
    page.open(tmp_path / "r.html")
    page.all(".more[aria-expanded=false]", "n.click() ?? 0")
    assert len(page.all("img, iframe, script")) == 2
    assert page.all(".texts div:not(.flags) dd[lang=en]") == [f"{text} cat" for text in HARMFUL]


def test_right_to_left_and_chinese(page, tmp_path):
    hebrew, chinese = "הילד הקטן ישן .", "小 男 孩 在 睡 觉 。"
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


def test_a_notebook_shows_a_translation_in_a_frame(page, tmp_path):
    frame = translation("the cat", "le chat")._repr_html_()
    (tmp_path / "n.html").write_text(f"<!doctype html><title>n</title>{frame}", "utf-8")
    page.open(tmp_path / "n.html")
    box = page.js("document.querySelector('iframe').getBoundingClientRect().height")
    assert 300 < box < 900
    assert page.js("document.querySelector('iframe').contentDocument === null"), "of nobody"
    # Not one request but its own document, and nothing refused.
    page.events[:] = [e for e in page.events if e["params"].get("type") != "Document"]


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


def test_the_report_of_a_word_model(page, tmp_path):
    """Table 1's kind of model, shrunk: Moses words, the paper's decoding, unknown words."""
    small = ["data=embedded", "tokenizer.vocab_size=80", "evaluate.heatmaps=[]"]
    small += ["data.grammar.train_pairs=200", "trainer.max_updates=10", "evaluate.examples=[]"]
    small += [f"data.grammar.{split}_pairs=20" for split in ("validation", "test")]
    small += [f"model.{name}_size=16" for name in ("embedding", "hidden", "align", "readout")]
    small += ["model.output_rank=8", "trainer.validate_every=10", "decode.max_ratio=1"]
    run = run_new(tmp_path / "run", composed("rnnsearch30", small))
    path = tmp_path / "r.html"
    path.write_text(build([run.root], [], sentences=5, n_best=5), "utf-8")
    look_around(page, path)
    assert page.js("document.querySelector('input[value=pieces] + span').textContent") == "Pieces"
    assert "80 and 80 words" in page.all(".card td")


def test_runs_side_by_side(page, run, tmp_path):
    """The same sources, other references, no scores."""
    other = copy_of(run, tmp_path / "other")
    (other / "scores.json").unlink()
    references = (other / "corpus/test.target").read_text("utf-8").replace("chat", "lion")
    (other / "corpus/test.target").write_text(references, "utf-8")
    forge(other)
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
