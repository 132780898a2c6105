"""Records in `run.json` what a result depends on besides config and data.

It has no host name, environment or directory of the machine: only `config.yaml` has the paths as
typed, because a resumed run needs them.
"""

import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seq2seq.config.schema import Config, CorpusConfig, DataConfig
from seq2seq.run.checksums import read_checksummed, with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import printable
from seq2seq.run.reading import expected

RECORD, FORMAT = "run.json", 2
"""Runs since format 2 have checksums of their results in `checksums.json`."""
PACKAGES = ("torch", "sentencepiece", "sacremoses", "sacrebleu", "datasets", "numpy")
_MEANING = {"processes": " (the same batches and draws; sums are rounded in another order)"}
_DIRECTORIES = re.compile(
    r"""(?<![^\s=:,\['"])"""
    r"""(?:(?:~[^/\s]*)?/(?:[^/,\]'"\n]*/)*|(?:[A-Za-z]:|\\)[\\/](?:[^\\/,\]'"\n]*[\\/])*)"""
)
"""A path from the root, a home, a Windows drive or host, up to the last slash."""


def provenance(cfg: Config, command: list[str] | None = None, processes: int = 1) -> dict[str, Any]:
    """Return versions, threads, device and command of this process, one of several."""
    import torch

    import seq2seq
    from seq2seq.decoding.pretrained import pick_device

    return {
        "format": FORMAT,
        "seq2seq": seq2seq.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": {name: version(name) for name in PACKAGES},
        "processes": processes,
        "threads": cfg.threads if cfg.threads is not None else torch.get_num_threads(),
        "device": pick_device(cfg.device).type,
        "steps": _steps(),
        "draws": "keyed",
        # Absolute paths in it are shortened to their last part.
        "command": command or [Path(sys.argv[0]).name, *map(without_directories, sys.argv[1:])],
    }


def commit(module: Path) -> str | None:
    """Return the commit of the Git checkout of a module, with `-dirty` if it has changes.

    None for an installed package, or without Git.
    """
    git = ["git", "-C", str(module.parent)]
    answers = []
    # A module that Git does not track may be inside an unrelated checkout.
    asked = (["ls-files", "--error-unmatch", module.name], ["rev-parse", "HEAD"])
    for words in (*asked, ["status", "--porcelain", "--untracked-files=no"]):
        try:
            answer = subprocess.run([*git, *words], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        answers.append(answer.stdout.decode("utf-8", "replace").strip())
    return answers[1] + ("-dirty" if answers[2] else "")


def _steps() -> str:
    """Return what runs recurrent steps on a CPU: the native library with its compiler, or torch."""
    try:
        from seq2seq.kernels import native
    except ImportError:  # the kernels are optional
        return "torch"
    return native.name()


def record(run: RunDir, found: dict[str, Any]) -> None:
    """Write `run.json` of a new run."""
    import seq2seq

    found = found | {"commit": commit(Path(seq2seq.__file__)), "restarts": []}
    run.write_json(RECORD, with_checksum(found))
    run.record(RECORD)


def note_restart(run: RunDir, cfg: Config, processes: int = 1) -> list[str]:
    """Return how this process differs from the last one of a run, and record it if it does.

    Only what can change the last bit of a sum is compared.

    Raises:
        RunDirError: the record is damaged.
    """
    # Compare the last start with this one.
    path = run.path(RECORD)
    kept = read_checksummed(path)
    now = provenance(cfg, processes=processes)
    with expected(path):
        last = ([*kept["restarts"]] or [kept])[-1]
        differences = [
            printable(f"{name} {before} -> {after}{_MEANING.get(name, '')}")
            for name, before, after in (
                ("torch", last["packages"]["torch"], now["packages"]["torch"]),
                ("processes", last.get("processes", 1), now["processes"]),
                ("threads", last["threads"], now["threads"]),
                ("device", last["device"], now["device"]),
                ("steps", last.get("steps", "torch"), now["steps"]),
                # 0.1.0 seeded a generator for each update.
                ("random draws", last.get("draws", "in turn"), now["draws"]),
            )
            if before != after
        ]
    # Keep the record of the first start; append each that differs.
    if differences:
        restart = now | {"differences": differences}
        run.write_json(RECORD, with_checksum(kept | {"restarts": [*kept["restarts"], restart]}))
        run.record(RECORD)
    return differences


def without_directories(text: str) -> str:
    """Shorten every absolute path in a text to its last part: `data.root=.../corpus`."""
    return _DIRECTORIES.sub(".../", text)


def without_paths(cfg: Config) -> Config:
    """Return a config with file names only, without their directories."""
    data = replace(
        cfg.data,
        root=without_directories(cfg.data.root),
        links=_short(cfg.data.links),
        prepared=_short(cfg.data.prepared),
        corpora=[replace(corpus, **_files(corpus)) for corpus in cfg.data.corpora],
        **_files(cfg.data),
    )
    evaluate = replace(cfg.evaluate, heatmap_font=_short(cfg.evaluate.heatmap_font))
    init = replace(
        cfg.init,
        run=_short(cfg.init.run),
        source_vectors=_short(cfg.init.source_vectors),
        target_vectors=_short(cfg.init.target_vectors),
    )
    return replace(cfg, data=data, evaluate=evaluate, init=init)


def _files(corpus: DataConfig | CorpusConfig) -> dict[str, Any]:
    splits = ("train", "validation", "test")
    return {x: [without_directories(name) for name in getattr(corpus, x)] for x in splits}


def _short(path: str | None) -> str | None:
    return path and without_directories(path)
