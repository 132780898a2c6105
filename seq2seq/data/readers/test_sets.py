"""Test sets of sacreBLEU, such as WMT's newstests: `sacrebleu:NAME+NAME`.

sacreBLEU downloads them to its cache (the variable SACREBLEU moves it) and converts them to text.
"""

import difflib
import logging
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from itertools import chain
from pathlib import Path

from seq2seq.data.readers.files import as_pairs
from seq2seq.data.readers.place import Pairs, Place, reads
from seq2seq.data.text import scan_parallel
from seq2seq.run.errors import ConfigError, DataError, PlatformError

# For each response of the host.
TIMEOUT_SECONDS = 10.0

_LOCAL = "name local files instead, data.test=[test.en,test.fr]"


@reads("sacrebleu:.*", example="sacrebleu:NAME+NAME")
def read_test_sets(place: Place) -> Pairs:
    """Read test sets one after the other; if there are several references, the first.

    Raises:
        ConfigError: there is no NAME, or an empty one.
        DataError: no such set, not in these languages, or a damaged file.
        PlatformError: it cannot be downloaded.
    """
    [spec] = place.names
    names = spec[len("sacrebleu:") :].split("+")
    if not all(names):
        fix = "Write sacrebleu:NAME, or sacrebleu:NAME+NAME to join sets."
        raise ConfigError("config", f"{spec!r} names no test set", fix)
    files = [_files(spec, name, "-".join(place.languages)) for name in names]
    scans = (scan_parallel(*both, place.inputs, place.languages) for both in files)
    return as_pairs(chain.from_iterable(scans))


def _files(spec: str, name: str, languages: str) -> tuple[Path, Path]:
    """Return the source and reference file of a set, downloaded if necessary."""
    from sacrebleu import utils

    known = utils.get_available_testsets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        fix = f"Did you mean {', '.join(near)}?" if near else "List them: sacrebleu --list."
        raise DataError(spec, f"sacreBLEU has no test set {name!r}", fix)
    pairs = sorted(utils.get_langpairs_for_testset(name))
    if languages not in pairs:
        what = f"{name} has no pair {languages}; there are {', '.join(pairs)}"
        raise DataError(spec, what, "Set data.source_language and data.target_language.")
    with _library_errors(spec, name):
        source = utils.get_source_file(name, languages)
        return Path(source), Path(utils.get_reference_files(name, languages)[0])


@contextmanager
def _library_errors(spec: str, name: str) -> Iterator[None]:
    """Convert exceptions of sacreBLEU to our one-line errors; silence it and limit its waits."""
    from portalocker.exceptions import LockException

    logging.getLogger("sacrebleu").setLevel(logging.CRITICAL)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    except SystemExit:  # raised for a wrong checksum or a refused certificate
        what = f"the download of {name} is damaged or its host is not trusted"
        raise PlatformError(spec, what, _again(name)) from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, UnicodeDecodeError):
        raise DataError(spec, f"the archive of {name} is damaged", _again(name)) from None
    except (OSError, HTTPException, LockException) as error:
        what = f"{name} cannot be fetched ({str(error) or type(error).__name__})"
        raise PlatformError(spec, what, f"Try again, or {_LOCAL}.") from None
    finally:
        socket.setdefaulttimeout(timeout)


def _again(name: str) -> str:
    from sacrebleu.utils import SACREBLEU_DIR

    return f"Delete {Path(SACREBLEU_DIR, name)} and try again, or {_LOCAL}."
