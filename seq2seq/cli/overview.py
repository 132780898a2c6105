"""The options of `seq2seq` itself: --help, --version and shell completion."""

import difflib
import shlex
from collections.abc import Iterable, Sequence

from seq2seq.cli import COMMANDS
from seq2seq.cli.console import show
from seq2seq.run.errors import UsageError
from seq2seq.run.naming import LATEST, OUTPUTS, runs_below

SHELLS = {
    "bash": """\
_seq2seq() {
    mapfile -t COMPREPLY < <(seq2seq --complete "${COMP_LINE:0:COMP_POINT}")
    [[ ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace
}
complete -o default -F _seq2seq seq2seq""",
    "zsh": """\
_seq2seq() {
    local -a found=("${(@f)$(seq2seq --complete "${(j: :)words[1,CURRENT]}")}")
    [[ -n $found ]] && compadd -a found || _files
}
compdef _seq2seq seq2seq""",
    "fish": "complete -c seq2seq -a '(seq2seq --complete (commandline -cp))'",
}
"""Scripts that complete a command line with what `seq2seq --complete LINE` prints."""


def main(argv: Sequence[str]) -> None:
    """Show what is asked for."""
    option, *rest = argv
    if option in ("-h", "--help"):
        show(overview())
    elif option == "--version":
        from seq2seq import __version__

        show(__version__)
    elif option == "--completion":
        if rest not in [[name] for name in SHELLS]:
            raise UsageError(option, "needs a shell", f"Name one: {', '.join(SHELLS)}.")
        show(SHELLS[rest[0]])
    elif option == "--complete":
        show("\n".join(completions(*rest)))
    else:
        near = difflib.get_close_matches(option, COMMANDS, n=1)
        fix = f"Did you mean {near[0]}?" if near else "See seq2seq --help."
        raise UsageError("seq2seq", f"unknown command {option!r}", fix)


def overview() -> str:
    """Return the help of the whole command."""
    from seq2seq import __doc__ as title

    commands = "\n".join(f"  {name:10}{what}" for name, (_, what) in COMMANDS.items())
    return f"""\
{(title or "").splitlines()[0]}

usage: seq2seq COMMAND [ARGUMENTS]

{commands}

  seq2seq train +experiment=quickstart     a first run, in minutes
  seq2seq COMMAND --help                   the arguments of a command
  seq2seq --completion bash|zsh|fish       a script for the shell: eval "$(...)"
  seq2seq --version

A RUN is a directory, the NAME of a run in outputs/NAME, or latest."""


def completions(line: str) -> list[str]:
    """Return the words that can end a command line, without what the shell keeps of them.

    Bash replaces what follows the last `=` of a word, and so do the scripts for other shells.
    """
    try:
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    except ValueError:  # an open quotation mark
        return []
    begun, before = words[-1], words[1:-1]
    if not before:
        return _beginning(begun, COMMANDS)
    if before[0] != "train":
        return _beginning(begun, [LATEST, *_run_names()])
    key, equals, value = begun.partition("=")
    if not equals:
        return _beginning(begun, ["+experiment=", "resume=", "run_dir="])
    if key == "+experiment":
        from seq2seq.config.compose import CONFIGS

        return _beginning(value, sorted(f.stem for f in CONFIGS.glob("experiment/*.yaml")))
    return _beginning(value, [LATEST, *_run_names()] if key == "resume" else [])


def _run_names() -> list[str]:
    return sorted({run.relative_to(OUTPUTS).parts[0] for run in runs_below(OUTPUTS)})


def _beginning(start: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(start)]
