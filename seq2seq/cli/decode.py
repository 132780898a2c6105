"""Translate lines of text with a trained run.

One line out for each line in, in order; an empty line gives an empty line. Typed or piped lines are
translated as they arrive.
"""

import argparse
import logging
from collections.abc import Sequence

from seq2seq.cli.console import (
    RUN,
    TARGET_LANGUAGE,
    add_attention_options,
    add_processes,
    input_stream,
    interrupt,
    option_parser,
    output_stream,
)
from seq2seq.data.text import FileSummary, scan_lines, scan_stream
from seq2seq.decoding.request import FORMS, Request
from seq2seq.decoding.request import parse as parse_request
from seq2seq.run.errors import DataError
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded

log = logging.getLogger("seq2seq.decode")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("run", type=run_paths, help=RUN)
    parser.add_argument("--input", type=expanded, help="text, plain, .gz or .xz (default: stdin)")
    parser.add_argument(
        "--input-format",
        choices=FORMS,
        default=FORMS[0],
        help="text: a sentence a line; tsv: after it, with tabs between, prefix=TEXT, "
        "required=WORD|FORM, forbidden=WORD, complete_last_word=true; jsonl: the same names in an "
        "object, the sentence being its source",
    )
    parser.add_argument("--output", type=expanded, help="whole or absent (default: stdout)")
    parser.add_argument(
        "--format",
        choices=("text", "nbest", "jsonl", "pharaoh", "npz"),
        default="text",
        help="text: the best translation; nbest: line number, score, text, one hypothesis a line; "
        "jsonl: tokens, scores, attention and end of every hypothesis, and flags of the first; "
        "pharaoh: links 0-0 1-2 of the best, source-target; npz: tokens and attention for NumPy",
    )
    parser.add_argument("--target-language", metavar="CODE", help=TARGET_LANGUAGE)
    add_processes(parser)
    add_attention_options(parser)
    parser.add_argument(
        "--on-bad-line",
        choices=("error", "empty"),
        default="error",
        help="a line that is not UTF-8, holds a NUL or is not of the input format ends everything, "
        "or gives an empty line and is counted on stderr",
    )
    parser.add_argument(
        "overrides", nargs="*", help="decode.beam_size=12, decode.n_best=5, device=cpu, ..."
    )
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
        stream, name = input_stream(), "stdin"
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
        drawn = RunDir(args.heatmaps), args.figure, args.level, model.config
        found = draw_along(found, *drawn)
    with output_stream(args.output) as output:
        write(output, found, args.format, args.level, model.flags, interrupt.held)
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
