"""The training loop: updates from batches, with validations and checkpoints in between."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from torch import Tensor

from seq2seq.config.registry import build
from seq2seq.config.schema import Config, OnOutOfMemory
from seq2seq.data.batching import Batch, Plan, collate, plan_epoch, shape
from seq2seq.data.tokenizer import EOS, PAD
from seq2seq.model import EncoderDecoder
from seq2seq.model.draws import entry_keys, fold, seed_others, stream
from seq2seq.run import checkpoints, crash
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import MemoryLimitError, StoppedError, UserError
from seq2seq.run.memory import OutOfMemory
from seq2seq.run.naming import assignment, command
from seq2seq.run.signals import Interrupted, StopRequest
from seq2seq.training import checkpoint, minimum_risk, optim, selection  # noqa: F401 - one registers
from seq2seq.training.averaging import WeightAverage
from seq2seq.training.checkpoint import Progress, TrainingState
from seq2seq.training.distributed import ALONE, Attempt, FlatGradient, LostError, World
from seq2seq.training.divergence import Guard, Step, check_weights
from seq2seq.training.gradient import Gradient, accumulated_gradient, free_failed_pass
from seq2seq.training.monitor import Monitor, UpdateStats
from seq2seq.training.objective import Objective, draw_keys
from seq2seq.training.validation import TrainingData, validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreed:
    """The gradient of all shares, which is in the parameters, and what else is true of them."""

    total: Tensor  # ()  loss, nats summed over target tokens, without smoothing
    split: int  # the most parts in which a share was computed for lack of memory; 0: none was
    stop: bool = False  # a process is to stop
    own_is_finite: Tensor | None = None  # ()  bool; of several processes


class Trainer:
    """Trains an initialised model, from the newest checkpoint of its run if there is one.

    It ends at a limit, by early stopping, or at a stop request, which is polled between updates and
    between validation batches. The processes of `world` each take a share of every batch.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        data: TrainingData,
        cfg: Config,
        run: RunDir,
        stop: StopRequest,
        world: World = ALONE,
    ) -> None:
        self.model, self.data, self.cfg, self.run, self.stop = model, data, cfg, run, stop
        self.world = world
        self.device = next(model.parameters()).device
        self.objective: Objective = build(cfg.objective, cfg, data.tokenizers)
        optim.freeze(model, cfg.trainer.freeze)
        self._planned: tuple[int, Plan] | None = None
        # The state: that of the newest checkpoint, if there is one
        self.last_update = self._last_update()
        self.state = TrainingState(
            model=model,
            optimizer=optim.build_optimizer(model, cfg.optimizer, cfg.trainer.lr_factors or {}),
            average=self._average(),
            progress=Progress(),
        )
        if (newest := checkpoint.newest(run)) is not None:
            checkpoint.load(run, newest, self.state)
            log.info("continuing from %s", newest)
        # What an update needs besides
        self.progress = self.state.progress
        self.guard = Guard(run, model, cfg, world)
        self.flat = (
            FlatGradient(model, world, cfg.trainer.reduce_precision) if world.size > 1 else None
        )
        minutes = cfg.trainer.max_minutes
        self.deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self.monitor: Monitor | None = None  # only the process that leads has one

    def fit(self) -> Progress:
        """Train, and return the final progress.

        Raises:
            StoppedError: a signal or the time limit; a checkpoint is written first.
            DivergedError: loss or gradient is not finite; the weights are those before the update.
            MemoryLimitError: an update or a validation does not fit in memory.
            RepeatedError: three previous attempts ended in the same failure.
        """
        # Refuse to repeat a failure; then start logging.
        crash.refuse_repeated(self.run, self.progress.update)
        self.world.check_equal(self.model, self.progress.update)
        if self.world.leads:
            self.monitor = Monitor(
                self.run,
                self.cfg,
                self.progress,
                self.model,
                last_update=self.last_update,
                deadline=self.deadline,
            )
        optim.warn_of_warmup(self.cfg.scheduler, self.last_update)
        with self._saving():
            # Updates, with validations and checkpoints in between
            self._catch_up()
            for rows in self._batches():
                with OutOfMemory() as oom:
                    stop = self._update(rows)
                if oom:
                    raise self._too_large(rows)
                if self.progress.update % self.cfg.trainer.validate_every == 0:
                    self._validate()
                elif self.progress.update % self.cfg.trainer.checkpoint_every == 0:
                    self._save()
                # Alone, this process need not wait for the next update to hear of a stop.
                if stop or (self.world.size == 1 and self._is_to_stop()):
                    self._stop()
            # A limit is reached: validate the last update.
            if self.progress.validated != self.progress.update:
                self._validate()
            if self.monitor:
                self.monitor.close(best=selection.best_value(self.progress, self.cfg.trainer))
        return self.progress

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Save what an interrupt or the loss of another process would cost; note a bug."""
        try:
            yield
        except Interrupted:  # the state is that of the last complete update
            self._stop()
        except LostError:  # like an interrupt, it comes before the weights change
            if self.progress.update:
                self._save()
            raise
        except UserError:
            raise
        except Exception as error:
            crash.mark(error, self.progress.update)
            raise
        finally:
            if self.monitor:
                self.monitor.close()

    def _catch_up(self) -> None:
        """Finish what an interrupted process left undone after its last update."""
        progress, marked = self.progress, checkpoints.best_update(self.run)
        if self.cfg.init.run is not None and not checkpoints.updates(self.run):
            self._validate()  # the initial weights may stay the best
        elif progress.best_score is not None and (marked is None or progress.best_update > marked):
            self._mark_best()  # the process died between writing the checkpoint and marking it
        due = progress.update and progress.update % self.cfg.trainer.validate_every == 0
        if due and progress.validated != progress.update:  # it was stopped while validating
            self._validate()

    def _batches(self) -> Iterator[list[int]]:
        """Yield the rows of each batch, from the current progress until a limit is reached.

        The caller increments `progress.batch` once a batch has been used.
        """
        cfg, progress = self.cfg.trainer, self.progress
        while not selection.limits_reached(progress, cfg):
            with self.world.interruptible(self.stop):
                plan = self._plan(progress.epoch)
            while progress.batch < len(plan):
                if selection.limits_reached(progress, cfg):
                    return
                yield plan[progress.batch]
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _plan(self, epoch: int) -> Plan:
        """Return the plan of an epoch; the last one is kept: `max_epochs` needs the first early."""
        if self._planned is None or self._planned[0] != epoch:
            longest, cfg, mixture = self.data.train.longest(), self.cfg, self.data.mixture
            plan = plan_epoch(longest, cfg.trainer, seed=cfg.seed, epoch=epoch, mixture=mixture)
            self._planned = epoch, plan
        return self._planned[1]

    def _last_update(self) -> int:
        """Return the update at which `max_updates` or `max_epochs` ends training, whichever first.

        With batches by tokens this is an estimate: epochs may differ by a few batches.
        """
        cfg = self.cfg.trainer
        if cfg.max_epochs is None:
            return cfg.max_updates
        return min(cfg.max_updates, cfg.max_epochs * len(self._plan(0)))

    def _average(self) -> WeightAverage | None:
        cfg = self.cfg.trainer
        if cfg.swa_start is not None:
            return WeightAverage(self.model, 0.0, start=int(cfg.swa_start * self.last_update))
        return WeightAverage(self.model, cfg.ema_decay) if cfg.ema_decay else None

    # An update ----------------------------------------------------------------------------------

    def _update(self, rows: Sequence[int]) -> bool:
        """Make one update; return whether all processes are to stop.

        The state does not change until the gradient has been checked.
        """
        cfg, progress = self.cfg.trainer, self.progress
        start = time.perf_counter()
        number = progress.update + 1
        rate = self._set_rate(number)

        # Batch and gradient: the only long part, which a stop request may interrupt.
        attempt, step, gradient = Attempt(self.world, self.stop), None, None
        with attempt():
            step = self._share(rows, number)
        waited = time.perf_counter() - start
        target_tokens, *sizes = self.world.sums(step.sizes if step else [0, 0, 0])
        if step is not None:
            with attempt():
                seed_others(self.cfg.seed, number)
                whole = len(rows), target_tokens
                own = step.batch, step.keys, cfg.accumulate
                gradient = accumulated_gradient(self.model, self.objective, *own, self.cfg, whole)
        agreed = self._agree(attempt, gradient, rows)
        assert step is not None
        step = replace(step, is_finite=agreed.own_is_finite)

        # Clip, check, and only then change the weights.
        norm = optim.clip_gradients(self.model, cfg.clip_norm)
        total = agreed.total.item()  # waits for the device
        progress.explosions = self.guard.check(
            step, loss=total, norm=norm, explosions=progress.explosions
        )
        if exploded := progress.explosions > 0:
            log.warning("update %d: gradient norm %.3g, clipped to %g", number, norm, cfg.clip_norm)
        self._step(number)

        # The update is complete: count it and report it.
        seconds = time.perf_counter() - start
        progress.update = number
        progress.batch += 1
        progress.words += target_tokens
        progress.seconds += seconds
        clipped = norm > cfg.clip_norm
        stats = UpdateStats(
            total, target_tokens, norm, clipped, exploded, rate, seconds, waited, *sizes
        )
        progress.updates_in_parts += bool(agreed.split)
        if self.monitor:
            # What is shown of a batch does not depend on the number of processes.
            batch = step.batch
            if self.world.size > 1 and number % self.cfg.logging.every == 0:
                batch = self._batch(rows, number).to(self.device)
            self.monitor.update(stats, batch)
            if agreed.split:
                self.monitor.in_parts(agreed.split)
        return agreed.stop

    def _entries(self, rows: Sequence[int], rank: int | None) -> slice:
        """Return the entries of a batch that a rank computes; without a rank, all of them."""
        if rank is None or self.world.size == 1:
            return slice(None)
        pairs, places = self.data.train, np.array(rows)
        return self.world.share(pairs.src.lengths(places) + pairs.tgt.lengths(places), rank)

    def _share(self, rows: Sequence[int], number: int) -> Step:
        """Make this process's share of a batch, and the keys of its draws."""
        own = self._entries(rows, self.world.rank)
        # A sentence's draws depend on (seed, update, place in the batch) alone, not on anything
        # between updates, on restarts, or on the number of parts or processes.
        keys = draw_keys(self.cfg.seed, number, len(rows), self.objective.passes)[own]
        keys = keys.to(self.device)
        if not len(keys):
            return Step(number, keys, rows, None, [0, 0, 0])
        batch = self._batch(rows, number, own)
        sizes = int(batch.tgt_mask.sum()), batch.count_tokens(), batch.num_cells
        return Step(number, keys, rows, batch.to(self.device), sizes)

    def _agree(self, attempt: Attempt, gradient: Gradient | None, rows: Sequence[int]) -> Agreed:
        """Sum the gradients of all shares, unless a process has to give up.

        Raises:
            Interrupted: a process was interrupted.
            MemoryLimitError: a process ran out of memory.
        """
        split = 0
        if gradient is not None and gradient.shortage is not None:
            split = gradient.parts
            text = "update %d: out of memory (%s); computed in %d parts, so this run is not exact"
            log.warning(text, self.progress.update + 1, gradient.shortage, split)
        if self.flat is None:
            assert gradient is not None
            return Agreed(gradient.total, split)
        short = (self.world.rank + 1) * bool(attempt.shortage)
        stop, interrupted, short, split, *present = self.world.highest(
            [self._is_to_stop(), attempt.interrupted, short, split, *self.flat.present()]
        )
        if interrupted:
            raise Interrupted
        if short:
            raise self.world.together(self._too_large(rows, short - 1))
        assert gradient is not None
        total = self.flat.add_(gradient.total, present)
        return Agreed(total, split, stop=bool(stop), own_is_finite=self.flat.own_is_finite)

    def _set_rate(self, number: int) -> float:
        factor = optim.rate_factor(
            self.cfg.scheduler,
            update=number,
            max_updates=self.last_update,
            reductions=self.progress.reductions,
        )
        rate: float = self.cfg.optimizer.lr * factor
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group.get(optim.LR_FACTOR, 1.0)
        return rate

    def _batch(self, rows: Sequence[int], number: int, own: slice = slice(None)) -> Batch:
        """Make the batch of an update, or some of its entries, on the CPU."""
        count, rows = len(rows), rows[own]
        if self.data.texts is None:
            batch, links = self.data.train.batch(rows, PAD), self.data.links
            return batch if links is None else replace(batch, links=links.of(rows, batch))
        # Subword sampling: a new random segmentation by the sentences' keys; each side is a site.
        keys, sides = entry_keys(self.cfg.seed, number, count)[own].tolist(), []
        for site, texts in enumerate(self.data.texts):
            streams = [stream(fold(key, site)) for key in keys]
            sample = self.data.tokenizers[site].sample
            cut = sample([texts[row] for row in rows], self.cfg.tokenizer.sampling, streams)
            tagged = site == 0 and self.cfg.data.tags
            tags = [self.data.train.src[row][:1] if tagged else () for row in rows]
            sides.append([[*tag, *ids, EOS] for tag, ids in zip(tags, cut, strict=True)])
        return collate(list(zip(*sides, strict=True)), PAD)

    def _step(self, number: int) -> None:
        with self.monitor.moving(number) if self.monitor else contextlib.nullcontext():
            self.state.optimizer.step()
        if self.state.average is not None:
            self.state.average.update(self.model, number)

    def _too_large(self, rows: Sequence[int], rank: int | None = None) -> MemoryLimitError:
        """Free the memory of the failed update; return an error that names what to lower."""
        free_failed_pass(self.device)
        self.model.zero_grad(set_to_none=True)
        cfg = self.cfg.trainer
        key = "batch_tokens" if cfg.batch_sentences is None else "batch_sentences"
        lower = f"trainer.{key} (now {getattr(cfg, key)}) or data.max_words in a new run."
        split = "Resume with trainer.on_out_of_memory=split, or lower "
        number = self.progress.update + 1
        where = "" if rank is None else f" on rank {rank}"
        own = self._entries(rows, rank)
        size = shape(self._batch(rows, number, own), rows[own], "corpus/train.source")
        return MemoryLimitError(
            self.run.root,
            f"out of memory at update {number}{where} with {size}",
            f"{split if cfg.on_out_of_memory is OnOutOfMemory.stop else 'Lower '}{lower}",
        )

    # Validation and checkpoints -----------------------------------------------------------------

    def _validate(self) -> None:
        """Score the averaged weights, remember the best, and write a checkpoint."""
        average = self.state.average
        lent = average.applied(self.model) if average else contextlib.nullcontext()
        with lent:  # an interrupt still restores the weights
            result = validate(self.model, self.data, self.cfg, self.stop, self.world)
        if result is None:
            self._stop()  # the next run validates again

        best = selection.take(self.progress, result, self.cfg)
        if self.monitor is None:
            return
        self.monitor.validation(
            result, verdict=selection.verdict(self.progress, self.cfg.trainer, best=best)
        )
        self._save()
        if best:  # only now: the mark names a checkpoint that has to exist
            self._mark_best()
            checkpoint.prune(self.run, self.cfg.trainer.keep_checkpoints)

    def _mark_best(self) -> None:
        read = (self.progress, self.cfg.trainer)
        metric, value = selection.metric_of(*read), selection.best_value(*read)
        if self.world.leads:
            checkpoint.mark_best(self.run, self.progress.best_update, metric, value)

    def _save(self) -> None:
        if self.monitor is None:
            return
        check_weights(self.run, self.state)
        self.monitor.flush()
        checkpoint.save(self.run, self.state)
        checkpoint.prune(self.run, self.cfg.trainer.keep_checkpoints)

    def _is_to_stop(self) -> bool:
        return self.stop.exit_code is not None or time.monotonic() > self.deadline

    def _stop(self) -> NoReturn:
        """Save the last complete update and raise `StoppedError`, in all processes."""
        stop = self.world.agreed(self.stop)
        if self.progress.update:
            self._save()
            what = f"saved at update {self.progress.update}"
        else:
            what = "stopped before its first update was done"
        error = stopped(self.run, stop, what, self.cfg.trainer.max_minutes)
        raise self.world.together(error)


def stopped(
    run: RunDir, stop: StopRequest, what: str, minutes: float | None = None
) -> StoppedError:
    """Return the error that says why a run stopped, by signal or time limit, and how to resume."""
    why = stop.signal.name if stop.signal else f"trainer.max_minutes={minutes:g}"
    fix = f"Continue with: {command('train', assignment('resume', run.root))}"
    return StoppedError(run.root, f"{what} ({why})", fix, stop.exit_code or 75)
