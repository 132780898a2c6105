"""Whether the files that a run lives from are those that were written.

Logs, metrics and pictures are not covered: they are for people, and nothing is computed from them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import REPORT, TOKENIZERS, reported_files
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.export import MODEL
from seq2seq.run.provenance import RECORD
from seq2seq.run.reading import MANIFEST, entries_of, entry_of_file, read_checked, read_sealed
from seq2seq.training.checkpoint import BEST, CONFIG, check_origins, folder_of, steps


@dataclass(frozen=True)
class Finding:
    """One file of a run and what is wrong with it, None if it is as it was written."""

    path: Path
    problem: str | None


def inspect(run: RunDir) -> Iterator[Finding]:
    """Look at every file of a run that something is computed from, each once."""
    yield _finding(run.path(CONFIG), lambda: load_run_config(run.path(CONFIG)))
    if run.path(RECORD).exists():
        yield _finding(run.path(RECORD), lambda: read_sealed(run.path(RECORD)))
    if run.path(REPORT).exists():
        yield from _data(run)
    if run.path(TOKENIZERS).exists():
        yield from _folder(run.path(TOKENIZERS))
    for step in steps(run):
        yield from _checkpoint(run, folder_of(run, step))
    if run.path(BEST).exists():
        yield _finding(run.path(BEST), lambda: read_sealed(run.path(BEST)))
    if run.path(MODEL).exists():
        yield from inspect(RunDir(run.path(MODEL)))


def _data(run: RunDir) -> Iterator[Finding]:
    report = _finding(run.path(REPORT), lambda: reported_files(run))
    yield report
    if report.problem is None:
        for name, entry in reported_files(run).items():
            yield _finding(run.path(name), partial(_compare, run.path(name), entry))


def _compare(path: Path, entry: dict[str, Any]) -> None:
    if entry_of_file(path) != entry:
        raise RunDirError(path, f"differs from {REPORT}", "Restore it from a copy.")


def _checkpoint(run: RunDir, folder: Path) -> Iterator[Finding]:
    found = list(_folder(folder))
    yield from found
    if all(finding.problem is None for finding in found):
        config = (folder / CONFIG).read_bytes() if (folder / CONFIG).exists() else None
        files = {CONFIG: config} if config is not None else {}
        origin = _finding(folder, lambda: check_origins(run, folder, files))
        if origin.problem is not None:
            yield origin


def _folder(folder: Path) -> Iterator[Finding]:
    manifest = _finding(folder / MANIFEST, lambda: entries_of(folder))
    yield manifest
    if manifest.problem is None:
        for name, entry in entries_of(folder).items():
            yield _finding(folder / name, partial(read_checked, folder, name, entry))


def _finding(path: Path, look: Callable[[], object]) -> Finding:
    try:
        look()
    except (RunDirError, UntrustedError) as error:
        where = "" if str(error.where) == str(path) else f"{error.where}: "
        return Finding(path, f"{where}{error.what}")
    return Finding(path, None)
