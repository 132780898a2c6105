"""Every fault of the matrix in docs/reliability.md that each test run covers has a test.

A test says which rows it covers by their ids in its name: `test_K1_...`, `test_D5_V4_...`.
"""

import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
NUMBERS = {
    "K": (1, 2, 4, 6, 7, 11),
    "S": (1, 2, *range(4, 16)),
    "M": range(1, 8),
    "N": (1, 2, 4, 5, 6, 7),
    "C": range(1, 20),
    "D": range(1, 15),
    "V": range(1, 5),
    "U": range(1, 14),
    "X": (8,),
    "T": (1, 2, 3, 4, 5, 6, 8),
    "L": (1, 2, 3, 4, 5, 9, 10, 11),
    "O": range(1, 6),
}
ROWS = [f"{letter}{number}" for letter, numbers in NUMBERS.items() for number in numbers]
TEST_NAME = re.compile(r"^def test_((?:[A-Z]\d+_)+)", re.MULTILINE)


def rows_by_test() -> dict[str, list[str]]:
    found = defaultdict(list)
    for path in sorted(TESTS.glob("test_*.py")):
        for ids in TEST_NAME.findall(path.read_text("utf-8")):
            for row in ids.split("_")[:-1]:
                found[row].append(path.name)
    return found


def test_every_row_has_a_test():
    covered = rows_by_test()
    missing = [row for row in ROWS if row not in covered]
    assert not missing, f"rows without a test: {' '.join(missing)}"
