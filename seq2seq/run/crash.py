"""What ended a training: kept in the run's `crash/`, and not run into for ever.

A resumed training repeats its updates bit for bit, so a failure that follows from them comes
again at every start. After the third time that is said instead of tried.
"""

import contextlib
import re
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

from seq2seq.run.directory import RunDir
from seq2seq.run.errors import InternalError, RepeatedError, RunDirError
from seq2seq.run.reading import read_json

FOLDER = "crash"
FAILURES = f"{FOLDER}/failures.json"
TRIES = 3
_KEPT = 20
_MARK = re.compile(r"after update (\d+)")


def mark(error: Exception, update: int) -> None:
    """Say in an error, and under its traceback, after which update it came."""
    error.add_note(f"after update {update}")


def keep_bug(run: RunDir, error: Exception) -> InternalError:
    """Write the traceback of a bug into the run; return what to say of it."""
    name = f"{FOLDER}/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}.txt"
    path = run.write(name, "".join(traceback.format_exception(error)))
    notes = (_MARK.fullmatch(note) for note in getattr(error, "__notes__", ()))
    if found := next(filter(None, notes), None):
        what = f"{type(error).__name__}: {error}"[:300]
        keep_failure(run, int(found.group(1)), f"{what} {found.group()}", 70, name)
    return InternalError(run.root, error, path)


def keep_failure(run: RunDir, update: int, what: str, exit_code: int, name: str) -> None:
    """Add to the list of failures.

    Args:
        run: The run.
        update: The last one that was whole.
        what: The same text for the same failure.
        exit_code: Of the process that it ended.
        name: The file that tells more.
    """
    entry = {"update": update, "what": what, "exit_code": exit_code, "file": name}
    run.write_json(FAILURES, {"failures": [*_failures(run), entry][-_KEPT:]})


def refuse_repeated(run: RunDir, update: int) -> None:
    """Do not run into the same failure a fourth time.

    Args:
        run: The run.
        update: Where its training goes on; a failure before it has been overcome.

    Raises:
        RepeatedError: the last three failures are one and the same.
    """
    last = _failures(run)[-TRIES:]
    causes = {(entry["update"], entry["what"], entry["exit_code"]) for entry in last}
    if len(last) < TRIES or len(causes) > 1 or last[-1]["update"] < update:
        return
    files = ", ".join(dict.fromkeys(entry["file"] for entry in last))
    [(_, what, exit_code)] = causes
    advice = "Please report it with these files." if exit_code == 70 else "Look at the file."
    raise RepeatedError(
        run.root,
        f"the same failure ended training {TRIES} times: {what} ({files})",
        f"{advice} To try again, delete {run.path(FOLDER)}.",
        exit_code,
    )


def _failures(run: RunDir) -> list[dict[str, Any]]:
    """Return what is recorded, oldest first; a list that cannot be read must not stop a run."""
    if not run.path(FAILURES).exists():
        return []
    with contextlib.suppress(RunDirError):
        found = read_json(run.path(FAILURES)).get("failures")
        return [entry for entry in found if _is_failure(entry)] if isinstance(found, list) else []
    return []


def _is_failure(entry: Any) -> bool:
    kinds = {"update": int, "what": str, "exit_code": int, "file": str}
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), kind) for key, kind in kinds.items()
    )


def name_of(update: int) -> str:
    """Return the name of the record of an update."""
    return f"{FOLDER}/update-{update:08d}.json"


def path_of(run: RunDir, update: int) -> Path:
    """Return the place of the record of an update."""
    return run.path(name_of(update))
