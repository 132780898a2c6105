"""Verifies the files of a run by their checksums.

Logs, metrics and figures are not covered: nothing is computed from them.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import REPORT, TOKENIZERS
from seq2seq.decoding.shortlist import DIRECTORY as SHORTLIST
from seq2seq.run.checkpoints import BEST, directory_of, updates
from seq2seq.run.checksums import (
    CHECKSUMS,
    MANIFEST,
    RECORDS,
    check_file,
    entries_of,
    read_checksummed,
)
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.naming import CONFIG
from seq2seq.run.provenance import RECORD as PROVENANCE
from seq2seq.run.reading import MAX_JSON_BYTES, parse_json, read_bytes
from seq2seq.training.checkpoint import STATE, check_origins
from seq2seq.training.export import MODEL
from seq2seq.training.warm_start import ORIGIN

SINGLE = (PROVENANCE, BEST, *RECORDS)
"""Files that contain their own checksum."""


@dataclass(frozen=True)
class Finding:
    """One file of a run and what is wrong with it, None if it is intact."""

    path: Path
    problem: str | None


def inspect(run: RunDir) -> Iterator[Finding]:
    """Check every file of a run that any computation reads, each once."""
    for path, check in _checks(run):
        try:
            check()
        except (RunDirError, UntrustedError) as error:
            where = "" if str(error.where) == str(path) else f"{error.where}: "
            yield Finding(path, f"{where}{error.what}")
        else:
            yield Finding(path, None)


def _checks(run: RunDir) -> Iterator[tuple[Path, Callable[[], object]]]:
    # Single files, recorded files, directories with a manifest, the exported run inside this one.
    yield run.path(CONFIG), lambda: load_run_config(run.checked(CONFIG))
    for path in map(run.path, SINGLE):
        if path.exists() or path.name in _expected(run):
            yield path, partial(read_checksummed, path)
    for record in map(run.path, RECORDS):
        yield from _listed(record)
    for manifest in (run.path(name) / MANIFEST for name in (TOKENIZERS, ORIGIN, SHORTLIST)):
        if manifest.parent.exists():
            yield manifest, partial(entries_of, manifest)
            yield from _listed(manifest)
    for directory in (directory_of(run, update) for update in updates(run)):
        yield directory / MANIFEST, partial(check_origins, run, directory)
        yield from _listed(directory / MANIFEST)
    if run.path(MODEL).exists():
        yield from _checks(RunDir(run.path(MODEL)))


def _listed(manifest: Path) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Yield the files of a manifest, if it can be read."""
    with contextlib.suppress(RunDirError, UntrustedError):
        for name, entry in entries_of(manifest).items():
            if manifest.name == MANIFEST or name not in (CONFIG, PROVENANCE):  # already checked
                yield manifest.parent / name, partial(check_file, manifest.parent / name, entry)


def _expected(run: RunDir) -> set[str]:
    """Return the names of `SINGLE` that this run must have; an exported model has none."""
    names = set()
    with contextlib.suppress(RunDirError, UntrustedError):  # reported by other checks
        if run.path("tokens").exists():
            names |= {PROVENANCE, REPORT}
            if read_checksummed(run.path(PROVENANCE)).get("format", 1) >= 2:
                names.add(CHECKSUMS)
        for update in updates(run)[-1:]:
            state = directory_of(run, update) / STATE
            if parse_json(read_bytes(state, MAX_JSON_BYTES), state).get("best_update"):
                names.add(Path(BEST).name)
    return names
