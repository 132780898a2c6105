"""Neural machine translation by jointly learning to align and translate (arXiv 1409.0473).

import seq2seq

model = seq2seq.load("outputs/quickstart/...")
translation = model.translate("The small cat sleeps.")
"""

from __future__ import annotations  # an old Python must be able to read this

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seq2seq.decoding.pretrained import Pretrained
    from seq2seq.decoding.request import Request

__version__ = "0.2.0"
__all__ = ["Request", "load"]


def __getattr__(name: str) -> object:
    """Import what needs Python as new as ours when it is asked for."""
    if name != "Request":
        raise AttributeError(f"module 'seq2seq' has no attribute {name!r}")
    from seq2seq.decoding.request import Request

    return Request


def load(run: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Pretrained:
    """Load a trained run, or several as an ensemble; see `seq2seq.decoding.pretrained.load`."""
    # torch takes seconds to import, and `import seq2seq` alone does not need it.
    from seq2seq.config.extensions import load_extensions
    from seq2seq.decoding.pretrained import load as load_run

    load_extensions()
    return load_run(run, overrides)
