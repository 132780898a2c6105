"""Count the lines of the project: of each package, of the tests, and of comments.

Counts raw lines of code in all languages, with comments and empty lines, without data tables. The
ratio is that of comment-only lines to lines of code.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import checkout  # noqa: F401
from seq2seq.cli.console import option_parser, run_script, table

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"/\*.*?\*/", re.S)
CODE = (".py", ".c", ".h", ".js", ".css", ".sh")


def main(argv: Sequence[str]) -> None:
    """Count and print."""
    option_parser(__doc__).parse_args(argv)
    rooms = sorted(path for path in (ROOT / "seq2seq").iterdir() if path.is_dir())
    parts = {f"seq2seq/{room.name}": [*files(room)] for room in rooms}
    parts["seq2seq"] = [*(ROOT / "seq2seq").glob("*.py")]
    parts |= {"scripts": [*files(ROOT / "scripts")], "train.py": [ROOT / "train.py"]}
    counts = {name: count(found) for name, found in parts.items() if found}
    counts["product"] = count([path for found in parts.values() for path in found])
    counts["tests"] = count([*files(ROOT / "tests")])
    rows = [
        [name, f"{raw:,}", f"{comments:,}", f"{comments / max(1, code):.1%}"]
        for name, (raw, code, comments) in counts.items()
    ]
    print(table(rows, ["", "lines", "comments", "to code"], "lr"))


def files(directory: Path) -> Iterator[Path]:
    """Yield the code files below a directory."""
    yield from sorted(path for path in directory.rglob("*") if path.suffix in CODE)


def count(paths: list[Path]) -> tuple[int, int, int]:
    """Return the number of raw lines, lines of code, and comment-only lines."""
    raw = code = comments = 0
    for path in paths:
        text = path.read_text("utf-8")
        raw += text.count("\n")
        mark = "#" if path.suffix in (".py", ".sh") else "//"
        if mark == "//":  # mark each line of a /* */ block
            text = _BLOCK.sub(lambda block: re.sub("(?m)^", "//", block[0]), text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        marked = sum(line.startswith(mark) for line in lines)
        comments, code = comments + marked, code + len(lines) - marked
    return raw, code, comments


if __name__ == "__main__":
    run_script(main)
