"""Whether the files that a run lives from are those that were written.

Logs, metrics and figures are not covered: they are for people.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import TOKENIZERS
from seq2seq.run.checksums import MANIFEST, RECORDS, check_file, entries_of, read_checksummed
from seq2seq.run.directory import CONFIG, RunDir
from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.provenance import RECORD as PROVENANCE
from seq2seq.training.checkpoint import BEST, check_origins, directory_of, updates
from seq2seq.training.export import MODEL


@dataclass(frozen=True)
class Finding:
    """One file of a run and what is wrong with it, None if it is as it was written."""

    path: Path
    problem: str | None


def inspect(run: RunDir) -> Iterator[Finding]:
    """Check every file of a run that something is computed from, each once."""
    # Single files, what is on record, directories with a manifest, the run inside this one.
    yield _finding(run.path(CONFIG), lambda: load_run_config(run.checked(CONFIG)))
    for name in (PROVENANCE, BEST):
        if run.path(name).exists():
            yield _finding(run.path(name), partial(read_checksummed, run.path(name)))
    for record in map(run.path, RECORDS):
        if record.exists():
            yield from _listed(record)
    if run.path(TOKENIZERS).exists():
        yield from _listed(run.path(TOKENIZERS) / MANIFEST)
    for update in updates(run):
        yield from _checkpoint(run, directory_of(run, update))
    if run.path(MODEL).exists():
        yield from inspect(RunDir(run.path(MODEL)))


def _listed(manifest: Path) -> Iterator[Finding]:
    """Check a manifest and the files that it names."""
    finding = _finding(manifest, partial(entries_of, manifest))
    yield finding
    if finding.problem is None:
        for name, entry in entries_of(manifest).items():
            path = manifest.parent / name
            if name != CONFIG or manifest.name == MANIFEST:  # of a run: that has been looked at
                yield _finding(path, partial(check_file, path, entry))


def _checkpoint(run: RunDir, directory: Path) -> Iterator[Finding]:
    found = list(_listed(directory / MANIFEST))
    yield from found
    if all(finding.problem is None for finding in found):
        origin = _finding(directory, partial(check_origins, run, directory))
        if origin.problem is not None:
            yield origin


def _finding(path: Path, check: Callable[[], object]) -> Finding:
    try:
        check()
    except (RunDirError, UntrustedError) as error:
        where = "" if str(error.where) == str(path) else f"{error.where}: "
        return Finding(path, f"{where}{error.what}")
    return Finding(path, None)
