"""Files of the authors' layout, made by the oracle: small sizes, K_x != K_y, id 0 as a word."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from conftest import FAMILY, TINY, with_values
from oracles import Oracle

from seq2seq.model import build_model

# Written down a second time, from the README of the vectors.
OURS_TO_AUTHORS = {
    "encoder.embedding.E.weight": "W_0_enc_approx_embdr",
    "encoder.embedding.bias": "b_0_enc_approx_embdr",
    "decoder.embedding.E.weight": "W_0_dec_approx_embdr",
    "decoder.embedding.bias": "b_0_dec_approx_embdr",
    **{
        f"{ours}.{letter}": name.format(authors)
        for ours, authors in (
            ("encoder.forward_unit", "enc"),
            ("encoder.backward_unit", "back_enc"),
            ("decoder.unit", "dec"),
        )
        for letter, name in (
            ("W.weight", "W_0_{}_input_embdr_0"),
            ("W.bias", "b_0_{}_input_embdr_0"),
            ("W_z.weight", "W_0_{}_update_embdr_0"),
            ("W_r.weight", "W_0_{}_reset_embdr_0"),
            ("U.weight", "W_{}_transition_0"),
            ("U_z.weight", "G_{}_transition_0"),
            ("U_r.weight", "R_{}_transition_0"),
        )
    },
    "decoder.unit.C.weight": "W_0_dec_dec_inputter_0",
    "decoder.unit.C_z.weight": "W_0_dec_dec_updater_0",
    "decoder.unit.C_r.weight": "W_0_dec_dec_reseter_0",
    "decoder.attention.W_a.weight": "B_dec_transition_0",
    "decoder.attention.U_a.weight": "A_dec_transition_0",
    "decoder.attention.v_a.weight": "D_dec_transition_0",
    "decoder.W_s.weight": "W_0_dec_initializer_0",
    "decoder.W_s.bias": "b_0_dec_initializer_0",
    "decoder.U_o.weight": "W_0_dec_hid_readout_0",
    "decoder.U_o.bias": "b_0_dec_hid_readout_0",
    "decoder.V_o.weight": "W_0_dec_prev_readout_0",
    "decoder.C_o.weight": "W_0_dec_repr_readout",
    "decoder.W_o.0.weight": "W1_dec_deep_softmax",
    "decoder.W_o.1.weight": "W2_dec_deep_softmax",
    "decoder.W_o.1.bias": "b_dec_deep_softmax",
}
WHOLE_OUTPUT = {
    "decoder.W_o.weight": "W_dec_deep_softmax",
    "decoder.W_o.bias": "b_dec_deep_softmax",
}


def turned(ours: str, array: np.ndarray) -> np.ndarray:
    return array if ".E." in ours else array.T


@dataclass(frozen=True)
class Kind:
    """A file for the oracle to make: the shape of the model, and the sentences of its batch."""

    pairs: tuple
    search: bool = True
    whole: bool = False
    bias: bool = True
    embedding_bias: bool = True


KINDS = {
    "search, ragged": Kind((((3, 0, 4), (1, 2)), ((4,), (0, 0, 2)))),
    "search, one word": Kind((((0,), (2,)),)),
    "encoder-decoder, ragged": Kind((((0, 4), (0, 1, 2)), ((1, 2, 4), (2,))), search=False),
    "encoder-decoder, one word": Kind((((4,), (0,)),), search=False),
    "whole output, no biases": Kind(
        (((2, 4), (0, 2)),), whole=True, bias=False, embedding_bias=False
    ),
    "no biases of words": Kind((((0, 4), (1, 2)),), embedding_bias=False, search=False),
}
NUM_SOURCE, NUM_TARGET = 5, 3


def shapes(kind: Kind) -> dict[str, tuple[int, ...]]:
    cfg = with_values(
        TINY,
        embedding_size=3,
        hidden_size=2,
        align_size=5,
        readout_size=2,
        output_rank=None if kind.whole else 4,
        bias=kind.bias,
        embedding_bias=kind.embedding_bias,
        attention=FAMILY["additive" if kind.search else "fixed"],
    )
    model = build_model(cfg, num_source=NUM_SOURCE, num_target=NUM_TARGET, pad=0)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def authors_oracle(weights: dict[str, np.ndarray], *, search: bool) -> Oracle:
    attention = "additive" if search else "fixed"
    reading = {"state_word": "emitted", "reset": "before", "readout": "maxout"}
    return Oracle(weights, **reading, attention=attention)


def padded(rows: list, fill: float) -> np.ndarray:
    """Rows of one number or array a word as (T, B, ...), padding filled."""
    longest = max(len(row) for row in rows)
    first = np.asarray(rows[0])
    full = np.full((longest, len(rows), *first.shape[1:]), fill, dtype=first.dtype)
    for b, row in enumerate(rows):
        full[: len(row), b] = row
    return full


@functools.cache
def made(name: str) -> dict[str, np.ndarray]:
    """A file of the authors' layout, in float64, from the oracle. For many tests: change copies."""
    kind, rng = KINDS[name], np.random.default_rng(3)
    weights = {x: rng.normal(size=shape, scale=0.7) for x, shape in shapes(kind).items()}
    oracle = authors_oracle(weights, search=kind.search)
    forced = [oracle.force(*pair) for pair in kind.pairs]
    arrays = {"cost": np.array(sum(f.cost for f in forced))}
    for side, end in enumerate((NUM_SOURCE - 1, NUM_TARGET - 1)):
        rows = [pair[side] for pair in kind.pairs]
        key = ("src", "tgt")[side]
        arrays |= {key: padded(rows, end)}
        arrays |= {f"{key}_mask": padded([np.ones(len(row)) for row in rows], 0)}
    words = [
        f.distributions[np.arange(len(p[1])), p[1]] for f, p in zip(forced, kind.pairs, strict=True)
    ]
    arrays["word_probs"] = padded(words, 1.0)
    arrays["distribution"] = padded([f.distributions for f in forced], np.nan)
    if kind.search:
        Tx = len(arrays["src"])
        wide = [np.pad(f.alignments, ((0, 0), (0, Tx - f.alignments.shape[1]))) for f in forced]
        arrays["alignment"] = padded(wide, np.nan).transpose(0, 2, 1)
    for ours, weight in weights.items():
        theirs = {**OURS_TO_AUTHORS, **WHOLE_OUTPUT}[ours]
        slope = [oracle.derivative(kind.pairs, ours, one) for one in ones_of(weight.shape)]
        arrays[f"param:{theirs}"] = turned(ours, weight)
        arrays[f"grad:{theirs}"] = turned(ours, np.array(slope).reshape(weight.shape))
    return arrays


def ones_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.eye(int(np.prod(shape))).reshape(-1, *shape)


def written(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = folder / "numbers.npz"
    np.savez(path, **arrays)
    return path
