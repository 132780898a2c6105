"""Datasets of the Hugging Face Hub, or local folders laid out like them, as rows.

The library retries an unreachable host for 23 s and talks meanwhile; here the host is asked once,
and without it only the library's cache is used. No dataset runs a program: the library refuses.
"""

import hashlib
import json
import logging
import queue
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from seq2seq.config.schema import DataConfig
from seq2seq.data.text import FileReport
from seq2seq.run.errors import ConfigError, DataError, PlatformError, UntrustedError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROBE_SECONDS = 10.0
"""The host must answer within this time, all its addresses and the name server included."""
SEARCH_SECONDS = 40.0
"""And the dataset must be found within this one; the library alone tries for minutes."""
BATCH_ROWS = 1000

_OVERLOADED = (429, 500, 502, 503, 504)  # for these the library would wait, 23 s each time
SEARCH_THREAD = "search on the Hub"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_OTHER_NAMES = {"validation": ("validation", "val", "dev", "valid")}


@dataclass(frozen=True)
class HubDataset:
    """`hub:NAME[@REVISION][:CONFIG[:SPLIT]]`, taken apart; all but NAME as written, or empty."""

    spec: str
    name: str
    folder: Path | None
    """The local folder that NAME means, if it means one; then nothing is asked from the Hub."""
    revision: str
    """A commit, tag or branch; empty for the newest state of the main branch."""
    config: str
    split: str
    role: str
    """train, validation or test: the split to look for when none is written."""


def parse_hub_name(spec: str, cfg: DataConfig, role: str) -> HubDataset:
    """Take a location apart.

    NAME is a folder if it starts with `.`, `/` or `~`, has several slashes, or exists below
    `data.root` or here; a mistyped folder is never looked up on the Hub.

    Raises:
        ConfigError: there is no NAME.
        DataError: NAME is a folder that does not exist.
    """
    # At most three parts: a slice such as train[:1000] has a colon of its own.
    name, config, split = [*spec.removeprefix("hub:").split(":", 2), "", ""][:3]
    if not name:
        raise ConfigError("config", f"{spec!r} names no dataset", "Write hub:NAME:CONFIG:SPLIT.")
    revision = ""
    folder = Path(cfg.root).expanduser() / Path(name).expanduser()
    # The library itself prefers a folder below the working directory to the Hub.
    local = next((path for path in (folder, Path(name)) if path.is_dir()), None)
    if local is None and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataError(folder, "no such folder", "Check the name and data.root.")
    if local is None:
        name, _, revision = name.partition("@")
    return HubDataset(spec, name, local, revision, config, split, role)


def read_hub_rows(
    place: HubDataset, cfg: DataConfig, reports: list[FileReport]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset, with a column for each language or one called `translation`.

    The first use downloads the dataset into the library's cache (`HF_HOME` moves it). CONFIG may
    be left out if there is only one, or one named after the languages; either direction will do.
    Adds a report: NAME@COMMIT, the rows, and the SHA-256 of what was read of them, as JSON lines.

    Raises:
        DataError: no such config, split or data file.
        PlatformError: no network, no such dataset, or no access to it.
        UntrustedError: the dataset consists of a program.
    """
    builder, table = _load(place, cfg)
    name = place.folder.name if place.folder else f"{place.name}@{builder.hash}"
    digest, report = hashlib.sha256(), FileReport(name)
    reports.append(report)
    wanted = {"translation", cfg.source_language, cfg.target_language}
    if columns := [name for name in table.column_names if name in wanted]:
        table = table.select_columns(columns)
    for batch in table.iter(BATCH_ROWS):  # a single row of `table[i]` takes 100 times as long
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            report.lines += 1
            digest.update(f"{json.dumps(row, sort_keys=True, default=str)}\n".encode())
            yield row
    report.sha256 = digest.hexdigest()


def hub_fingerprint(place: HubDataset, cfg: DataConfig) -> list[str]:
    """Return what identifies the rows: name, config, split, and the library's fingerprint.

    The last one follows from the commit and, for a local folder, from the times of its files.

    Raises:
        UserError: as in `read_hub_rows`.
    """
    builder, table = _load(place, cfg)
    return [place.name, builder.config.name, str(table.split), table._fingerprint]


def _load(place: HubDataset, cfg: DataConfig) -> tuple[Any, Any]:
    """Download or find the dataset; return its builder and a `datasets.Dataset`."""
    reachable = place.folder is not None or _can_ask_hub(place)
    builder = None
    if reachable:
        with _calm_library(offline=False), _library_errors(place):
            builder = _within(SEARCH_SECONDS, lambda: _builder(place, cfg))
        if builder is None:
            _ask_no_more()
    if builder is None:
        logger.info("%s: the Hub does not answer, looking into the cache", place.spec)
        reachable = False
    with _calm_library(offline=not reachable), _library_errors(place):
        builder = builder or _builder(place, cfg)
        if place.folder is None:
            _check_revision(place, str(builder.hash), reachable=reachable)
        builder.download_and_prepare()
        table = builder.as_dataset(split=_split(place, list(builder.info.splits)))
    return builder, table


def _can_ask_hub(place: HubDataset) -> bool:
    import datasets
    import huggingface_hub.constants as hub

    url = f"{hub.ENDPOINT}/api/datasets/{quote(place.name)}"  # not only the host may hang
    return not datasets.config.HF_HUB_OFFLINE and answers(url)


def _within(seconds: float, call: Callable[[], T]) -> T | None:
    """Return what a call returns, None if that takes too long; it is then left to itself."""
    results: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(call())
        except BaseException as error:  # handed on, whatever it is
            results.put(error)

    threading.Thread(target=run, daemon=True, name=SEARCH_THREAD).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        return None
    if isinstance(result, BaseException):
        raise result
    return result


def _ask_no_more() -> None:
    """Take the Hub for unreachable until the process ends; this ends a search left to itself."""
    import datasets
    import huggingface_hub.constants as hub

    hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it would tell of its retries


def _check_revision(place: HubDataset, commit: str, *, reachable: bool) -> None:
    """Say which commit it is; from its cache the library takes any, whatever was asked for."""
    wanted = place.revision
    named = _COMMIT.fullmatch(wanted) or (wanted and not reachable)
    if named and not commit.startswith(wanted):
        what = f"the cache has only commit {commit}, and the Hub cannot be asked for {wanted}"
        raise PlatformError(place.spec, what, "Connect, or leave @REVISION out.")
    logger.info("%s: commit %s", place.spec, commit)


def answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a web server answers at all, be it with a refusal, but not that it is overloaded."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=seconds).close()
        except HTTPError as error:
            error.close()  # it is the answer, too
            if error.code in _OVERLOADED:
                logger.info("%s answers: %d %s", url, error.code, error.reason)
                return
        except URLError as error:
            # The library may trust other certificates than Python does: let it try.
            if not isinstance(error.reason, ssl.SSLError):
                return
        except (OSError, HTTPException, ValueError):
            return
        answered.set()

    # A thread, because neither the name server nor a list of addresses obeys the timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


@contextmanager
def _calm_library(*, offline: bool) -> Iterator[None]:
    """No bars and no talk on stderr; offline at once where the library would retry."""
    import datasets
    import huggingface_hub.constants as hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [library.level for library in loggers]
    before = hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        for library in loggers:
            library.setLevel(logging.CRITICAL)
        if offline:
            hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        for library, level in zip(loggers, levels, strict=True):
            library.setLevel(level)


@contextmanager
def _library_errors(place: HubDataset) -> Iterator[None]:
    """Turn what the libraries raise into one line of ours."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # With the base class of the HTTP client's errors; the client itself changes between versions.
    http_errors = cast(tuple[type[Exception], ...], HfHubHTTPError.__mro__[:2])
    network_errors: tuple[type[Exception], ...] = (*http_errors, OSError)
    local = "name local files instead, data.train=[train.en,train.fr], or a folder, [hub:./FOLDER]"
    try:
        yield
    except DatasetNotFoundError as error:
        fix = f"Check the name and log in where access is restricted, or {local}."
        raise PlatformError(place.spec, _first_line(error), fix) from None
    except FileNotFoundError as error:  # a folder or repository without data
        if refusal := _behind(error, http_errors):  # which the library calls a missing file, too
            what = f"cannot be fetched ({_first_line(refusal)})"
            raise PlatformError(place.spec, what, f"Try again, or {local}.") from None
        raise DataError(place.spec, _first_line(error), "Check its contents.") from None
    except ConnectionError:
        what = "the Hugging Face Hub cannot be reached and its cache has no such dataset"
        raise PlatformError(place.spec, what, f"Connect, or {local}.") from None
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        what = f"the dataset is a program, which is never run ({_first_line(error)})"
        fix = f"Find a copy that holds Parquet files, or {local}."
        raise UntrustedError(place.spec, what, fix) from None
    except (DatasetsError, ValueError) as error:
        what = f"cannot be read ({_first_line(error.__cause__ or error)})"
        raise DataError(place.spec, what, "Correct the data, or CONFIG and SPLIT.") from None
    except network_errors as error:
        what = f"cannot be fetched ({_first_line(error)})"
        raise PlatformError(place.spec, what, f"Try again, or {local}.") from None


def _behind(error: BaseException, kinds: tuple[type[Exception], ...]) -> BaseException | None:
    """Return the first error of these kinds among those that led to this one."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kinds):
        found = found.__cause__ or found.__context__
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _builder(place: HubDataset, cfg: DataConfig) -> Any:
    """Find the config: as written, or named after the languages, in either direction."""
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    path = str(place.folder or place.name)
    if path in _PACKAGED_DATASETS_MODULES:  # would read whatever files lie in this directory
        raise DataError(place.spec, "is a file format, no dataset", "Name the file itself.")
    revision = place.revision or None
    names = datasets.get_dataset_config_names(path, revision=revision)
    written = place.config or f"{cfg.source_language}-{cfg.target_language}"
    for name in (written, "-".join(reversed(written.split("-")))):
        if name in names:
            return datasets.load_dataset_builder(path, name, revision=revision)
    if len(names) == 1:  # also for a dataset in the cache, whose configs the library cannot list
        return datasets.load_dataset_builder(path, place.config or None, revision=revision)
    raise DataError(
        place.spec,
        f"has no config {written!r}; there are {', '.join(names)}",
        "Write one of them: hub:NAME:CONFIG.",
    )


def _split(place: HubDataset, names: list[str]) -> str:
    if place.split:
        return place.split
    for name in _OTHER_NAMES.get(place.role, (place.role,)):
        if name in names:
            return name
    raise DataError(
        place.spec,
        f"has no split {place.role!r}; there are {', '.join(names)}",
        "Write one, or a part of one: hub:NAME:CONFIG:train[:1000].",
    )
