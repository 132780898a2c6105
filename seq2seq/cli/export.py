"""Write a trained model to a new directory, to publish it or to run it without this program.

model: for `load` and every command, with a model card. onnx: graphs for onnxruntime, with a
decoder of 40 lines. ctranslate2: Transformers for its engine.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from seq2seq.cli.console import RUN, option_parser, show
from seq2seq.run.errors import UsageError
from seq2seq.run.models import NamedRun, named_runs
from seq2seq.run.naming import expanded
from seq2seq.run.requirements import check_extra

FORMATS = ("model", "onnx", "ctranslate2")


def main(argv: Sequence[str]) -> None:
    """Write the directory and print its path."""
    parser = option_parser(__doc__)
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("out", type=expanded, metavar="OUT", help="directory to create")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--license", metavar="NAME", help="for the model card, such as apache-2.0")
    args = parser.parse_args(argv)
    [named, *others] = named_runs(args.run)
    if others:
        raise UsageError(args.run, "is an ensemble", "Export its runs one by one.")
    if args.out.exists():
        raise UsageError(str(args.out), "exists", "Name a new directory.")
    name = args.license
    if name is not None and args.format != "model":
        raise UsageError("--license", "is for a model card", "Use --format model.")
    if name is not None and not re.fullmatch(r"[\w.+-]+", name):
        raise UsageError("--license", f"{name!r} is not an identifier", "Use one like apache-2.0.")
    export(named, args.out, args.format, name)
    show(f"export  {args.out}")


def export(named: NamedRun, out: Path, form: str, license_name: str | None = None) -> None:
    """Write a model in a format of `FORMATS`."""
    packages = {"model": (), "onnx": ("onnx", "onnxscript")}.get(form, (form,))
    check_extra("export", "exporting", packages)
    from seq2seq.export import ctranslate2, model, onnx
    from seq2seq.export.bundle import Bundle
    from seq2seq.run.directory import RunDir

    with RunDir(out.parent).replace_tree(out.name) as directory:
        if form == "model":
            model.save(named, directory, license_name)
        elif form == "onnx":
            onnx.save(Bundle(named), directory)
        else:
            ctranslate2.save(Bundle(named), directory)
