"""Reads the tables of the corpus: plain text, comments with `#`, indented continuation lines."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "tables"


def rows(name: str) -> list[list[str]]:
    """Read a table of columns: `cell | cell | cell`."""
    lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    kept = filter(None, [line.partition("#")[0].rstrip() for line in lines])
    joined = re.sub(r"\n +", " ", "\n".join(kept)).splitlines()
    return [[cell.strip() for cell in line.split("|")] for line in joined]


def lists(name: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Read a table of lists: `key: English = French, English = French`.

    An entry without `=` is the same in both languages.
    """
    table = []
    for [line] in rows(name):
        key, _, entries = line.partition(":")
        pairs = [entry.strip().partition(" = ") for entry in entries.split(",")]
        table.append((key, [(en, fr or en) for en, _, fr in pairs]))
    return table
