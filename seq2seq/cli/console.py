"""Shared by the scripts: options, strict input and output streams, and one-line errors."""

import argparse
import atexit
import contextlib
import json
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
from seq2seq.run.models import named_runs
from seq2seq.run.naming import command_name, expanded
from seq2seq.run.signals import EXIT_CODES, set_alarm, signals_named
from seq2seq.run.writing import explained

_DEBUG = "SEQ2SEQ_DEBUG"
_GRACE = 3  # seconds to finish writing a line before a signal ends the script anyway
_BLOCK = 1 << 16  # bytes read at once; the capacity of a pipe on Linux


ONE_RUN = "a run: its directory, its NAME (the newest in outputs/NAME) or latest"
"""Help text of the argument that names a run."""

_HUB = "hf:NAME (a model on the Hugging Face Hub)"

RUN_OR_MODEL = f"{ONE_RUN}; or {_HUB}"
"""Help text of the argument of `run_directory`."""

RUN = (
    f"{ONE_RUN}; or {_HUB}. RUN@best, RUN@last and RUN@update-12000 select a checkpoint, RUN@last5 "
    "the mean of the newest five; RUN_A+RUN_B is an ensemble"
)
"""Help text of the argument that names a model."""

TARGET_LANGUAGE = "language to translate into, for a multilingual run"
"""Help text of `--target-language`."""

OUTPUT = "output file, written only when complete (default: stdout)"
"""Help text of `--output`."""

WORDS = f"{RUN}. KEY=VALUE overrides a setting, such as decode.beam_size=12"
"""Help text of the arguments that `runs_and_overrides` reads."""


def runs_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate runs, even with `=` in their paths, from overrides such as `decode.beam_size=12`.

    Names of runs are replaced by their paths.
    """
    runs, overrides = [], []
    for word in words:
        named = named_runs(word)
        if "=" in word and not all(run.path.exists() for run in named):
            overrides.append(word)
        else:
            runs.append("+".join(map(str, named)))
    return runs, overrides


class Interrupt:
    """Ends a script on Ctrl-C or SIGTERM: at once, but not in the middle of an output line.

    A script has nothing to save, so unlike with `StopRequest`, it is not polled.

    Attributes:
        code: The exit code of the signal received; None before.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self._holding = False

    def install(self) -> None:
        """Catch the signals from now on, except those ignored by `nohup` or a shell."""
        for number in signals_named("SIGINT", "SIGTERM", "SIGHUP"):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)
        atexit.register(set_alarm, 0)  # at exit, without a handler, an alarm would kill the process

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Defer signals until the end of the block."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self.code is not None:
            sys.exit(self.code)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        # Runs at any point of the program, so it does little.
        if self.code is not None:  # a second signal, or the alarm: the reader has stalled
            os._exit(self.code)
        self.code = EXIT_CODES[signal.Signals(number)]
        for alarm in signals_named("SIGALRM"):
            signal.signal(alarm, self._end)
            set_alarm(_GRACE)
        if not self._holding:
            sys.exit(self.code)


interrupt = Interrupt()


LEVELS, FIGURES = ("pieces", "words", "blanks"), ("png", "svg", "pdf")
"""Copied from `decoding.formats` and `alignment.heatmap`, whose imports would slow down --help."""


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a command line parser that refuses repeated options."""
    parser = argparse.ArgumentParser(prog=command_name(), description=description)
    for action in (None, "store"):
        parser.register("action", action, _Once)
    return parser


class _Once(argparse.Action):
    """Store a value once. By default, argparse silently takes the last of several."""

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


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add the number of processes that translate."""

    def number(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise UsageError("--processes", f"{text!r} is not a number", "Use 1 or more.") from None

    text = "translate in N processes on this machine's CPU, with a thread each (or `threads`)"
    parser.add_argument("--processes", type=number, metavar="N", help=text)


def add_attention_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of scripts that write attention."""
    add = parser.add_argument
    add(
        "--level",
        choices=LEVELS,
        help="unit of tokens in jsonl, pharaoh and npz (default: pieces) and heatmaps (default: "
        "words): pieces of the vocabulary; words, without punctuation and apostrophes attached; "
        "blanks: strings between spaces, for tokenised text",
    )
    add("--heatmaps", type=expanded, metavar="DIRECTORY", help="draw a heatmap of each line in it")
    add("--figure", "--picture", choices=FIGURES, default=FIGURES[0], help="format of heatmaps")


def run_script(
    main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None
) -> None:
    """Run the main function of a command or script and exit with the documented code.

    Arguments are by default those of the process. Every command accepts `--extension MODULE`, for
    runs made with one. A closed pipe (`| head`) or a signal ends it quietly; `SEQ2SEQ_DEBUG=1`
    shows tracebacks.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for number in signals_named("SIGPIPE"):
        signal.signal(number, signal.SIG_DFL)
    interrupt.install()
    try:
        main(load_extensions(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        if os.environ.get(_DEBUG):
            raise
        sys.exit(print_error(error))
    except Exception as error:  # the only place that converts a bug to one line
        if interrupt.code is not None:  # a signal during an import may surface as an exception
            sys.exit(interrupt.code)
        if os.environ.get(_DEBUG):
            raise
        name = command_name()
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
        rows: Cells, shown unchanged; the caller formats numbers.
        headers: One per column.
        align: `l` or `r` for each column; the last letter applies to all columns after it.
        style: A format of `tabulate`: "plain" for a terminal, "github" for Markdown.
    """
    from tabulate import tabulate

    letters = align.ljust(len(headers), align[-1])
    sides = ["right" if letter == "r" else "left" for letter in letters]
    cells = [[str(cell) for cell in row] for row in rows]
    if style == "plain":  # headers as a row: otherwise columns are two spaces too wide
        cells, headers = [list(headers), *cells], ()
    text: str = tabulate(cells, headers, tablefmt=style, colalign=sides, disable_numparse=True)
    return text


def check_command_line(arguments: Sequence[str]) -> None:
    """Check that a run's records, which are UTF-8, can store the command.

    Raises:
        PlatformError: an argument is not ASCII, and the locale is.
    """
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError:
            what = f"{text!a} cannot be read in this locale"
            fix = "Set one with UTF-8: LC_ALL=C.UTF-8."
            raise PlatformError("command line", what, fix) from None


class LiveInput:
    """An open file, pipe or terminal whose lines are processed as they arrive.

    Args:
        stream: A stream from which nothing has been read.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._descriptor = stream.fileno()
        self._buffer = bytearray()
        self._searched = 0  # leading bytes known to have no line end
        self._ended = False

    def readline(self, limit: int) -> bytes:
        """Return the next line with its line end, at most `limit` bytes; b"" at the end."""
        while (size := self._size_of_line(limit)) is None:
            self._read()
        line = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        return line

    def ready(self) -> bool:
        """Return whether the next line, or the end, can be read without waiting."""
        while self._size_of_line(sys.maxsize) is None:
            if not _can_read(self._descriptor):
                return False
            self._read()
        return True

    def _size_of_line(self, limit: int) -> int | None:
        """Return the length of the first line in the buffer; None if it is still incomplete."""
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
    """Return whether there are bytes, or the end, to read without waiting."""
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    except OSError:  # Windows supports only sockets
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
    """Formats log messages that may quote untrusted text: escaped, each on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format a message without its traceback; the record may go to several handlers."""
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Terminal:
    """Standard output on a terminal: control characters are escaped."""

    def __init__(self, stream: BinaryIO) -> None:
        self.flush, self._write = stream.flush, stream.write

    def write(self, data: bytes) -> int:
        self._write(escaped(data.decode("utf-8", "backslashreplace")))
        return len(data)


def escaped(text: str) -> bytes:
    """Escape control characters in lines of text, except tabs."""
    return re.sub(r"[^\n\t]+", lambda part: printable(part.group()), text).encode()


@contextlib.contextmanager
def output_stream(path: Path | None) -> Iterator[BinaryIO]:
    """Open standard output, or a file that appears complete or not at all, for bytes.

    Control characters are escaped on a terminal, and unchanged in a pipe or file.

    Raises:
        PlatformError: stdout is closed or full, or the file cannot be written.
    """
    if path is not None and (path.is_file() or not path.exists()):
        with RunDir(path.parent).stream(path.name) as file:
            yield file
        return
    if path is not None:  # a device or a pipe must not be replaced
        with explained(path), path.open("wb") as file:
            yield file
        return
    if sys.stdout is None:  # Python starts like this if stdout is closed, and would write nothing
        raise PlatformError("stdout", "is closed", "Redirect it, or use --output FILE.")
    with explained(Path("stdout")):
        try:
            terminal = sys.stdout.isatty()
            yield cast(BinaryIO, _Terminal(sys.stdout.buffer)) if terminal else sys.stdout.buffer
            sys.stdout.buffer.flush()
        except OSError:
            # Otherwise Python would flush again at exit, and exit with its own code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


def write_text(path: Path | None, text: str) -> None:
    """Write text as `output_stream` does, in UTF-8; control characters stay but on a terminal."""
    with output_stream(path) as file:
        file.write(text.encode())


def write_json(path: Path, values: object) -> None:
    """Write values for programs and for readers."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False))


def show(text: str) -> None:
    """Write text to standard output, in UTF-8 whatever the locale.

    Names, settings and texts of a run are untrusted: control characters are escaped.

    Raises:
        PlatformError: stdout is closed or full.
    """
    with output_stream(None) as output:
        output.write(escaped(f"{text}\n"))


def tell(text: str) -> None:
    """Write text to standard error; control characters are escaped."""
    sys.stderr.write(escaped(f"{text}\n").decode())
