"""The word links of training pairs, as links between the tokens of a batch."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.alignment.links import read_links
from seq2seq.alignment.words import map_words
from seq2seq.config.schema import Config, LinkLevel
from seq2seq.data.batching import Batch
from seq2seq.data.prepare import SIDES, load_text
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.data.words import blank_spans, word_spans
from seq2seq.run.directory import RunDir

CACHED = 1 << 17
"""Number of pairs whose token links are remembered from one epoch to the next."""


class TokenLinks:
    """Maps the links of `corpus/train.links` from words to tokens, pair by pair."""

    def __init__(self, run: RunDir, cfg: Config, tokenizers: Sequence[Tokenizer]) -> None:
        self._texts = [load_text(run, "train", side) for side in (*SIDES, "links")]
        self._tokenizers = tokenizers
        blanks = cfg.data.links is not None and cfg.data.link_level is LinkLevel.blanks
        self._split = blank_spans if blanks else word_spans
        self._of_row = lru_cache(CACHED)(self._read)

    def of(self, rows: Sequence[int], batch: Batch) -> Tensor:
        """Return the links (B, Ty, Tx) bool of the pairs of a batch."""
        links = torch.zeros(*batch.tgt.shape, batch.src.shape[1], dtype=torch.bool)
        for own, row in zip(links.numpy(), rows, strict=True):
            sources, targets = self._of_row(row)
            own[targets, sources] = True
        return links

    def _read(self, row: int) -> npt.NDArray[np.int32]:
        """Return the links (2, n) of a pair: every token of a word has the links of the word."""
        *sides, line = (text[row] for text in self._texts)
        maps = []
        for text, tokenizer in zip(sides, self._tokenizers, strict=True):
            [tokens] = tokenizer.tokens([text])
            maps.append(map_words(text, [token.span for token in tokens], self._split))
        source, target = maps
        if source is None or target is None:  # pieces and words differ
            return np.empty((2, 0), np.int32)
        linked = [
            (i, j)
            for word_i, word_j in read_links(line).sure
            for i in source.groups[source.group_of[word_i]]
            for j in target.groups[target.group_of[word_j]]
        ]
        return np.array(linked, np.int32).reshape(-1, 2).T
