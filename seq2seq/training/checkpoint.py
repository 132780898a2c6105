"""Saves and loads checkpoints: weights, optimizer, average and progress, verified when read.

Tensors are safetensors, the rest is JSON; nothing that is read can run code. A checkpoint also
holds the config, and checksums of the vocabularies and the data that it was trained with: a run
in which these differ refuses it.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from seq2seq.config.compose import MAX_NUMBER
from seq2seq.run import checksums
from seq2seq.run.checkpoints import BEST, DIRECTORY, best_update, directory_of, update_of, updates
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import PlatformError, RunDirError
from seq2seq.run.jsonable import from_json, to_json
from seq2seq.run.naming import CONFIG
from seq2seq.run.plain_yaml import MAX_CONFIG_BYTES
from seq2seq.run.progress import tqdm
from seq2seq.run.reading import RESTORE, parse_json, read_bytes
from seq2seq.training.averaging import WeightAverage

log = logging.getLogger(__name__)

MODEL, AVERAGE = "model.safetensors", "average.safetensors"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
ORIGINS = ("data_report.json", "tokenizers/source.*", "tokenizers/target.*")
"""The files that the weights depend on, besides the config."""


@dataclass
class Progress:
    """The progress of training. Random draws need no state: they are functions of their keys."""

    update: int = 0
    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    words: int = 0  # target tokens seen, end symbols included
    seconds: float = 0.0  # spent in updates, over all restarts
    validated: int = 0  # the update of the last validation
    best_update: int = 0
    best_score: float | None = None  # higher is better: BLEU, 100 - error rate, minus the loss
    waiting: int = 0  # validations since the best one
    reductions: int = 0  # times a plateau lowered the rate
    plateau_waiting: int = 0
    explosions: int = 0  # latest updates in a row whose gradient exploded
    # Updates computed in more parts than asked for, because memory ran out. From the first one on
    # the run is not exact: sums are rounded differently.
    updates_in_parts: int = 0
    metrics_bytes: int = 0  # size of metrics.jsonl; a resumed run cuts off later lines
    window_updates: int = 0  # since the last log line; the fields below sum over these updates
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


# Which checkpoints there are ----------------------------------------------------------------------


def newest(run: RunDir) -> Path | None:
    """Return the newest checkpoint that verifies; warn about damaged ones and skip them.

    Raises:
        RunDirError: all checkpoints are damaged; training must not silently start afresh.
    """
    found = updates(run)
    for update in reversed(found):
        path = directory_of(run, update)
        if (problem := checksums.verify_directory(path)) is None:
            return path
        log.warning("%s is damaged (%s); using an older checkpoint", path, problem)
    if found:
        raise RunDirError(
            run.path(DIRECTORY),
            f"all {len(found)} checkpoints are damaged",
            f"Restore one from a copy. To train again from the start: rm -r {run.path(DIRECTORY)}",
        )
    return None


def selected(run: RunDir, selector: str) -> list[int]:
    """Return the updates of the checkpoints that a selector names, oldest first.

    It is `best`, `last`, `last5` for the newest five, or `update-12000`.

    Raises:
        RunDirError: the run has no checkpoints, not this one, or too few.
    """
    found, where = updates(run), f"{run.root}@{selector}"
    if not found:
        raise RunDirError(run.root, "holds no checkpoint", "Train it first.")
    named = {"best": best_update(run), "last": found[-1]}
    named |= {f"update-{update}": update for update in found}
    names = [name for name, update in named.items() if update in found]
    fix = f"It has: {', '.join(names)}."
    if newest := re.fullmatch(r"last([1-9]\d{0,8})", selector):
        count = int(newest[1])
        if count > len(found):
            what = f"asks for {count} checkpoints, the run has {len(found)}"
            raise RunDirError(where, what, f"{fix} trainer.keep_checkpoints keeps more.")
        return found[-count:]
    name = re.sub(r"-0+(?=\d)", "-", selector)  # accept the zeros of directory names
    if name not in names:
        raise RunDirError(where, "names no checkpoint", fix)
    return [update for update in found if update == named[name]]


def best_weights(run: RunDir, limit: int = checksums.MAX_FILE_BYTES) -> tuple[Path, bytes]:
    """Return the weights to decode with and their path; averaged ones if there are any.

    If the best checkpoint is not usable, fall back to the newest one, with a warning.

    Raises:
        RunDirError: there is no checkpoint, or none of at most `limit` bytes can be read.
    """
    best = best_update(run)
    try:
        if best is None:
            raise RunDirError(run.path(BEST), "missing", RESTORE)
        path = directory_of(run, best)
        return _for_decoding(path, limit)
    except checksums.NewerVersionError:
        raise
    except RunDirError as error:
        # The best one is damaged or not known.
        if (fallback := newest(run)) is None:
            raise RunDirError(run.root, "holds no checkpoint", "Train it first.") from None
        if best is not None:
            reason = f"{Path(error.where).name}: {error.what}"
            log.warning("%s cannot be read (%s); using %s", path, reason, fallback)
        elif len(updates(run)) > 1 and not run.path(BEST).exists():
            log.warning("%s: missing; using %s", run.path(BEST), fallback)
        return _for_decoding(fallback, limit)


def _for_decoding(path: Path, limit: int) -> tuple[Path, bytes]:
    """Return the weights of a checkpoint to decode with; averaged ones if there are any."""
    files = checksums.read_directory(path, limit, unread=[OPTIMIZER])  # half of its bytes
    name = AVERAGE if AVERAGE in files else MODEL
    return path / name, files.get(name, b"")


# Saving -------------------------------------------------------------------------------------------


def save(run: RunDir, state: TrainingState) -> Path:
    """Write a checkpoint; when this returns, it is complete on disk.

    Raises:
        PlatformError: it could not be written; earlier checkpoints are untouched.
    """
    # The files: weights, moments of the optimizer, progress, and the config they are of.
    moments = {
        f"{name}/{kind}": torch.as_tensor(value)
        for name, parameter in state.model.named_parameters()
        for kind, value in state.optimizer.state.get(parameter, {}).items()
    }
    files = {
        MODEL: pack(dict(state.model.named_parameters())),
        OPTIMIZER: pack(moments),
        STATE: json.dumps(to_json(state.progress), indent=2, sort_keys=True).encode(),
        CONFIG: read_bytes(run.path(CONFIG), MAX_CONFIG_BYTES),
    }
    if state.average is not None:
        files[AVERAGE] = pack(state.average.weights)
    update = state.progress.update
    name = f"{DIRECTORY}/update-{update:08d}"
    try:
        return run.commit_directory(name, files, about={"update": update, **origins(run)})
    except PlatformError as error:
        # Say what is lost, what would have been needed, and what there still is.
        good = next((each for each in reversed(updates(run)) if each != update), None)
        last = f"last good: update {good}" if good is not None else "there was none before"
        size = tqdm.format_sizeof(sum(map(len, files.values())), "B")
        what = f"{error.what} while saving update {update} (needs about {size}); {last}"
        raise PlatformError(error.where, what, error.fix) from error


def mark_best(run: RunDir, update: int, metric: str, value: float | None) -> None:
    """Record which checkpoint is the best so far."""
    best = {"update": update, "metric": metric, "value": value}
    run.write_json(BEST, checksums.with_checksum(best))


def prune(run: RunDir, keep: int) -> None:
    """Delete old checkpoints; the newest `keep` and the best stay.

    The newest are read back first: a disk that loses writes must not cost the last good checkpoint.
    """
    best, names = best_update(run), {}
    for update in updates(run):
        names[update] = f"{DIRECTORY}/{directory_of(run, update).name}"
    old = [name for update, name in list(names.items())[:-keep] if update != best]
    damaged = [name for name in list(names.values())[-keep:] if old and not run.is_good(name)]
    for name in damaged:
        log.warning("%s is damaged; older checkpoints are kept", run.path(name))
    for name in old if not damaged else []:
        try:
            run.remove_directory(name)
        except PlatformError as error:
            log.warning("%s could not be deleted (%s); going on", error.where, error.what)


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the bytes of a safetensors file."""
    return safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in tensors.items()})


# Loading ------------------------------------------------------------------------------------------


def load(run: RunDir, path: Path, state: TrainingState) -> None:
    """Load a checkpoint into a state that was built from the same config.

    Raises:
        RunDirError: the checkpoint is of another run, or does not fit the model.
    """
    files = checksums.read_directory(path, _size_limit(state.model))
    check_origins(run, path)
    parameters = dict(state.model.named_parameters())
    _fill(parameters, unpack(files.get(MODEL), path / MODEL), path / MODEL)
    if state.average is not None:
        _fill(state.average.weights, unpack(files.get(AVERAGE), path / AVERAGE), path / AVERAGE)

    # The optimizer has no state yet. Its expected tensors follow from the saved names, in the order
    # of its groups; frozen weights have none.
    names = {parameter: name for name, parameter in parameters.items()}
    groups = state.optimizer.state_dict()["param_groups"]
    updated = {names[p]: p for group in state.optimizer.param_groups for p in group["params"]}
    saved = unpack(files.get(OPTIMIZER), path / OPTIMIZER)
    kinds = {name.rpartition("/")[2] for name in saved}  # step, and one or two moments
    expected = {
        f"{name}/{kind}": torch.zeros(()) if kind == "step" else parameter
        for name, parameter in updated.items()
        for kind in kinds
    }
    _check(expected, saved, path / OPTIMIZER)
    values = {i: {k: saved[f"{name}/{k}"] for k in kinds} for i, name in enumerate(updated)}
    state.optimizer.load_state_dict({"state": values, "param_groups": groups})
    state.progress = _read_progress(files.get(STATE, b""), path / STATE)


def load_weights(run: RunDir, model: nn.Module, selector: str | None = None) -> int:
    """Fill a model with the weights to decode with; return their update, the last of several.

    A model on the meta device gets memory only after the weights have been checked to fit. Several
    `selected` checkpoints are averaged. Without a selector these are the best weights or, if they
    are damaged, the newest undamaged ones.

    Raises:
        RunDirError: there is no checkpoint, or none that is undamaged and fits.
    """
    limit, expected = _size_limit(model), dict(model.named_parameters())
    if selector is None:
        count, chosen = 1, iter([best_weights(run, limit)])
    else:
        paths = [directory_of(run, update) for update in selected(run, selector)]
        count, chosen = len(paths), (_for_decoding(path, limit) for path in paths)

    # Read one at a time, so that memory holds a single checkpoint and the sum, in float64.
    saved: dict[str, Tensor] = {}
    for path, data in chosen:
        check_origins(run, path.parent)
        own = unpack(data, path)
        _check(expected, own, path)
        saved = {name: saved[name] + own[name].double() for name in saved} or own
    if count > 1:
        saved = {name: (saved[name] / count).to(own[name].dtype) for name in own}
    if any(p.is_meta for p in model.parameters()):
        _allocate(model)
    _fill(dict(model.named_parameters()), saved, path)
    return update_of(path.parent)


def load_some(path: Path, model: nn.Module) -> None:
    """Fill the weights of a model that a directory holds, in a `model.safetensors`; skip others.

    Of a vocabulary that has grown the rows of new pieces are the mean of the others, y_0 apart: at
    first no new piece is likelier than the likeliest of the others.

    Raises:
        RunDirError: the file is damaged, or the weights do not fit.
    """
    saved = unpack(checksums.read_directory(path, _size_limit(model)).get(MODEL), path / MODEL)
    own = dict(model.named_parameters())
    for name in saved.keys() & own.keys():
        more = len(own[name]) - len(saved[name]) if saved[name].dim() else 0
        if more > 0:
            mean = saved[name][1:].double().mean(dim=0, keepdim=True).to(saved[name].dtype)
            saved[name] = torch.cat([saved[name], *[mean] * more])
    _fill({name: own[name] for name in saved.keys() & own.keys()}, saved, path / MODEL)


def _allocate(model: nn.Module) -> None:
    """Allocate a model on the meta device; unlike with `to_empty`, shared weights stay shared."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, outlined in list(module.named_parameters(recurse=False)):
            if outlined not in made:
                # Not `empty_like`, which for the meta device imports torch's compiler: a second.
                empty = torch.empty(outlined.shape, dtype=outlined.dtype)
                made[outlined] = nn.Parameter(empty)
            setattr(module, name, made[outlined])


def origins(run: RunDir) -> dict[str, str]:
    """Return the SHA-256 of the files in a run that its weights depend on."""
    paths = sorted(path for pattern in ORIGINS for path in run.root.glob(pattern))
    entries = {p.relative_to(run.root).as_posix(): checksums.entry_of_file(p) for p in paths}
    return {name: entry["sha256"] for name, entry in entries.items()}


def check_origins(run: RunDir, path: Path) -> None:
    """Check that config, vocabularies and data are those the checkpoint was trained with.

    Raises:
        RunDirError: names the first file that differs.
    """
    manifest = checksums.read_manifest(path / checksums.MANIFEST)
    about = manifest.get("about", {})
    if (update := about.get("update", update_of(path))) != update_of(path):
        raise RunDirError(
            path, f"is the checkpoint of update {update}", "Restore the name of the directory."
        )
    found = origins(run)
    if CONFIG in manifest["files"]:
        about[CONFIG] = manifest["files"][CONFIG].get("sha256")
        found[CONFIG] = checksums.entry_of_file(run.path(CONFIG))["sha256"]
    for name, digest in found.items():
        if about.get(name, digest) != digest:
            what = "SHA-256 differs from the one this model was trained with"
            fix = f"Copy {path / CONFIG} back; what may change goes on the command line."
            raise RunDirError(run.path(name), what, fix if name == CONFIG else RESTORE)


def _size_limit(model: nn.Module) -> int:
    """Return the maximum bytes of a checkpoint: weights, average, 3 optimizer values each, text."""
    return 5 * sum(p.numel() * p.element_size() for p in model.parameters()) + (1 << 22)


def _read_progress(data: bytes, where: Path) -> Progress:
    try:
        progress = from_json(Progress, parse_json(data, where))
        for name, value in vars(progress).items():
            if isinstance(value, int) and not 0 <= value <= MAX_NUMBER:
                raise ValueError(f"{name} is {value}")
    except ValueError as error:
        raise RunDirError(where, str(error), RESTORE) from None
    return progress


def unpack(data: bytes | None, path: Path) -> dict[str, Tensor]:
    """Return the tensors in the bytes of a safetensors file; `path` is for errors.

    Raises:
        RunDirError: there are none, or they are damaged.
    """
    if data is None:
        raise RunDirError(path, "missing", RESTORE)
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise RunDirError(path, f"unreadable ({error})", RESTORE) from None


def _check(expected: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Check that names, shapes and dtypes agree, and that every value is finite."""
    for name in sorted(expected.keys() ^ saved.keys()):
        side = "missing" if name in expected else "unknown"
        raise RunDirError(path, f"tensor {name[:80]} is {side}", RESTORE)
    for name, own in expected.items():
        found = saved[name]
        if found.shape != own.shape:
            what = f"is {tuple(found.shape)}, expected {tuple(own.shape)}"
        elif found.dtype != own.dtype:
            what = f"is {found.dtype}, expected {own.dtype}"
        elif not found.isfinite().all():
            what = "is not finite"
        else:
            continue
        raise RunDirError(path, f"tensor {name} {what}", RESTORE)


@torch.no_grad()
def _fill(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved tensors into place."""
    _check(own, saved, path)
    for name, tensor in own.items():
        tensor.copy_(saved[name])
