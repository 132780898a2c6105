"""Writes the word vectors of a run, labelled, for TensorBoard's embedding projector.

TensorBoard's `add_embedding` appends to its index at each call and has no size limit; these files
are written once, at the end, and have one.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from torch import Tensor

from seq2seq.alignment.heatmap import printable
from seq2seq.config.schema import Config
from seq2seq.data.prepare import SIDES, load_pairs
from seq2seq.data.store import Lengths
from seq2seq.data.tokenizer import PAD, Tokenizer
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.evaluation.figures import Drawing
from seq2seq.model import EncoderDecoder
from seq2seq.run.directory import RunDir
from seq2seq.training.board import EVENTS

INDEX = "projector_config.pbtxt"  # the index file that TensorBoard reads beside the events
MAX_NUMBERS = 1_000_000
"""Per side, some 8 MB: all of a small vocabulary, the 1,612 most frequent words of the paper's."""

_ENTRY = """\
embeddings {{
  tensor_name: "{0}"
  tensor_path: "projector/{0}.tsv"
  metadata_path: "projector/{0}_labels.tsv"
}}
"""


def project(cfg: Config, run: RunDir) -> Iterator[Drawing]:
    """Write the embeddings of the best weights as tables, if the run writes to TensorBoard.

    Pieces are labelled with their frequency in the training text, to colour them by. Both kinds of
    vocabulary order ids by frequency, so only rare words are left out.
    """
    if not cfg.logging.tensorboard:
        return
    best = Pretrained(run, cfg)
    assert isinstance(best.model, EncoderDecoder)  # not an ensemble
    frequencies: list[Lengths | None] = [None, None]
    if run.path("tokens").exists():  # not in an exported model
        pairs = load_pairs(run, "train", best.tokenizers)
        frequencies = [pairs.src.counts(), pairs.tgt.counts()]
    for side, weight, tokenizer, counts in zip(
        SIDES, best.model.embeddings(), best.tokenizers, frequencies, strict=True
    ):
        vectors = weight.detach()  # (K, m)
        count = min(len(vectors), MAX_NUMBERS // vectors.shape[1])
        ids = [i for i in range(count) if i != PAD]  # the vector of PAD is 0
        yield f"{EVENTS}/projector/{side}.tsv", partial(_vectors, vectors[ids])
        yield f"{EVENTS}/projector/{side}_labels.tsv", partial(_labels, tokenizer, ids, counts)
    index = "".join(_ENTRY.format(side) for side in SIDES)
    yield f"{EVENTS}/{INDEX}", index.encode


def _vectors(rows: Tensor) -> bytes:
    line = "\t".join(["%.4g"] * rows.shape[1]) + "\n"  # formats a row in one call
    return "".join(line % tuple(row) for row in rows.tolist()).encode()


def _labels(tokenizer: Tokenizer, ids: Sequence[int], counts: Lengths | None) -> bytes:
    """Return a table with a header, which TensorBoard requires for several columns.

    Frequencies are logarithms: colours are linear, and most words are rare.
    """
    columns: dict[str, Iterable[str]] = {"piece": map(printable, tokenizer.pieces(ids))}
    columns["id"] = map(str, ids)
    if counts is not None:
        columns["log10 frequency"] = (f"{math.log10(max(counts[i], 1)):.2f}" for i in ids)
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    return "".join("\t".join(row) + "\n" for row in rows).encode()
