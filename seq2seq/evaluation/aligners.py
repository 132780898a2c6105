"""Statistical word aligners, the baselines of attention as an alignment.

IBM-1 and the HMM are our own; fast_align and eflomal take part if they are installed. All see the
same text: the pairs to be aligned, as is usual for aligners, and the training pairs of a run,
without those to be aligned, in lower case. External programs get numbers in place of words, so no
word can be mistaken for a separator.
"""

import logging
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from seq2seq.alignment import ibm
from seq2seq.alignment.links import read_links
from seq2seq.config.schema import Config, Direction
from seq2seq.data.pair import Links
from seq2seq.data.prepare import SIDES, directions_of, load_text
from seq2seq.data.tokenizer import composed
from seq2seq.data.words import Splitter
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DataError, PlatformError

log = logging.getLogger(__name__)

MAX_CELLS = 50_000_000
"""Most pairs of a source and a target word in one sentence pair that are trained on: 2 GB, 65,000
sentence pairs of 27 words."""

TextPair = tuple[str, str]
Directions = tuple[list[Links], list[Links]]
"""Links of each target word to a source word, and of each source word to a target word; all are
(source, target)."""

Encoded = list[tuple[list[int], list[int]]]  # word numbers of sentence pairs, from 1


@dataclass(frozen=True)
class Aligned:
    """Links of all aligners."""

    trained_on: int  # pairs of the run
    links: dict[str, Directions]


def align(
    run: RunDir, cfg: Config, direction: Direction, pairs: Sequence[TextPair], split: Splitter
) -> Aligned:
    """Train every aligner on a run's training pairs and these pairs; align these.

    Raises:
        RunDirError: the run has no text, as in an exported model.
    """
    # A corpus and these pairs may spell letters with marks differently.
    pairs = [(composed(src), composed(tgt)) for src, tgt in pairs]
    encoded = _encoded(pairs, _training_pairs(run, cfg, direction, {*pairs}), split)
    sources, targets = ([pair[side] for pair in encoded] for side in range(2))
    forward, backward = ibm.align(sources, targets), ibm.align(targets, sources)
    found = {
        name: (links, [tuple((i, j) for j, i in of_pair) for of_pair in backward[name]])
        for name, links in forward.items()
    }
    found |= _external(encoded)
    links = {name: (a[: len(pairs)], b[: len(pairs)]) for name, (a, b) in found.items()}
    return Aligned(len(encoded) - len(pairs), links)


def _training_pairs(
    run: RunDir, cfg: Config, direction: Direction, without: set[TextPair]
) -> Iterator[TextPair]:
    source, target = (load_text(run, "train", side) for side in SIDES)
    directions = directions_of(run, cfg, "train")
    for src, tgt, own in zip(source, target, directions, strict=True):
        if own == direction and (pair := (composed(src), composed(tgt))) not in without:
            yield pair


def _encoded(pairs: Sequence[TextPair], more: Iterator[TextPair], split: Splitter) -> Encoded:
    """Number the words of the pairs, and of as many more as `MAX_CELLS` allows."""
    numbers: tuple[dict[str, int], dict[str, int]] = {}, {}
    encoded: Encoded = []
    cells = 0
    for pair in chain(pairs, more):
        src, tgt = (
            [known.setdefault(text[a:b].lower(), len(known) + 1) for a, b in split(text)]
            for text, known in zip(pair, numbers, strict=True)
        )
        cells += len(src) * len(tgt)
        if cells > MAX_CELLS and len(encoded) >= len(pairs):
            log.warning("aligners: trained on the first %s pairs only", f"{len(encoded):,}")
            break
        encoded.append((src, tgt))
    return encoded


# Programs -----------------------------------------------------------------------------------------


def _external(encoded: Encoded) -> dict[str, Directions]:
    """Align with the programs that are installed."""
    found: dict[str, Directions] = {}
    # Neither program takes pairs with an empty side.
    rows = [row for row, pair in enumerate(encoded) if all(pair)]
    lines = [" ||| ".join(" ".join(map(str, side)) for side in encoded[row]) for row in rows]
    places = os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")
    for name, (program, call) in _PROGRAMS.items():
        if (path := shutil.which(program, path=os.pathsep.join(places))) is None:
            log.warning("%s is not installed: left out", name)
            continue
        with TemporaryDirectory() as directory:
            text = Path(directory, "text")
            text.write_text("".join(f"{line}\n" for line in lines), "ascii")
            read = [_read(path, output, len(rows)) for output in call(path, text)]
        links: Directions = ([()] * len(encoded), [()] * len(encoded))
        for direction, of_rows in zip(links, read, strict=True):
            for row, of_pair in zip(rows, of_rows, strict=True):
                direction[row] = of_pair
        found[name] = links
    return found


def _fast_align(program: str, text: Path) -> list[str]:
    # As its authors recommend it: diagonal preferred, tension optimized, variational Bayes.
    common = (program, "-i", str(text), "-d", "-o", "-v")
    return [_called(*common), _called(*common, "-r")]


def _eflomal(program: str, text: Path) -> list[str]:
    forward, backward = text.with_suffix(".forward"), text.with_suffix(".backward")
    _called(program, "-i", str(text), "-f", str(forward), "-r", str(backward))
    return [path.read_text("ascii") for path in (forward, backward)]


_PROGRAMS: dict[str, tuple[str, Callable[[str, Path], list[str]]]] = {
    "fast_align": ("fast_align", _fast_align),
    "eflomal": ("eflomal-align", _eflomal),
}
"""Name -> its program, and the function that calls it: links of both directions."""


def _called(*command: str) -> str:
    """Run a program and return its output."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[::-1]), "without a message")
        what = f"failed with exit code {done.returncode}: {last}"
        raise PlatformError(command[0], what, "Repair it, or remove it from PATH.")
    return done.stdout


def _read(program: str, output: str, num_pairs: int) -> list[Links]:
    """Read a program's links, a line for each pair."""
    lines, repair = output.splitlines(), "Repair it, or remove it from PATH."
    if len(lines) != num_pairs:
        raise DataError(program, f"wrote {len(lines)} lines for {num_pairs} pairs", repair)
    try:
        return [read_links(line).sure for line in lines]
    except ValueError as error:
        what = f"wrote {str(error)[:80]!r}, which is not a valid link"
        raise DataError(program, what, repair) from None
