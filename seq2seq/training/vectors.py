"""Initializes embeddings with pretrained word vectors.

Files are in the text format of word2vec, GloVe and fastText: each line has a token and its numbers;
an optional first line gives the number of lines and of numbers per line.
"""

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from seq2seq.config.schema import Config
from seq2seq.data.text import read_lines
from seq2seq.data.tokenizer import EOS, PAD, SPACE, UNK, Tokenizer
from seq2seq.model import EncoderDecoder
from seq2seq.run.errors import DataError

log = logging.getLogger(__name__)

_GAP = re.compile("[ \t]+")  # other whitespace is part of a token


def check_vectors(cfg: Config) -> None:
    """Check, by their first lines, that the files of a config hold vectors of the right size."""
    for _, path in _files(cfg):
        if next(_rows(path, cfg.model.embedding_size), None) is None:
            raise DataError(path, "holds no vectors", "Name another file.")


@torch.no_grad()
def fill_embeddings(
    model: EncoderDecoder, cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]
) -> None:
    """Fill embeddings with the vectors of `init.source_vectors` and `init.target_vectors`.

    Raises:
        DataError: a line is invalid, or no token of the vocabulary has a vector.
    """
    embeddings: tuple[nn.Embedding, nn.Embedding]
    embeddings = model.encoder.embedding.E, model.decoder.embedding.E
    for side, path in _files(cfg):
        weight = embeddings[side].weight
        found = read_vectors(path, tokenizers[side], weight.shape[1])
        if not found:
            what = "has no vector for any token of the vocabulary"
            raise DataError(path, what, "Are they for this language?")
        weight[list(found)] = weight.new_tensor(list(found.values()))
        log.info("%s: vectors for %d of %d tokens", path.name, len(found), len(tokenizers[side]))


def read_vectors(path: Path, tokenizer: Tokenizer, size: int) -> dict[int, list[float]]:
    """Return the vectors of a file by vocabulary id.

    If some tokens begin with U+2581, tokens are subword pieces; otherwise they are words, which
    match the pieces that are whole words. Of duplicate tokens the first counts.

    Raises:
        DataError: a line has too few numbers, or text that is not a finite number.
    """
    ids = [i for i in range(len(tokenizer)) if i not in (PAD, UNK, EOS)]
    id_of = dict(zip(tokenizer.pieces(ids), ids, strict=True))
    found: dict[str, list[float]] = {}
    for number, token, texts in _rows(path, size):
        if token not in found and (token in id_of or SPACE + token in id_of):
            found[token] = _numbers(texts, f"{path}:{number}")
    before = "" if any(token.startswith(SPACE) for token in found) else SPACE
    return {id_of[before + t]: row for t, row in found.items() if before + t in id_of}


def _files(cfg: Config) -> Iterator[tuple[int, Path]]:
    for side, name in enumerate((cfg.init.source_vectors, cfg.init.target_vectors)):
        if name is not None:
            yield side, Path(name).expanduser()


def _rows(path: Path, size: int) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, token and unparsed numbers of each line."""
    is_first = True
    for number, line in enumerate(read_lines(path), start=1):
        fields = _GAP.split(line.strip(" \t"))
        if number == 1 and len(fields) == 2 and all(map(str.isdecimal, fields)):
            continue  # the header with the counts
        count = len(fields) - 1
        if count < size or (is_first and count > size):  # later tokens may contain spaces
            what = f"has {count} numbers, and model.embedding_size is {size}"
            fix = f"Set model.embedding_size={count}, or name vectors of this size."
            raise DataError(f"{path}:{number}", what, fix if is_first else "Fix the line.")
        is_first = False
        yield number, " ".join(fields[:-size]), fields[-size:]


def _numbers(texts: list[str], where: str) -> list[float]:
    try:
        numbers = [*map(float, texts)]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise DataError(where, "has values that are not finite numbers", "Fix the line.")
    return numbers
