"""The training loop: batches in, updates, validations and checkpoints out."""

import contextlib
import logging
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from seq2seq.data.batching import Batch, TokenizedPairs, collate, plan_epoch
from seq2seq.data.tokenizer import EOS, PAD, Tokenizer
from seq2seq.errors import DivergedError, MemoryLimitError, StoppedError
from seq2seq.inference.scoring import bleu
from seq2seq.inference.translate import translate
from seq2seq.model import RNNSearch
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.run import RunDir
from seq2seq.settings import Config, DecodeConfig, HardConfig, PlateauConfig, Precision, SelectBy
from seq2seq.signals import Interrupted, StopRequest
from seq2seq.training import checkpoint
from seq2seq.training.averaging import WeightAverage
from seq2seq.training.checkpoint import Progress, TrainingState
from seq2seq.training.loss import Loss, nll
from seq2seq.training.monitor import Monitor, UpdateStats, Validated
from seq2seq.training.optim import build_optimizer, clip_gradients, rate_factor
from seq2seq.training.reinforce import draws_cost

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """All that training reads."""

    train: TokenizedPairs
    texts: tuple[Sequence[str], Sequence[str]] | None
    """Training text, source and target; only for subword sampling."""
    validation: TokenizedPairs
    validation_source: Sequence[str]
    validation_references: Sequence[str]
    tokenizers: tuple[Tokenizer, Tokenizer]


class Trainer:
    """Trains a model until a limit, a stop request, or no more progress.

    Args:
        model: Initialised, on its device.
        data: Training and validation pairs.
        cfg: The whole config.
        run: Where checkpoints and logs go; if it holds checkpoints, training continues there.
        stop: Polled between updates and between validation batches.
    """

    def __init__(
        self, model: RNNSearch, data: TrainingData, cfg: Config, run: RunDir, stop: StopRequest
    ) -> None:
        self.model, self.data, self.cfg, self.run, self.stop = model, data, cfg, run, stop
        self.device = next(model.parameters()).device
        decay = cfg.trainer.ema_decay
        self.state = TrainingState(
            model=model,
            optimizer=build_optimizer(model, cfg.optimizer),
            average=WeightAverage(model, decay) if decay else None,
            progress=Progress(),
        )
        if (newest := checkpoint.newest(run)) is not None:
            checkpoint.load(run, newest, self.state)
            log.info("continuing from %s", newest)
        self.progress = self.state.progress
        self.started = time.monotonic()
        answer_signals(model)

    def fit(self) -> Progress:
        """Train; returns where it ended.

        Raises:
            StoppedError: a signal or the time limit; a checkpoint is written first.
            DivergedError: loss or gradient is not finite; the weights are those before it.
        """
        self.monitor = Monitor(self.run, self.cfg, self.progress)
        try:
            self._catch_up()
            for rows in self._batches():
                self._update(rows)
                if self.progress.update % self.cfg.trainer.validate_every == 0:
                    self._validate()
                elif self.progress.update % self.cfg.trainer.checkpoint_every == 0:
                    self._save()
                self._stop_if_asked()
            if self.progress.validated != self.progress.update:
                self._validate()
            self.monitor.close(best=self.progress.best_score)
        except Interrupted:  # the state is that of the last whole update
            self._stop()
        finally:
            self.monitor.close()
        return self.progress

    def _catch_up(self) -> None:
        """Do what an interrupted process left undone after its last update."""
        progress, marked = self.progress, checkpoint.best_step(self.run) or 0
        if progress.best_update > marked:  # it died between the checkpoint and the mark
            checkpoint.mark_best(self.run, progress, self.cfg.trainer.select_by.name)
        due = progress.update and progress.update % self.cfg.trainer.validate_every == 0
        if due and progress.validated != progress.update:  # it was stopped while validating
            self._validate()

    def _batches(self) -> Iterator[Sequence[int]]:
        """Yield the pairs of each batch from where progress stands, until a limit is reached.

        Whoever takes them counts them in `progress.batch`, when they are used.
        """
        cfg, progress = self.cfg.trainer, self.progress
        lengths = self.data.train.src.lengths(), self.data.train.tgt.lengths()
        while cfg.max_epochs is None or progress.epoch < cfg.max_epochs:
            with self.stop.interruptible():
                plan = plan_epoch(*lengths, cfg, seed=self.cfg.seed, epoch=progress.epoch)
            while progress.batch < len(plan):
                if progress.update >= cfg.max_updates or self._given_up():
                    return
                yield plan[progress.batch]
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _batch(self, rows: Sequence[int]) -> Batch:
        if self.data.texts is None:
            return self.data.train.batch(rows, PAD).to(self.device)
        return sampled_batch(
            self.data.texts,
            self.data.tokenizers,
            rows,
            rate=self.cfg.tokenizer.sampling,
            seed=update_seed(self.cfg.seed, self.progress.update + 1),
        ).to(self.device)

    def _update(self, rows: Sequence[int]) -> None:
        cfg, state = self.cfg.trainer, self.state
        start = time.perf_counter()
        number = self.progress.update + 1
        # Every update draws from its own seed: nothing that happens between updates, and no
        # restart, can change what it draws.
        torch.manual_seed(update_seed(self.cfg.seed, number))
        rate = self._set_rate(number)
        with self.stop.interruptible():
            loss = self._gradients(self._batch(rows))
        norm = clip_gradients(self.model, cfg.clip_norm)
        summed = loss.nll.item()  # waits for the device, so once
        self._check_finite(summed, norm, number)
        state.optimizer.step()
        if state.average is not None:
            state.average.update(self.model, number)
        seconds = time.perf_counter() - start
        self.progress.update = number
        self.progress.batch += 1
        self.progress.words += loss.words
        self.progress.seconds += seconds
        clipped = norm > cfg.clip_norm
        self.monitor.update(UpdateStats(summed, loss.words, norm, clipped, rate, seconds))

    def _gradients(self, batch: Batch) -> Loss:
        cfg = self.cfg.trainer
        with explained_memory(batch, self.run):
            with autocast(self.device, cfg.precision):
                output = self.model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
            loss = nll(output, batch, cfg.label_smoothing)
            if isinstance(self.cfg.attention, HardConfig):
                loss = replace(loss, draws=draws_cost(output, batch, self.cfg.attention))
            self.state.optimizer.zero_grad(set_to_none=True)
            loss.objective(cfg.normalize).backward()
        return loss

    def _set_rate(self, number: int) -> float:
        factor = rate_factor(
            self.cfg.scheduler,
            update=number,
            max_updates=self.cfg.trainer.max_updates,
            reductions=self.progress.reductions,
        )
        rate: float = self.cfg.optimizer.lr * factor
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _check_finite(self, loss: float, norm: float, number: int) -> None:
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise DivergedError(
                    self.run.root,
                    f"{what} is {value} at update {number}",
                    "Lower optimizer.lr or trainer.clip_norm and resume.",
                )

    def _validate(self) -> None:
        """Score the averaged weights, remember the best, write a checkpoint."""
        average = self.state.average
        lent = average.applied(self.model) if average else contextlib.nullcontext()
        with lent, self.stop.interruptible():  # in this order: what was lent comes back untouched
            result = validate(self.model, self.data, self.cfg, self.stop)
        if result is None:
            self._stop()  # the next run validates again
        score = result.bleu if self.cfg.trainer.select_by is SelectBy.bleu else -result.loss
        so_far = self.progress.best_score
        best = math.isfinite(score) and (so_far is None or score > so_far)
        self.progress.validated = self.progress.update
        if best:
            self.progress.best_score, self.progress.best_update = score, self.progress.update
        self._count(best)
        self.monitor.validation(result, best=best)
        self._save()
        if best:
            checkpoint.mark_best(self.run, self.progress, self.cfg.trainer.select_by.name)
            checkpoint.prune(self.run, self.cfg.trainer.keep_checkpoints)

    def _count(self, best: bool) -> None:
        progress = self.progress
        progress.waiting = 0 if best else progress.waiting + 1
        progress.plateau_waiting = 0 if best else progress.plateau_waiting + 1
        plateau = self.cfg.scheduler
        if isinstance(plateau, PlateauConfig) and progress.plateau_waiting > plateau.patience:
            progress.reductions, progress.plateau_waiting = progress.reductions + 1, 0

    def _save(self) -> None:
        self.monitor.flush()
        checkpoint.save(self.run, self.state)
        checkpoint.prune(self.run, self.cfg.trainer.keep_checkpoints)

    def _given_up(self) -> bool:
        patience = self.cfg.trainer.patience
        return patience is not None and self.progress.waiting >= patience

    def _stop_if_asked(self) -> None:
        if self.stop.exit_code is not None or self._late():
            self._stop()

    def _late(self) -> bool:
        limit = self.cfg.trainer.max_minutes
        return limit is not None and time.monotonic() - self.started > limit * 60

    def _stop(self) -> NoReturn:
        """Save the last whole update and leave."""
        if self.progress.update:
            self._save()
            what = f"saved at update {self.progress.update}"
        else:
            what = "stopped before its first update was done"
        raise stopped(self.run, self.stop, what)


def stopped(run: RunDir, stop: StopRequest, what: str) -> StoppedError:
    """Say why a run stopped and how it goes on."""
    why = stop.signal.name if stop.signal else "trainer.max_minutes"
    fix = f"Continue with: python train.py resume={run.root}"
    return StoppedError(run.root, f"{what} ({why})", fix, stop.exit_code or 75)


def validate(
    model: RNNSearch, data: TrainingData, cfg: Config, stop: StopRequest
) -> Validated | None:
    """Score a model on the validation set: loss over all pairs, BLEU of real decoding.

    Returns None if a stop was asked for meanwhile.
    """
    model.eval()
    try:
        loss = validation_loss(model, data.validation, cfg, stop)
        limit = cfg.trainer.validation_sentences
        lines, references = data.validation_source[:limit], data.validation_references[:limit]
        rules = _validation_rules(cfg)
        translations = []
        for translation in translate(model, data.tokenizers, lines, rules):
            if stop.exit_code is not None:
                return None
            translations.append(translation)
    finally:
        model.train()
    score = bleu([t.text for t in translations], references, cfg.evaluate.bleu_tokenizer)
    return Validated(loss, score, translations, references)


def validation_loss(
    model: RNNSearch, pairs: TokenizedPairs, cfg: Config, stop: StopRequest
) -> float:
    """Return nats per target token, end symbols included, without smoothing."""
    device = next(model.parameters()).device
    total, words = 0.0, 0
    order = pairs.tgt.lengths().argsort(kind="stable").tolist()
    size = cfg.decode.batch_sentences
    for start in range(0, len(order), size):
        if stop.exit_code is not None:
            break
        batch = pairs.batch(order[start : start + size], PAD).to(device)
        with torch.inference_mode():
            output = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
            loss = nll(output, batch)
        total, words = total + loss.nll.item(), words + loss.words
    return total / max(1, words)


def _validation_rules(cfg: Config) -> DecodeConfig:
    return replace(cfg.decode, beam_size=cfg.trainer.validation_beam, n_best=1)


def sampled_batch(
    texts: tuple[Sequence[str], Sequence[str]],
    tokenizers: tuple[Tokenizer, Tokenizer],
    rows: Sequence[int],
    *,
    rate: float,
    seed: int,
) -> Batch:
    """Cut the text of some pairs into subwords at random: a pure function of its arguments."""
    src, tgt = (
        [[*ids, EOS] for ids in tokenizer.sample([side[row] for row in rows], rate, seed)]
        for side, tokenizer in zip(texts, tokenizers, strict=True)
    )
    return collate(list(zip(src, tgt, strict=True)), PAD)


def update_seed(seed: int, update: int) -> int:
    """Return the seed of one update, 32 bits."""
    return zlib.crc32(f"{seed}/{update}".encode())


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Run matrix products in bfloat16 if asked; softmax, energies and loss stay in float32."""
    if precision is Precision.fp32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def answer_signals(model: nn.Module) -> None:
    """Let a backward pass come back to Python at each step of a recurrence.

    On the reference backend it is one call of C++, half a minute at the paper's sizes, and Python
    handles no signal meanwhile. The fused kernels are Python anyway.
    """
    for module in model.modules():
        if isinstance(module, GatedUnit):
            module.register_forward_hook(_listen)


def _listen(_module: nn.Module, _inputs: object, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(_look_up)


def _look_up(_gradient: Tensor) -> None:
    """Do nothing, in Python."""


@contextlib.contextmanager
def explained_memory(batch: Batch, run: RunDir) -> Iterator[None]:
    """Say which batch did not fit, and what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise MemoryLimitError(
            run.root,
            f"out of memory with {batch.num_sentences} pairs of up to {batch.src.shape[1]} and "
            f"{batch.tgt.shape[1]} tokens",
            "Lower trainer.batch_sentences, trainer.batch_tokens or data.max_words and resume.",
        ) from None
