"""The gradient of a batch: forward, cost, backward; in parts where memory does not suffice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seq2seq.config.schema import Config, HardConfig
from seq2seq.data.batching import Batch
from seq2seq.model import DecoderOutput, RNNSearch
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.run.memory import OutOfMemory
from seq2seq.training.loss import Loss, cost, nll, sentence_nll
from seq2seq.training.precision import autocast
from seq2seq.training.reinforce import draws_cost


def batch_gradient(model: RNNSearch, batch: Batch, cfg: Config) -> Loss:
    """Put the gradient of a batch into the parameters; return its cost."""
    loss = _cost(model, batch, cfg)
    model.zero_grad(set_to_none=True)
    loss.objective(cfg.trainer.normalize).backward()
    return loss


def free_failed_pass(device: torch.device) -> None:
    """Free what a backward pass held that ran out of memory.

    Autograd's engine keeps the tensors of the operation that failed until its next pass.
    """
    torch.zeros((), requires_grad=True, device=device).neg().backward()


@dataclass(frozen=True)
class InParts:
    """A gradient that was put together from parts of its batch."""

    loss: Loss  # of the whole batch
    parts: int


def gradient_in_parts(model: RNNSearch, batch: Batch, cfg: Config) -> InParts:
    """Put the gradient of a batch into the parameters, of one half after the other.

    A half for which memory does not suffice is halved again. Costs are sums over words, and each
    is divided by what the whole batch is divided by: without dropout and draws, which come out
    differently, this is the gradient of the whole batch up to rounding.

    Raises:
        MemoryError: one sentence does not fit.
    """
    model.zero_grad(set_to_none=True)
    whole = Loss(torch.zeros(()), torch.zeros(()), batch.num_sentences, int(batch.tgt_mask.sum()))
    if batch.num_sentences == 1:
        raise MemoryError("a batch of one sentence")
    waiting, total, parts = [*reversed(halves(batch))], 0.0, 0
    while waiting:
        part = waiting.pop()
        with OutOfMemory() as oom:
            cost, grads = _part(model, part, cfg, whole)
        if not oom:
            _add(model, grads)
            total, parts = total + cost, parts + 1
            continue
        free_failed_pass(part.src.device)
        if part.num_sentences == 1:
            model.zero_grad(set_to_none=True)
            raise MemoryError(oom.message)
        waiting += reversed(halves(part))
    return InParts(replace(whole, nll=torch.tensor(total)), parts)


def _part(
    model: RNNSearch, part: Batch, cfg: Config, whole: Loss
) -> tuple[float, Sequence[Tensor | None]]:
    """Return the summed cost of a part and its share of the gradient.

    The parameters stay untouched until it is whole: memory may run out in the middle.
    """
    loss = _cost(model, part, cfg)
    share = replace(loss, sentences=whole.sentences, words=whole.words)
    objective = share.objective(cfg.trainer.normalize)
    grads = torch.autograd.grad(objective, list(model.parameters()), allow_unused=True)
    return loss.nll.item(), grads


def _add(model: RNNSearch, grads: Sequence[Tensor | None]) -> None:
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        if parameter.grad is None:
            parameter.grad = grad
        elif grad is not None:
            parameter.grad.add_(grad)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Cut a batch in two, each no wider than its own longest sentences."""
    middle = batch.num_sentences // 2
    return _rows(batch, slice(middle)), _rows(batch, slice(middle, None))


def _rows(batch: Batch, rows: slice) -> Batch:
    src_mask, tgt_mask = batch.src_mask[rows], batch.tgt_mask[rows]
    tx, ty = (int(mask.sum(dim=1).max()) for mask in (src_mask, tgt_mask))
    return Batch(batch.src[rows, :tx], src_mask[:, :tx], batch.tgt[rows, :ty], tgt_mask[:, :ty])


def sentence_costs(model: RNNSearch, batch: Batch, cfg: Config) -> list[float]:
    """Return the nats of each sentence, with the draws that the caller has seeded."""
    with autocast(batch.src.device, cfg.trainer.precision):
        costs: list[float] = sentence_nll(model, batch).tolist()
    return costs


def _cost(model: RNNSearch, batch: Batch, cfg: Config) -> Loss:
    with autocast(batch.src.device, cfg.trainer.precision):
        if not isinstance(cfg.attention, HardConfig):
            return cost(model, batch, cfg.trainer.label_smoothing)
        output: DecoderOutput = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    loss = nll(output, batch, cfg.trainer.label_smoothing)
    return replace(loss, draws=draws_cost(output, batch, cfg.attention))


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
