"""Whether the files that a run lives from are those that were written.

Logs, metrics and figures are not covered: they are for people, and nothing is computed from them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import REPORT, TOKENIZERS, reported_files
from seq2seq.run.checksums import MANIFEST, check_file, entries_of, read_checked, read_checksummed
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.provenance import RECORD
from seq2seq.run.reading import expected
from seq2seq.training.checkpoint import BEST, CONFIG, check_origins, directory_of, updates
from seq2seq.training.export import MODEL


@dataclass(frozen=True)
class Finding:
    """One file of a run and what is wrong with it, None if it is as it was written."""

    path: Path
    problem: str | None


def inspect(run: RunDir) -> Iterator[Finding]:
    """Check every file of a run that something is computed from, each once."""
    # Single files, then directories with a manifest, then the run inside this one.
    yield _finding(run.path(CONFIG), lambda: load_run_config(run.path(CONFIG)))
    for name in (RECORD, BEST):
        if run.path(name).exists():
            yield _finding(run.path(name), partial(read_checksummed, run.path(name)))
    if run.path(REPORT).exists():
        yield from _data(run)
    if run.path(TOKENIZERS).exists():
        yield from _directory(run.path(TOKENIZERS))
    for update in updates(run):
        yield from _checkpoint(run, directory_of(run, update))
    if run.path(MODEL).exists():
        yield from inspect(RunDir(run.path(MODEL)))


def _data(run: RunDir) -> Iterator[Finding]:
    report = _finding(run.path(REPORT), partial(reported_files, run))
    yield report
    if report.problem is None:
        for name, entry in reported_files(run).items():
            with expected(run.path(REPORT)):
                yield _finding(run.path(name), partial(check_file, run.path(name), entry))


def _checkpoint(run: RunDir, directory: Path) -> Iterator[Finding]:
    found = list(_directory(directory))
    yield from found
    if all(finding.problem is None for finding in found):
        origin = _finding(directory, partial(check_origins, run, directory))
        if origin.problem is not None:
            yield origin


def _directory(directory: Path) -> Iterator[Finding]:
    manifest = _finding(directory / MANIFEST, partial(entries_of, directory))
    yield manifest
    if manifest.problem is None:
        for name, entry in entries_of(directory).items():
            yield _finding(directory / name, partial(read_checked, directory / name, entry))


def _finding(path: Path, check: Callable[[], object]) -> Finding:
    try:
        check()
    except (RunDirError, UntrustedError) as error:
        where = "" if str(error.where) == str(path) else f"{error.where}: "
        return Finding(path, f"{where}{error.what}")
    return Finding(path, None)
