"""Write a trained model to a new directory, to run it without this program.

onnx: graphs for onnxruntime, with a decoder of 50 lines. ctranslate2: Transformers for its engine.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from seq2seq.cli.console import option_parser, show
from seq2seq.run.errors import PlatformError, UsageError
from seq2seq.run.naming import NamedRun, named_runs

FORMATS = ("onnx", "ctranslate2")
RUN = "run directory, as train.py prints it; RUN@last, RUN@last5: other weights than the best"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("run", help=RUN)
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to make")
    parser.add_argument("--format", choices=FORMATS, required=True)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Write the directory and print its path."""
    args = parse(argv)
    [named, *others] = named_runs(args.run)
    if others:
        raise UsageError(args.run, "is an ensemble", "Export its runs one by one.")
    if args.out.exists():
        raise UsageError(str(args.out), "exists", "Name a new directory.")
    export(named, args.out, args.format)
    show(f"export  {args.out}")


def export(named: NamedRun, out: Path, form: str) -> None:
    """Write a model in the format of another program."""
    from importlib.metadata import PackageNotFoundError, version

    for package in ("onnx", "onnxscript") if form == "onnx" else (form,):
        try:
            version(package)
        except PackageNotFoundError:
            fix = "Install what exporting needs: pip install 'rnnsearch-seq2seq[export]'."
            raise PlatformError(package, "is not installed", fix) from None
    from seq2seq.export import ctranslate2, onnx
    from seq2seq.export.bundle import Bundle
    from seq2seq.run.directory import RunDir

    save = onnx.save if form == "onnx" else ctranslate2.save
    bundle = Bundle(named)
    with RunDir(out.parent).replace_tree(out.name) as directory:
        save(bundle, directory)
