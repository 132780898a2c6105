"""Our model with the authors' weights on the authors' batch, and how far apart the results are."""

from dataclasses import replace

import numpy as np
import torch

from groundhog.names import Array
from groundhog.reference import Reference
from seq2seq.config.schema import Backend
from seq2seq.model import RNNSearch, build_model
from seq2seq.model.output import smoothed_loss

TOLERANCE = 1e-5
"""Greatest relative deviation: theirs is float32, whose own rounding shows at about 1e-6."""

SMALLEST = 1e-6
"""A smaller probability is compared as if it were as large as this."""

ROUNDING = 1e-12
"""A gradient of ours, float64, that is below this share of the largest one is zero."""

MEASURE = f"""Relative deviation is the greatest |ours - theirs| over
  distribution, alignment   theirs, entry by entry, at least {SMALLEST:g}
  all others                the greatest |theirs| of the same array
A gradient that is zero but for rounding is measured against the largest of all gradients."""


def build(reference: Reference, backend: Backend) -> RNNSearch:
    """Return the model of a file with its weights, in float64. Row 0 of the words is y_0."""
    sizes, config = reference.sizes, reference.config
    model = build_model(
        replace(config, model=replace(config.model, backend=backend)),
        num_source=sizes["Kx"] + 1,
        num_target=sizes["Ky"] + 1,
        pad=0,
    ).double()
    weights = {p.ours: p.to_ours(reference.weights[p.theirs]) for p in reference.parameters}
    model.load_state_dict(weights)
    return model.eval()


def compute(reference: Reference, backend: Backend) -> dict[str, Array]:
    """Run forward and backward; return the same keys and shapes as `Reference.results`."""
    model, batch = build(reference, backend), reference.batch
    followed = model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    # y_0 is no word of theirs: its column stays out of the softmax.
    logits, words = model.logits(followed.t)[:, 1:], batch.tgt[batch.tgt_mask] - 1
    loss, objective = smoothed_loss(logits, words, 0.0)
    objective.backward()
    distribution = torch.softmax(logits.detach(), dim=-1)  # (N, K_y)
    tensors = {
        "cost": loss,
        "word_probs": distribution.gather(1, words[:, None]).squeeze(1),
        "distribution": distribution,
        "alignment": followed.alpha.detach()[batch.tgt_mask],
    }
    # With one target word the state never moves, and the decoder's unit takes no part.
    gradients = {
        name: torch.zeros_like(p.detach()) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return {key: tensor.numpy() for key, tensor in tensors.items()} | {
        f"grad:{p.theirs}": p.to_theirs(gradients[p.ours]) for p in reference.parameters
    }


def deviations(ours: dict[str, Array], theirs: dict[str, Array]) -> dict[str, float]:
    """Return how far apart each result of theirs and ours is, as MEASURE says."""
    largest = max((_size(x) for key, x in theirs.items() if key.startswith("grad:")), default=0.0)
    found = {}
    for key, expected in theirs.items():
        scale = np.asarray(_size(expected))
        if key in ("distribution", "alignment"):
            scale = np.maximum(np.abs(expected), SMALLEST)
        elif key.startswith("grad:") and _size(ours[key]) < ROUNDING * largest:
            scale = np.asarray(largest)
        scale = np.maximum(scale, np.finfo(np.float64).tiny)  # where all of theirs is zero
        found[key] = float((np.abs(ours[key] - expected) / scale).max())
    return found


def _size(array: Array) -> float:
    return float(np.abs(array).max())
