"""Download a public corpus and check every file; without a name, list what there is.

Files already there and intact are kept, so that an interrupted download can be continued.
"""

from collections.abc import Sequence
from pathlib import Path

from seq2seq.cli.console import option_parser, show, table
from seq2seq.data.fetch import corpora, fetch
from seq2seq.run.naming import assignment, command, expanded


def main(argv: Sequence[str]) -> None:
    """Download and say how to train on it, or list."""
    parser = option_parser(__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the corpus")
    text = "where to put the files (default: data/NAME)"
    parser.add_argument("directory", nargs="?", type=expanded, metavar="DIRECTORY", help=text)
    parser.add_argument("--mirror", metavar="URL", help="download from here instead")
    args = parser.parse_args(argv)
    if args.name is None:
        rows = [
            [name, f"{corpus.size / 1e6:.1f} MB", corpus.licence, corpus.about]
            for name, corpus in corpora().items()
        ]
        show(table(rows, ["name", "size", "licence", ""], "lrl"))
        return
    directory = args.directory or Path("data") / args.name
    corpus = fetch(args.name, directory, args.mirror)
    words = [*corpus.use.split(), assignment("data.root", directory)]
    show(f"{directory}: {len(corpus.files)} files, licence {corpus.licence}")
    show(f"train on it with  {command('train', *words)}")
