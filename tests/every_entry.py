"""Run scripts one after another in this process, as in processes of their own: one start of python.

    python tests/every_entry.py JOBS

JOBS is a JSON file: [[script, arguments, stdin or null, stdout, stderr], ...], all paths. Prints
the exit codes. An implicit encoding in our own code is an error.
"""

import json
import os
import runpy
import sys
import warnings
from pathlib import Path

OURS = r"(seq2seq|__main__|train|decode|evaluate)\b"


def run(script: str, arguments: list[str]) -> int:
    # As python reads them in this locale.
    sys.argv = [script, *(os.fsdecode(text.encode()) for text in arguments)]
    try:
        sys.path.insert(0, str(Path(script).resolve().parent))  # as python does
        runpy.run_path(script, run_name="__main__")
    except SystemExit as exit_:
        return exit_.code or 0
    return 0


def main() -> None:
    warnings.filterwarnings("ignore", category=EncodingWarning)
    warnings.filterwarnings("error", category=EncodingWarning, module=OURS)
    codes = []
    said = os.dup(1)
    for script, arguments, *streams in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        for number, name in enumerate(streams):
            flags = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
            descriptor = os.open(name or os.devnull, flags, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        codes.append(run(script, arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    os.write(said, json.dumps(codes).encode())


if __name__ == "__main__":
    main()
