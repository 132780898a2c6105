"""Stops training that diverges before the weights change, and records the batch."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from seq2seq.config.schema import Config
from seq2seq.data.batching import Batch
from seq2seq.data.prepare import SIDES, load_text
from seq2seq.model import EncoderDecoder
from seq2seq.model.draws import seed_others
from seq2seq.run import crash
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DivergedError, PlatformError, RunDirError
from seq2seq.run.jsonable import to_json
from seq2seq.training.checkpoint import TrainingState
from seq2seq.training.distributed import ALONE, World
from seq2seq.training.gradient import sentence_losses

log = logging.getLogger(__name__)

EXPLOSION = 1e8
"""A gradient norm above `trainer.clip_norm` times this is an explosion, not a large gradient.

Healthy training can reach 1e7: the loss may be a sum over some 10,000 words, each of which adds a
gradient of norm about 1, and clipping at a thousandth of the paper's 1 still makes sense.
"""
MAX_EXPLOSIONS = 20
"""The number of explosions in a row that ends training: clipped, they are mere noise."""
_LOWER = "in a new run lower optimizer.lr or trainer.clip_norm."
SHARED = ("source_ids", "target_ids", "loss")
"""Entries of a record that each process knows of its own sentences."""


@dataclass(frozen=True)
class Step:
    """An update in progress."""

    number: int  # the first is 1
    keys: Tensor  # (B, passes) the keys of its sentences' random draws
    rows: Sequence[int]  # rows of the training corpus, from 0
    batch: Batch | None  # of several processes, the share of this one; None: it is empty
    sizes: Sequence[int] = ()  # target tokens, tokens of both sides, and these with padding
    is_finite: Tensor | None = None  # ()  bool, of several processes: of this share


class Guard:
    """Checks loss and clipped gradient of an update before the optimizer step."""

    def __init__(
        self, run: RunDir, model: EncoderDecoder, cfg: Config, world: World = ALONE
    ) -> None:
        self.run, self.model, self.cfg, self.world = run, model, cfg, world

    def check(self, step: Step, *, loss: float, norm: float, explosions: int) -> int:
        """Return the number of explosions in a row, this update included.

        `norm` is that of the gradient before clipping, `explosions` the number before this update.

        Raises:
            DivergedError: loss or norm is not finite, or too many explosions in a row.
        """
        at = f"at update {step.number}"
        if not math.isfinite(loss):
            raise self._diverged(step, f"loss is {loss} {at}", norm)
        if not math.isfinite(norm):
            raise self._diverged(step, f"gradient norm is {norm} {at}", norm)
        if norm <= EXPLOSION * self.cfg.trainer.clip_norm:
            return 0
        if explosions + 1 >= MAX_EXPLOSIONS:
            what = f"gradient norm is {norm:.3g} {at}, the {MAX_EXPLOSIONS}th above "
            what += f"{EXPLOSION:g} x trainer.clip_norm in a row"
            raise self._diverged(step, what, norm)
        return explosions + 1

    def _diverged(self, step: Step, what: str, norm: float) -> DivergedError:
        # The loss of each sentence, recomputed with the random draws of the update.
        shares = self.world.gather(self._share(step))
        losses = [*chain(*(share["loss"] for share in shares))]
        # The gradient norm of each parameter, as before clipping.
        scale = norm / self.cfg.trainer.clip_norm
        scale = max(1.0, scale) if math.isfinite(scale) else 1.0  # not finite: nothing was clipped
        norms = {
            name: scale * parameter.grad.cpu().double().norm().item()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        lines = [row + 1 for row in step.rows]
        record = {
            "update": step.number,
            "what": what,
            "seed": self.cfg.seed,
            "lines": lines,
            **{side: self._text(side, step.rows) for side in SIDES},
            **{key: [*chain(*(share[key] for share in shares))] for key in SHARED},
            "gradient_norm": norms,
        }
        path = "its record"
        if self.world.leads:
            path = _record(self.run, step.number - 1, step.number, record)
        # The origin: a sentence if the loss is not finite, else a parameter.
        line = next((n for n, x in zip(lines, losses, strict=True) if not math.isfinite(x)), None)
        name = next((name for name, x in norms.items() if not math.isfinite(x)), None)
        where = ""
        if what.startswith("loss"):
            where = "" if line is None else f", line {line} of corpus/train.source"
        elif name is not None:
            where = f", first in {name}"
        wrong = [rank for rank, share in enumerate(shares) if not share["finite"]]
        where += f", on rank {wrong[0]}" if wrong and len(shares) > 1 else ""
        what = f"{what} (batch of {len(lines)}{where})"
        return self.world.together(DivergedError(self.run.root, what, f"Look at {path}; {_LOWER}"))

    def _share(self, step: Step) -> dict[str, Any]:
        """Return what this process adds to the record."""
        finite = step.is_finite is None or bool(step.is_finite)
        if (batch := step.batch) is None:
            return {"finite": finite, **{key: [] for key in SHARED}}
        seed_others(self.cfg.seed, step.number)
        return {
            "finite": finite,
            "source_ids": _ids(batch.src, batch.src_mask),
            "target_ids": _ids(batch.tgt, batch.tgt_mask),
            "loss": sentence_losses(self.model, batch, step.keys[:, 0], self.cfg),
        }

    def _text(self, side: str, rows: Sequence[int]) -> list[str] | None:
        try:
            text = load_text(self.run, "train", side)
        except (OSError, RunDirError):  # the text was deleted; training only needs the ids
            return None
        return [text[row] for row in rows]


def check_weights(run: RunDir, state: TrainingState) -> None:
    """Check that a state to be saved is finite.

    Raises:
        DivergedError: a tensor holds a value that is not finite.
    """
    update = state.progress.update
    for name, tensor in _tensors(state):
        if not bool(tensor.isfinite().all()):
            what = f"{name} is not finite after update {update}"
            path = _record(run, update, update, {"update": update, "what": what})
            raise DivergedError(run.root, f"{what}, so it was not saved", f"See {path}; {_LOWER}")


def _tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    names = dict(state.model.named_parameters())
    yield from names.items()
    if state.average is not None:
        yield from ((f"average of {name}", each) for name, each in state.average.weights.items())
    for name, parameter in names.items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{key} of {name}", torch.as_tensor(value)


def _record(run: RunDir, whole: int, number: int, record: dict[str, Any]) -> str:
    """Write the record of an update, and a failure entry with the last complete update."""
    name = f"{crash.DIRECTORY}/update-{number:08d}.json"
    try:
        run.write_json(name, to_json(record))
        failure = crash.Failure(whole, record["what"], DivergedError.exit_code, name)
        crash.record_failure(run, failure)
    except PlatformError as error:  # report the divergence, not this
        log.warning("no record of update %d: %s", number, error)
    return str(run.path(name))


def _ids(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
