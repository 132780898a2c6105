"""Download public corpora, listed in corpora.yaml, and check every file."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import yaml

from seq2seq.run.checksums import entry_of_file
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DataError, PlatformError, UsageError
from seq2seq.run.progress import tqdm

TIMEOUT_SECONDS = 30.0  # for each response of the host


@dataclass(frozen=True)
class Corpus:
    """A corpus that can be downloaded.

    Attributes:
        about: What it is, and its source.
        licence: Of the text; check it before you redistribute anything.
        url: Address of the directory with its files.
        suffix: `.gz` if they are compressed there.
        use: Arguments that train on it.
        files: Size in bytes and SHA-256 of each file, decompressed.
    """

    about: str
    licence: str
    url: str
    suffix: str
    use: str
    files: dict[str, tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes of all files, decompressed."""
        return sum(size for size, _ in self.files.values())


def corpora() -> dict[str, Corpus]:
    """Return the corpora by name."""
    table = yaml.safe_load(Path(__file__).with_name("corpora.yaml").read_text("utf-8"))
    return {name: Corpus(**entry) for name, entry in table.items()}


def fetch(name: str, directory: Path, mirror: str | None = None) -> Corpus:
    """Download a corpus; files already there and intact are kept.

    Args:
        name: A name in `corpora()`.
        directory: Where its files go; made if necessary.
        mirror: Address of a directory with the same files, instead of `Corpus.url`.

    Raises:
        UsageError: there is no such corpus.
        DataError: a file there differs from the corpus.
        PlatformError: a file cannot be downloaded or written, or its content is not as listed.
    """
    known = corpora()
    if name not in known:
        raise UsageError(name, "is not a known corpus", f"Choose one of: {', '.join(known)}.")
    if mirror is not None:
        mirror = mirror.rstrip("/") + "/"
    corpus = known[name]
    for file, (size, sha256) in tqdm(corpus.files.items(), unit="file", disable=None):
        path = directory / file
        if not path.exists():
            text = _download(f"{mirror or corpus.url}{file}{corpus.suffix}", size, sha256)
            RunDir(directory).write(file, text)
        elif entry_of_file(path) != {"size": size, "sha256": sha256}:
            raise DataError(path, f"differs from the file of {name}", "Move it away.")
    return corpus


def _download(url: str, size: int, sha256: str) -> bytes:
    """Return the content of a file, decompressed and checked."""
    fix = "Try again, or give another --mirror."
    try:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            stream = gzip.GzipFile(fileobj=response) if url.endswith(".gz") else response
            data: bytes = stream.read(size + 1)  # no more, whatever the host sends
    except HTTPError as error:
        error.close()
        raise PlatformError(url, f"cannot be downloaded (status {error.code})", fix) from None
    except (OSError, HTTPException, EOFError, zlib.error, ValueError) as error:
        what = f"cannot be downloaded ({error or type(error).__name__})"
        raise PlatformError(url, what, fix) from None
    if (len(data), hashlib.sha256(data).hexdigest()) != (size, sha256):
        raise PlatformError(url, "is not the expected file: its checksum differs", fix)
    return data
