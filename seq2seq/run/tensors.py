"""Tensors from bytes that may be damaged or come from a stranger."""

import math
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from seq2seq.run.errors import RunDirError
from seq2seq.run.reading import expected, parse_json

MAX_HEADER_BYTES = 1 << 20
"""Of a safetensors file; ours have about 100 bytes for each tensor."""
MAX_DIMENSIONS = 8
_KINDS = {"F32": 4, "F64": 8}
_RESTORE = "Restore it from a copy."


def unpack(data: bytes, where: Path) -> dict[str, Tensor]:
    """Read a safetensors file: `header size (8 bytes) | header (JSON) | numbers`.

    Args:
        data: The file.
        where: Its name, for an error.

    Raises:
        RunDirError: it is no such file, or holds a tensor that is not of finite floats.
    """
    _check_header(data, where)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise RunDirError(where, f"unreadable ({error})", _RESTORE) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RunDirError(where, f"tensor {name[:80]} is not finite", _RESTORE)
    return tensors


def _check_header(data: bytes, where: Path) -> None:
    """Look at what a file says of its tensors before memory is asked for them."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise RunDirError(where, f"unreadable (a header of {size} bytes)", _RESTORE)
    header = parse_json(data[8 : 8 + size], where)
    with expected(where):
        for name, entry in header.items():
            kind, (start, end) = entry["dtype"], entry["data_offsets"]
            if kind not in _KINDS:
                what = f"tensor {name[:80]} is {kind[:20]}, expected one of {', '.join(_KINDS)}"
                raise RunDirError(where, what, _RESTORE)
            shape = entry["shape"]
            if len(shape) > MAX_DIMENSIONS or end - start != _KINDS[kind] * math.prod(shape):
                raise RunDirError(where, f"tensor {name[:80]} is not of its size", _RESTORE)
