"""Translate lines of text with a trained run.

Writes one line for each line read, in order; an empty line gives an empty line. Typed or piped
lines are translated as they arrive.
"""

import argparse
import logging
from collections.abc import Sequence

from seq2seq.cli import console
from seq2seq.data.text import FileSummary, scan_lines, scan_stream
from seq2seq.decoding.request import FORMS, Request
from seq2seq.decoding.request import parse as parse_request
from seq2seq.run.errors import DataError
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded

log = logging.getLogger("seq2seq.decode")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = console.option_parser(__doc__)
    add = parser.add_argument
    # What is translated, and what is written.
    add("run", type=run_paths, metavar="RUN", help=console.RUN)
    add("--input", type=expanded, help="text, plain, .gz or .xz (default: stdin)")
    add(
        "--input-format",
        choices=FORMS,
        default=FORMS[0],
        help="text: one sentence per line; tsv: a sentence, then any of prefix=TEXT, "
        "required=WORD|FORM, forbidden=WORD, complete_last_word=true, separated by tabs; jsonl: an "
        "object with source and the same names",
    )
    add("--output", type=expanded, help=console.OUTPUT)
    add(
        "--format",
        choices=("text", "nbest", "jsonl", "pharaoh", "npz"),
        default="text",
        help="text: the best translation; nbest: line number, score and text of each hypothesis; "
        "jsonl: tokens, scores and attention of each hypothesis, and flags of the first; pharaoh: "
        "word links of the best, source-target, such as 0-0 1-2; npz: tokens and attention for "
        "NumPy",
    )
    add("--target-language", metavar="CODE", help=console.TARGET_LANGUAGE)
    # How.
    console.add_processes(parser)
    console.add_attention_options(parser)
    add(
        "--on-bad-line",
        choices=("error", "empty"),
        default="error",
        help="at a line that is not UTF-8, has a NUL or does not fit the input format: stop, or "
        "write an empty line and count it on stderr",
    )
    add("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as decode.beam_size=12")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Translate."""
    args = parse(argv)
    import seq2seq  # torch takes seconds; --help does not need it
    from seq2seq.decoding.chunks import always
    from seq2seq.decoding.formats import draw_along, write
    from seq2seq.run.directory import RunDir

    model = seq2seq.load(args.run, args.overrides)
    # Read lines from a file, or as they are typed or piped in.
    bad = BadLines(args.on_bad_line)
    languages = [source for source, _ in model.config.data.directions]
    if args.input is None:
        stream, name = console.input_stream(), "stdin"
        lines = scan_stream(stream, name, FileSummary(name, languages=languages))
        ready = stream.ready
    else:
        name = str(args.input)
        summary = FileSummary(args.input.name, languages=languages)
        lines, ready = scan_lines(args.input, summary), always
    form, numbered = args.input_format, enumerate(lines, start=1)
    requests = (
        parse_request(line, form, f"{name}:{number}") if isinstance(line, str) else line
        for number, line in numbered
    )
    found = model.stream(
        map(bad.request_of, requests),
        ready,
        maps=args.format == "npz",
        target_language=args.target_language,
        processes=args.processes,
    )
    # Draw and write translations one by one, as they are finished.
    if args.heatmaps:
        found = draw_along(found, RunDir(args.heatmaps), args.figure, args.level, model.config)
    with console.output_stream(args.output) as output:
        write(output, found, args.format, args.level, model.flags, console.interrupt.held)
    if bad.first is not None:
        first = f"{bad.first.where}: {bad.first.what}"
        log.warning("%d bad lines gave empty ones; the first is %s", bad.count, first)


class BadLines:
    """Handles unreadable lines: an error, or an empty line each, counted."""

    def __init__(self, on_bad_line: str) -> None:
        self.on_bad_line = on_bad_line
        self.count = 0
        self.first: DataError | None = None

    def request_of(self, line: Request | DataError) -> Request | str:
        """Return a request, or the empty line that replaces an unreadable one."""
        if not isinstance(line, DataError):
            return line
        if self.on_bad_line == "error":
            raise line
        self.count += 1
        self.first = self.first or line
        return ""
