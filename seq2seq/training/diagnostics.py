"""Training diagnostics from inside the model: update ratios, gate saturation, attention entropy.

They run only at logged updates. Each costs a gradient-free pass over `SENTENCES` sentences, at most
a third of an update and less for larger batches, plus six passes over the weights, no more than an
optimizer step. With `logging.every=50` that is below 1% of the training time. Results stay on the
device until all are read at once.
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
"""The maximum number of sentences of a batch to run."""

CLOSED, OPEN = 0.05, 0.95
"""Beyond these a gate hardly learns: the sigmoid's slope is below 0.05, a fifth of its maximum."""

Values = dict[str, Tensor]
"""Scalars () on the device, by their name in the log."""


@dataclass(frozen=True)
class Snapshot:
    """The weights before an update, by group."""

    weights: Mapping[str, Sequence[Tensor]]
    norms: Mapping[str, Tensor]  # ()


class Probe:
    """Inspects a model in training without changing its weights or its random draws."""

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
        """Return |w_after - w_before| / |w_before| of each group; overwrites `before`."""
        ratios = {}
        for name, weights in before.weights.items():
            moved, now = list(weights), [p.detach() for p in self.groups[name]]
            torch._foreach_sub_(moved, now)
            ratios[f"update_ratio/{name}"] = nn.utils.get_total_norm(moved) / before.norms[name]
        return ratios

    @torch.no_grad()
    def look(self, batch: Batch) -> Values:
        """Return gate saturation and attention entropy on part of a batch.

        Uses the current weights, without dropout.
        """
        # At most `SENTENCES`, evenly spaced in the batch, which is sorted by length
        step = -(-batch.num_sentences // SENTENCES)
        part = batch.each(lambda tensor: tensor[::step])
        training, device = self.model.training, batch.src.device
        # Nothing draws in evaluation mode; should an attention ever do so, training is unaffected.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.model.eval()
            try:
                probes = self.model.probes(part.src, part.src_mask, part.tgt, part.tgt_mask)
            finally:
                self.model.train(training)
        return dict([*_saturation(probes), *_entropy(probes, part)])


def weight_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the weights by group.

    A weight's group is its top-level part, unless that part's `weight_groups` assigns another one.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part, child, *_ = name.split(".")
        told: Mapping[str, str] = getattr(model.get_submodule(part), "weight_groups", {})
        groups.setdefault(told.get(child, part), []).append(parameter)
    return groups


def read(values: Values) -> dict[str, float]:
    """Fetch all values from the device at once; drop non-finite ones, which the loss reveals."""
    if not values:
        return {}
    numbers: list[float] = torch.stack([x.float() for x in values.values()]).tolist()
    return {k: x for k, x in zip(values, numbers, strict=True) if math.isfinite(x)}


def _saturation(probes: Probes) -> Iterator[tuple[str, Tensor]]:
    """Yield the shares of gates below `CLOSED` and above `OPEN`, at real positions."""
    for name, (gate, mask) in probes.gates.items():
        count = mask.sum() * gate.shape[-1]
        yield f"gates/{name}_low", ((gate < CLOSED) & mask[..., None]).sum() / count
        yield f"gates/{name}_high", ((gate > OPEN) & mask[..., None]).sum() / count


def _entropy(probes: Probes, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Yield the mean entropy of alpha_i in nats, and its share of the maximum, log Tx."""
    if probes.alpha is None:
        return
    tiny = torch.finfo(probes.alpha.dtype).tiny
    # The weights of `local` may sum to less than 1.
    alpha = probes.alpha / probes.alpha.sum(dim=-1, keepdim=True).clamp_min(tiny)
    entropy = (torch.special.entr(alpha).sum(dim=-1) * batch.tgt_mask).sum()
    greatest = batch.src_mask.sum(dim=1).log()[:, None] * batch.tgt_mask
    yield "attention/entropy", entropy / batch.tgt_mask.sum()
    yield "attention/entropy_share", entropy / greatest.sum()
