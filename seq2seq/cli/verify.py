"""Whether the files that a run lives from are those that were written.

Logs, metrics and figures are not covered: they are for people.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import REPORT, TOKENIZERS
from seq2seq.run.checksums import (
    CHECKSUMS,
    MANIFEST,
    RECORDS,
    check_file,
    entries_of,
    read_checksummed,
)
from seq2seq.run.directory import CONFIG, RunDir
from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.provenance import RECORD as PROVENANCE
from seq2seq.run.reading import MAX_JSON_BYTES, parse_json, read_bytes
from seq2seq.training.checkpoint import BEST, STATE, check_origins, directory_of, updates
from seq2seq.training.export import MODEL

SINGLE = (PROVENANCE, BEST, *RECORDS)
"""Files with a checksum inside."""


@dataclass(frozen=True)
class Finding:
    """One file of a run and what is wrong with it, None if it is as it was written."""

    path: Path
    problem: str | None


def inspect(run: RunDir) -> Iterator[Finding]:
    """Check every file of a run that something is computed from, each once."""
    # Single files, what is on record, directories with a manifest, the run inside this one.
    yield _finding(run.path(CONFIG), lambda: load_run_config(run.checked(CONFIG)))
    for name in sorted(_expected(run) | {n for n in SINGLE if run.path(n).exists()}):
        yield _finding(run.path(name), partial(read_checksummed, run.path(name)))
        if name in RECORDS:
            yield from _listed(run.path(name))
    if run.path(TOKENIZERS).exists():
        yield from _manifest(run.path(TOKENIZERS) / MANIFEST)
    for update in updates(run):
        yield from _checkpoint(run, directory_of(run, update))
    if run.path(MODEL).exists():
        yield from inspect(RunDir(run.path(MODEL)))


def _expected(run: RunDir) -> set[str]:
    """Return those of `SINGLE` that this run must have; an exported model has none."""
    names = set()
    with contextlib.suppress(RunDirError, UntrustedError):  # which is found anyway
        if run.path("tokens").exists():
            names |= {PROVENANCE, REPORT}
            if read_checksummed(run.path(PROVENANCE)).get("format", 1) >= 2:
                names.add(CHECKSUMS)
        for update in updates(run)[-1:]:
            state = directory_of(run, update) / STATE
            if (
                state.exists()
                and parse_json(read_bytes(state, MAX_JSON_BYTES), state)["best_update"]
            ):
                names.add(BEST)
    return names


def _manifest(manifest: Path) -> Iterator[Finding]:
    yield _finding(manifest, partial(entries_of, manifest))
    yield from _listed(manifest)


def _listed(manifest: Path) -> Iterator[Finding]:
    """Check the files that a manifest names, if it can be read."""
    entries: dict[str, Any] = {}
    with contextlib.suppress(RunDirError, UntrustedError):
        entries = entries_of(manifest)
    for name, entry in entries.items():
        path = manifest.parent / name
        if manifest.name == MANIFEST or name not in (CONFIG, PROVENANCE):  # they were looked at
            yield _finding(path, partial(check_file, path, entry))


def _checkpoint(run: RunDir, directory: Path) -> Iterator[Finding]:
    found = list(_manifest(directory / MANIFEST))
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
