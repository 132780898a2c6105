"""Prepared data that several runs use: made once, by whoever comes first, and copied into each.

`data.prepared` names a directory with a subdirectory per identity: a checksum of the settings that
matter, of the source files and of the libraries. Runs have copies, so they do not depend on it.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from seq2seq.config.schema import Config
from seq2seq.data.readers import Place
from seq2seq.data.readers.hub import parse_hub_name
from seq2seq.data.text import open_regular
from seq2seq.run import writing
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.jsonable import to_json
from seq2seq.run.naming import expanded
from seq2seq.run.reading import opened
from seq2seq.run.writing import explained

log = logging.getLogger(__name__)

FORMAT = 1
"""Raised when the same settings, files and libraries give other data."""
IGNORED = ("root", "workers", "prepared")
"""Settings of `data` that leave it the same; files count by what they hold."""
PACKAGES = ("sentencepiece", "sacremoses", "sacrebleu", "regex")
_POLL = 0.5  # seconds between attempts to lock


def shared_directory(cfg: Config) -> RunDir | None:
    """Return where data of the same identity is kept; None if it is not shared."""
    if cfg.data.prepared is None or cfg.init.run is not None:  # its vocabularies are the run's own
        return None
    data = {key: x for key, x in to_json(cfg.data).items() if key not in IGNORED}
    known = {
        "settings": [data, to_json(cfg.tokenizer)],
        "files": [*_checksums(cfg)],
        "versions": [FORMAT, *map(version, PACKAGES)],
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return RunDir(expanded(cfg.data.prepared) / digest[:16])


def _checksums(cfg: Config) -> Iterator[str]:
    """Yield the checksums of all files that are named; other names are settings.

    Of a directory in the layout of the Hub, those of its files, which are told apart by name.
    """
    splits = ("train", "validation", "test")
    places = [Place(part, split) for part in cfg.data.parts for split in splits]
    named = [place.path(name) for place in places for name in place.names]
    links = [] if cfg.data.links is None else [places[0].path(cfg.data.links)]
    for path in named + links:
        if path.is_file():
            yield _checksum(path)
    alone = (place for place in places if len(place.names) == 1)
    hub = (place for place in alone if place.names[0].lower().startswith("hub:"))
    for directory in filter(None, (parse_hub_name(place).local for place in hub)):
        for path in filter(Path.is_file, sorted(directory.rglob("*"))):
            yield f"{path.relative_to(directory).as_posix()} {_checksum(path)}"


def _checksum(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(shared: RunDir) -> Iterator[None]:
    """Hold the lock of a directory; wait for a process that is filling or reading it."""
    with explained(shared.root):
        writing.make_directory(shared.root)
    owner = ""
    while True:
        try:
            shared.lock()
            break
        except RunDirError as error:
            if error.what != owner:
                log.info("waiting for %s, %s", shared.root, owner := error.what)
            time.sleep(_POLL)
    try:
        yield
    finally:
        shared.unlock()


def copy_files(shared: RunDir, run: RunDir, names: Iterable[str]) -> None:
    """Copy files into a run, verified by the records of the shared data."""
    for name in names:
        with opened(shared.checked(name)) as file, run.stream(name) as copied:
            shutil.copyfileobj(file, copied, 1 << 20)
