"""Heatmaps through the Figure API: weights, labels, fonts, bytes."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import Normalize
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from seq2seq.alignment import heatmap
from seq2seq.alignment.heatmap import plot_alignment, to_png
from seq2seq.run.errors import ConfigError

SOURCE = ["The", "European", "Economic", "Area", "grew", ".", "</s>"]
TARGET = ["La", "zone", "économique", "européenne", "a", "grandi", ".", "</s>"]
CRAB = "\U0001f980"  # an emoji that DejaVu Sans lacks
CJK = "协定"
CIRCLED = "\u24b6"  # STIXGeneral has it, DejaVu Sans lacks it


def soft(rows: int, columns: int) -> np.ndarray:
    alpha = np.random.default_rng(0).random((rows, columns)) ** 4
    return alpha / alpha.sum(axis=1, keepdims=True)


def tick_labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def drawn(*args, **options):
    """The axes of a plot that has been rendered; warnings are errors."""
    axes, _ = plot_alignment(*args, **options).axes
    to_png(axes.figure)
    return axes


def cells(axes, rows: int, columns: int) -> np.ndarray:
    """The middle of each cell, read back from the PNG, and that cells are square."""
    pixels, frame = imread(io.BytesIO(to_png(axes.figure))), axes.get_window_extent()
    side = frame.width / columns
    assert side == pytest.approx(frame.height / rows)
    assert side == pytest.approx(round(side))
    at = pixels.shape[0] - frame.y1
    return np.array(
        [
            [
                pixels[int(at + (i + 0.5) * side), int(frame.x0 + (j + 0.5) * side), :3]
                for j in range(columns)
            ]
            for i in range(rows)
        ]
    )


# The figure ---------------------------------------------------------------------------------------


def test_source_runs_along_the_top_and_target_down_the_left_side():
    axes = drawn(soft(len(TARGET), len(SOURCE)), SOURCE, TARGET)
    assert tick_labels(axes.xaxis) == SOURCE
    assert tick_labels(axes.yaxis) == TARGET
    assert axes.xaxis.get_ticks_position() == "top"
    frame = axes.get_window_extent()
    for i, label in enumerate(axes.get_xticklabels()):  # above the frame, from its own column on
        box = label.get_window_extent()
        assert label.get_rotation() == 45
        assert box.y0 >= frame.y1
        assert int(box.x0 + 12 - frame.x0) // (frame.width / len(SOURCE)) == i
    for i, label in enumerate(axes.get_yticklabels()):  # left of it, beside its own row
        box = label.get_window_extent()
        assert box.x1 <= frame.x0
        assert int(frame.y1 - (box.y0 + box.y1) / 2) // (frame.height / len(TARGET)) == i


@pytest.mark.parametrize("greatest", [1.0, 0.5, 0.49, 0.04])
def test_the_scale_is_beside_the_map_and_a_map_of_small_weights_is_not_black(greatest):
    """0 is black and 1 is white; the scale ends early, and says so, if all weights are small."""
    alpha = np.array([[0.0, greatest, 0.0], [greatest / 2, 0.0, greatest]])
    axes, bar = plot_alignment(alpha, list("abc"), list("xy"), title="t").axes
    [image] = axes.images
    np.testing.assert_array_equal(image.get_array(), alpha)
    assert isinstance(image.norm, Normalize)
    white = 1 if greatest >= 0.5 else greatest
    assert image.get_clim() == (0, white)
    assert image.get_interpolation() == "nearest"
    assert bar.get_ylim() == (0, white)
    assert tick_labels(bar.yaxis) == ["0", f"{white / 2:.2g}", f"{white:.2g}"]
    assert bar.get_xlabel() == f"max {greatest:.2g}"
    lines = ["t", *([f"white is {greatest}, the largest weight"] if white < 1 else [])]
    assert axes.get_title() == "\n".join(lines)


@pytest.mark.parametrize(
    ("alpha", "note", "line"),
    [
        (np.full((3, 4), 0.25), None, heatmap.FLAT_NOTE),
        (np.full((3, 4), 0.25), "hardly learnt", "hardly learnt"),
        (np.eye(4)[:3], None, None),
        (np.eye(4)[:3], "hardly learnt", "hardly learnt"),
        (np.array([[0.85, 0.05, 0.05, 0.05]] * 3), None, None),
        (np.ones((3, 1)), None, None),  # a source of nothing but its end
    ],
)
def test_flat_attention_is_called_flat(alpha, note, line):
    labels = "abcd"[: alpha.shape[1]]
    _, *lines = drawn(alpha, labels, "xyz", title="t", note=note).get_title().split("\n")
    assert [text for text in lines if "white" not in text] == ([line] if line else [])


@pytest.mark.parametrize(
    ("labels", "tilted"),
    [
        (["b", "i", "b", "l", "e", "</s>"], [False] * 5 + [True]),
        (["the", "cat", ".", "</s>"], [True] * 4),
        ([CJK[0], CJK[1], "</s>"], [False, False, True]),
    ],
    ids=["letters", "words", "CJK"],
)
def test_labels_are_upright_where_they_fit_and_tilted_elsewhere(labels, tilted):
    axes = drawn(soft(1, len(labels)), labels, ["x"])
    assert [label.get_rotation() == 45 for label in axes.get_xticklabels()] == tilted
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(box.y0 >= axes.get_window_extent().y1 for box in boxes), "none in the map"


@pytest.mark.parametrize("bad", [0.25, np.nan, np.inf, -np.inf])
def test_O3_pixels_of_the_png_are_the_weights(bad):
    alpha = soft(5, 7)
    alpha[1, 1], alpha[0, :2] = bad, (0, 1)
    axes = drawn(alpha, list("abcdefg"), list("vwxyz"), title="a title")
    expected = np.repeat(alpha[:, :, None], 3, axis=2)
    if not np.isfinite(bad):
        expected[1, 1] = [1, 0, 0]
    np.testing.assert_allclose(cells(axes, 5, 7), expected, atol=1 / 128)


@pytest.mark.e2e
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 9), (12, 11), (60, 60), (2, 300)])
def test_O3_nothing_is_cut_off_and_no_margin_is_wide(rows, columns):
    labels = [f"word-{i}" for i in range(max(rows, columns))]
    figure = plot_alignment(soft(rows, columns), labels[:columns], labels[:rows])
    width, height = figure.canvas.get_width_height()
    assert max(width, height) <= heatmap.MAX_SIDE * heatmap.DPI + 600
    box = Bbox.union([axes.get_tightbbox() for axes in figure.axes])
    for gap in (box.x0, box.y0, width - box.x1, height - box.y1):
        assert 5 <= gap <= 15


@pytest.mark.parametrize("count", [1, 20, 60, 150, 300, 1000, 20_000])
def test_cells_shrink_slowly(count):
    inches = heatmap._cell_inches(count)
    assert inches * heatmap.DPI == pytest.approx(round(inches * heatmap.DPI))
    if count <= 60:
        assert heatmap.FONT_RATIO * inches * 72 >= 5.5  # points, 11 pixels: readable
    if count <= 5000:
        assert inches * count <= heatmap.MAX_SIDE


@pytest.mark.parametrize(
    "label",
    [
        *("$_$", "$x^$", "_^{}", "x^$", r"\frac", r"$\foo$", "$5 and $6", "%", "a_b^c", "{"),
        *("\U0001f600", "العربية"),
    ],
)
def test_O3_labels_are_text_and_never_formulas(label):
    axes = drawn(soft(2, 2), [label, "b"], [label, "d"], title=label)
    assert tick_labels(axes.xaxis) == [label, "b"]
    assert tick_labels(axes.yaxis) == [label, "d"]
    assert axes.get_title() == label
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        assert not text.get_parse_math()


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("a\x00b", r"a\x00b"),
        ("\n", r"\n"),
        ("\u202eabc", r"\u202eabc"),  # would reverse its neighbours
        ("\udc80", r"\udc80"),  # a lone surrogate cannot be drawn at all
        ("\ue000", r"\ue000"),
        ("5\u00a0%", r"5\xa0%"),
        ("می\u200cروم", "می\u200cروم"),  # a joiner shapes its neighbours
        ("\u2581the", " the"),
        ("\u2581", "\u2423"),  # a row of its own: not without a label
        ("", ""),
        ("x" * 33, "x" * 31 + "\u2026"),
        ("x" * 32, "x" * 32),
    ],
)
def test_O3_unprintable_characters_are_escaped_and_long_labels_cut(label, shown):
    axes = drawn(soft(1, 1), [label], [label])
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == [shown]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("rows", "columns", "weight"), [(300, 300, "soft"), (1, 1, "nan"), (1, 300, "nan")]
)
def test_O3_300_tokens_and_1_token_of_any_kind_make_a_file(rows, columns, weight, caplog):
    """With one line of log at most, for characters without a font."""
    strange = ["$_$", "$x^$", "_^{}", r"\frac", CRAB, "العربية", "a\x00b"]
    labels = [strange[i % len(strange)] for i in range(max(rows, columns))]
    alpha = soft(rows, columns) if weight == "soft" else np.full((rows, columns), np.nan)
    drawn(alpha, labels[:columns], labels[:rows])
    assert len(caplog.records) <= 1


# Bytes and surroundings ---------------------------------------------------------------------------


def test_same_input_gives_same_bytes_without_date_or_version():
    alpha = soft(len(TARGET), len(SOURCE))
    first, second = (to_png(plot_alignment(alpha, SOURCE, TARGET, title="t")) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"tEXt" not in first
    assert b"tIME" not in first


def test_input_settings_and_random_state_stay_as_they_were():
    alpha, before = soft(3, 2), dict(mpl.rcParams)
    copy, state = alpha.copy(), np.random.get_state()[1].copy()
    drawn(alpha, ["a", CJK], ["c", CRAB, "e"])
    assert dict(mpl.rcParams) == before
    np.testing.assert_array_equal(alpha, copy)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_a_dark_style_of_the_user_does_not_reach_the_figure():
    plain = to_png(plot_alignment(soft(2, 2), ["a", "b"], ["c", "d"], title="t"))
    with mpl.rc_context(
        {"text.color": "red", "figure.facecolor": "black", "image.origin": "lower"}
    ):
        assert to_png(plot_alignment(soft(2, 2), ["a", "b"], ["c", "d"], title="t")) == plain


def test_pyplot_is_never_imported_and_matplotlib_only_when_something_is_drawn():
    code = """
import sys, numpy as np
from seq2seq.alignment.heatmap import plot_alignment, to_png
assert "matplotlib" not in sys.modules
to_png(plot_alignment(np.ones((1, 1)), ["a"], ["b"], title="t"))
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Fonts --------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    """Decide which fonts are installed besides DejaVu Sans; nothing has been warned of yet."""

    def install(*names: str) -> None:
        found = [
            (Path(name).stem, str(mpl.get_data_path() + f"/fonts/ttf/{name}")) for name in names
        ]
        monkeypatch.setattr(heatmap, "_installed_fonts", lambda: found)

    monkeypatch.setattr(heatmap, "_warned", [])
    return install


def test_no_font_gives_boxes_and_one_warning_per_process(installed, caplog):
    installed()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            axes = drawn(soft(1, 2), [CJK, "é"], [CRAB + "!"])
    assert tick_labels(axes.xaxis) == ["\u25a1\u25a1", "é"]
    assert tick_labels(axes.yaxis) == ["\u25a1!"]
    (record,) = caplog.records
    assert "U+534F" in record.getMessage()
    assert "fonts-noto-cjk" in record.getMessage()


def test_installed_fonts_are_searched_only_when_others_are_not_enough(monkeypatch):
    monkeypatch.setattr(heatmap, "_installed_fonts", lambda: 1 / 0)
    drawn(soft(1, 3), ["été", "Ελλάδα", "العربية"], ["Москва"])
    stix = str(mpl.get_data_path() + "/fonts/ttf/STIXGeneral.ttf")
    axes = drawn(soft(1, 1), [CIRCLED], ["a"], font=stix)
    assert axes.get_xticklabels()[0].get_fontfamily() == [heatmap.BASE_FONT, stix]
    assert font_manager.findfont(font_manager.FontProperties(family=[stix])) == stix
    with pytest.raises(ZeroDivisionError):
        plot_alignment(soft(1, 1), [CJK], ["a"])


def test_an_installed_font_fills_in_what_dejavu_lacks(installed):
    installed("cmr10.ttf", "STIXGeneral.ttf")
    axes = drawn(soft(1, 2), ["a" + CIRCLED, "b"], ["c"], title="t")
    assert tick_labels(axes.xaxis) == ["a" + CIRCLED, "b"]
    assert axes.get_xticklabels()[0].get_fontfamily() == [heatmap.BASE_FONT, "STIXGeneral"]


def test_the_real_search_finds_new_fonts_and_not_the_last_resort(tmp_path, monkeypatch):
    """One that matplotlib has not listed, and a file that is not a font."""
    new = tmp_path / "New.ttf"
    new.write_bytes(Path(mpl.get_data_path(), "fonts/ttf/STIXGeneral.ttf").read_bytes())
    (tmp_path / "bad.ttf").write_bytes(b"not a font")
    files = [str(path) for path in tmp_path.iterdir()]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    found = heatmap._installed_fonts.__wrapped__()
    assert ("STIXGeneral", str(new)) in found
    assert any("DejaVuSans.ttf" in path for _, path in found)
    assert not any("LastResort" in path for _, path in found)
    drawn(soft(1, 2), [CJK, "한국어"], [CRAB])  # with or without such fonts


@pytest.mark.parametrize("content", [None, b"", b"not a font"])
def test_a_font_file_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "my.ttf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"no usable font file at .*my\.ttf") as error:
        plot_alignment(soft(1, 1), ["a"], ["b"], font=str(path))
    assert error.value.where == "evaluate.heatmap_font"
