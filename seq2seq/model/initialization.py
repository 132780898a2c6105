"""Weight initialization: the paper's B.1, and a modern scheme for small models.

Every module draws its own weights with `initialize(scheme)`, part by part, in the order in which
its parts were created. A seed gives the same weights as long as that order stays the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

Draw = Callable[[Tensor], object]


@dataclass(frozen=True)
class Scheme:
    """The functions that draw weights, by the role of the weight."""

    matrix: Draw  # any matrix not listed below
    recurrent: Draw  # square, from state to state
    alignment: Draw  # W_a and U_a of the alignment model
    energy: Draw  # v_a, the vector that computes energies
    embedding: Draw  # word embeddings (K, m)


_small = partial(nn.init.normal_, std=0.01)

SCHEMES = {
    # B.1; v_a = 0 makes the first attention exactly uniform.
    "paper": Scheme(
        matrix=_small,
        recurrent=nn.init.orthogonal_,
        alignment=partial(nn.init.normal_, std=0.001),
        energy=nn.init.zeros_,
        embedding=_small,
    ),
    # With Adam, small models leave the initial plateau sooner than with B.1.
    "glorot": Scheme(
        matrix=nn.init.xavier_uniform_,
        recurrent=nn.init.orthogonal_,
        alignment=nn.init.xavier_uniform_,
        energy=nn.init.xavier_uniform_,
        embedding=lambda weight: nn.init.normal_(weight, std=weight.shape[1] ** -0.5),
    ),
}


def draw_layers(scheme: Scheme, *layers: nn.Module) -> None:
    """Draw the weights of linear layers, or sequences of them, in order; biases start at 0."""
    for layer in layers:
        for part in layer.modules():
            if isinstance(part, nn.Linear):
                scheme.matrix(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


def draw_gates(draw: Draw, layer: nn.Linear, count: int) -> None:
    """Draw the weights of a layer that stacks several gates, each gate separately."""
    for rows in layer.weight.detach().chunk(count):
        draw(rows)
