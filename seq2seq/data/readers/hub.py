"""Datasets of the Hugging Face Hub, or local directories laid out like them.

`datasets` finds, downloads and caches them (`HF_HOME` moves its cache). No dataset runs a program:
the library refuses. Left alone it asks an unreachable Hub again for 23 s, and a silent one for
minutes: here it has a time limit, after which its cache serves.
"""

import csv
import hashlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
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

# The Hub must answer within the first time, and the dataset must be found within the second.
PROBE_SECONDS = 10.0
SEARCH_SECONDS = 40.0
SEARCH_THREAD = "search on the Hub"

_BATCH_ROWS = 1000  # one row at a time takes 100 times as long
_LOCAL = "name local files instead, data.train=[train.en,train.fr], or a directory, [hub:./DIR]"


@dataclass(frozen=True)
class HubDataset:
    """`hub:NAME[@REVISION][:CONFIG[:SPLIT]]`, taken apart; what is not written is None."""

    spec: str
    name: str
    local: Path | None  # the directory that NAME means; then nothing is asked from the Hub
    revision: str | None  # a commit, tag or branch; None for the newest commit
    config: str | None
    split: str
    languages: tuple[str, str]  # columns that hold text


def parse_hub_name(place: Place) -> HubDataset:
    """Take a name apart.

    Raises:
        ConfigError: there is no NAME.
        DataError: NAME is a directory that does not exist.
    """
    [spec] = place.names
    # At most three parts: a slice such as train[:1000] has a colon of its own.
    name, config, split = [*spec[len("hub:") :].split(":", 2), "", ""][:3]
    if not name:
        raise ConfigError("config", f"{spec!r} names no dataset", "Write hub:NAME:CONFIG:SPLIT.")
    revision = ""
    # The library itself prefers a directory below the working directory to the Hub.
    local = next((path for path in (place.path(name), Path(name)) if path.is_dir()), None)
    # No name on the Hub looks like this: a mistyped directory is not asked for there.
    if local is None and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise DataError(place.path(name), "no such directory", "Check the name and data.root.")
    if local is None:
        name, _, revision = name.partition("@")
    split = split or place.split
    return HubDataset(spec, name, local, revision or None, config or None, split, place.languages)


@reads("hub:.*", example="hub:NAME@COMMIT:CONFIG:SPLIT")
def read_hub(place: Place) -> Pairs:
    """Read rows with a column for each language, or one called `translation`.

    The summary holds NAME@COMMIT, the number of rows, and the SHA-256 of what was read of them, as
    JSON lines.

    Raises:
        DataError: no such config, split or data file.
        PlatformError: no network, no such dataset, or no access to it.
        UntrustedError: the dataset consists of a program.
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
    """Download a dataset or find it in the cache; return its name and commit, and its table."""
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # What fails is raised; bars and messages of the libraries would only stand beside it.
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
        builder.download_and_prepare()  # takes as long as it takes
        return name, builder.as_dataset(split=dataset.split)
    except Exception as error:
        raise _explained(error, dataset) from None


def _search(dataset: HubDataset) -> Any:
    """Find a dataset on the Hub, or, where that fails for whatever reason, in the cache."""
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
            # A table lies there under the options that it was read with.
            for options in (_as_text(dataset, "\t"), _as_text(dataset, ","), {}):
                with suppress(ConnectionError, ValueError):
                    builder = builder or _load_builder(dataset, None, options)
        finally:
            # After a timeout nothing asks again: not this search, nor that of the next split.
            offline = offline or isinstance(error, TimeoutError)
            hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = offline
        if builder is None:  # not there either: the first error says why
            raise
    # From its cache the library takes any commit, whatever was asked for.
    if dataset.revision and not builder.hash.startswith(commit):
        what = f"the cache has only commit {builder.hash}, and the Hub does not give {commit}"
        raise PlatformError(dataset.spec, what, "Connect, or leave @REVISION out.")
    return builder


def _ask_hub(dataset: HubDataset) -> tuple[str | None, Any]:
    """Return the commit that a revision means, and the builder of the dataset at this commit."""
    from huggingface_hub import HfApi

    # Asked once; the library's own questions are repeated.
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
    """Return options of CSV and TSV by which every cell is the text that stands there.

    Left alone, the library takes `None` and `NA` for nothing, `1.50` and `2020` for numbers, and
    what follows a quotation mark, over several lines even of a TSV, for one text.
    """
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    text = dict.fromkeys(dataset.languages, _cell)
    exact = {"na_filter": False, "keep_default_na": False, "converters": text, "index_col": False}
    return {"sep": separator, "quoting": quoting, **exact}


def _cell(text: str) -> str:
    """Return a cell as it stands."""
    if "\n" in text:
        raise ValueError(f"{text[:30]!r} goes on over a line end: double a lone quotation mark")
    return text


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns.

    Raises:
        TimeoutError: it takes too long; it is then left to itself.
    """
    results: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(call())
        except BaseException as error:  # raised below, whatever it is
            results.put(error)

    # A thread, because a name server or a list of addresses obeys no timeout of a connection.
    threading.Thread(target=run, daemon=True, name=SEARCH_THREAD).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(result, BaseException):
        raise result
    return result


def _explained(error: Exception, dataset: HubDataset) -> Exception:
    """Return what the libraries raise as one line of ours; anything else as it is."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    spec = dataset.spec
    if isinstance(error, DatasetNotFoundError | RepositoryNotFoundError):
        what = "does not exist on the Hub, or you may not read it"
        fix = f"Check the name, log in where access is restricted, or {_LOCAL}."
        return PlatformError(spec, what, fix)
    if isinstance(error, RevisionNotFoundError):
        what = f"has no revision {dataset.revision!r} on the Hub"
        return PlatformError(spec, what, "Check the commit, tag or branch.")
    refusal = _refusal(error)
    if refusal or (isinstance(error, OSError) and not isinstance(error, FileNotFoundError)):
        what = f"cannot be fetched from the Hugging Face Hub ({_one_line(refusal or error)})"
        return PlatformError(spec, what, f"Connect, try again, or {_LOCAL}.")
    if isinstance(error, DatasetsError | ValueError | FileNotFoundError):
        what = f"cannot be read ({_one_line(error.__cause__ or error)})"
        return DataError(spec, what, "Correct the data, or CONFIG and SPLIT.")
    if "scripts are no longer supported" in str(error):
        what = f"the dataset is a program, which is never run ({_one_line(error)})"
        fix = f"Find a copy that holds Parquet files, or {_LOCAL}."
        return UntrustedError(spec, what, fix)
    return error


def _http_errors() -> type[Exception]:
    """Return the class of the HTTP client's errors; the client itself changes between versions."""
    from huggingface_hub.errors import HfHubHTTPError

    return cast(type[Exception], HfHubHTTPError.__mro__[1])


def _refusal(error: BaseException | None) -> BaseException | None:
    """Return the HTTP client's error behind another one; the libraries wrap one in the next."""
    while error is not None and not isinstance(error, _http_errors()):
        error = error.__cause__ or error.__context__
    return error


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")
