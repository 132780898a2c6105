"""What each weight is called in `lisa-groundhog/GroundHog` (`experiments/nmt`) and here.

Theirs are (in, out), used as x W; ours are the transpose, embeddings excepted. Prefixes: `enc`
forward encoder, `back_enc` backward encoder, `dec` decoder. The backward encoder shares the
embedding of the forward one.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A weight under its two names.

    `shape` is theirs, in the letters of `seq2seq/model/__init__.py`; c is the width of the
    context, 2n or n, and r the rank of a factored W_o.
    """

    theirs: str
    ours: str
    shape: tuple[str, ...]

    @property
    def is_bias(self) -> bool:
        """Whether some models go without it."""
        return self.ours.endswith(".bias")

    def to_ours(self, array: Array) -> Tensor:
        """Return a weight as our model has it, with a zero in front for the word y_0."""
        turned = array if self._words_first else array.T
        if self._has_words:
            turned = np.concatenate([np.zeros_like(turned[:1]), turned])
        return torch.from_numpy(np.ascontiguousarray(turned))

    def to_theirs(self, tensor: Tensor) -> Array:
        """Return a weight or gradient of ours as they have it."""
        array: Array = tensor.numpy()[1 if self._has_words else 0 :]
        return array if self._words_first else array.T

    @property
    def _has_words(self) -> bool:
        return self.shape[0] in ("Kx", "Ky") or self.shape[-1] == "Ky"

    @property
    def _words_first(self) -> bool:
        return self.shape[0] in ("Kx", "Ky")


def _unit(theirs: str, ours: str) -> list[Parameter]:
    """The gated unit of A.1.1, without context."""
    return [
        Parameter(f"W_{theirs}_transition_0", f"{ours}.U.weight", ("n", "n")),
        Parameter(f"G_{theirs}_transition_0", f"{ours}.U_z.weight", ("n", "n")),
        Parameter(f"R_{theirs}_transition_0", f"{ours}.U_r.weight", ("n", "n")),
        Parameter(f"W_0_{theirs}_input_embdr_0", f"{ours}.W.weight", ("m", "n")),
        Parameter(f"b_0_{theirs}_input_embdr_0", f"{ours}.W.bias", ("n",)),
        Parameter(f"W_0_{theirs}_update_embdr_0", f"{ours}.W_z.weight", ("m", "n")),
        Parameter(f"W_0_{theirs}_reset_embdr_0", f"{ours}.W_r.weight", ("m", "n")),
    ]


# Sizes are read in this order: the first weight that has a letter says how large it is.
_ENCODER = [
    *_unit("enc", "encoder.forward_unit"),
    Parameter("W_0_enc_approx_embdr", "encoder.embedding.E.weight", ("Kx", "m")),
    Parameter("b_0_enc_approx_embdr", "encoder.embedding.bias", ("m",)),
]
_FACTORED_OUTPUT = [
    Parameter("W1_dec_deep_softmax", "decoder.W_o.0.weight", ("l", "r")),
    Parameter("W2_dec_deep_softmax", "decoder.W_o.1.weight", ("r", "Ky")),
    Parameter("b_dec_deep_softmax", "decoder.W_o.1.bias", ("Ky",)),
]
_WHOLE_OUTPUT = [
    Parameter("W_dec_deep_softmax", "decoder.W_o.weight", ("l", "Ky")),
    Parameter("b_dec_deep_softmax", "decoder.W_o.bias", ("Ky",)),
]
_DECODER = [
    Parameter("W_0_dec_approx_embdr", "decoder.embedding.E.weight", ("Ky", "m")),
    Parameter("b_0_dec_approx_embdr", "decoder.embedding.bias", ("m",)),
    *_unit("dec", "decoder.unit"),
    Parameter("W_0_dec_dec_inputter_0", "decoder.unit.C.weight", ("c", "n")),
    Parameter("W_0_dec_dec_updater_0", "decoder.unit.C_z.weight", ("c", "n")),
    Parameter("W_0_dec_dec_reseter_0", "decoder.unit.C_r.weight", ("c", "n")),
    Parameter("W_0_dec_initializer_0", "decoder.W_s.weight", ("n", "n")),
    Parameter("b_0_dec_initializer_0", "decoder.W_s.bias", ("n",)),
    Parameter("W_0_dec_hid_readout_0", "decoder.U_o.weight", ("n", "2l")),
    Parameter("b_0_dec_hid_readout_0", "decoder.U_o.bias", ("2l",)),
    Parameter("W_0_dec_prev_readout_0", "decoder.V_o.weight", ("m", "2l")),
    Parameter("W_0_dec_repr_readout", "decoder.C_o.weight", ("c", "2l")),
]
_SEARCH = [
    *_unit("back_enc", "encoder.backward_unit"),
    Parameter("A_dec_transition_0", "decoder.attention.U_a.weight", ("c", "n'")),
    Parameter("B_dec_transition_0", "decoder.attention.W_a.weight", ("n", "n'")),
    Parameter("D_dec_transition_0", "decoder.attention.v_a.weight", ("n'", "1")),
]
RNNENCDEC = [*_ENCODER, *_FACTORED_OUTPUT, *_DECODER]
"""The 30 tensors of the encoder-decoder prototype."""
RNNSEARCH = [*RNNENCDEC, *_SEARCH]
"""The 40 tensors of the search prototype."""


def searches(names: Collection[str]) -> bool:
    """Whether these are names of the search prototype, with its attention and backward encoder."""
    return any(p.theirs in names for p in _SEARCH)


def parameters_of(names: Collection[str]) -> list[Parameter]:
    """Return all parameters of the model to which these names belong.

    The search prototype or the other; W_o low-rank or whole; with biases or without, those
    of the embeddings apart from the rest.
    """
    output = _WHOLE_OUTPUT if _WHOLE_OUTPUT[0].theirs in names else _FACTORED_OUTPUT
    parameters = [*_ENCODER, *output, *_DECODER, *(_SEARCH if searches(names) else [])]
    biases = [p for p in parameters if p.is_bias]
    for_words = [p for p in biases if ".embedding." in p.ours]
    others = [p for p in biases if p not in for_words]
    dropped = [p for g in (for_words, others) if not any(p.theirs in names for p in g) for p in g]
    return [p for p in parameters if p not in dropped]
