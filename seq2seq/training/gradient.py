"""The gradient of a batch: forward, loss and backward, in one or several parts."""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from seq2seq.config.schema import Config, OnOutOfMemory
from seq2seq.data.batching import Batch
from seq2seq.model import EncoderDecoder
from seq2seq.model.draws import keyed
from seq2seq.run.memory import OutOfMemory
from seq2seq.training.loss import sentence_losses as losses_of_sentences
from seq2seq.training.objective import Objective
from seq2seq.training.precision import autocast


@dataclass(frozen=True)
class Gradient:
    """The result of a gradient computation; the gradient itself is in the parameters."""

    total: Tensor  # ()  loss of the batch, nats summed over target tokens, without smoothing
    tokens: int  # target tokens, end symbols included
    parts: int
    shortage: str | None = None  # the out-of-memory message, if more parts than asked were needed


def accumulated_gradient(
    model: EncoderDecoder,
    objective: Objective,
    batch: Batch | None,
    keys: Tensor,
    parts: int,
    cfg: Config,
    whole: tuple[int, int] | None = None,
) -> Gradient:
    """Compute the gradient of a batch, part by part, and leave it in the parameters.

    Of several processes, each computes that of its own share of the batch, which may be None;
    `whole` are the sentences and the target tokens of all shares.

    Losses are sums over words, divided by the divisor of the whole batch, and sentences draw by
    their keys (B, passes), so any number of parts gives the same gradient up to rounding. If memory
    runs out and `trainer.on_out_of_memory` is `split`, it starts again with twice as many parts.

    Raises:
        MemoryError: out of memory with `stop`, or with a single sentence per part.
    """
    if batch is None:
        assert whole is not None
        model.zero_grad(set_to_none=True)
        return Gradient(torch.zeros((), device=keys.device), whole[1], parts=0)
    parts, shortage = min(parts, batch.num_sentences), None
    sentences, tokens = whole or (batch.num_sentences, int(batch.tgt_mask.sum()))
    while True:
        model.zero_grad(set_to_none=True)
        task = followed = loss = None
        total = torch.zeros((), device=batch.src.device)
        with OutOfMemory() as oom:
            cut = keys.tensor_split(boundaries(len(keys), parts))
            for some, own in zip(split(batch, parts), cut, strict=True):
                task = objective.prepare(model, some, own)
                part = task.batch
                with keyed(task.keys), autocast(part.src.device, cfg.trainer.precision):
                    followed = model.follow(part.src, part.src_mask, part.tgt, part.tgt_mask)
                    loss = task.loss(followed)
                loss = replace(loss, sentences=sentences, tokens=tokens)
                loss.objective(cfg.trainer.normalize).backward()
                total += loss.total
            return Gradient(total, tokens, parts, shortage)
        # Free what the failed pass allocated before trying again.
        task = followed = loss = None
        shortage = oom.message
        free_failed_pass(batch.src.device)
        if cfg.trainer.on_out_of_memory is OnOutOfMemory.stop or parts == batch.num_sentences:
            model.zero_grad(set_to_none=True)
            raise MemoryError(shortage)
        parts = min(2 * parts, batch.num_sentences)
        torch.manual_seed(torch.initial_seed())


def free_failed_pass(device: torch.device) -> None:
    """Run a tiny backward pass: until its next pass, autograd's engine holds on to a failed one."""
    torch.zeros((), requires_grad=True, device=device).neg().backward()


def split(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into equal parts, each only as wide as its own longest sentences."""
    if parts == 1:
        return [batch]
    at = [0, *boundaries(batch.num_sentences, parts), batch.num_sentences]
    return [_part(batch, slice(*ends)) for ends in pairwise(at)]


def boundaries(count: int, parts: int) -> list[int]:
    """Return the positions at which to split `count` sentences into parts."""
    return [count * i // parts for i in range(1, parts)]


def sentence_losses(model: EncoderDecoder, batch: Batch, keys: Tensor, cfg: Config) -> list[float]:
    """Return the loss (nats) of each sentence; in training mode with the draws of its key."""
    with keyed(keys), autocast(batch.src.device, cfg.trainer.precision):
        losses: list[float] = losses_of_sentences(model, batch).tolist()
    return losses


def _part(batch: Batch, rows: slice) -> Batch:
    own = batch.each(lambda tensor: tensor[rows])
    tx, ty = (int(mask.sum(dim=1).max()) for mask in (own.src_mask, own.tgt_mask))
    links = None if own.links is None else own.links[:, :ty, :tx]
    sides = own.src[:, :tx], own.src_mask[:, :tx], own.tgt[:, :ty], own.tgt_mask[:, :ty]
    return Batch(*sides, links)
