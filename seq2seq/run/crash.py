"""Records what ended a training in the run's `crash/`, and refuses to repeat it forever.

A resumed training repeats its updates bit for bit, so a failure caused by them recurs at every
start. After the third time, resuming raises an error instead.
"""

import contextlib
import traceback
from dataclasses import dataclass
from datetime import datetime

from seq2seq.run.directory import RunDir
from seq2seq.run.errors import InternalError, RepeatedError, RunDirError, internal_error
from seq2seq.run.jsonable import from_json, to_json
from seq2seq.run.reading import read_json

DIRECTORY = "crash"
FAILURES = f"{DIRECTORY}/failures.json"
TRIES = 3
_REMEMBERED = 20
_MARK = "after update "


@dataclass(frozen=True)
class Failure:
    """A failure that ended a process."""

    update: int  # the last complete one
    what: str  # the same text for the same failure
    exit_code: int
    file: str  # has the details


def mark(error: Exception, update: int) -> None:
    """Add to an error, and to its traceback, a note of the last complete update."""
    error.add_note(f"{_MARK}{update}")


def record_bug(run: RunDir, error: Exception) -> InternalError:
    """Write the traceback of a bug to the run; return the error to print."""
    name = f"{DIRECTORY}/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}.txt"
    path = run.write(name, "".join(traceback.format_exception(error)))
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_MARK):
            what = f"{type(error).__name__}: {error}"[:300]
            update = int(note.removeprefix(_MARK))
            record_failure(run, Failure(update, f"{what} {note}", 70, name))
    return internal_error(run.root, error, path)


def record_failure(run: RunDir, failure: Failure) -> None:
    """Append to the run's list of failures."""
    failures = [*_failures(run), failure][-_REMEMBERED:]
    run.write_json(FAILURES, {"failures": to_json(failures)})


def refuse_repeated(run: RunDir, update: int) -> None:
    """Refuse to run into the same failure a fourth time, resuming from an update.

    Failures before it have been overcome.

    Raises:
        RepeatedError: the last three failures are the same.
    """
    last = _failures(run)[-TRIES:]
    causes = {(failure.update, failure.what, failure.exit_code) for failure in last}
    if len(last) < TRIES or len(causes) > 1 or last[-1].update < update:
        return
    files = ", ".join(dict.fromkeys(failure.file for failure in last))
    [(_, what, exit_code)] = causes
    advice = "Please report it with these files." if exit_code == 70 else "Look at the file."
    raise RepeatedError(
        run.root,
        f"the same failure ended training {TRIES} times: {what} ({files})",
        f"{advice} To try again, delete {run.path(DIRECTORY)}.",
        exit_code,
    )


def _failures(run: RunDir) -> list[Failure]:
    """Return the recorded failures, oldest first; an unreadable list must not stop a run."""
    if run.path(FAILURES).exists():
        with contextlib.suppress(RunDirError, ValueError):
            return from_json(list[Failure], read_json(run.path(FAILURES)).get("failures"))
    return []
