"""How weights start: the paper's B.1, and a modern choice for small models."""

import torch
from torch import nn

from seq2seq.model.embedding import WordEmbedding

RECURRENT = ("U", "U_z", "U_r")


@torch.no_grad()
def initialize_paper(model: nn.Module) -> None:
    """B.1: recurrent matrices orthogonal, W_a and U_a N(0, 0.001^2), v_a and biases 0, rest 0.01.

    v_a = 0 makes the first attention exactly uniform.
    """
    for name, weight in model.named_parameters():
        owner, kind = name.split(".")[-2:]
        if kind == "bias" or owner == "v_a":
            nn.init.zeros_(weight)
        elif owner in RECURRENT:
            nn.init.orthogonal_(weight)
        elif owner in ("W_a", "U_a"):
            nn.init.normal_(weight, std=0.001)
        else:
            nn.init.normal_(weight, std=0.01)
    _zero_first_word(model)


@torch.no_grad()
def initialize_glorot(model: nn.Module) -> None:
    """Glorot-uniform matrices, orthogonal recurrent ones, zero biases, N(0, 1/m) embeddings.

    Small models with Adam leave the plateau of the first updates sooner than with B.1.
    """
    for name, weight in model.named_parameters():
        owner, kind = name.split(".")[-2:]
        if kind == "bias":
            nn.init.zeros_(weight)
        elif owner in RECURRENT:
            nn.init.orthogonal_(weight)
        elif owner == "E":
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        else:
            nn.init.xavier_uniform_(weight)
    _zero_first_word(model)


def _zero_first_word(model: nn.Module) -> None:
    """Zero the row of y_0 again: an in-place draw overwrites what `padding_idx` had set."""
    for module in model.modules():
        if isinstance(module, WordEmbedding):
            module.E.weight[module.zero_id] = 0.0
