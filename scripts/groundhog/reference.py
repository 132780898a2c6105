"""Read a file of the authors' numbers: ids, weights and what GroundHog made of them.

| key | meaning |
|---|---|
| `src`, `tgt`, `src_mask`, `tgt_mask` | (Tx, B), (Ty, B): ids, any id in padding; 1 on real words |
| `param:NAME`, `grad:NAME` | weights, and gradients of `cost` |
| `cost`, `word_probs`, `distribution` | (), (Ty, B), (Ty, B, K_y) |
| `alignment` | (Ty, Tx, B), RNNsearch only |

Results that are absent are not compared. Other keys are not looked at.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from groundhog.names import Array, Parameter, parameters_of, searches
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
from seq2seq.run.errors import DataError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Reference:
    """A model and a batch in our terms, and the authors' results in theirs.

    Ids are one higher than in the file: 0 is our y_0, and may be a word of theirs.
    """

    path: Path
    parameters: list[Parameter]
    weights: dict[str, Array]  # by their names, in their shapes
    sizes: dict[str, int]  # by letter, as in the shapes of `names.py`
    config: Config
    batch: Batch
    results: dict[str, Array]
    """`cost` (), `word_probs` (N,), `distribution` (N, K_y), `alignment` (N, Tx), `grad:NAME`: what
    the file has of them, for the N real target words, sentence after sentence."""

    @property
    def name(self) -> str:
        """The prototype, as the paper calls it."""
        return "RNNencdec" if isinstance(self.config.attention, FixedConfig) else "RNNsearch"

    @property
    def absent(self) -> list[str]:
        """Results that a file of this prototype can have and this one has not."""
        wanted = ["cost", "word_probs", "distribution"]
        wanted += ["alignment"] if self.name == "RNNsearch" else []
        wanted += [f"grad:{p.theirs}" for p in self.parameters]
        return [key for key in wanted if key not in self.results]


def read_reference(path: Path) -> Reference:
    """Read an .npz file.

    Raises:
        DataError: it is none, or a part of it is missing or does not fit the others.
    """
    file = _File(path)

    # Which model it is, from the names of the weights; its sizes, from their shapes.
    names = {key.removeprefix("param:") for key in file.arrays if key.startswith("param:")}
    parameters = parameters_of(names)
    expected = {p.theirs for p in parameters}
    for name in sorted(expected ^ names):
        what = f"has no param:{name}" if name in expected else f"param:{name} has no place in it"
        raise file.error(what)
    weights = {p.theirs: file.numbers(f"param:{p.theirs}") for p in parameters}
    sizes = file.sizes(parameters, weights)

    # The batch: ids one higher than in the file, 0 in padding.
    sides = [*file.sentences("src", sizes["Kx"]), *file.sentences("tgt", sizes["Ky"])]
    if sides[0].shape[1] != sides[2].shape[1]:
        raise file.error(f"src has {sides[0].shape[1]} sentences and tgt {sides[2].shape[1]}")
    ours = (torch.from_numpy(np.ascontiguousarray(x.T)) for x in sides)

    # What there is to compare; of (Ty, B, ...) the real target words (N, ...), in batch order.
    tgt_mask, num_positions = sides[3], len(sides[0])
    steps, sentences = tgt_mask.shape
    by_word = {
        "word_probs": ((steps, sentences), (1, 0)),
        "distribution": ((steps, sentences, sizes["Ky"]), (1, 0, 2)),
    }
    if "n'" in sizes:
        by_word["alignment"] = ((steps, num_positions, sentences), (2, 0, 1))
    results = {"cost": file.numbers("cost", ())} if "cost" in file.arrays else {}
    for key, (shape, sentence_first) in by_word.items():
        if key in file.arrays:  # padding may hold anything
            numbers = file.numbers(key, shape, finite=False)
            results[key] = file.finite(key, numbers.transpose(sentence_first)[tgt_mask.T])
    for name, weight in weights.items():
        if (key := f"grad:{name}") in file.arrays:
            results[key] = file.numbers(key, weight.shape)
    if not results:
        raise file.error("has no results to compare")
    config = _settings(parameters, sizes)
    return Reference(path, parameters, weights, sizes, config, Batch(*ours), results)


def _settings(parameters: list[Parameter], sizes: dict[str, int]) -> Config:
    """The authors' reading of the paper, which is the default, at the sizes of a file."""
    biases = {p.ours for p in parameters if p.is_bias}
    model = ModelConfig(
        embedding_size=sizes["m"],
        hidden_size=sizes["n"],
        align_size=sizes.get("n'", sizes["n"]),  # the RNNencdec has nothing of this size
        readout_size=sizes["l"],
        bias="decoder.W_s.bias" in biases,
        embedding_bias="decoder.embedding.bias" in biases,
        backend=Backend.reference,
    )
    return Config(
        model=model,
        decoder=RecurrentDecoderConfig(output_rank=sizes.get("r")),
        attention=AdditiveConfig() if "n'" in sizes else FixedConfig(),
    )


class _File:
    """The arrays of a file, and checks that name it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        damage = (OSError, ValueError, EOFError, MemoryError, RuntimeError, zlib.error)
        with open_regular(path) as stream:
            try:
                found = np.load(stream)  # never unpickles unless told to
                self.arrays = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else {}
            except (*damage, zipfile.BadZipFile) as error:
                raise self.error(f"not a readable .npz file ({error})") from None

    def error(self, what: str) -> DataError:
        return DataError(self.path, what, "scripts/groundhog/ lists what a file has.")

    def numbers(
        self, key: str, shape: tuple[int, ...] | None = None, *, finite: bool = True
    ) -> Array:
        """Return an array in float64."""
        array = self.arrays.get(key)
        if array is None:
            raise self.error(f"has no {key}")
        if array.dtype.kind not in "biuf" or not array.size:
            raise self.error(f"{key} is not an array of numbers")
        if shape is not None and array.shape != shape:
            raise self.error(f"{key} has the shape {array.shape}, expected {shape}")
        numbers: Array = array.astype(np.float64)
        return self.finite(key, numbers) if finite else numbers

    def finite(self, key: str, numbers: Array) -> Array:
        """Return these numbers, if they are all finite."""
        if not np.isfinite(numbers).all():
            raise self.error(f"{key} has a value that is not finite")
        return numbers

    def sizes(self, parameters: list[Parameter], weights: dict[str, Array]) -> dict[str, int]:
        """Return the size of every letter, from the shapes of the weights."""
        directions = 2 if searches([p.theirs for p in parameters]) else 1
        sizes = {"1": 1}
        for p in parameters:
            shape = weights[p.theirs].shape
            for letter, size in zip(p.shape, shape, strict=False):
                sizes.setdefault(letter, size)
                if letter == "n":
                    sizes["c"] = directions * sizes["n"]
                if letter == "l":
                    sizes["2l"] = 2 * sizes["l"]
            if shape != tuple(sizes.get(letter) for letter in p.shape):
                expected = " x ".join(f"{x} = {sizes.get(x, '?')}" for x in p.shape)
                raise self.error(f"param:{p.theirs} has the shape {shape}, expected {expected}")
        return sizes

    def sentences(self, side: str, num_words: int) -> tuple[npt.NDArray[np.int64], Mask]:
        """Return ids, one higher than in the file and 0 in padding, and their mask; (T, B) each."""
        ids, key = self.arrays.get(side), f"{side}_mask"
        if ids is None or ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise self.error(f"has no {side}, ids of the shape (T, B)")
        mask = self.numbers(key, ids.shape)
        real = np.arange(len(ids))[:, None] < mask.sum(axis=0)
        if not (mask == real).all() or not real[0].all():
            raise self.error(f"{key} is not 1 on the words of each sentence and 0 after them")
        outside = ids[real & ((ids < 0) | (ids >= num_words))]
        if outside.size:
            raise self.error(f"{side} has the id {outside[0]}, outside of 0 to {num_words - 1}")
        return np.where(real, ids.astype(np.int64) + 1, 0), real
