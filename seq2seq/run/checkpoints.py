"""Which checkpoints a run has; `training/checkpoint.py` reads and writes them."""

import logging
import re
from pathlib import Path

from seq2seq.run.checksums import read_checksummed
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError

DIRECTORY = "checkpoints"
BEST = f"{DIRECTORY}/best.json"
_NAME = re.compile(r"(?:update|step)-(\d{8})")  # 0.1.0 called them step-NNNNNNNN

log = logging.getLogger(__name__)


def updates(run: RunDir) -> list[int]:
    """Return the updates at which there are checkpoints, oldest first."""
    found = [_NAME.fullmatch(path.name) for path in run.path(DIRECTORY).glob("*")]
    return sorted({int(match.group(1)) for match in found if match})


def directory_of(run: RunDir, update: int) -> Path:
    """Return the directory of the checkpoint of an update."""
    new, old = (run.path(f"{DIRECTORY}/{word}-{update:08d}") for word in ("update", "step"))
    return old if old.is_dir() and not new.is_dir() else new


def update_of(path: Path) -> int:
    """Return the update of a checkpoint directory."""
    return int(path.name.rpartition("-")[2])


def best_update(run: RunDir) -> int | None:
    """Return the update of the best checkpoint, if one is recorded."""
    if not run.path(BEST).exists():
        return None
    try:
        best = read_checksummed(run.path(BEST))
    except RunDirError as error:
        log.warning("%s is damaged (%s)", error.where, error.what)
        return None
    update = best.get("update", best.get("step"))  # the name in 0.1.0
    return update if isinstance(update, int) and 0 <= update < 10**8 else None
