"""What the inside of the model says about its training: sizes of updates, gates, attention.

Nothing of this happens but at the updates that are logged. There it costs a pass without gradient
over `SENTENCES` sentences, at most a third of an update and less the larger a batch is, and six
times the way through the weights, no more than a step of the optimizer: with `logging.every=50`
below 1% of the training time. Results stay on the device until all of them are read at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.data.batching import Batch
from seq2seq.model import EncoderDecoder
from seq2seq.model.protocols import Probes

SENTENCES = 8
"""At most as many sentences of a batch are run."""

CLOSED, OPEN = 0.05, 0.95
"""A gate beyond them hardly learns: the sigmoid's slope is below 0.05, a fifth of its greatest."""

Values = dict[str, Tensor]
"""Numbers () on the device, by what they are called in the log."""


@dataclass(frozen=True)
class Snapshot:
    """The weights before an update, by groups."""

    weights: Mapping[str, Sequence[Tensor]]
    norms: Mapping[str, Tensor]  # ()


class Probe:
    """Looks into a model without changing anything of it or of what it draws.

    Args:
        model: That is trained.
    """

    def __init__(self, model: EncoderDecoder) -> None:
        self.model = model
        self.groups = weight_groups(model)

    @torch.no_grad()
    def weights(self) -> Snapshot:
        """Copy the weights before an update."""
        norms = {name: nn.utils.get_total_norm(group) for name, group in self.groups.items()}
        copies = {name: [p.clone() for p in group] for name, group in self.groups.items()}
        return Snapshot(copies, norms)

    @torch.no_grad()
    def ratios(self, before: Snapshot) -> Values:
        """Return |w_after - w_before| / |w_before| of each group; `before` is used up."""
        ratios = {}
        for name, weights in before.weights.items():
            moved, now = list(weights), [p.detach() for p in self.groups[name]]
            torch._foreach_sub_(moved, now)
            ratios[f"update_ratio/{name}"] = nn.utils.get_total_norm(moved) / before.norms[name]
        return ratios

    @torch.no_grad()
    def look(self, batch: Batch) -> Values:
        """Return saturation of the gates and entropy of the attention on a part of a batch.

        With the weights as they are and without dropout.
        """
        part = some_of(batch, SENTENCES)
        training, device = self.model.training, batch.src.device
        # Nothing draws in evaluation mode; if an attention ever does, this keeps it to itself.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.model.eval()
            try:
                probes = self.model.probes(part.src, part.src_mask, part.tgt, part.tgt_mask)
            finally:
                self.model.train(training)
        return dict([*_saturation(probes), *_entropy(probes, part)])


def weight_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the weights by what they belong to.

    That is one of the model's own parts, but for what this tells of its parts in `weight_groups`.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part, child, *_ = name.split(".")
        told: Mapping[str, str] = getattr(model.get_submodule(part), "weight_groups", {})
        groups.setdefault(told.get(child, part), []).append(parameter)
    return groups


def read(values: Values) -> dict[str, float]:
    """Fetch numbers from the device at once; what is not finite is left out: the loss tells it."""
    if not values:
        return {}
    numbers: list[float] = torch.stack([x.float() for x in values.values()]).tolist()
    return {k: x for k, x in zip(values, numbers, strict=True) if math.isfinite(x)}


def some_of(batch: Batch, count: int) -> Batch:
    """Return at most `count` sentences, evenly out of the batch, which is sorted by length."""
    step = -(-batch.num_sentences // count)
    return Batch(*(tensor[::step] for tensor in vars(batch).values()))


def _saturation(probes: Probes) -> Iterator[tuple[str, Tensor]]:
    """Yield the shares of gates below `CLOSED` and above `OPEN`, at real positions."""
    for name, (gate, mask) in probes.gates.items():
        count = mask.sum() * gate.shape[-1]
        yield f"gates/{name}_low", ((gate < CLOSED) & mask[..., None]).sum() / count
        yield f"gates/{name}_high", ((gate > OPEN) & mask[..., None]).sum() / count


def _entropy(probes: Probes, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Yield the mean entropy of alpha_i in nats, and its share of the greatest, log Tx."""
    if probes.alpha is None:
        return
    tiny = torch.finfo(probes.alpha.dtype).tiny
    # `local` has sums below 1
    alpha = probes.alpha / probes.alpha.sum(dim=-1, keepdim=True).clamp_min(tiny)
    entropy = (torch.special.entr(alpha).sum(dim=-1) * batch.tgt_mask).sum()
    greatest = batch.src_mask.sum(dim=1).log()[:, None] * batch.tgt_mask
    yield "attention/entropy", entropy / batch.tgt_mask.sum()
    yield "attention/entropy_share", entropy / greatest.sum()
