"""Training that diverges: ended before the weights move, and its batch kept to be looked at."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2seq.data.batching import Batch
from seq2seq.data.prepare import SIDES, load_text
from seq2seq.errors import DivergedError, PlatformError, RunDirError
from seq2seq.model import RNNSearch
from seq2seq.run import RunDir
from seq2seq.settings import Config
from seq2seq.training import crash
from seq2seq.training.checkpoint import TrainingState
from seq2seq.training.gradient import sentence_costs

log = logging.getLogger(__name__)

EXPLOSION = 1e8
"""A gradient norm above so many times `trainer.clip_norm` is an explosion, not a large gradient.

The cost may be a sum over some 10,000 words, of which each adds a gradient of norm 1 or so, and
clipping at a thousandth of the paper's 1 still makes sense: a healthy training comes to 1e7.
"""
MAX_EXPLOSIONS = 20
"""So many in a row: what is left of such gradients is a direction without meaning."""

EXIT_CODE = DivergedError.exit_code


@dataclass(frozen=True)
class Step:
    """An update that is being made."""

    number: int  # the first is 1
    seed: int
    rows: Sequence[int]  # of the training corpus, from 0
    batch: Batch


class Guard:
    """Looks at loss and gradient of an update before the weights move.

    Args:
        run: Where the batch is kept.
        model: In training mode; its gradients are those of the update, clipped.
        cfg: The whole config.
    """

    def __init__(self, run: RunDir, model: RNNSearch, cfg: Config) -> None:
        self.run, self.model, self.cfg = run, model, cfg

    def check(self, step: Step, *, loss: float, norm: float, explosions: int) -> int:
        """Return how many explosions there are in a row now.

        Args:
            step: The update.
            loss: Of the batch.
            norm: Of the gradient, before clipping.
            explosions: In a row before this update.

        Raises:
            DivergedError: loss or norm is not finite, or too many explosions in a row.
        """
        if not math.isfinite(loss):
            raise self._stop(step, f"loss is {loss} at update {step.number}", norm)
        if not math.isfinite(norm):
            raise self._stop(step, f"gradient norm is {norm} at update {step.number}", norm)
        if norm <= EXPLOSION * self.cfg.trainer.clip_norm:
            return 0
        if explosions + 1 >= MAX_EXPLOSIONS:
            what = f"gradient norm is {norm:.3g} at update {step.number}, the {MAX_EXPLOSIONS}th"
            raise self._stop(step, f"{what} above {EXPLOSION:g} x trainer.clip_norm in a row", norm)
        return explosions + 1

    def _stop(self, step: Step, what: str, norm: float) -> DivergedError:
        costs = self._costs(step)
        norms = self._norms(norm)
        self._keep(step, what, costs, norms)
        culprit = next((name for name, norm in norms.items() if not math.isfinite(norm)), None)
        where = "" if culprit is None else f", first in {culprit}"
        if what.startswith("loss"):
            rows = zip(step.rows, costs, strict=True)
            line = next((row + 1 for row, cost in rows if not math.isfinite(cost)), None)
            where = "" if line is None else f", line {line} of corpus/train.source"
        return DivergedError(
            self.run.root,
            f"{what} (batch of {step.batch.num_sentences}{where})",
            f"Look at {crash.path_of(self.run, step.number)}; in a new run lower optimizer.lr or "
            "trainer.clip_norm.",
        )

    def _costs(self, step: Step) -> list[float]:
        """Return the cost of each sentence, with the draws of the update."""
        torch.manual_seed(step.seed)
        return sentence_costs(self.model, step.batch, self.cfg)

    def _norms(self, norm: float) -> dict[str, float]:
        """Return the gradient norm of each parameter, as before clipping."""
        scale = norm / self.cfg.trainer.clip_norm
        scale = max(1.0, scale) if math.isfinite(scale) else 1.0  # then nothing was clipped
        return {
            name: scale * parameter.grad.cpu().double().norm().item()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def _keep(self, step: Step, what: str, costs: list[float], norms: dict[str, float]) -> None:
        batch = step.batch
        source, target = (self._texts(side, step.rows) for side in SIDES)
        record = {
            "update": step.number,
            "what": what,
            "seed": step.seed,
            "lines": [row + 1 for row in step.rows],
            "source": source,
            "target": target,
            "source_ids": _ids(batch.src, batch.src_mask),
            "target_ids": _ids(batch.tgt, batch.tgt_mask),
            "loss": [written(cost) for cost in costs],
            "gradient_norm": {name: written(norm) for name, norm in norms.items()},
        }
        _keep(self.run, step.number - 1, step.number, record)

    def _texts(self, side: str, rows: Sequence[int]) -> list[str] | None:
        try:
            text = load_text(self.run, "train", side)
        except (OSError, RunDirError):  # deleted meanwhile: training needs the ids alone
            return None
        return [text[row] for row in rows]


def check_weights(run: RunDir, state: TrainingState) -> None:
    """Refuse to save a state that is not finite.

    Raises:
        DivergedError: a tensor holds a number that is none.
    """
    update = state.progress.update
    for name, tensor in _tensors(state):
        if not bool(tensor.isfinite().all()):
            what = f"{name} is not finite after update {update}"
            _keep(run, update, update, {"update": update, "what": what})
            raise DivergedError(
                run.root,
                f"{what}, so it is not saved",
                "In a new run lower optimizer.lr or trainer.clip_norm.",
            )


def _tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    names = dict(state.model.named_parameters())
    yield from names.items()
    if state.average is not None:
        yield from ((f"average of {name}", each) for name, each in state.average.weights.items())
    for name, parameter in names.items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{key} of {name}", torch.as_tensor(value)


def _keep(run: RunDir, whole: int, number: int, record: dict[str, Any]) -> None:
    """Write the record of an update; the last whole one is another if it was not made."""
    try:
        run.write_json(crash.name_of(number), record)
        crash.keep_failure(run, whole, record["what"], EXIT_CODE, crash.name_of(number))
    except PlatformError as error:  # the divergence is what has to be told
        log.warning("no record of update %d: %s", number, error)


def _ids(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]


def written(number: float) -> float | str:
    """Return a number as strict JSON can hold it."""
    return number if math.isfinite(number) else str(number)
