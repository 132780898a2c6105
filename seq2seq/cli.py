"""What the scripts share: streams that do not lie, and one line for every error."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from seq2seq.errors import (
    DataError,
    InternalError,
    MemoryLimitError,
    PlatformError,
    UserError,
    report,
)
from seq2seq.fsops import explained
from seq2seq.memory import ADVICE, is_out_of_memory
from seq2seq.run import RunDir

_DEBUG = "SEQ2SEQ_DEBUG"


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function and leave with the documented exit code.

    A reader that goes away (`| head`) ends it quietly; `SEQ2SEQ_DEBUG=1` shows tracebacks.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        main()
    except UserError as error:
        if os.environ.get(_DEBUG):
            raise
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the one place that turns a bug into a line
        if os.environ.get(_DEBUG):
            raise
        name = Path(sys.argv[0]).name
        if is_out_of_memory(error):
            sys.exit(report(MemoryLimitError(name, "out of memory", ADVICE)))
        sys.exit(report(InternalError(name, error, f"{_DEBUG}=1 in front")))


def input_stream() -> BinaryIO:
    """Return standard input as bytes.

    Raises:
        DataError: it is closed.
    """
    if sys.stdin is None:
        raise DataError("stdin", "is closed", "Pipe text in, or use --input FILE.")
    return sys.stdin.buffer


@contextlib.contextmanager
def output_stream(path: Path | None) -> Iterator[BinaryIO]:
    """Give bytes to standard output, or to a file that appears whole or not at all.

    Raises:
        PlatformError: stdout is closed or full, or the file cannot be written.
    """
    if path is not None and (path.is_file() or not path.exists()):
        with RunDir(path.parent).stream(path.name) as file:
            yield file
        return
    if path is not None:  # a device or a pipe is written to, never replaced
        with explained(path), path.open("wb") as file:
            yield file
        return
    if sys.stdout is None:  # python starts so when stdout is closed, and would write nothing
        raise PlatformError("stdout", "is closed", "Redirect it, or use --output FILE.")
    with explained(Path("stdout")):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
