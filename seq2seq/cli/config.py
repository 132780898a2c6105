"""Print the settings of a run as YAML, defaults and those of older versions included.

With --diff, prints only what differs from the defaults, as words for a command line.
"""

import shlex
from collections.abc import Sequence

from seq2seq.cli.console import RUN_OR_MODEL, option_parser, show
from seq2seq.run.models import run_directory
from seq2seq.run.naming import CONFIG, assignment


def main(argv: Sequence[str]) -> None:
    """Print."""
    parser = option_parser(__doc__)
    parser.add_argument("run", type=run_directory, metavar="RUN", help=RUN_OR_MODEL)
    parser.add_argument("--diff", action="store_true", help="only what differs from the defaults")
    args = parser.parse_args(argv)
    from seq2seq.config.compose import changed, load_run_config, to_yaml
    from seq2seq.run.directory import RunDir

    config = load_run_config(RunDir.open(args.run).checked(CONFIG))
    if not args.diff:
        show(to_yaml(config).rstrip())
        return
    words = (assignment(key, value) for key, value in changed(config).items())
    show("\n".join(map(shlex.quote, words)))
