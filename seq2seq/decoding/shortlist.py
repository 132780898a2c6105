"""The shortlist of a run, in `shortlist/`: target words by frequency, and a lexicon of IBM model 1.

It is made on first use, from the ids of the run's training pairs, and does not depend on weights.
"""

import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.alignment.lexicon import lexicon
from seq2seq.config.schema import Config
from seq2seq.data.batching import spread
from seq2seq.data.prepare import TOKENIZERS, load_pairs
from seq2seq.data.tokenizer import EOS, PAD, UNK, Tokenizer
from seq2seq.model.shortlist import Shortlist
from seq2seq.run.checksums import MANIFEST, entries_of, read_directory, read_manifest
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.training.checkpoint import pack, unpack

log = logging.getLogger(__name__)

DIRECTORY, FILE = "shortlist", "shortlist.safetensors"

SUGGESTED = 100  # target words of a source word
MOST_PAIRS = 200_000  # training pairs that the lexicon is made of, evenly spread
_MAKE_AGAIN = "Delete shortlist/: a run that has its training pairs makes it again."


def shortlist_of(
    run: RunDir, cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]
) -> Shortlist | None:
    """Return the shortlist of a run, made if need be; None for a search among all words.

    Raises:
        RunDirError: it is damaged or of other vocabularies; or it is missing, and so are the
            training pairs.
        PlatformError: it cannot be written.
    """
    size, (num_src, num_tgt) = cfg.decode.shortlist, map(len, tokenizers)
    if size is None or size >= num_tgt:
        return None
    directory = run.path(DIRECTORY)
    if not directory.exists():
        _make(run, tokenizers)
    about = read_manifest(directory / MANIFEST).get("about")
    if about != _vocabularies(run):
        raise RunDirError(directory, "is of other vocabularies", _MAKE_AGAIN)
    # What is read is untrusted: its size, shapes and values are checked before use.
    limit = 8 * num_src * SUGGESTED + 4 * num_tgt + (1 << 16)
    path, files = directory / FILE, read_directory(directory, limit)
    tensors = unpack(files.get(FILE), path)
    table = num_src, SUGGESTED
    kinds = {"order": ([num_tgt], torch.int32)}
    kinds |= {"words": ([*table], torch.int32), "probabilities": ([*table], torch.float32)}
    if {name: ([*x.shape], x.dtype) for name, x in tensors.items()} != kinds:
        raise RunDirError(path, "does not fit the vocabularies", _MAKE_AGAIN)
    order, words, probabilities = (tensors[name] for name in kinds)
    if not _are_valid(order, words, probabilities):
        raise RunDirError(path, "has ids or probabilities that are out of range", _MAKE_AGAIN)
    return Shortlist.of(size, order.long(), words.long(), probabilities)


def _are_valid(order: Tensor, words: Tensor, probabilities: Tensor) -> bool:
    num_tgt = len(order)
    inside = bool(((words >= 0) & (words < num_tgt)).all())
    shares = bool(((probabilities >= 0) & (probabilities <= 1)).all())  # False for NaN
    return inside and shares and order.sort().values.tolist() == [*range(num_tgt)]


def copy_shortlist(run: RunDir, out: RunDir) -> None:
    """Copy the shortlist of a run, if it has one, to a model exported from it."""
    directory = run.path(DIRECTORY)
    if directory.exists():
        about = read_manifest(directory / MANIFEST).get("about")
        out.commit_directory(DIRECTORY, read_directory(directory), about)


def _make(run: RunDir, tokenizers: tuple[Tokenizer, Tokenizer]) -> None:
    """Write the shortlist of a run."""
    begun = time.perf_counter()
    if not run.path("tokens").exists():
        what = "missing, and so are the training pairs that it is made of"
        fix = "Decode the run that the model is from with decode.shortlist; copy its shortlist/."
        raise RunDirError(run.path(DIRECTORY), what, fix)
    pairs = load_pairs(run, "train", tokenizers)
    rows = spread(range(len(pairs.src)), MOST_PAIRS)
    ids = ((pairs.src[row][:-1].tolist(), pairs.tgt[row][:-1].tolist()) for row in rows)  # no ends
    num_src, num_tgt = map(len, tokenizers)
    found = lexicon(ids, num_src, num_tgt, SUGGESTED)
    tensors = {
        "order": torch.from_numpy(_by_frequency(pairs.tgt.counts())),
        "words": torch.from_numpy(found.words),
        "probabilities": torch.from_numpy(found.probabilities),
    }
    run.commit_directory(DIRECTORY, {FILE: pack(tensors)}, _vocabularies(run))
    seconds, size, where = time.perf_counter() - begun, f"{len(rows):,}", run.path(DIRECTORY)
    log.warning("made the shortlist in %.1f s, of %s training pairs: %s", seconds, size, where)


def _vocabularies(run: RunDir) -> dict[str, Any]:
    """Return what identifies the vocabularies of a run, to which its shortlist belongs."""
    return {TOKENIZERS: entries_of(run.path(TOKENIZERS) / MANIFEST)}


def _by_frequency(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return all ids: the end symbol, the unknown word, then the most frequent first; y_0 last."""
    counts = counts.astype(np.int64)
    counts[[EOS, UNK, PAD]] = np.iinfo(np.int64).max, np.iinfo(np.int64).max - 1, -1
    return np.argsort(-counts, kind="stable").astype(np.int32)
