"""Open a page on this machine on which to question a model.

Type a sentence and watch its translation and attention form. Point at a word to see what it attends
to, click on it to take another one, and see the rest change. Two runs stand side by side.
"""

import argparse
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing

from seq2seq.cli.console import TARGET_LANGUAGE, WORDS, option_parser, runs_and_overrides, show
from seq2seq.run.errors import PlatformError, UsageError
from seq2seq.run.requirements import check_extra

MOST_RUNS = 2


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    add = parser.add_argument
    add("words", nargs="+", metavar="RUN | KEY=VALUE", help=WORDS)
    add(
        "--host",
        default="127.0.0.1",
        help="address or name to serve at (default: 127.0.0.1, for this machine alone). Anybody "
        "who reaches another one can use the page",
    )
    add("--port", type=int, default=8014, help="port (default: 8014); 0 takes any that is free")
    add("--target-language", metavar="CODE", help=TARGET_LANGUAGE)
    args = parser.parse_intermixed_args(argv)
    args.runs, args.overrides = runs_and_overrides(args.words)
    if not 1 <= len(args.runs) <= MOST_RUNS:
        raise UsageError("play", f"{len(args.runs)} runs are named", "Give RUN, or two of them.")
    return args


def main(argv: Sequence[str]) -> None:
    """Load the runs, print the address of the page, and serve it until a signal."""
    args = parse(argv)
    check_extra("play", "play", ("starlette", "uvicorn"))
    listening = listen(args.host, args.port)
    from seq2seq.play.runs import player  # torch takes seconds; --help does not need it
    from seq2seq.play.server import application, server_of

    host, port, *_ = listening.getsockname()
    with ExitStack() as stack:
        players = [
            stack.enter_context(closing(player(run, args.overrides, args.target_language)))
            for run in args.runs
        ]
        show(f"play  http://{f'[{host}]' if ':' in host else host}:{port}/")
        server_of(application(players, args.host)).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: the port is not one.
        PlatformError: the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise UsageError("--port", f"{port} is not a port", "Use 0 to 65535.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        what = f"cannot serve at {host}:{port} ({error.strerror or error})"
        raise PlatformError("play", what, "Use another --port or --host.") from None
