"""Whole checkpoints: weights, optimizer, average and progress, verified when read.

Tensors are safetensors, the rest is JSON; nothing that is read can run code.
"""

import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from seq2seq.errors import RunDirError
from seq2seq.reading import read_folder, read_json, verify_folder
from seq2seq.run import RunDir
from seq2seq.training.averaging import WeightAverage

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
BEST = f"{FOLDER}/best.json"
_STEP = re.compile(r"step-(\d{8})")


@dataclass
class Progress:
    """Where training stands. Random draws need no saving: they follow from seed and update."""

    update: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""
    words: int = 0
    """Target tokens seen, end symbols included."""
    seconds: float = 0.0
    """Time spent in updates, over all restarts."""
    validated: int = 0
    """The update of the last validation."""
    best_update: int = 0
    best_score: float | None = None
    """Higher is better: BLEU, or minus the loss."""
    waiting: int = 0
    """Validations since the best one."""
    reductions: int = 0
    """Times that a plateau lowered the rate."""
    plateau_waiting: int = 0
    metrics_bytes: int = 0
    """Size of metrics.jsonl; a resumed run cuts what was written after."""


@dataclass
class TrainingState:
    """Everything that an update reads or changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    progress: Progress


def save(run: RunDir, state: TrainingState) -> Path:
    """Write a checkpoint; when this returns it is on disk, whole."""
    files = {
        "model.safetensors": _pack(dict(state.model.named_parameters())),
        "optimizer.safetensors": _pack(_optimizer_tensors(state)),
        "state.json": _json_bytes(asdict(state.progress)),
    }
    if state.average is not None:
        files["average.safetensors"] = _pack(state.average.weights)
    return run.commit_folder(_name(state.progress.update), files)


def mark_best(run: RunDir, progress: Progress, metric: str) -> None:
    """Record which checkpoint is the best so far."""
    found = {"step": progress.best_update, "metric": metric, "value": progress.best_score}
    run.write_json(BEST, found)


def prune(run: RunDir, keep: int) -> None:
    """Delete old checkpoints; the newest `keep` and the best stay."""
    best = best_step(run)
    for step in steps(run)[:-keep]:
        if step != best:
            run.remove_folder(_name(step))


def steps(run: RunDir) -> list[int]:
    """Return the updates at which there are checkpoints, oldest first."""
    folder = run.path(FOLDER)
    if not folder.is_dir():
        return []
    found = (_STEP.fullmatch(path.name) for path in folder.iterdir() if not path.is_symlink())
    return sorted(int(match.group(1)) for match in found if match)


def best_step(run: RunDir) -> int | None:
    """Return the update of the best checkpoint, if one is recorded."""
    if not run.path(BEST).exists():
        return None
    step = read_json(run.path(BEST)).get("step")
    return step if isinstance(step, int) else None


def newest(run: RunDir) -> Path | None:
    """Return the newest checkpoint that verifies; a damaged one is named and passed over.

    Raises:
        RunDirError: there are checkpoints, and all are damaged. Never starts afresh.
    """
    found = steps(run)
    for step in reversed(found):
        path = run.path(_name(step))
        problem = verify_folder(path)
        if problem is None:
            return path
        log.warning("%s is damaged (%s); using an older checkpoint", path, problem)
    if found:
        raise RunDirError(
            run.path(FOLDER),
            f"all {len(found)} checkpoints are damaged",
            "Restore one from a copy; to start over, use a new run directory.",
        )
    return None


def load(path: Path, state: TrainingState) -> None:
    """Put a checkpoint into a state that was built from the same config."""
    files = read_folder(path)
    _fill(dict(state.model.named_parameters()), _unpack(path, files, "model.safetensors"), path)
    if state.average is not None:
        _fill(state.average.weights, _unpack(path, files, "average.safetensors"), path)
    _load_optimizer(state, _unpack(path, files, "optimizer.safetensors"), path)
    saved = json.loads(files["state.json"])
    for key in asdict(state.progress).keys() & saved.keys():
        setattr(state.progress, key, saved[key])


def load_weights(run: RunDir, model: nn.Module) -> int:
    """Fill a model with the best weights of a run, averaged ones if there are; return the update.

    Without a usable best checkpoint the newest one serves, with a warning.
    """
    best = best_step(run)
    path = run.path(_name(best)) if best is not None else None
    if path is None or verify_folder(path) is not None:
        fallback = newest(run)
        if fallback is None:
            raise RunDirError(run.root, "holds no checkpoint", "Train it first.")
        if path is not None:
            log.warning("%s cannot be read; using %s", path, fallback)
        path = fallback
    files = read_folder(path)
    name = "average.safetensors" if "average.safetensors" in files else "model.safetensors"
    _fill(dict(model.named_parameters()), _unpack(path, files, name), path)
    return int(path.name.removeprefix("step-"))


def _name(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"


def _pack(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in tensors.items()})


def _unpack(path: Path, files: dict[str, bytes], name: str) -> dict[str, Tensor]:
    if name not in files:
        raise RunDirError(path / name, "missing", "Restore it from a copy.")
    try:
        return safetensors.torch.load(files[name])
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise RunDirError(path / name, f"unreadable ({error})", "Restore it from a copy.") from None


@torch.no_grad()
def _fill(own: dict[str, Tensor], saved: dict[str, Tensor], path: Path) -> None:
    """Copy saved tensors into place; names and shapes must agree."""
    _check_shapes({name: tensor.shape for name, tensor in own.items()}, saved, path)
    for name, tensor in own.items():
        tensor.copy_(saved[name])


def _check_shapes(expected: dict[str, torch.Size], saved: dict[str, Tensor], path: Path) -> None:
    for name in sorted(expected.keys() ^ saved.keys()):
        side = "missing from" if name in expected else "unknown in"
        raise RunDirError(path, f"tensor {name} is {side} the checkpoint", "Restore the folder.")
    for name, shape in expected.items():
        if saved[name].shape != shape:
            shapes = f"{tuple(saved[name].shape)}, expected {tuple(shape)}"
            raise RunDirError(path, f"tensor {name} is {shapes}", "Restore the folder.")


def _optimizer_tensors(state: TrainingState) -> dict[str, Tensor]:
    names = [name for name, _ in state.model.named_parameters()]
    saved = state.optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{key}": torch.as_tensor(value)
        for index, values in saved.items()
        for key, value in values.items()
    }


def _load_optimizer(state: TrainingState, tensors: dict[str, Tensor], path: Path) -> None:
    parameters = dict(state.model.named_parameters())
    kinds = {full_name.rsplit("/", 1)[-1] for full_name in tensors}  # step, and one or two moments
    shapes = {
        f"{name}/{kind}": torch.Size() if kind == "step" else parameter.shape
        for name, parameter in parameters.items()
        for kind in kinds
    }
    _check_shapes(shapes, tensors, path)
    index = {name: i for i, name in enumerate(parameters)}
    values: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit("/", 1)
        values.setdefault(index[name], {})[key] = tensor
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": values, "param_groups": groups})


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False).encode()
