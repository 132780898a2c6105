"""Compares our model with the authors' own code, given its weights and its results.

A file of theirs (`lisa-groundhog/GroundHog`, `experiments/nmt`) is an .npz with

| key | meaning |
|---|---|
| `src`, `tgt`, `src_mask`, `tgt_mask` | (Tx, B), (Ty, B): ids, any id in padding; 1 on real words |
| `param:NAME`, `grad:NAME` | weights, and gradients of `cost` |
| `cost`, `word_probs`, `distribution` | (), (Ty, B), (Ty, B, K_y) |
| `alignment` | (Ty, Tx, B), RNNsearch only |

Absent results are not compared. Other keys are ignored.
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.config.schema import (
    AdditiveConfig,
    Backend,
    Config,
    FixedConfig,
    ModelConfig,
    RecurrentDecoderConfig,
)
from seq2seq.data.batching import Batch
from seq2seq.data.text import open_regular
from seq2seq.model import EncoderDecoder, build_model
from seq2seq.model.output import smoothed_loss
from seq2seq.run.errors import DataError

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-5
"""Maximal relative deviation: theirs is float32, with rounding errors of about 1e-6."""

SMALLEST = 1e-6
"""Lower bound on the scale to which deviations of probabilities are relative."""

ROUNDING = 1e-12
"""A float64 gradient of ours below this fraction of the largest one counts as zero."""

MEASURE = f"""Relative deviation is the greatest |ours - theirs| over
  distribution, alignment   theirs, entry by entry, at least {SMALLEST:g}
  all others                the greatest |theirs| of the same array
A gradient that is zero but for rounding is measured against the largest of all gradients."""


def _unit(ours: str, theirs: str) -> dict[str, str]:
    """The gated unit of A.1.1, without context."""
    return {
        f"{ours}.U.weight": f"W_{theirs}_transition_0",
        f"{ours}.U_z.weight": f"G_{theirs}_transition_0",
        f"{ours}.U_r.weight": f"R_{theirs}_transition_0",
        f"{ours}.W.weight": f"W_0_{theirs}_input_embdr_0",
        f"{ours}.W.bias": f"b_0_{theirs}_input_embdr_0",
        f"{ours}.W_z.weight": f"W_0_{theirs}_update_embdr_0",
        f"{ours}.W_r.weight": f"W_0_{theirs}_reset_embdr_0",
    }


NAMES = {
    **_unit("encoder.forward_unit", "enc"),
    **_unit("encoder.backward_unit", "back_enc"),
    **_unit("decoder.unit", "dec"),
    "encoder.embedding.E.weight": "W_0_enc_approx_embdr",
    "encoder.embedding.bias": "b_0_enc_approx_embdr",
    "decoder.embedding.E.weight": "W_0_dec_approx_embdr",
    "decoder.embedding.bias": "b_0_dec_approx_embdr",
    "decoder.unit.C.weight": "W_0_dec_dec_inputter_0",
    "decoder.unit.C_z.weight": "W_0_dec_dec_updater_0",
    "decoder.unit.C_r.weight": "W_0_dec_dec_reseter_0",
    "decoder.attention.U_a.weight": "A_dec_transition_0",
    "decoder.attention.W_a.weight": "B_dec_transition_0",
    "decoder.attention.v_a.weight": "D_dec_transition_0",
    "decoder.W_s.weight": "W_0_dec_initializer_0",
    "decoder.W_s.bias": "b_0_dec_initializer_0",
    "decoder.U_o.weight": "W_0_dec_hid_readout_0",
    "decoder.U_o.bias": "b_0_dec_hid_readout_0",
    "decoder.V_o.weight": "W_0_dec_prev_readout_0",
    "decoder.C_o.weight": "W_0_dec_repr_readout",
    "decoder.W_o.weight": "W_dec_deep_softmax",
    "decoder.W_o.bias": "b_dec_deep_softmax",
    "decoder.W_o.0.weight": "W1_dec_deep_softmax",
    "decoder.W_o.1.weight": "W2_dec_deep_softmax",
    "decoder.W_o.1.bias": "b_dec_deep_softmax",
}
"""Our names and theirs, for all weights in any file; W_o is full or low-rank."""

_WITH_WORDS = ("embedding.E.weight", "W_o.weight", "W_o.bias", "W_o.1.weight", "W_o.1.bias")
"""Endings of the names of weights with a row per word; theirs have no row for y_0."""


@dataclass(frozen=True)
class Reference:
    """A file: a model and a batch in our terms, and the authors' results.

    Ids are one higher than in the file: 0 is our y_0, but may be a word in theirs.
    """

    path: Path
    config: Config
    sizes: dict[str, int]  # K_x and K_y of the file, and those of A.2.3
    weights: dict[str, Tensor]  # by our names
    batch: Batch
    results: dict[str, Array]
    """`cost` (), `word_probs` (N,), `distribution` (N, K_y), `alignment` (N, Tx), `grad:NAME`, as
    far as the file has them, for the N real target words, sentence after sentence."""

    @property
    def name(self) -> str:
        """The model's name in the paper."""
        return "RNNencdec" if isinstance(self.config.attention, FixedConfig) else "RNNsearch"

    @property
    def absent(self) -> list[str]:
        """Results that a file of this model can have, but this one lacks."""
        wanted = ["cost", "word_probs", "distribution"]
        wanted += ["alignment"] if self.name == "RNNsearch" else []
        wanted += [f"grad:{NAMES[ours]}" for ours in self.weights]
        return [key for key in wanted if key not in self.results]


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Convert errors of a file to one-line errors."""
    damage = (OSError, ValueError, EOFError, MemoryError, RuntimeError, LookupError, zlib.error)
    try:
        yield
    except (*damage, zipfile.BadZipFile) as error:
        what = " ".join(f"is not a file of the authors' numbers ({error})".split())
        raise DataError(path, what, "scripts/groundhog.py says what it holds.") from None


def read_reference(path: Path) -> Reference:
    """Read a file; all of its errors are of the kinds that `fitting` converts."""
    with open_regular(path) as stream:
        file = np.load(stream)  # does not unpickle by default
        arrays: dict[str, Array] = dict(file) if isinstance(file, np.lib.npyio.NpzFile) else {}

    # Infer the model from names and shapes of the weights.
    theirs = {key.removeprefix("param:"): x for key, x in arrays.items() if key[:6] == "param:"}
    config, sizes = _settings({name: x.shape for name, x in theirs.items()})
    names = [name for name, _ in _model(config, sizes).named_parameters()]
    if unknown := theirs.keys() - {NAMES[ours] for ours in names}:
        raise ValueError(f"param:{min(unknown)} has no place in it")
    weights = {ours: _to_ours(ours, arrays[f"param:{NAMES[ours]}"]) for ours in names}
    batch = Batch(*_side(arrays, "src", sizes["Kx"]), *_side(arrays, "tgt", sizes["Ky"]))

    # The results to compare; (Ty, B, ...) become real target words (N, ...), in batch order.
    results = {"cost": arrays["cost"]} if "cost" in arrays else {}
    by_word = {"word_probs": (1, 0), "distribution": (1, 0, 2), "alignment": (2, 0, 1)}
    for key, sentence_first in by_word.items():
        if key in arrays:
            results[key] = arrays[key].transpose(sentence_first)[batch.tgt_mask.numpy()]
    for ours in names:
        if (key := f"grad:{NAMES[ours]}") in arrays:
            results[key] = _turned(ours, arrays[key])
    if not results:
        raise ValueError("no results to compare")
    results = {key: array.astype(np.float64) for key, array in results.items()}
    return Reference(path, config, sizes, weights, batch, results)


def _settings(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Config, dict[str, int]]:
    """Return the authors' version of the model, our default, with the sizes of a file."""
    searches, low_rank = "D_dec_transition_0" in shapes, "W1_dec_deep_softmax" in shapes
    num_source, m = shapes["W_0_enc_approx_embdr"]
    sizes = {"Kx": num_source, "Ky": shapes["W_0_dec_approx_embdr"][0], "m": m}
    sizes["n"] = shapes["W_enc_transition_0"][1]
    if searches:
        sizes["n'"] = shapes["D_dec_transition_0"][0]
    sizes["l"] = shapes["W_0_dec_hid_readout_0"][1] // 2
    if low_rank:
        sizes["r"] = shapes["W1_dec_deep_softmax"][1]
    model = ModelConfig(
        embedding_size=m,
        hidden_size=sizes["n"],
        align_size=sizes.get("n'", sizes["n"]),  # unused by the RNNencdec
        readout_size=sizes["l"],
        bias="b_0_dec_initializer_0" in shapes,
        embedding_bias="b_0_dec_approx_embdr" in shapes,
        backend=Backend.reference,
    )
    attention = AdditiveConfig() if searches else FixedConfig()
    decoder = RecurrentDecoderConfig(output_rank=sizes.get("r"))
    return Config(model=model, decoder=decoder, attention=attention), sizes


def _model(config: Config, sizes: Mapping[str, int]) -> EncoderDecoder:
    """Build a model; row 0 of the words is y_0."""
    return build_model(config, num_source=sizes["Kx"] + 1, num_target=sizes["Ky"] + 1, pad=0)


def _turned(ours: str, array: Array) -> Array:
    """Transpose between their (in, out), used as x W, and ours; embeddings have one layout."""
    return array if ours.endswith(".E.weight") else array.T


def _to_ours(ours: str, array: Array) -> Tensor:
    """Return a weight in our layout, with a zero row in front for the word y_0."""
    turned = _turned(ours, array.astype(np.float64))
    if ours.endswith(_WITH_WORDS):
        turned = np.concatenate([np.zeros_like(turned[:1]), turned])
    return torch.from_numpy(np.ascontiguousarray(turned))


def _side(arrays: Mapping[str, Array], side: str, num_words: int) -> tuple[Tensor, Tensor]:
    """Return ids (B, T), one higher than in the file and 0 on padding, and their mask."""
    ids, real = arrays[side], arrays[f"{side}_mask"] == 1
    if ids[real].min() < 0 or ids[real].max() >= num_words:
        raise ValueError(f"an id of {side} is outside of 0 to {num_words - 1}")
    ours = np.where(real, ids.astype(np.int64) + 1, 0)
    both = (torch.from_numpy(np.ascontiguousarray(x.T)) for x in (ours, real))
    return next(both), next(both)


def compute(reference: Reference, backend: Backend) -> dict[str, Array]:
    """Run forward and backward in float64; return the keys of `Reference.results`."""
    config, batch = reference.config, reference.batch
    config = replace(config, model=replace(config.model, backend=backend))
    model = _model(config, reference.sizes).double()
    model.load_state_dict(reference.weights)
    model.eval()
    followed = model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    # y_0 is not a word in theirs: exclude its column from the softmax.
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
    # With one target word, the state is never updated, so the decoder's unit has no gradient.
    for name, p in model.named_parameters():
        gradient = torch.zeros_like(p.detach()) if p.grad is None else p.grad
        tensors[f"grad:{NAMES[name]}"] = gradient[1:] if name.endswith(_WITH_WORDS) else gradient
    return {key: tensor.numpy() for key, tensor in tensors.items()}


def deviations(ours: dict[str, Array], theirs: dict[str, Array]) -> dict[str, float]:
    """Return the deviation of each result, as defined by MEASURE."""
    sizes = {key: np.abs(x).max() for key, x in theirs.items()}
    largest = max((size for key, size in sizes.items() if key.startswith("grad:")), default=0.0)
    found = {}
    for key, expected in theirs.items():
        if ours[key].shape != expected.shape:
            raise ValueError(f"{key} has the shape {expected.shape}, not {ours[key].shape}")
        scale = np.asarray(sizes[key])
        if key in ("distribution", "alignment"):
            scale = np.maximum(np.abs(expected), SMALLEST)
        elif key.startswith("grad:") and np.abs(ours[key]).max() < ROUNDING * largest:
            scale = np.asarray(largest)
        scale = np.maximum(scale, np.finfo(np.float64).tiny)  # if all of theirs are zero
        found[key] = float((np.abs(ours[key] - expected) / scale).max())
    return found
