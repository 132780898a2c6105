"""Token ids and text lines in memory-mapped files: a corpus need not fit in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]


class IdStore:
    """Rows of ids in one memory-mapped file: row i is ids[ends[i-1]:ends[i]].

    Only what a batch touches is read, so a corpus need not fit in memory.
    """

    def __init__(self, ids_file: Path, ends_file: Path) -> None:
        self._ids = _map(ids_file, np.dtype(np.int32))
        self._ends = _map(ends_file, np.dtype(np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> Ids:
        start = self._ends[row - 1] if row else 0
        return self._ids[start : self._ends[row]]

    def lengths(self) -> Lengths:
        """Return the number of ids of every row."""
        return np.diff(self._ends, prepend=0)


def _map(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


class TextStore(Sequence[str]):
    """The lines of a file that a run wrote, read on demand."""

    def __init__(self, path: Path) -> None:
        self._bytes = _map(path, np.dtype(np.uint8))
        self._ends = np.flatnonzero(self._bytes == ord("\n"))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = range(len(self))[row]  # counts from the end, too
        start = int(self._ends[row - 1]) + 1 if row else 0
        return bytes(self._bytes[start : self._ends[row]]).decode()
