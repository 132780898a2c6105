"""What the scripts share: streams that do not lie, and one line for every error."""

import argparse
import atexit
import contextlib
import logging
import os
import re
import select
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO, cast

from seq2seq.config.extensions import load_extensions
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import (
    DataError,
    MemoryLimitError,
    PlatformError,
    UsageError,
    UserError,
    internal_error,
    print_error,
    printable,
)
from seq2seq.run.memory import ADVICE, is_out_of_memory
from seq2seq.run.naming import named_runs
from seq2seq.run.signals import EXIT_CODES, set_alarm, signals_named
from seq2seq.run.writing import explained

_DEBUG = "SEQ2SEQ_DEBUG"
_GRACE = 3  # seconds for a line that is being written, before a signal ends the script all the same
_BLOCK = 1 << 16  # bytes read at once; the capacity of a pipe on Linux


RUN = (
    "run directory, as train.py prints it; RUN@best, RUN@last, RUN@update-12000: this checkpoint; "
    "RUN@last5: the mean of the newest five; RUN_A+RUN_B: an ensemble"
)
"""What a command decodes with, for the help of a script."""

TARGET_LANGUAGE = "what to translate to, with a run that was trained for several languages"
"""What that option says, for the help of a script."""

WORDS = f"{RUN}; overrides: decode.beam_size=12, device=cpu"
"""What `runs_and_overrides` reads, for the help of a script."""


def runs_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell `decode.beam_size=12` from a run, even one in a directory with `=` in its name."""
    overrides = [
        word
        for word in words
        if "=" in word and not all(run.path.exists() for run in named_runs(word))
    ]
    return [word for word in words if word not in overrides], overrides


class Interrupt:
    """Ends a script on Ctrl-C or SIGTERM: at once, but not in the middle of a line of output.

    A script has nothing to save, so unlike `StopRequest` it need not be asked whether it may end.

    Attributes:
        code: The exit code of the signal that came; None before.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._holding = False

    def install(self) -> None:
        """Catch the signals from now on, but for those that `nohup` or a shell has put aside."""
        for number in signals_named("SIGINT", "SIGTERM", "SIGHUP"):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)
        atexit.register(set_alarm, 0)  # by then Python has no handler: it would kill the process

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Put a signal off until the block is done."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self.code is not None:
            sys.exit(self.code)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        # Called in the middle of anything, so it does little.
        if self.code is not None:  # a second signal, or no end in time: a reader that has stalled
            os._exit(self.code)
        self.code = EXIT_CODES[signal.Signals(number)]
        for alarm in signals_named("SIGALRM"):
            signal.signal(alarm, self._end)
            set_alarm(_GRACE)
        if not self._holding:
            sys.exit(self.code)


interrupt = Interrupt()


LEVELS, FIGURES = ("pieces", "words", "blanks"), ("png", "svg", "pdf")
"""As `decoding.formats` and `alignment.heatmap` have them; --help is not to wait for these."""


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of a command line on which no option may stand twice."""
    parser = argparse.ArgumentParser(description=description)
    for action in (None, "store"):
        parser.register("action", action, _Once)
    return parser


class _Once(argparse.Action):
    """Store a value. Plain argparse would take the last of several and forget the others."""

    given = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if self.given and option_string is not None:
            raise UsageError(option_string, "is given twice", "Give it once.")
        self.given = True
        setattr(namespace, self.dest, values)


def add_attention_options(parser: argparse.ArgumentParser) -> None:
    """Add what scripts that write attention can be asked for."""
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default=LEVELS[0],
        help="tokens in jsonl, pharaoh, npz and heatmaps: pieces of the vocabulary; words, marks "
        "and apostrophes cut off; or what stands between spaces, for tokenised text",
    )
    parser.add_argument("--heatmaps", type=Path, metavar="DIRECTORY", help="draw every line in it")
    parser.add_argument(
        "--figure", "--picture", choices=FIGURES, default=FIGURES[0], help="format of heatmaps"
    )


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function and leave with the documented exit code.

    Every script takes `--extension MODULE`, for runs made with one.
    A reader that goes away (`| head`) ends it quietly, and so does a signal; `SEQ2SEQ_DEBUG=1`
    shows tracebacks.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for number in signals_named("SIGPIPE"):
        signal.signal(number, signal.SIG_DFL)
    interrupt.install()
    try:
        sys.argv[1:] = load_extensions(sys.argv[1:])
        main()
    except UserError as error:
        if os.environ.get(_DEBUG):
            raise
        sys.exit(print_error(error))
    except Exception as error:  # the one place that turns a bug into a line
        if interrupt.code is not None:  # what a signal that comes during an import can look like
            sys.exit(interrupt.code)
        if os.environ.get(_DEBUG):
            raise
        name = Path(sys.argv[0]).name
        if is_out_of_memory(error):
            sys.exit(print_error(MemoryLimitError(name, "out of memory", ADVICE)))
        sys.exit(print_error(internal_error(name, error, f"{_DEBUG}=1 in front")))


def table(
    rows: Iterable[Sequence[object]],
    headers: Sequence[str],
    align: str = "l",
    *,
    style: str = "plain",
) -> str:
    """Return rows as an aligned table; a row may be shorter than the headers.

    Args:
        rows: Cells, shown as they are; numbers are formatted by whoever knows their meaning.
        headers: One a column.
        align: `l` or `r` of each column; the last letter holds for all columns after it.
        style: Of `tabulate`: "plain" for a terminal, "github" for Markdown.
    """
    from tabulate import tabulate

    letters = align.ljust(len(headers), align[-1])
    sides = ["right" if letter == "r" else "left" for letter in letters]
    cells = [[str(cell) for cell in row] for row in rows]
    if style == "plain":  # as a first row, or columns would be two spaces wider than needed
        cells, headers = [list(headers), *cells], ()
    text: str = tabulate(cells, headers, tablefmt=style, colalign=sides, disable_numparse=True)
    return text


def check_command_line(arguments: Sequence[str]) -> None:
    """See that a run's records, which are UTF-8, can hold the command.

    Raises:
        PlatformError: the locale knows ASCII alone, and an argument is more.
    """
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PlatformError(
                "command line",
                f"{text!a} cannot be read in this locale",
                "Set one with UTF-8: LC_ALL=C.UTF-8.",
            ) from None


class LiveInput:
    """An open file, pipe or terminal whose lines are answered as they come.

    Args:
        stream: Nothing must have been read from it.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._descriptor = stream.fileno()
        self._buffer = bytearray()
        self._searched = 0  # bytes of it that hold no line end
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """Return the next line with its end, or as much of it as `limit` bytes; b"" at the end."""
        while (size := self._size_of_line(limit)) is None:
            self._read()
        line = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        return line

    def ready(self) -> bool:
        """Say whether the next line, or the end, is there without waiting for it."""
        while self._size_of_line(sys.maxsize) is None:
            if not _can_read(self._descriptor):
                return False
            self._read()
        return True

    def _size_of_line(self, limit: int) -> int | None:
        """Return the length of the line that the buffer begins with; None if it has no end yet."""
        end = self._buffer.find(b"\n", self._searched) + 1
        if not end:
            self._searched = end = len(self._buffer)
            if not self._ended and end < limit:
                return None
        return min(end, limit)

    def _read(self) -> None:
        """Wait for bytes or for the end."""
        with explained(Path("stdin")):
            block = os.read(self._descriptor, _BLOCK)
        self._buffer += block
        self._ended = not block


def _can_read(descriptor: int) -> bool:
    """Say whether there is something to read, or the end, without waiting."""
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    except OSError:  # Windows can ask this of sockets alone
        return stat.S_ISREG(os.fstat(descriptor).st_mode)


def input_stream() -> LiveInput:
    """Return standard input.

    Raises:
        DataError: it is closed.
    """
    if sys.stdin is None:
        raise DataError("stdin", "is closed", "Pipe text in, or use --input FILE.")
    return LiveInput(sys.stdin.buffer)


class Printable(logging.Formatter):
    """Lines of a log that may quote text from anywhere: escaped, each message in one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format a message, which may be for several handlers, without its traceback."""
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Terminal:
    """Standard output where a person sees it: nothing that is written moves the cursor."""

    def __init__(self, stream: BinaryIO) -> None:
        self.flush, self._write = stream.flush, stream.write

    def write(self, data: bytes) -> int:
        self._write(escaped(data.decode("utf-8", "backslashreplace")))
        return len(data)


def escaped(text: str) -> bytes:
    """Return lines of text, which may have tabs, as a terminal can show them."""
    return re.sub(r"[^\n\t]+", lambda part: printable(part.group()), text).encode()


@contextlib.contextmanager
def output_stream(path: Path | None) -> Iterator[BinaryIO]:
    """Give bytes to standard output, or to a file that appears whole or not at all.

    A terminal gets control characters escaped, a pipe or a file the bytes as they are.

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
        try:
            terminal = sys.stdout.isatty()
            yield cast(BinaryIO, _Terminal(sys.stdout.buffer)) if terminal else sys.stdout.buffer
            sys.stdout.buffer.flush()
        except OSError:
            # Else Python tries once more at its end, and leaves with a code of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def show(text: str) -> None:
    """Write text for people on standard output, UTF-8 whatever the locale.

    Names, settings and texts of a run may be anybody's: control characters are escaped.

    Raises:
        PlatformError: stdout is closed or full.
    """
    with output_stream(None) as output:
        output.write(escaped(f"{text}\n"))
