"""docs/reliability.md says what the code says."""

import re

import pytest
from runs import ROOT

from seq2seq.config.compose import RESUME_KEYS
from seq2seq.data.readers import hub
from seq2seq.run.signals import EXIT_CODES

PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
MATRIX = PAGE.split("## Fault matrix")[1]
COUNTS = {"K": 12, "S": 15, "M": 7, "N": 7, "C": 19, "D": 14, "V": 4, "U": 13, "T": 8, "L": 12}
COUNTS |= {"O": 5, "X": 15}
ROWS = {
    row: {each.strip() for each in cells.rpartition("|")[2].split(",")}
    for ids, cells in re.findall(r"^\| ([A-Z]\d+(?:, [A-Z]\d+)*) \|(.*) \|$", MATRIX, re.M)
    for row in ids.split(", ")
}
"""Each row and when it is tested: P in every run, N in the long one."""


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_matrix_has_every_row_once():
    wanted = [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]
    assert sorted(ROWS) == sorted(wanted)
    assert all(re.search(rf"^\| .*\b{row}\b.* \|", MATRIX, re.M) for row in ROWS)


def test_every_row_that_is_tested_here_has_a_test_and_every_test_a_row():
    """A test says which rows it covers by their ids in its name: `test_K1_...`."""
    named = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        for ids in re.findall(r"^def test_((?:[A-Z]\d+_)+)", path.read_text("utf-8"), re.M):
            named |= {*ids.split("_")[:-1]}
    assert named <= {*ROWS}
    missing = {row for row in ROWS if row not in named and "GPU" not in ROWS[row]}
    assert not missing, f"rows without a test: {sorted(missing)}"


def test_what_a_resumed_run_may_change():
    table = re.findall(r"^\| (`.+?) \|", section("Resuming"), re.M)
    assert set(re.findall(r"`([\w.]+)`", " ".join(table))) == {*RESUME_KEYS}


@pytest.mark.parametrize("number", EXIT_CODES)
def test_signals_and_their_codes(number):
    rows = [line for line in section("Stopping").splitlines() if number.name in line]
    assert rows[0].endswith(f"| {EXIT_CODES[number]} |")


def test_names_and_numbers():
    assert f"{hub.PROBE_SECONDS:g} seconds to answer and {hub.SEARCH_SECONDS:g} to find" in PAGE
    for name in re.findall(r"`((?:scripts|tests|docs)/[\w./]+)", PAGE):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python (scripts/\w+\.py|train\.py)", PAGE):
        assert (ROOT / name).exists(), name
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "docs/reliability.md" in readme
    assert "docs/errors.md" in readme
