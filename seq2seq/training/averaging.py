"""An average of the weights over updates, which is validated, saved as best, and decoded."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """Maintains avg <- d avg + (1 - d) w.

    Exponential: d = min(decay, (1 + update) / (10 + update)). The smaller d of early updates lets
    the average forget the initial weights.

    With a `start`: d = 1 - 1 / (update - start), the equal mean of the weights after each update
    since then (Izmailov et al. 2018, arXiv:1803.05407); until then d = 0, the weights themselves.
    """

    def __init__(self, model: nn.Module, decay: float, start: int | None = None) -> None:
        self.decay, self.start = decay, start
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, update: int) -> None:
        """Add the weights after an update to the average; the first update is 1."""
        share = 1 - min(self.decay, (1 + update) / (10 + update))
        if self.start is not None:
            share = 1 / max(1, update - self.start)
        torch._foreach_lerp_(  # one call for all tensors; a loop costs a millisecond per update
            list(self.weights.values()), [p.detach() for p in model.parameters()], share
        )

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside a `with` block."""
        own = {name: p.data for name, p in model.named_parameters()}
        _point(model, self.weights)
        try:
            yield
        finally:
            _point(model, own)


def _point(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = weights[name]
