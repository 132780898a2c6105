"""From pieces to words: by hand, at random, and with real vocabularies."""

import io
import random
from dataclasses import replace

import numpy as np
import pytest
import sentencepiece

from seq2seq.alignment.words import (
    SoftAlignment,
    group_pieces,
    lay_over,
    map_words,
    merge_words,
    to_words,
    word_weights,
)
from seq2seq.data.words import blank_spans, count_words, split_words, word_spans
from seq2seq.decoding.translation import END

# Grouping pieces ----------------------------------------------------------------------------------


def offsets_of(pieces: str) -> list[tuple[int, int]]:
    """Offsets of pieces written with bars between them: `L'|ho|mme| dort|.`."""
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
        ("a| |b", {"a": [0], "b": [1, 2]}),  # a lone space goes with what follows
        ("a |b ", {"a": [0], "b": [1]}),
        ("a|  ", {"a": [0, 1]}),  # nothing follows
        ("aujourd'|hui|, qu'|il", {"aujourd'": [0], "hui": [1], ", qu'": [2], "il": [3]}),
        ("Jean|-Pierre| n'|a| pas", {"Jean-Pierre": [0, 1], "n'": [2], "a": [3], "pas": [4]}),
        ("10| %|!", {"10": [0], "%": [1], "!": [2]}),
    ],
)
def test_pieces_are_grouped_into_words(pieces, expected):
    labels, groups = group_pieces(pieces.replace("|", ""), offsets_of(pieces))
    assert list(zip(labels, groups, strict=True)) == list(expected.items())


@pytest.mark.parametrize(
    ("text", "offsets", "expected"),
    [
        ("", [], ([], [])),
        ("a b", [], ([], [])),
        ("  ", [(0, 1), (1, 2)], (["  "], [[0, 1]])),
        ("", [(0, 0)], ([""], [[0]])),
        ("a b", [(0, 0), (0, 0), (0, 1), (3, 3)], (["a", "b"], [[0, 1, 2], [3]])),
        ("a b c", [(4, 5)], (["a b c"], [[0]])),  # a label for all there is, even so
        # The offsets sentencepiece 0.2.3 gives for a ligature and for three dots in one character.
        (
            "la \ufb01n\u2026 bon",
            [(0, 2), (2, 3), (3, 3), (3, 4), (4, 5), (5, 5), (5, 6), (6, 10)],
            (["la", "\ufb01n", "\u2026", "bon"], [[0], [1, 2, 3, 4], [5, 6], [7]]),
        ),
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
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20), model_writer=model, hard_vocab_limit=False,
        minloglevel=2, **options,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
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


# Weights ------------------------------------------------------------------------------------------


def random_groups(size: int, rng: random.Random) -> list[list[int]]:
    cuts = sorted(rng.sample(range(1, size), rng.randrange(size)))
    return [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_attention_to_a_word_is_a_sum_and_from_a_word_a_mean(seed):
    rng = random.Random(seed)
    rows, columns = rng.randint(1, 12), rng.randint(1, 12)
    alpha = np.random.default_rng(seed).dirichlet(np.full(columns, 0.3), rows)
    src, tgt = random_groups(columns, rng), random_groups(rows, rng)
    merged = merge_words(alpha, src, tgt)
    assert merged.shape == (len(tgt), len(src))
    np.testing.assert_allclose(merged.sum(axis=1), 1, rtol=0, atol=1e-12)
    for i, j in np.ndindex(merged.shape):
        total = sum(alpha[y, x] for y in tgt[i] for x in src[j])
        assert merged[i, j] == pytest.approx(total / len(tgt[i]), abs=1e-12), seed


def test_weights_between_words_sum_over_the_source_and_average_over_the_target():
    """`La chat` from `the cat`: pieces la, ch, at, end; the, c, at, end."""
    src = map_words("the cat", [(0, 3), (3, 5), (5, 7)])
    tgt = map_words("la chat", [(0, 2), (2, 5), (5, 7)])
    alpha = np.array(
        [[0.5, 0.1, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.1, 0.2], [0, 0, 0, 1]]
    )
    expected = [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0, 0, 1]]
    np.testing.assert_allclose(word_weights(alpha, src, tgt), expected, atol=1e-15)


def test_words_in_one_piece_share_its_row_and_the_first_has_its_weight():
    both = map_words("New York", [(0, 8)])
    alpha = np.array([[0.9, 0.1], [0.4, 0.6]])
    expected = [[0.9, 0, 0.1], [0.9, 0, 0.1], [0.4, 0, 0.6]]
    np.testing.assert_allclose(word_weights(alpha, both, both), expected)
    np.testing.assert_allclose(word_weights(alpha[:1], both, both), expected[:2])  # no end


@pytest.mark.parametrize("ended", [True, False])
def test_every_layer_and_head_is_joined_by_the_same_rule(ended):
    """`the cat` as the, c, at; `La chat` as la, ch, at; rows and columns of every kind by hand."""
    rng, ends = np.random.default_rng(4), (END,) * ended
    rows = 3 + ended
    shapes = {"heads": (rows, 4), "encoder": (4, 4), "decoder": (rows, rows)}
    maps = {name: rng.dirichlet(np.ones(c), (2, 3, r)) for name, (r, c) in shapes.items()}
    maps["decoder"] = np.tril(maps["decoder"])
    pieces = SoftAlignment(
        *("the cat", "La chat", ("_the", "_c", "at", END), ("_La", "_ch", "at", *ends)),
        *((-1.0,) * rows, maps["heads"][0, 0], ended),
        source_spans=((0, 3), (3, 5), (5, 7)),
        target_spans=((0, 2), (2, 5), (5, 7)),
        maps=maps,
    )
    words = to_words(pieces)
    assert words.target_tokens == ("La", "chat", *ends)
    last = [[3]] * ended
    # Columns of the decoder: start, la, ch, at; without an end nothing comes after `at`.
    before = [[0], [1], [2, 3] if ended else [2]]
    groups = {
        "heads": ([[0], [1, 2], *last], [[0], [1, 2], [3]]),
        "encoder": ([[0], [1, 2], [3]], [[0], [1, 2], [3]]),
        "decoder": ([[0], [1, 2], *last], before),
    }
    for name, (of_rows, of_columns) in groups.items():
        for place in np.ndindex(2, 3):
            expected = [
                [maps[name][place][np.ix_(r, c)].sum() / len(r) for c in of_columns]
                for r in of_rows
            ]
            np.testing.assert_allclose(words.maps[name][place], expected, atol=1e-12)
    np.testing.assert_allclose(words.weights, words.maps["heads"][0, 0])


# Words of a text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "text", "pieces", "groups", "group_of"),
    [
        (word_spans, "L'homme dort.", "_L ' ho mme _dor t .", [[0, 1], [2, 3], [4, 5], [6]], None),
        (word_spans, "L'homme dort.", "_L' _homme _dort _.", [[0], [1], [2], [3]], None),
        (word_spans, "Daniel's cat", "_Daniel _'s _cat", [[0, 1], [2]], [0, 0, 1]),  # Moses' words
        (word_spans, "l'\u00e9l\u00e8ve", "_l' \u00e9l\u00e8ve", [[0], [1]], None),
        (word_spans, "a  b", "_a _b", [[0], [1]], None),
        (blank_spans, "L'homme dort.", "_L ' ho mme _dor t .", [[0, 1, 2, 3], [4, 5, 6]], None),
        (blank_spans, "l' homme dort .", "_l ' _homme _dort _.", [[0, 1], [2], [3], [4]], None),
        (blank_spans, "", "", [], None),
    ],
)
def test_pieces_are_laid_over_the_words_of_the_text(split, text, pieces, groups, group_of):
    found = map_words(text, lay_over(text, pieces.replace("_", "\u2581").split()), split)
    assert found.groups == groups
    assert found.group_of == (group_of or list(range(len(groups))))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Well\u2026 no", ["\u2581Well", ".", "..", "\u2581no"]),  # nobody says where they stand
        ("a b", ["\u2581a"]),
        ("", ["\u2581"]),
        ("a", []),
    ],
)
def test_words_that_cannot_be_found_are_not_guessed(text, pieces):
    assert map_words(text, lay_over(text, pieces)) is None


def test_where_words_cannot_be_found_the_pieces_stand_for_them():
    alpha = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.2, 0.1]], np.float32)
    source = ("\u2581Well", ".", "..", END)
    pieces = SoftAlignment("Well\u2026", "", source, ("\u2581",), (-1.0,), alpha[:1], ended=False)
    assert_words(pieces, source, ("\u2581",), matched=False)
    source = ("\u2581a", "\u2581b", "\u2581c", END)
    pieces = SoftAlignment("a b c", "", source, ("\u2581", END), (-1.0, -2.0), alpha, ended=True)
    assert_words(pieces, ("a", "b", "c", END), ("\u2581", END), matched=False)
    # An empty translation has no words, and its end.
    pieces = replace(pieces, target_tokens=(END,), log_probs=(-2.0,), weights=alpha[:1])
    assert_words(pieces, ("a", "b", "c", END), (END,), matched=True)


def assert_words(pieces: SoftAlignment, source, target, *, matched) -> None:
    found = to_words(pieces)
    assert (found.source_tokens, found.target_tokens, found.matched) == (source, target, matched)
    assert (found.log_probs, found.ended) == (pieces.log_probs, pieces.ended)
    np.testing.assert_allclose(found.weights, pieces.weights)


def test_words_are_counted_as_they_are_found():
    """The short way for text of Latin letters; ignorable characters that print are just above."""
    for char in map(chr, [*range(0x380), 0x1160, 0x2028, 0x2800, 0x3000, 0x3164, 0xFE0F]):
        for text in (char, f"a{char}b", f"a {char} b", f" {char}  a", f"{char}{char} é"):
            assert count_words(text) == len(blank_spans(text)), ascii(text)
