"""Test sets of sacreBLEU, WMT's newstests among them, as pairs.

sacreBLEU downloads them into its cache and turns them into text. It would wait for an unreachable
host as long as the system does, and ends the process where a download is damaged; here the host is
asked once, and all that can go wrong is one line.
"""

import difflib
import logging
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from seq2seq.data.hub import answers
from seq2seq.data.text import FileReport, scan_parallel
from seq2seq.run.errors import ConfigError, DataError, PlatformError

_LOCAL = "name local files instead, data.test=[test.en,test.fr]"


@dataclass(frozen=True)
class SacreBleuSets:
    """`sacrebleu:NAME+NAME`, taken apart; the sets are joined in this order."""

    spec: str
    names: tuple[str, ...]
    languages: str
    """As sacreBLEU writes the pair: `en-fr`."""


def parse_test_sets(spec: str, source_language: str, target_language: str) -> SacreBleuSets:
    """Take a location apart.

    Raises:
        ConfigError: there is no NAME, or an empty one.
    """
    names = tuple(spec.removeprefix("sacrebleu:").split("+"))
    if not all(names):
        fix = "Write sacrebleu:NAME, or sacrebleu:NAME+NAME to join sets."
        raise ConfigError("config", f"{spec!r} names no test set", fix)
    return SacreBleuSets(spec, names, f"{source_language}-{target_language}")


def scan_test_sets(
    place: SacreBleuSets, reports: list[FileReport]
) -> Iterator[tuple[str, str] | DataError]:
    """Yield the pairs of all sets as `scan_parallel` does; of several references, the first one.

    The first use downloads a set into sacreBLEU's cache (the variable SACREBLEU moves it).

    Raises:
        DataError: no such set, not in these languages, or a damaged file.
        PlatformError: it cannot be downloaded.
    """
    for source, target in find_test_sets(place):
        yield from scan_parallel(source, target, reports)


def find_test_sets(place: SacreBleuSets) -> list[tuple[Path, Path]]:
    """Return the source and reference file of each set, downloaded where need be.

    Raises:
        UserError: as in `scan_test_sets`.
    """
    return [_files(place, _dataset(place, name)) for name in place.names]


def _dataset(place: SacreBleuSets, name: str) -> Any:
    from sacrebleu.dataset import DATASETS

    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=3, cutoff=0.5)
        fix = f"Did you mean {', '.join(near)}?" if near else "List them: sacrebleu --list."
        raise DataError(place.spec, f"sacreBLEU has no test set {name!r}", fix)
    dataset = DATASETS[name]
    if place.languages not in dataset.langpairs:
        known = ", ".join(sorted(dataset.langpairs))
        what = f"{name} has no pair {place.languages}; there are {known}"
        raise DataError(place.spec, what, "Set data.source_language and data.target_language.")
    return dataset


def _files(place: SacreBleuSets, dataset: Any) -> tuple[Path, Path]:
    if not _is_cached(dataset) and not all(map(answers, dataset.data)):
        what = f"{dataset.name} is not in sacreBLEU's cache and its host cannot be reached"
        raise PlatformError(place.spec, what, f"Connect, or {_LOCAL}.")
    with _library_errors(place, dataset):
        files = dataset.get_files(place.languages)
        fields = dataset.fieldnames(place.languages)
    reference = next(i for i, field in enumerate(fields) if field.startswith("ref"))
    return Path(files[fields.index("src")]), Path(files[reference])


def _is_cached(dataset: Any) -> bool:
    """Whether sacreBLEU has downloaded the archives of a set; it keeps them beside the texts."""
    archives = [Path(dataset._rawdir, dataset._get_tarball_filename(url)) for url in dataset.data]
    return all(archive.is_file() and archive.stat().st_size for archive in archives)


@contextmanager
def _library_errors(place: SacreBleuSets, dataset: Any) -> Iterator[None]:
    """Turn what sacreBLEU raises into one line of ours, and keep it from talking."""
    from portalocker.exceptions import LockException

    library = logging.getLogger("sacrebleu")
    level = library.level
    library.setLevel(logging.CRITICAL)
    folder = f"Delete {dataset._outdir} and try again, or {_LOCAL}."
    try:
        yield
    except SystemExit:  # how the library reports a wrong sum, or a certificate that it refuses
        what = f"the download of {dataset.name} is damaged or its host is not trusted"
        raise PlatformError(place.spec, what, folder) from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, UnicodeDecodeError):
        raise DataError(place.spec, f"the archive of {dataset.name} is damaged", folder) from None
    except (OSError, HTTPException, LockException) as error:
        what = f"{dataset.name} cannot be fetched ({str(error) or type(error).__name__})"
        raise PlatformError(place.spec, what, f"Try again, or {_LOCAL}.") from None
    finally:
        library.setLevel(level)
