"""Word links: error rates by hand and by another reckoning, both formats, two directions."""

import random
from fractions import Fraction
from itertools import product

import pytest

from seq2seq.alignment.links import (
    GoldLinks,
    alignment_errors,
    grow_diag_final_and,
    intersection,
    pharaoh,
    read_gold,
    read_links,
    union,
)
from seq2seq.run.errors import DataError


def links_of(line: str):
    return read_links(line).sure


# The rate ---------------------------------------------------------------------------------------

HAND = [
    # predicted, gold; |A|, |S|, |A n S|, |A n P|; error rate, precision, recall
    ("all right", ["0-0 1-1"], ["0-0 1-1"], (2, 2, 2, 2), (0, 1, 1)),
    ("all wrong", ["1-0 0-1"], ["0-0 1-1"], (2, 2, 0, 0), (1, 0, 0)),
    ("one of two", ["0-0 0-1"], ["0-0 1-1"], (2, 2, 1, 1), ("1/2", "1/2", "1/2")),
    ("possible is no error", ["0-0 2-1"], ["0-0 2?1"], (2, 1, 1, 2), (0, 1, 1)),
    ("possible is not missed", ["0-0"], ["0-0 2?1"], (1, 1, 1, 1), (0, 1, 1)),
    ("only possible", ["0-0 1-0"], ["0?0"], (2, 0, 0, 1), ("1/2", "1/2", 1)),
    ("sure is missed", ["2-1"], ["0-0 2p1"], (1, 1, 0, 1), ("1/2", 1, 0)),
    ("both letters", ["0-0"], ["0-0 0?0"], (1, 1, 1, 1), (0, 1, 1)),
    ("twice the same link", ["0-0 0-0"], ["0-0 0-0"], (1, 1, 1, 1), (0, 1, 1)),
    ("nothing predicted", [""], ["0-0 1-1"], (0, 2, 0, 0), (1, 0, 0)),
    ("nothing in gold", ["0-0"], [""], (1, 0, 0, 0), (1, 0, 1)),
    ("nothing at all", [""], [""], (0, 0, 0, 0), (0, 1, 1)),
    ("no sentence", [], [], (0, 0, 0, 0), (0, 1, 1)),
    ("a sentence is empty", ["", "0-0"], ["0-0", "0-0"], (1, 2, 1, 1), ("1/3", 1, "1/2")),
    (
        "counts are summed first",
        ["0-0 1-1", "0-0 2-1", "1-0"],
        ["0-0 1-1", "0-0 1?1 2?1", "0-0"],
        (5, 4, 3, 4),
        ("2/9", "4/5", "3/4"),
    ),
]


@pytest.mark.parametrize(("name", "predicted", "gold", "counts", "expected"), HAND)
def test_a_table_by_hand(name, predicted, gold, counts, expected):
    a, s, in_s, in_p = counts
    if a + s:
        assert 1 - Fraction(in_s + in_p, a + s) == Fraction(expected[0]), "the table itself"
    found = alignment_errors([*map(links_of, predicted)], [*map(read_links, gold)])
    assert (found.error_rate, found.precision, found.recall) == pytest.approx(
        tuple(float(Fraction(e)) for e in expected)
    ), name


def cell_by_cell(tables) -> tuple[Fraction, Fraction, Fraction]:
    """Whole tables of booleans, in fractions: predicted, sure, possible of each cell."""
    cells = [cell for table in tables for row in table for cell in row]
    a = sum(p for p, _, _ in cells)
    s = sum(sure for _, sure, _ in cells)
    both = sum(p and sure for p, sure, _ in cells)
    allowed = sum(p and (sure or maybe) for p, sure, maybe in cells)
    return (
        1 - Fraction(both + allowed, a + s) if a + s else Fraction(0),
        Fraction(allowed, a) if a else Fraction(s == 0),
        Fraction(both, s) if s else Fraction(1),
    )


def test_another_reckoning_agrees_on_a_thousand_cases():
    rng = random.Random(1)
    seen = set()
    for number in range(1000):
        rates = [rng.choice((0, 0.1, 0.4, 0.9)) for _ in range(3)]
        tables = [
            [
                [tuple(rng.random() < r for r in rates) for _ in range(rng.randint(1, 6))]
                for _ in range(rng.randint(1, 6))
            ]
            for _ in range(rng.randint(1, 4))
        ]

        def links(table, which):
            cells = [((i, j), c) for j, row in enumerate(table) for i, c in enumerate(row)]
            rng.shuffle(cells)
            return tuple(link for link, cell in cells if cell[which])

        gold = [GoldLinks(links(t, 1), links(t, 2)) for t in tables]
        found = alignment_errors([links(t, 0) for t in tables], gold)
        expected = cell_by_cell(tables)
        assert (found.error_rate, found.precision, found.recall) == pytest.approx(
            tuple(map(float, expected)), abs=1e-12
        ), number
        seen.add(expected)
    assert len(seen) > 500


# Files ------------------------------------------------------------------------------------------


def test_a_line_of_links():
    assert read_links("0-0 10-2\t3?11 4p5") == GoldLinks(
        ((0, 0), (10, 2)), ((0, 0), (10, 2), (3, 11), (4, 5))
    )
    assert read_links("") == GoldLinks((), ())
    assert pharaoh([(10, 2), (2, 3), (2, 1)]) == "2-1 2-3 10-2"


SIZES = [(3, 2), (1, 1), (2, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "0-0 2?1\n\n1-3 0p0\n",
        "1 1 1 S\n1 3 2 P\n3 2 4\n3 1 1 P 0.5\n",
        "0001 1 1\n\n0001\t3 2 P 1e-3\r\n0003 2 4 S 1\n3 1 1 P\n3 0 2 S\n3 1 0\n",
    ],
    ids=["pharaoh", "naacl", "naacl with words 0"],
)
def test_both_formats_say_the_same(tmp_path, text):
    (tmp_path / "gold").write_bytes(text.encode())
    found = read_gold(tmp_path / "gold", SIZES)
    assert [(sorted(g.sure), sorted(g.possible)) for g in found] == [
        ([(0, 0)], [(0, 0), (2, 1)]),
        ([], []),
        ([(1, 3)], [(0, 0), (1, 3)]),
    ]
    (tmp_path / "gold").write_bytes(b"\n\n\n")
    assert read_gold(tmp_path / "gold", SIZES) == [GoldLinks((), ())] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-0\n\n", "gold: has 2 lines for 3 sentence pairs. Give a line for each"),
        ("", "gold: has 0 lines for 3 sentence pairs"),
        ("0-0\n\n1-x\n", "gold:3: '1-x' is not a valid link. Write SOURCE-TARGET, words"),
        ("0-0 1=1\n\n\n", "gold:1: '1=1' is not a valid link"),
        ("-1-0\n\n\n", "gold:1: '-1-0' is not a valid link"),
        ("3-0\n\n\n", "gold:1: links source word 4 of 3. Do source and target belong to it"),
        ("0-0\n0?1\n\n", "gold:2: links target word 2 of 1"),
        ("1 1 1 S\n1 1\n", "gold:2: '1 1' is not a valid link. Write: sentence source"),
        ("1 1 1 X\n", "gold:1: '1 1 1 X' is not a valid link"),
        ("4 1 1 S\n", "gold:1: sentence 4, there are 3 sentence pairs. Count them from 1."),
        ("0 1 1 S\n", "gold:1: sentence 0, there are 3 sentence pairs"),
        ("\n2 1 2 S\n", "gold:2: links target word 2 of 1"),
        ("1 1 1 S\n0-0\n", "gold:2: '0-0' is not a valid link"),
        ("99999999999-0\n\n\n", "gold:1: '99999999999-0' is not a valid link"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "gold").write_text(text, "utf-8")
    with pytest.raises(DataError) as caught:
        read_gold(tmp_path / "gold", SIZES)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(message)


def test_random_links_survive_both_formats(tmp_path):
    rng = random.Random(3)
    sizes = [(rng.randint(1, 12), rng.randint(1, 12)) for _ in range(50)]
    gold = []
    for rows, columns in sizes:
        cells = [(i, j) for i in range(rows) for j in range(columns) if rng.random() < 0.3]
        gold.append({cell: rng.random() < 0.6 for cell in cells})
    lines = [" ".join(f"{i}{'-' if s else '?'}{j}" for (i, j), s in g.items()) for g in gold]
    (tmp_path / "pharaoh").write_text("".join(f"{line}\n" for line in lines))
    rows = [
        f"{n} {i + 1} {j + 1} {'S' if s else 'P'}\n"
        for n, g in enumerate(gold, start=1)
        for (i, j), s in g.items()
    ]
    (tmp_path / "naacl").write_text("".join(rows))
    for name in ("pharaoh", "naacl"):
        found = read_gold(tmp_path / name, sizes)
        assert [dict.fromkeys(f.possible, False) | dict.fromkeys(f.sure, True) for f in found] == (
            gold
        )


# Two directions ---------------------------------------------------------------------------------


def textbook(forward: set, backward: set) -> set:
    """Grow-diag-final-and over whole tables, as the Moses manual prints it: target, then source."""
    rows = range(1 + max((j for _, j in forward | backward), default=-1))
    columns = range(1 + max((i for i, _ in forward | backward), default=-1))
    both = {(i, j): (i, j) in forward and (i, j) in backward for i in columns for j in rows}
    cells = [(i, j) for j in rows for i in columns]
    steps = [(0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1), (1, -1), (-1, 1), (1, 1)]

    def free(i, j) -> tuple[bool, bool]:
        return not any(both[k, j] for k in columns), not any(both[i, k] for k in rows)

    changed = True
    while changed:
        changed = False
        for (i, j), (x, y) in product(cells, steps):
            near = (i + x, j + y)
            there = both[i, j] and near in both and not both[near]
            if there and any(free(*near)) and near in forward | backward:
                both[near] = changed = True
    for direction, cell in product((forward, backward), cells):
        both[cell] |= cell in direction and all(free(*cell))
    return {cell for cell in cells if both[cell]}


@pytest.mark.parametrize(
    ("forward", "backward", "both", "either", "grown"),
    [
        ("0-0 1-1", "0-0 1-1", "0-0 1-1", "0-0 1-1", "0-0 1-1"),
        ("", "", "", "", ""),
        ("0-0", "", "", "0-0", "0-0"),  # final: neither word has a link
        ("0-0 1-1", "0-0", "0-0", "0-0 1-1", "0-0 1-1"),  # grown diagonally
        ("0-0 1-0", "0-0", "0-0", "0-0 1-0", "0-0 1-0"),  # source word 1 has none yet
        ("0-0 5-5", "0-0 5-0", "0-0", "0-0 5-0 5-5", "0-0 5-5"),  # 5-0: its target word has one
        ("0-0 3-3", "0-0 3-2", "0-0", "0-0 3-2 3-3", "0-0 3-3"),  # forward goes first
        # 0-1 comes in from 0-0, though source word 0 has a link: target word 1 has none
        ("0-0 1-1 0-1", "0-0 1-2", "0-0", "0-0 0-1 1-1 1-2", "0-0 0-1 1-1 1-2"),
    ],
)
def test_two_directions_by_hand(forward, backward, both, either, grown):
    a, b = links_of(forward), links_of(backward)
    assert intersection(a, b) == links_of(both)
    assert union(a, b) == links_of(either)
    assert grow_diag_final_and(a, b) == links_of(grown)


def test_two_directions_against_whole_tables():
    rng = random.Random(5)
    between = 0
    for number in range(500):
        num_src, num_tgt = rng.randint(1, 8), rng.randint(1, 8)
        if number % 2:  # one link a target word, one a source word, as attention gives them
            forward = {(rng.randrange(num_src), j) for j in range(num_tgt)}
            backward = {(i, rng.randrange(num_tgt)) for i in range(num_src)}
        else:
            cells = [(i, j) for i in range(num_src) for j in range(num_tgt)]
            forward, backward = ({c for c in cells if rng.random() < 0.3} for _ in range(2))
        a, b = (tuple(rng.sample(sorted(links), len(links))) for links in (forward, backward))
        grown = set(grow_diag_final_and(a, b))
        assert grown == textbook(forward, backward), number
        assert set(intersection(a, b)) == forward & backward <= grown
        assert grown <= set(union(a, b)) == forward | backward
        between += (forward & backward) < grown < (forward | backward)
    assert between > 100
