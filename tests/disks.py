"""What a disk may hold after a power cut.

A model of the weakest file system that the write protocol relies on: bytes of a file are safe once
the file was synced, names in a folder once the folder was. Of everything later, any part may have
reached the disk: a file may be cut, zeroed or old, each change of names there or not.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import Proceed


@dataclass
class File:
    safe: bytes | None = None
    """Bytes at the last sync."""
    now: bytes = b""


@dataclass
class Folder:
    safe: dict[str, "File | Folder"] = field(default_factory=dict)
    now: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[str, ...]] = field(default_factory=list)
    """Changes of names since the last sync: ("set", name), ("drop", name), ("move", old, new)."""
    made: dict[int, "File | Folder"] = field(default_factory=dict)
    """What a pending "set" made, by its place in `pending`."""


class Disk:
    """Records operations below `root` (an `Act` of faults.py) and draws states after a cut."""

    def __init__(self, root: Path) -> None:
        self.root, self.tree = root, Folder()
        self.open: dict[int, str] = {}

    def __call__(self, _number: int, name: str, args: tuple[Any, ...], proceed: Proceed) -> Any:
        found = proceed()
        getattr(self, f"_{name}", self._nothing)(found, *args)
        return found

    # Operations

    def _nothing(self, *_: object) -> None:
        """Locks and the like."""

    def _open(self, found: int, path: Any, flags: int, *_: object) -> None:
        folder, name = self._place(path)
        self.open[found] = os.fspath(path)
        if name not in folder.now:
            self._set(folder, name, File())

    def _write(self, found: int, descriptor: int, data: Any) -> None:
        if descriptor in self.open:
            self._file(self.open[descriptor]).now += bytes(data)[:found]

    def _close(self, _found: None, descriptor: int) -> None:
        self.open.pop(descriptor, None)

    def _fsync(self, _found: None, descriptor: int) -> None:
        path = self.open.get(descriptor) or Path(f"/proc/self/fd/{descriptor}").readlink()
        node = self._node(path)
        if isinstance(node, File):
            node.safe = node.now
        else:
            node.safe, node.pending, node.made = dict(node.now), [], {}

    def _mkdir(self, _found: None, path: Any, *_: object) -> None:
        folder, name = self._place(path)
        self._set(folder, name, Folder())

    def _replace(self, _found: None, old: Any, new: Any) -> None:
        folder, name = self._place(old)
        other, new_name = self._place(new)
        assert folder is other, "renamed into another folder"
        folder.now[new_name] = folder.now.pop(name)
        folder.pending.append(("move", name, new_name))

    def _unlink(self, _found: None, path: Any, *_: object) -> None:
        folder, name = self._place(path)
        del folder.now[name]
        folder.pending.append(("drop", name))

    _rmdir = _unlink

    # Helpers

    def _set(self, folder: Folder, name: str, node: "File | Folder") -> None:
        folder.now[name] = node
        folder.made[len(folder.pending)] = node
        folder.pending.append(("set", name))

    def _place(self, path: Any) -> tuple[Folder, str]:
        path = Path(os.fspath(path))
        node = self._node(path.parent)
        assert isinstance(node, Folder)
        return node, path.name

    def _node(self, path: Any) -> "File | Folder":
        node: File | Folder = self.tree
        for part in Path(os.fspath(path)).relative_to(self.root).parts:
            assert isinstance(node, Folder)
            node = node.now[part]
        return node

    def _file(self, path: str) -> File:
        node = self._node(path)
        assert isinstance(node, File)
        return node

    # States

    def after_a_cut(self, to: Path, draw: random.Random) -> None:
        _build(self.tree, to, draw)


def _build(folder: Folder, to: Path, draw: random.Random) -> None:
    to.mkdir()
    for name, node in _names(folder, draw).items():
        if isinstance(node, Folder):
            _build(node, to / name, draw)
        else:
            (to / name).write_bytes(_bytes(node, draw))


def _names(folder: Folder, draw: random.Random) -> dict[str, File | Folder]:
    names = dict(folder.safe)
    everything, nothing = draw.random() < 0.2, draw.random() < 0.2
    for place, (kind, *parts) in enumerate(folder.pending):
        if not everything and (nothing or draw.random() < 0.5):
            continue  # this one was lost
        match kind:
            case "set":
                names[parts[0]] = folder.made[place]
            case "drop":
                names.pop(parts[0], None)
            case "move" if parts[0] in names:
                names[parts[1]] = names.pop(parts[0])
    return names


def _bytes(file: File, draw: random.Random) -> bytes:
    if file.safe == file.now:
        return file.now
    length = draw.randrange(len(file.now) + 1)
    return draw.choice([file.safe or b"", file.now, file.now[:length], bytes(length)])
