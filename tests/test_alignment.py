"""Heatmaps looked at through the Figure API, and words made of pieces by hand and at random."""

import io
import logging
import random
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import sentencepiece
from matplotlib import font_manager
from matplotlib.colors import Normalize
from matplotlib.image import imread

from seq2seq.alignment import heatmap as alignment
from seq2seq.alignment.heatmap import group_pieces, merge_words, plot_alignment, to_png
from seq2seq.data.words import split_words
from seq2seq.run.errors import ConfigError

SOURCE = ["The", "European", "Economic", "Area", "grew", ".", "</s>"]
TARGET = ["La", "zone", "économique", "européenne", "a", "grandi", ".", "</s>"]
CRAB = "\U0001f980"  # an emoji that DejaVu Sans lacks
CJK = "协定"


def soft(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    alpha = np.random.default_rng(seed).random((rows, columns)) ** 4
    return alpha / alpha.sum(axis=1, keepdims=True)


def tick_labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine with nothing but DejaVu Sans, in a process that has not warned yet."""
    base = str(font_manager.findfont(alignment.BASE_FONT))
    monkeypatch.setattr(alignment, "_installed_fonts", lambda: [base])
    monkeypatch.setattr(alignment, "_warned", [])


# --- The figure -----------------------------------------------------------------------------


def test_source_runs_along_the_top_and_target_down_the_left_side():
    alpha = soft(len(TARGET), len(SOURCE))
    (axes,) = plot_alignment(alpha, SOURCE, TARGET).axes
    axes.figure.draw_without_rendering()
    columns, rows = axes.get_xticklabels(), axes.get_yticklabels()
    assert tick_labels(axes.xaxis) == SOURCE
    assert tick_labels(axes.yaxis) == TARGET
    assert axes.xaxis.get_ticks_position() == "top"
    frame = axes.get_window_extent()
    for i, label in enumerate(columns):  # above the frame, over its own column, upright
        box = label.get_window_extent()
        assert label.get_rotation() == 90
        assert box.y0 >= frame.y1
        assert int((box.x0 + box.x1) / 2 - frame.x0) // (frame.width / len(SOURCE)) == i
    for i, label in enumerate(rows):  # left of the frame, beside its own row, first row on top
        box = label.get_window_extent()
        assert box.x1 <= frame.x0
        assert int(frame.y1 - (box.y0 + box.y1) / 2) // (frame.height / len(TARGET)) == i


def test_weights_are_grey_with_0_black_and_1_white():
    alpha = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    (axes,) = plot_alignment(alpha, list("abc"), list("xy")).axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), alpha)
    assert isinstance(image.norm, Normalize)
    assert image.get_clim() == (0, 1)
    assert image.get_interpolation() == "nearest"
    np.testing.assert_allclose(image.to_rgba(alpha)[0, :, :3], [[0] * 3, [1] * 3, [0] * 3])


def test_pixels_of_the_png_are_the_weights():
    """Read back from the picture itself: the middle of every cell, and equal square cells."""
    alpha = soft(5, 7)
    figure = plot_alignment(alpha, list("abcdefg"), list("vwxyz"), title="a title")
    pixels = imread(io.BytesIO(to_png(figure)))
    frame = figure.axes[0].get_window_extent()
    side = frame.width / 7
    assert side == pytest.approx(frame.height / 5)
    assert side == pytest.approx(round(side))
    for i in range(5):
        for j in range(7):
            y = pixels.shape[0] - frame.y1 + (i + 0.5) * side
            grey = pixels[int(y), int(frame.x0 + (j + 0.5) * side), :3]
            np.testing.assert_allclose(grey, alpha[i, j], atol=1 / 128)


def test_weights_are_not_rescaled_to_the_largest():
    (axes,) = plot_alignment(np.full((2, 2), 0.5), ["a", "b"], ["c", "d"]).axes
    assert axes.images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 9), (12, 11), (60, 60), (2, 300)])
def test_O3_nothing_is_cut_off_and_no_margin_is_wide(rows, columns):
    labels = [f"word-{i}" for i in range(max(rows, columns))]
    figure = plot_alignment(soft(rows, columns), labels[:columns], labels[:rows])
    width, height = figure.canvas.get_width_height()
    assert max(width, height) <= alignment.MAX_SIDE * alignment.DPI + 600
    box = figure.axes[0].get_tightbbox()
    for gap in (box.x0, box.y0, width - box.x1, height - box.y1):
        assert 5 <= gap <= 15


@pytest.mark.parametrize("cells", [1, 20, 60, 150, 300, 400, 1000, 20_000])
def test_cells_shrink_slowly_and_labels_of_neighbours_never_touch(cells):
    inches = alignment._cell_inches(cells)
    assert inches * alignment.DPI == pytest.approx(round(inches * alignment.DPI))
    assert alignment.FONT_RATIO < 0.8
    if cells <= 60:
        assert alignment.FONT_RATIO * inches * 72 >= 5.5  # points, 11 pixels: readable
    if cells <= 5000:
        assert inches * cells <= alignment.MAX_SIDE


def test_neighbouring_labels_do_not_overlap_on_a_large_map():
    labels = ["Ågjpqy"] * 60
    (axes,) = plot_alignment(soft(60, 2), ["a", "b"], labels).axes
    axes.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    pitch = axes.get_window_extent().height / 60
    assert all(box.height <= pitch * 1.05 for box in boxes)


@pytest.mark.parametrize(
    "label",
    [
        *("$_$", "$x^$", "_^{}", "x^$", r"\frac", r"$\foo$", "$5 and $6", "%", "a_b^c", "{"),
        *("\U0001f600", "العربية"),
    ],
)
def test_O3_labels_are_text_and_never_formulas(label):
    (axes,) = plot_alignment(soft(2, 2), [label, "b"], [label, "d"], title=label).axes
    to_png(axes.figure)
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
        ("\u202eabc", r"\u202eabc"),  # would turn its neighbours around
        ("\udc80", r"\udc80"),  # a lone surrogate cannot be drawn at all
        ("\ue000", r"\ue000"),
        ("5\u00a0%", r"5\xa0%"),
        ("می\u200cروم", "می\u200cروم"),  # a joiner shapes its neighbours
        ("\u2581the", "\u2581the"),
        ("", ""),
        ("x" * 33, "x" * 31 + "\u2026"),
        ("x" * 32, "x" * 32),
    ],
)
def test_O3_unprintable_characters_are_escaped_and_long_labels_cut(label, shown):
    (axes,) = plot_alignment(soft(1, 1), [label], [label]).axes
    to_png(axes.figure)
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == [shown]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_O3_a_weight_that_is_no_number_is_a_red_cell(bad):
    alpha = np.array([[0.0, 1.0, 0.0], [0.5, bad, 0.5]])
    figure = plot_alignment(alpha, list("abc"), list("xy"))
    pixels = imread(io.BytesIO(to_png(figure)))
    frame = figure.axes[0].get_window_extent()
    side = frame.width / 3
    for i, j in np.ndindex(alpha.shape):
        y = pixels.shape[0] - frame.y1 + (i + 0.5) * side
        found = pixels[int(y), int(frame.x0 + (j + 0.5) * side), :3]
        grey = [alpha[i, j]] * 3 if np.isfinite(alpha[i, j]) else [1.0, 0.0, 0.0]
        np.testing.assert_allclose(found, grey, atol=1 / 128)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("rows", "columns", "weight"), [(300, 300, "soft"), (1, 1, "nan"), (1, 300, "nan")]
)
def test_O3_300_tokens_and_1_token_of_any_kind_make_a_file(rows, columns, weight, caplog):
    """With warnings as errors, and with one line of log at most, for characters without a font."""
    strange = ["$_$", "$x^$", "_^{}", r"\frac", CRAB, "العربية", "a\x00b"]
    labels = [strange[i % len(strange)] for i in range(max(rows, columns))]
    alpha = soft(rows, columns) if weight == "soft" else np.full((rows, columns), np.nan)
    png = to_png(plot_alignment(alpha, labels[:columns], labels[:rows]))
    assert png.startswith(b"\x89PNG")
    assert len(caplog.records) <= 1


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
    to_png(plot_alignment(alpha, ["a", CJK], ["c", CRAB, "e"]))
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


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (np.ones((2, 3)), "3 target and 2 source"),
        (np.ones(3), "is \\(3,\\)"),
        (np.ones((0, 2)), "0, 2"),
    ],
)
def test_weights_that_do_not_fit_are_a_bug_of_the_caller(alpha, message):
    with pytest.raises(ValueError, match=message):
        plot_alignment(alpha, ["a", "b"], ["c", "d", "e"])


# --- Fonts ----------------------------------------------------------------------------------


def test_no_font_gives_boxes_and_one_warning_per_process(no_fonts, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # warnings are errors here: a missing glyph would raise
            (axes,) = plot_alignment(soft(1, 2), [CJK, "é"], [CRAB + "!"]).axes
            to_png(axes.figure)
    assert tick_labels(axes.xaxis) == ["\u25a1\u25a1", "é"]
    assert tick_labels(axes.yaxis) == ["\u25a1!"]
    (record,) = caplog.records
    assert "U+534F" in record.getMessage()
    assert "fonts-noto-cjk" in record.getMessage()


def test_installed_fonts_are_searched_only_when_dejavu_is_not_enough(monkeypatch):
    def refuse() -> list[str]:
        raise AssertionError("searched")

    monkeypatch.setattr(alignment, "_installed_fonts", refuse)
    plot_alignment(soft(1, 3), ["été", "Ελλάδα", "العربية"], ["Москва"])
    with pytest.raises(AssertionError, match="searched"):
        plot_alignment(soft(1, 1), [CJK], ["a"])


def bundled(name: str) -> str:
    """A font file that matplotlib ships."""
    return str(mpl.get_data_path() + "/fonts/ttf/" + name)


def test_an_installed_font_fills_in_what_dejavu_lacks(monkeypatch):
    """`STIXGeneral` has a circled letter that DejaVu Sans lacks; the rest stays DejaVu."""
    stix, letter = bundled("STIXGeneral.ttf"), "\u24b6"
    monkeypatch.setattr(alignment, "_installed_fonts", lambda: [bundled("cmr10.ttf"), stix])
    (axes,) = plot_alignment(soft(1, 2), ["a" + letter, "b"], ["c"], title="t").axes
    to_png(axes.figure)
    assert tick_labels(axes.xaxis) == ["a" + letter, "b"]
    assert axes.get_xticklabels()[0].get_fontfamily() == [alignment.BASE_FONT, stix]
    family = font_manager.FontProperties(family=[stix])
    assert Path(font_manager.findfont(family)) == Path(stix)


def test_a_configured_font_comes_before_the_installed_ones(monkeypatch):
    monkeypatch.setattr(alignment, "_installed_fonts", lambda: pytest.fail("searched"))
    stix = bundled("STIXGeneral.ttf")
    (axes,) = plot_alignment(soft(1, 1), ["\u24b6"], ["a"], font=stix).axes
    to_png(axes.figure)
    assert axes.get_xticklabels()[0].get_fontfamily() == [alignment.BASE_FONT, stix]


def test_the_real_search_finds_every_font_file_but_the_last_resort():
    found = alignment._installed_fonts()
    assert any("DejaVuSans.ttf" in path for path in found)
    assert not any("LastResort" in path for path in found)
    to_png(plot_alignment(soft(1, 2), [CJK, "한국어"], [CRAB]))  # with or without such fonts


@pytest.mark.parametrize("content", [None, b"", b"not a font"])
def test_a_font_file_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "my.ttf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"no usable font file at .*my\.ttf") as error:
        plot_alignment(soft(1, 1), ["a"], ["b"], font=str(path))
    assert error.value.where == "evaluate.heatmap_font"


# --- From pieces to words -------------------------------------------------------------------


def test_attention_to_a_word_is_a_sum_and_from_a_word_a_mean():
    alpha = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    merged = merge_words(alpha, [[0, 1], [2]], [[0], [1, 2]])
    np.testing.assert_allclose(merged, [[0.3, 0.7], [0.4, 0.6]], rtol=0, atol=1e-15)


def random_groups(size: int, rng: random.Random) -> list[list[int]]:
    cuts = sorted(rng.sample(range(1, size), rng.randrange(size)))
    return [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_rows_still_sum_to_one_and_equal_a_loop(seed):
    rng = random.Random(seed)
    rows, columns = rng.randint(1, 12), rng.randint(1, 12)
    alpha = soft(rows, columns, seed)
    src, tgt = random_groups(columns, rng), random_groups(rows, rng)
    merged = merge_words(alpha, src, tgt)
    assert merged.shape == (len(tgt), len(src))
    np.testing.assert_allclose(merged.sum(axis=1), 1, rtol=0, atol=1e-12)
    for i, j in np.ndindex(merged.shape):
        total = sum(alpha[y, x] for y in tgt[i] for x in src[j])
        assert merged[i, j] == pytest.approx(total / len(tgt[i]), abs=1e-12), seed


@pytest.mark.parametrize("groups", [[[0]], [[0], [1], [2]], [[1], [0]], [[0, 1], [1]], []])
def test_groups_that_are_no_partition_are_a_bug_of_the_caller(groups):
    with pytest.raises(ValueError, match="do not partition 2 pieces"):
        merge_words(np.eye(2), groups, [[0], [1]])
    with pytest.raises(ValueError, match="do not partition 2 pieces"):
        merge_words(np.eye(2), [[0], [1]], groups)


def offsets_of(text: str, pieces: str) -> list[tuple[int, int]]:
    """Offsets of pieces written with bars between them: `L'|ho|mme| dort|.`."""
    assert pieces.replace("|", "") == text
    ends = np.cumsum([len(piece) for piece in pieces.split("|")]).tolist()
    return list(zip([0, *ends], ends, strict=False))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ("L'|homme| dort|.", {"L'": [0], "homme": [1], "dort": [2], ".": [3]}),
        ("L|'|ho|mme| d|or|t|.", {"L'": [0, 1], "homme": [2, 3], "dort": [4, 5, 6], ".": [7]}),
        ("L'ho|mme", {"L'": [0], "homme": [1]}),  # a tie: the first character decides
        ("L'hom|me", {"L'homme": [0, 1]}),  # most of the piece is `homme`; `L'` is left over
        ("L|'homme", {"L'": [0], "homme": [1]}),
        ("L'homme| dort", {"L'homme": [0], "dort": [1]}),
        ("un| homme.", {"un": [0], "homme.": [1]}),
        ("il| dort|s.", {"il": [0], "dorts.": [1, 2]}),
        ("dor|t.|..", {"dort.": [0, 1], "..": [2]}),
        ("New York| city", {"New York": [0], "city": [1]}),
        ("a| |b", {"a": [0], "b": [1, 2]}),  # a lone blank goes with what follows
        ("a |b ", {"a": [0], "b": [1]}),
        ("a|  ", {"a": [0, 1]}),  # nothing follows
        ("aujourd'|hui|, qu'|il", {"aujourd'": [0], "hui": [1], ", qu'": [2], "il": [3]}),
        ("Jean|-Pierre| n'|a| pas", {"Jean-Pierre": [0, 1], "n'": [2], "a": [3], "pas": [4]}),
        ("10| %|!", {"10": [0], "%": [1], "!": [2]}),
    ],
)
def test_pieces_are_grouped_into_words(pieces, expected):
    text = pieces.replace("|", "")
    labels, groups = group_pieces(text, offsets_of(text, pieces))
    assert list(zip(labels, groups, strict=True)) == list(expected.items())


def test_pieces_of_rewritten_characters_have_no_width_of_their_own():
    """The offsets sentencepiece 0.2.3 gives for a ligature and for three dots in one character."""
    labels, groups = group_pieces(
        "la \ufb01n\u2026 bon",
        [(0, 2), (2, 3), (3, 3), (3, 4), (4, 5), (5, 5), (5, 6), (6, 10)],
    )
    assert labels == ["la", "\ufb01n", "\u2026", "bon"]
    assert groups == [[0], [1, 2, 3, 4], [5, 6], [7]]


@pytest.mark.parametrize(
    ("text", "offsets", "expected"),
    [
        ("", [], ([], [])),
        ("a b", [], ([], [])),
        ("  ", [(0, 1), (1, 2)], (["  "], [[0, 1]])),
        ("", [(0, 0)], ([""], [[0]])),
        ("a b", [(0, 0), (0, 0), (0, 1), (3, 3)], (["a", "b"], [[0, 1, 2], [3]])),
        ("a b c", [(4, 5)], (["a b c"], [[0]])),  # a label for all there is, even so
    ],
)
def test_texts_and_pieces_at_the_edge(text, offsets, expected):
    assert group_pieces(text, offsets) == expected


LINES = [
    "l'homme qui l'a vu dort.",
    "c'est la fin\u2026 de l'été, n'est-ce pas ?",
    "aujourd'hui, qu'il soit là !",
    "Jean-Pierre n'a pas 10 % (dix pour cent).",
]
ALPHABET = "aehlmnost'''--..,!? \u2026\ufb01é協定\u00bd\u0627\u0301\x00"


def train(**options) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def check_partition(text: str, offsets: list[tuple[int, int]]) -> None:
    """Every piece once, in order; the labels cover the words, each once, in order."""
    labels, groups = group_pieces(text, offsets)
    assert len(labels) == len(groups)
    assert [piece for group in groups for piece in group] == list(range(len(offsets)))
    assert all(groups)
    if offsets:
        assert [word for label in labels for word in split_words(label)] == split_words(text)


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram", "vocab_size": 80},
        {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True},
        {"model_type": "bpe", "vocab_size": 100, "normalization_rule_name": "identity"},
        {"model_type": "unigram", "vocab_size": 200, "split_by_whitespace": False},
        {"model_type": "bpe", "vocab_size": 80, "remove_extra_whitespaces": False},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_real_pieces_are_partitioned(options):
    processor = train(**options)
    rng = random.Random(1)
    texts = [*LINES, *("".join(rng.choices(ALPHABET, k=rng.randrange(40))) for _ in range(150))]
    for text in texts:
        encoded = processor.encode(text, return_type="offset_mapping")
        check_partition(text, [tuple(o) for o in encoded["offsets"]] if encoded else [])


@pytest.mark.parametrize("seed", range(5))
def test_random_pieces_are_partitioned(seed):
    rng = random.Random(seed)
    for _ in range(200):
        text = "".join(rng.choices(ALPHABET, k=rng.randrange(1, 25)))
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(12)))  # some are equal
        check_partition(text, list(zip([0, *cuts], [*cuts, len(text)], strict=True)))


def test_words_and_weights_meet_in_one_map():
    """The whole way of one side: pieces, groups, the caller's end symbol, merged weights."""
    text = "L'homme dort."
    labels, groups = group_pieces(text, offsets_of(text, "L'|ho|mme| dort|."))
    labels, groups = [*labels, "</s>"], [*groups, [5]]
    merged = merge_words(np.eye(6), groups, groups)
    (axes,) = plot_alignment(merged, labels, labels).axes
    assert tick_labels(axes.xaxis) == ["L'", "homme", "dort", ".", "</s>"]
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(5))
