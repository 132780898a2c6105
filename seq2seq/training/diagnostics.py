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
from seq2seq.model import Annotations, RNNSearch
from seq2seq.model.attention import FixedContext
from seq2seq.model.decoder import unroll
from seq2seq.model.encoder import Encoded
from seq2seq.model.gated_unit import GatedUnit

SENTENCES = 8
"""So many of a batch are looked at."""

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

    def __init__(self, model: RNNSearch) -> None:
        self.model = model
        self.groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            self.groups.setdefault(group_of(name), []).append(parameter)

    @torch.no_grad()
    def weights(self) -> Snapshot:
        """Copy the weights before an update."""
        norms = {name: nn.utils.get_total_norm(group) for name, group in self.groups.items()}
        copies = {name: [p.clone() for p in group] for name, group in self.groups.items()}
        return Snapshot(copies, norms)

    @torch.no_grad()
    def ratios(self, before: Snapshot) -> Values:
        """Return |w_after - w_before| / |w_before| of each group; `before` is used up."""
        found = {}
        for name, weights in before.weights.items():
            moved, now = list(weights), [p.detach() for p in self.groups[name]]
            torch._foreach_sub_(moved, now)
            found[f"update_ratio/{name}"] = nn.utils.get_total_norm(moved) / before.norms[name]
        return found

    @torch.no_grad()
    def look(self, batch: Batch) -> Values:
        """Return saturation of the gates and entropy of the attention on a part of a batch.

        By the formulas of `model/`, with the weights as they are and without dropout.
        """
        part = some_of(batch, SENTENCES)
        training, device = self.model.training, batch.src.device
        # Nothing draws in evaluation mode; if an attention ever does, this keeps it to itself.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.model.eval()
            try:
                return dict(_inside(self.model, part))
            finally:
                self.model.train(training)


def group_of(name: str) -> str:
    """Return the part of the model that a parameter belongs to."""
    if ".embedding." in name:
        return "embeddings"
    if name.startswith("encoder."):
        return "encoder"
    if name.startswith("decoder.attention."):
        return "attention"
    return "decoder" if name.startswith(("decoder.unit.", "decoder.W_s.")) else "readout"


def read(values: Values) -> dict[str, float]:
    """Fetch numbers from the device at once; what is not finite is left out: the loss tells it."""
    if not values:
        return {}
    numbers: list[float] = torch.stack([x.float() for x in values.values()]).tolist()
    return {k: x for k, x in zip(values, numbers, strict=True) if math.isfinite(x)}


def some_of(batch: Batch, count: int) -> Batch:
    """Return at most so many sentences, evenly out of the batch, which is sorted by length."""
    step = -(-batch.num_sentences // count)
    return Batch(*(tensor[::step] for tensor in vars(batch).values()))


def _inside(model: RNNSearch, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    encoded = model.encoder(batch.src, batch.src_mask)
    yield from _saturation("encoder", _encoder_gates(model, batch, encoded), batch.src_mask)
    source = model.decoder.attention.annotate(encoded)
    gates, alpha = _along(model, batch, source)
    yield from _saturation("decoder", [gates], batch.tgt_mask)
    if not isinstance(model.decoder.attention, FixedContext):
        yield from _entropy(alpha, batch)


Gates = tuple[Tensor, Tensor]
"""z and r, (B, T, n)."""


def _encoder_gates(model: RNNSearch, batch: Batch, encoded: Encoded) -> list[Gates]:
    """Return the gates of each direction, at all positions at once: the states are known."""
    encoder = model.encoder
    words = encoder.embedding(batch.src)  # (B, Tx, m)
    # A direction begins with 0; what kernels leave at padding is not looked at.
    h = torch.where(batch.src_mask[..., None], encoded.h, 0.0)
    h_fwd, *h_bwd = h.split(encoder.forward_unit.hidden_size, dim=-1)
    gates = [_gates(encoder.forward_unit, words, nn.functional.pad(h_fwd, (0, 0, 1, -1)))]
    if encoder.backward_unit is not None:
        h_next = nn.functional.pad(h_bwd[0], (0, 0, -1, 1))
        gates.append(_gates(encoder.backward_unit, words, h_next))
    return gates


def _along(model: RNNSearch, batch: Batch, source: Annotations) -> tuple[Gates, Tensor]:
    """Return the decoder's gates and alpha (B, Ty, Tx) along the targets."""
    decoder = model.decoder
    emitted = decoder.embed(batch.tgt)  # (B, Ty, m)
    previous = nn.functional.pad(emitted, (0, 0, 1, -1))  # y_0 is the zero vector
    steps = unroll(decoder, previous, emitted, source, batch.tgt_mask)
    words = emitted if decoder.moved_by_emitted else previous
    return _gates(decoder.unit, words, steps.s_prev, steps.c), steps.alpha


def _gates(unit: GatedUnit, words: Tensor, s_prev: Tensor, c: Tensor | None = None) -> Gates:
    _, for_z, for_r = unit.project(words).chunk(3, dim=-1)
    return unit.gates(for_z, for_r, s_prev, c)


def _saturation(part: str, units: Sequence[Gates], mask: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the shares of gates below `CLOSED` and above `OPEN`, at real positions."""
    for letter, gates in zip("zr", zip(*units, strict=True), strict=True):
        gate = torch.cat(gates, dim=-1)  # (B, T, n), or 2n with two directions
        count = mask.sum() * gate.shape[-1]
        yield f"gates/{part}_{letter}_low", ((gate < CLOSED) & mask[..., None]).sum() / count
        yield f"gates/{part}_{letter}_high", ((gate > OPEN) & mask[..., None]).sum() / count


def _entropy(alpha: Tensor, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Yield the mean entropy of alpha_i in nats, and its share of the greatest, log Tx."""
    tiny = torch.finfo(alpha.dtype).tiny
    alpha = alpha / alpha.sum(dim=-1, keepdim=True).clamp_min(tiny)  # `local`: sums below 1
    entropy = (torch.special.entr(alpha).sum(dim=-1) * batch.tgt_mask).sum()
    greatest = batch.src_mask.sum(dim=1).log()[:, None] * batch.tgt_mask
    yield "attention/entropy", entropy / batch.tgt_mask.sum()
    yield "attention/entropy_share", entropy / greatest.sum()
