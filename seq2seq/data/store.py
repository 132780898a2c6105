"""Token ids and text lines in memory-mapped files: a corpus need not fit in memory."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from seq2seq.run.errors import RunDirError
from seq2seq.run.reading import opened

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int32 | np.int64]

_BLOCK = 1 << 22
_RESTORE = "Restore it from a copy."


class IdStore:
    """Rows of ids in one file: row i is ids[ends[i-1]:ends[i]].

    Args:
        ids_file: The ids, int32.
        ends_file: The ends, int64.
        num_ids: The size of the vocabulary; ids must be less.

    Raises:
        RunDirError: the files do not fit together, or (when a row is read) an id is out of range.
    """

    def __init__(self, ids_file: Path, ends_file: Path, num_ids: int) -> None:
        self._where, self._num_ids = ids_file, num_ids
        self._ids = _map(ids_file, np.dtype(np.int32))
        self._ends = _map(ends_file, np.dtype(np.int64))
        last = int(self._ends[-1]) if len(self._ends) else 0
        lengths = (part for _, part in self._blocks())
        if last != len(self._ids) or any((part < 1).any() for part in lengths):
            raise RunDirError(ends_file, f"does not fit {ids_file.name}", _RESTORE)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> Ids:
        start = self._ends[row - 1] if row else 0
        ids = self._ids[start : self._ends[row]]
        if int(ids.min()) < 0 or int(ids.max()) >= self._num_ids:
            raise RunDirError(self._where, f"row {row + 1} has an unknown id", _RESTORE)
        return ids

    def lengths(self, rows: Lengths | None = None) -> Lengths:
        """Return the number of ids of some rows, by default of every row."""
        if rows is not None:
            return self._ends[rows] - np.where(rows > 0, self._ends[rows - 1], 0)
        found = np.empty(len(self), np.int32)
        for start, part in self._blocks():
            found[start : start + _BLOCK] = part
        return found

    def _blocks(self) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield lengths, block by block: those of 100 million rows are not held twice."""
        for start in range(0, len(self._ends), _BLOCK):
            before = self._ends[start - 1] if start else 0
            yield start, np.diff(self._ends[start : start + _BLOCK], prepend=before)

    def counts(self) -> Lengths:
        """Return how often each id of the vocabulary occurs."""
        parts = range(0, len(self._ids), _BLOCK)  # `bincount` copies ids as 64-bit numbers
        counted = (np.bincount(self._ids[i : i + _BLOCK], minlength=self._num_ids) for i in parts)
        return sum(counted, np.zeros(self._num_ids, np.int64))


class TextStore(Sequence[str]):
    """The lines of a text file in a run.

    Raises:
        RunDirError: the last line has no line end, or (when it is read) a line is not valid UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._where = path
        self._bytes = _map(path, np.dtype(np.uint8))
        # In blocks: a mask of all bytes would be as large as the corpus.
        starts = range(0, len(self._bytes), _BLOCK)
        found = (np.flatnonzero(self._bytes[i : i + _BLOCK] == ord("\n")) + i for i in starts)
        self._ends = np.concatenate([np.empty(0, np.int64), *found])
        if len(self._bytes) and self._bytes[-1] != ord("\n"):
            raise RunDirError(path, "its last line has no end", _RESTORE)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        rows = range(len(self))[row]  # handles negative indices
        if isinstance(rows, int):
            return self._lines(rows, rows + 1)[0]
        # Neighbouring lines are decoded together, 20 times as fast as one by one.
        return self._lines(rows.start, rows.stop) if rows.step == 1 else [self[i] for i in rows]

    def _lines(self, first: int, stop: int) -> list[str]:
        if first >= stop:
            return []
        start = int(self._ends[first - 1]) + 1 if first else 0
        raw = bytes(self._bytes[start : self._ends[stop - 1]])
        try:
            return raw.decode().split("\n")
        except UnicodeDecodeError as error:
            number = first + 1 + raw.count(b"\n", 0, error.start)
            raise RunDirError(f"{self._where}:{number}", "not valid UTF-8", _RESTORE) from None


def _map(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size % dtype.itemsize:
            raise RunDirError(path, f"is {size} bytes, no whole number of {dtype}", _RESTORE)
        if size == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype)
        return np.memmap(file, dtype=dtype, mode="r")
