"""Datasets of the Hugging Face Hub, or local directories with the same layout.

`datasets` finds, downloads and caches them (`HF_HOME` moves its cache). The library refuses to run
code of a dataset. By default it retries an unreachable Hub for 23 s, and a silent one for minutes:
here it has a time limit, after which the cache is used.
"""

import csv
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from seq2seq.data.readers.files import pair_of_row, parsed
from seq2seq.data.readers.place import Pairs, Place, reads
from seq2seq.data.text import FileSummary
from seq2seq.run.errors import ConfigError, DataError, PlatformError, UntrustedError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Time limits for the Hub to answer, and for the dataset to be found.
PROBE_SECONDS = 10.0
SEARCH_SECONDS = 40.0
SEARCH_THREAD = "search on the Hub"

_BATCH_ROWS = 1000  # one row at a time takes 100 times as long
_LOCAL = "name local files instead, data.train=[train.en,train.fr], or a directory, [hub:./DIR]"


@dataclass(frozen=True)
class HubDataset:
    """A parsed `hub:NAME[@REVISION][:CONFIG[:SPLIT]]`; missing parts are None."""

    spec: str
    name: str
    local: Path | None  # the directory if NAME is one; the Hub is then not used
    revision: str | None  # a commit, tag or branch; None for the newest commit
    config: str | None
    split: str
    languages: tuple[str, str]  # the columns of text


def parse_hub_name(place: Place) -> HubDataset:
    """Parse the name of a dataset.

    Raises:
        ConfigError: there is no NAME.
        DataError: NAME is a directory that does not exist.
    """
    [spec] = place.names
    # At most three parts: a slice such as train[:1000] contains a colon.
    name, config, split = [*spec[len("hub:") :].split(":", 2), "", ""][:3]
    if not name:
        raise ConfigError("config", f"{spec!r} names no dataset", "Write hub:NAME:CONFIG:SPLIT.")
    revision = ""
    # Like the library, prefer a directory below the working directory to the Hub.
    local = next((path for path in (place.path(name), Path(name)) if path.is_dir()), None)
    # No Hub name looks like this, so it is a mistyped directory.
    if local is None and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataError(place.path(name), "no such directory", "Check the name and data.root.")
    if local is None:
        name, _, revision = name.partition("@")
    split = split or place.split
    return HubDataset(spec, name, local, revision or None, config or None, split, place.languages)


@reads("hub:.*", example="hub:NAME@COMMIT:CONFIG:SPLIT")
def read_hub(place: Place) -> Pairs:
    """Read rows with a column per language, or one column called `translation`.

    The summary holds NAME@COMMIT, the number of rows, and the SHA-256 of the columns read, as JSON
    lines.

    Raises:
        DataError: no such config, split or data file.
        PlatformError: no network, no such dataset, or no access to it.
        UntrustedError: the dataset is a loading script.
    """
    dataset = parse_hub_name(place)
    rows = _rows(dataset, place)
    return parsed(rows, f"{dataset.spec} row ", lambda row, where: pair_of_row(row, place, where))


def _rows(dataset: HubDataset, place: Place) -> Iterator[dict[str, Any]]:
    name, table = _load(dataset)
    digest, summary = hashlib.sha256(), FileSummary(name)
    place.inputs.append(summary)
    wanted = {"translation", *place.languages}
    if columns := [name for name in table.column_names if name in wanted]:
        table = table.select_columns(columns)
    for batch in table.iter(_BATCH_ROWS):
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            summary.lines += 1
            digest.update(f"{json.dumps(row, sort_keys=True, default=str)}\n".encode())
            yield row
    summary.sha256 = digest.hexdigest()


def _load(dataset: HubDataset) -> tuple[str, Any]:
    """Download a dataset or find it in the cache; return NAME@COMMIT and its table."""
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # Failures are raised; silence the libraries' progress bars and log messages.
    datasets.disable_progress_bars()
    disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)

    try:
        if dataset.local is not None:
            name, builder = dataset.local.name, _builder(dataset)
        else:
            builder = _search(dataset)
            name = f"{dataset.name}@{builder.hash}"
            logger.info("%s: commit %s", dataset.spec, builder.hash)
        builder.download_and_prepare()  # without a time limit
        return name, builder.as_dataset(split=dataset.split)
    except Exception as error:
        raise _explained(error, dataset) from None


def _search(dataset: HubDataset) -> Any:
    """Find a dataset on the Hub or, if that fails for any reason, in the cache."""
    import datasets
    import huggingface_hub.constants as hub

    commit = dataset.revision
    try:
        commit, builder = _within(SEARCH_SECONDS, partial(_ask_hub, dataset))
    except (_http_errors(), OSError) as error:
        logger.info("%s: %s; looking into the cache", dataset.spec, _one_line(error))
        offline, builder = hub.HF_HUB_OFFLINE, None
        hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        try:
            # The cache is keyed by the options that a table was read with.
            for options in (_as_text(dataset, "\t"), _as_text(dataset, ","), {}):
                with suppress(ConnectionError, ValueError):
                    builder = builder or _load_builder(dataset, None, options)
        finally:
            # After a timeout, stay offline: neither this split nor the next asks again.
            offline = offline or isinstance(error, TimeoutError)
            hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = offline
        if builder is None:  # not in the cache either: raise the first error
            raise
    # The library's cache returns any commit, regardless of the one requested.
    if dataset.revision and not builder.hash.startswith(commit):
        what = f"the cache has only commit {builder.hash}, and the Hub does not give {commit}"
        raise PlatformError(dataset.spec, what, "Connect, or leave @REVISION out.")
    return builder


def _ask_hub(dataset: HubDataset) -> tuple[str | None, Any]:
    """Return the commit of a revision, and the dataset's builder at this commit."""
    from huggingface_hub import HfApi

    # A single request; the library's own requests are retried.
    revision = dataset.revision or "main"
    commit = HfApi().dataset_info(dataset.name, revision=revision, timeout=PROBE_SECONDS).sha
    return commit, _builder(dataset, commit)


def _builder(dataset: HubDataset, revision: str | None = None) -> Any:
    from datasets.packaged_modules.csv.csv import CsvConfig

    builder = _load_builder(dataset, revision, {})
    if isinstance(builder.config, CsvConfig):
        return _load_builder(dataset, revision, _as_text(dataset, builder.config.sep))
    return builder


def _load_builder(dataset: HubDataset, revision: str | None, options: dict[str, Any]) -> Any:
    import datasets

    path = str(dataset.local or dataset.name)
    return datasets.load_dataset_builder(path, dataset.config, revision=revision, **options)


def _as_text(dataset: HubDataset, separator: str) -> dict[str, Any]:
    """Return CSV and TSV options under which every cell is its literal text.

    By default, the library reads `None` and `NA` as missing, `1.50` and `2020` as numbers, and text
    after a quotation mark as one cell, even across lines of a TSV.
    """
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    text = dict.fromkeys(dataset.languages, _cell)
    exact = {"na_filter": False, "keep_default_na": False, "converters": text, "index_col": False}
    return {"sep": separator, "quoting": quoting, **exact}


def _cell(text: str) -> str:
    """Return a cell unchanged; refuse one with a line end."""
    if "\n" in text:
        raise ValueError(f"{text[:30]!r} goes on over a line end: double a lone quotation mark")
    return text


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call, with a time limit.

    Raises:
        TimeoutError: the call takes too long; its thread is abandoned.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # raised again below
            result.set_exception(error)

    # A thread, since connection timeouts do not cover name servers or lists of addresses.
    threading.Thread(target=run, daemon=True, name=SEARCH_THREAD).start()
    if not wait([result], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return result.result()


def _explained(error: Exception, dataset: HubDataset) -> Exception:
    """Convert an exception of the libraries to a one-line error of ours; return others as is."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    # What is named does not exist.
    spec = dataset.spec
    if isinstance(error, DatasetNotFoundError | RepositoryNotFoundError):
        what = "does not exist on the Hub, or you may not read it"
        fix = f"Check the name, log in where access is restricted, or {_LOCAL}."
        return PlatformError(spec, what, fix)
    if isinstance(error, RevisionNotFoundError):
        what = f"has no revision {dataset.revision!r} on the Hub"
        return PlatformError(spec, what, "Check the commit, tag or branch.")
    # The network or the Hub refuses.
    refusal = _refusal(error)
    if refusal or (isinstance(error, OSError) and not isinstance(error, FileNotFoundError)):
        what = f"cannot be fetched from the Hugging Face Hub ({_one_line(refusal or error)})"
        return PlatformError(spec, what, f"Connect, try again, or {_LOCAL}.")
    # The data is there, but not as expected.
    if isinstance(error, DatasetsError | ValueError | FileNotFoundError):
        what = f"cannot be read ({_one_line(error.__cause__ or error)})"
        return DataError(spec, what, "Correct the data, or CONFIG and SPLIT.")
    if "scripts are no longer supported" in str(error):
        what = f"the dataset is a program, which is never run ({_one_line(error)})"
        fix = f"Find a copy that holds Parquet files, or {_LOCAL}."
        return UntrustedError(spec, what, fix)
    return error


def _http_errors() -> type[Exception]:
    """Return the HTTP client's error class; which client it is depends on the version."""
    from huggingface_hub.errors import HfHubHTTPError

    return cast(type[Exception], HfHubHTTPError.__mro__[1])


def _refusal(error: BaseException | None) -> BaseException | None:
    """Return the HTTP client's error in a chain of exceptions, or None."""
    while error is not None and not isinstance(error, _http_errors()):
        error = error.__cause__ or error.__context__
    return error


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")
