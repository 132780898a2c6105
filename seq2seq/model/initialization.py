"""How weights start: the paper's B.1, and a modern choice for small models.

Every module draws its own weights with `initialize(scheme)`, part by part in the order in which
its parts were made; a seed therefore gives the same weights as long as that order stays.
"""

from typing import Protocol

from torch import Tensor, nn


class Scheme(Protocol):
    """Draws a weight by what it is for."""

    def matrix(self, weight: Tensor) -> None:
        """Any matrix that is none of the others."""

    def recurrent(self, weight: Tensor) -> None:
        """A square matrix from state to state."""

    def alignment(self, weight: Tensor) -> None:
        """A matrix of the alignment model, W_a or U_a."""

    def energy(self, weight: Tensor) -> None:
        """The vector that makes energies, v_a."""

    def embedding(self, weight: Tensor) -> None:
        """Vectors of words (K, m)."""


class Paper:
    """B.1: recurrent matrices orthogonal, W_a and U_a N(0, 0.001^2), v_a 0, the rest 0.01.

    v_a = 0 makes the first attention exactly uniform.
    """

    def matrix(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.normal_(weight, std=0.01)

    def recurrent(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.orthogonal_(weight)

    def alignment(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.normal_(weight, std=0.001)

    def energy(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.zeros_(weight)

    def embedding(self, weight: Tensor) -> None:  # noqa: D102
        self.matrix(weight)


class Glorot:
    """Glorot-uniform matrices, orthogonal recurrent ones, N(0, 1/m) embeddings.

    Small models with Adam leave the plateau of the first updates sooner than with B.1.
    """

    def matrix(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.xavier_uniform_(weight)

    def recurrent(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.orthogonal_(weight)

    def alignment(self, weight: Tensor) -> None:  # noqa: D102
        self.matrix(weight)

    def energy(self, weight: Tensor) -> None:  # noqa: D102
        self.matrix(weight)

    def embedding(self, weight: Tensor) -> None:  # noqa: D102
        nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


SCHEMES: dict[str, Scheme] = {"paper": Paper(), "glorot": Glorot()}


def draw_layers(scheme: Scheme, *layers: nn.Module) -> None:
    """Draw the weights of linear layers, or sequences of them, in order; biases start at 0."""
    for layer in layers:
        for part in layer.modules():
            if isinstance(part, nn.Linear):
                scheme.matrix(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
