"""Whole checkpoints: weights, optimizer, average and progress, verified when read.

Tensors are safetensors, the rest is JSON; nothing that is read can run code. A checkpoint also
holds the config, and sums of the vocabularies and the data that it was trained with: it serves no
run in which they are others.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from seq2seq.config import MAX_NUMBER
from seq2seq.errors import PlatformError, RunDirError
from seq2seq.plain_yaml import MAX_CONFIG_BYTES, read_plain_yaml
from seq2seq.reading import (
    entry_of_file,
    parse_json,
    read_bytes,
    read_folder,
    read_manifest,
    read_sealed,
    seal,
    verify_folder,
)
from seq2seq.run import RunDir, readable
from seq2seq.training.averaging import WeightAverage
from seq2seq.training.tensors import unpack

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
BEST = f"{FOLDER}/best.json"
CONFIG = "config.yaml"
ORIGINS = ("data_report.json", "tokenizers/source.*", "tokenizers/target.*")
"""What the weights depend on besides the config."""
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
    explosions: int = 0
    """Updates in a row, up to now, whose gradient exploded."""
    updates_in_parts: int = 0
    """Updates for which memory did not suffice in one go. From the first on the run is not exact:
    another machine would have drawn other dropout."""
    metrics_bytes: int = 0
    """Size of metrics.jsonl; a resumed run cuts what was written after."""
    window_updates: int = 0
    """Updates since the last line of the log; with them, sums over these updates."""
    window_nll: float = 0.0
    window_words: int = 0
    window_grad_norm: float = 0.0
    window_clipped: int = 0
    window_exploded: int = 0
    window_seconds: float = 0.0
    window_waited_seconds: float = 0.0
    window_tokens: int = 0
    window_cells: int = 0


@dataclass
class TrainingState:
    """Everything that an update reads or changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    progress: Progress


def save(run: RunDir, state: TrainingState) -> Path:
    """Write a checkpoint; when this returns it is on disk, whole.

    Raises:
        PlatformError: it could not be written; those before it are untouched.
    """
    files = {
        "model.safetensors": _pack(dict(state.model.named_parameters())),
        "optimizer.safetensors": _pack(_optimizer_tensors(state)),
        "state.json": _json_bytes(asdict(state.progress)),
        CONFIG: read_bytes(run.path(CONFIG), MAX_CONFIG_BYTES),
    }
    if state.average is not None:
        files["average.safetensors"] = _pack(state.average.weights)
    update = state.progress.update
    try:
        return run.commit_folder(_name(update), files, about={"update": update, **origins(run)})
    except PlatformError as error:
        good = next((step for step in reversed(steps(run)) if step != update), None)
        last = f"last good: update {good}" if good is not None else "there was none before"
        size = readable(sum(map(len, files.values())))
        what = f"{error.what} while saving update {update} (needs about {size}); {last}"
        raise PlatformError(error.where, what, error.fix) from error


def origins(run: RunDir) -> dict[str, str]:
    """Return the SHA-256 of the files of a run that its weights depend on."""
    paths = sorted(path for pattern in ORIGINS for path in run.root.glob(pattern))
    return {path.relative_to(run.root).as_posix(): entry_of_file(path)["sha256"] for path in paths}


def mark_best(run: RunDir, progress: Progress, metric: str) -> None:
    """Record which checkpoint is the best so far."""
    found = {"step": progress.best_update, "metric": metric, "value": progress.best_score}
    run.write_json(BEST, seal(found))


def prune(run: RunDir, keep: int) -> None:
    """Delete old checkpoints; the newest `keep` and the best stay.

    Only after those to keep have been read back: a disk that lied must not cost the last good one.
    """
    best = best_step(run)
    old = [step for step in steps(run)[:-keep] if step != best]
    damaged = [step for step in steps(run)[-keep:] if old and not run.is_good(_name(step))]
    for step in damaged:
        log.warning("%s is damaged; older checkpoints are kept", run.path(_name(step)))
    for step in old if not damaged else []:
        try:
            run.remove_folder(_name(step))
        except PlatformError as error:
            log.warning("%s could not be deleted (%s); going on", error.where, error.what)


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
    try:
        step = read_sealed(run.path(BEST)).get("step")
    except RunDirError as error:
        log.warning("%s is damaged (%s)", error.where, error.what)
        return None
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
            f"Restore one from a copy. To train again from the start: rm -r {run.path(FOLDER)}",
        )
    return None


def load(run: RunDir, path: Path, state: TrainingState) -> None:
    """Put a checkpoint into a state that was built from the same config.

    Raises:
        RunDirError: it is not of this run, or does not fit the model.
    """
    files = read_folder(path, _most(state.model))
    check_origins(run, path, files)
    _fill(dict(state.model.named_parameters()), _unpack(path, files, "model.safetensors"), path)
    if state.average is not None:
        _fill(state.average.weights, _unpack(path, files, "average.safetensors"), path)
    _load_optimizer(state, _unpack(path, files, "optimizer.safetensors"), path)
    _load_progress(state.progress, files, path / "state.json")


def _load_progress(progress: Progress, files: Mapping[str, bytes], where: Path) -> None:
    saved = parse_json(files.get("state.json", b""), where)
    for field in fields(Progress):
        value = saved.get(field.name, field.default)  # older formats know fewer
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
        empty = value is None and field.default is None
        whole = isinstance(field.default, int)
        fits = not whole or (isinstance(value, int) and 0 <= value <= MAX_NUMBER)
        if not ((number and fits) or empty):
            raise RunDirError(where, f"{field.name} is {value!r}", "Restore it from a copy.")
        setattr(progress, field.name, value)


def check_origins(run: RunDir, path: Path, files: Mapping[str, bytes]) -> None:
    """Refuse to use a checkpoint with other settings, vocabularies or data than it was made with.

    Raises:
        RunDirError: the first difference, by key or by file.
    """
    about = read_manifest(path).get("about", {})
    if (update := about.get("update", step_of(path))) != step_of(path):
        raise RunDirError(path, f"is of update {update}", "Restore the folder's name.")
    if CONFIG in files and files[CONFIG] != read_bytes(run.path(CONFIG), MAX_CONFIG_BYTES):
        raise RunDirError(
            run.path(CONFIG),
            _difference(read_plain_yaml(path / CONFIG), read_plain_yaml(run.path(CONFIG))),
            f"Copy {path / CONFIG} back; what may change goes on the command line.",
        )
    for name, digest in origins(run).items():
        if about.get(name, digest) != digest:
            raise RunDirError(
                run.path(name),
                "SHA-256 differs from the one this model was trained with",
                "Restore it from a copy.",
            )


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    before, now = dict(_leaves(old)), dict(_leaves(new))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            return f"{key} is {now.get(key)!r}, this model was trained with {before.get(key)!r}"
    return "is not the file that this model was trained with"


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix.removesuffix("."), value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{prefix}{key}.")


def load_weights(run: RunDir, model: nn.Module) -> int:
    """Fill a model with the weights to decode with; return their update.

    A model on the meta device, an outline, gets memory when the weights have been seen to fit.

    Raises:
        RunDirError: there is no checkpoint, or none that is whole and fits.
    """
    path, name = best_weights(run)
    files = read_folder(path, _most(model))
    check_origins(run, path, files)
    tensors = _unpack(path, files, name)
    _check_shapes({key: p.shape for key, p in model.named_parameters()}, tensors, path)
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device="cpu")
    _fill(dict(model.named_parameters()), tensors, path)
    return step_of(path)


def check_size(run: RunDir, model: nn.Module) -> None:
    """See from sizes alone that the checkpoints of a run may be those of a model.

    Raises:
        RunDirError: there are some, and all are too small: building it would be in vain.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    files = [run.path(_name(step)) / "model.safetensors" for step in steps(run)]
    if files and all(not path.is_file() or path.stat().st_size < size for path in files):
        what = f"no checkpoint has the {readable(size)} of the model in {CONFIG}"
        raise RunDirError(run.path(FOLDER), what, "Restore the folder.")


def best_weights(run: RunDir) -> tuple[Path, str]:
    """Return the checkpoint to decode with and its file of weights: averaged ones if there are.

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
    names = read_manifest(path)["files"]
    return path, "average.safetensors" if "average.safetensors" in names else "model.safetensors"


def folder_of(run: RunDir, step: int) -> Path:
    """Return the place of the checkpoint of an update."""
    return run.path(_name(step))


def step_of(path: Path) -> int:
    """Return the update of a checkpoint folder."""
    return int(path.name.removeprefix("step-"))


def _most(model: nn.Module) -> int:
    """Bytes of a checkpoint: weights, their average, up to three numbers for each, and texts."""
    return 5 * sum(p.numel() * p.element_size() for p in model.parameters()) + (1 << 22)


def _name(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"


def _pack(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in tensors.items()})


def _unpack(path: Path, files: dict[str, bytes], name: str) -> dict[str, Tensor]:
    if name not in files:
        raise RunDirError(path / name, "missing", "Restore it from a copy.")
    return unpack(files[name], path / name)


@torch.no_grad()
def _fill(own: dict[str, Tensor], saved: dict[str, Tensor], path: Path) -> None:
    """Copy saved tensors into place; names and shapes must agree."""
    _check_shapes({name: tensor.shape for name, tensor in own.items()}, saved, path)
    for name, tensor in own.items():
        if saved[name].dtype != tensor.dtype:
            what = f"tensor {name} is {saved[name].dtype}, expected {tensor.dtype}"
            raise RunDirError(path, what, "Restore the folder.")
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
