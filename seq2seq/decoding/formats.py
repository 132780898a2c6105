"""Output formats for translations: text, JSON lines, n-best lists, Pharaoh links, npz, heatmaps.

All accept search results and forced decodings alike.
"""

import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from seq2seq.alignment.heatmap import render
from seq2seq.alignment.links import best_links, pharaoh
from seq2seq.alignment.words import to_words
from seq2seq.config.schema import Config
from seq2seq.data.pair import Links
from seq2seq.data.words import Splitter, blank_spans, word_spans
from seq2seq.decoding.translation import Translation
from seq2seq.run.directory import RunDir

log = logging.getLogger(__name__)

LEVELS: Mapping[str, Splitter | None] = {"pieces": None, "words": word_spans, "blanks": blank_spans}
"""Granularity of tokens: vocabulary pieces, words of `data/words.py`, text between spaces."""

Flagger = Callable[[Translation], Sequence[str]]
"""Returns the flags of a translation: `Pretrained.flags`."""


def splitter(level: str | None) -> Splitter | None:
    """Return what splits text at a level; None stands for pieces, the default of text formats."""
    return LEVELS[level or "pieces"]


def at_level(translation: Translation, level: str | None) -> Translation:
    """Return a translation with its tokens joined to one of `LEVELS`."""
    split = splitter(level)
    return translation if split is None else translation.words(split)


def write(
    file: BinaryIO,
    translations: Iterable[Translation],
    form: str,
    level: str | None,
    flags: Flagger,
    held: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Write translations as `npz`, or in one of the forms of `line`.

    `held` is entered around the writing of each line; lines are flushed for interactive readers.
    """
    if form == "npz":
        write_npz(file, (at_level(translation, level) for translation in translations))
        return
    for number, translation in enumerate(translations, start=1):
        data = f"{line(translation, number, form, level, flags)}\n".encode()
        with held():
            file.write(data)
            file.flush()


def line(
    translation: Translation, number: int, form: str, level: str | None, flags: Flagger
) -> str:
    """Return a translation as a line or, for `nbest`, as one line per candidate.

    Forms are `text`, `nbest` (number of the line from 1, score, text), `tsv` (log-probability,
    number of tokens, perplexity per token, flags), `jsonl` (everything, with attention) and
    `pharaoh`. An empty translation gives an empty line, except in `jsonl`.
    """
    match form:
        case "jsonl":
            values = at_level(translation, level).as_dict() | {"flags": flags(translation)}
            return json.dumps(values, ensure_ascii=False)
        case "pharaoh":
            return pharaoh(links(translation, number, level) or ())
        case "nbest":
            return "\n".join(f"{number}\t{c.score:.4f}\t{c.text}" for c in translation.candidates)
        case "tsv":
            best = at_level(translation, level).candidates[:1]
            rows = (f"{c.log_prob:.6f}\t{len(c.tokens)}\t{c.perplexity:.6f}\t" for c in best)
            return "".join([*rows, ",".join(flags(translation))])
    return translation.text


def links(translation: Translation, number: int, level: str | None) -> Links | None:
    """Link each target token of the best candidate to the source token it attends to most.

    End symbols are left out. Tokens are counted from 0; words are those of the text.

    Returns:
        None, with a warning that names the line, if the words of the text cannot be found in its
        pieces: links between other units would mislead.
    """
    if not translation.candidates:
        return ()
    tokens = to_words(translation.soft_alignment(), splitter(level))
    if not tokens.matched:
        log.warning("line %d: its words cannot be found in its pieces: no links", number)
        return None
    return best_links(tokens.weights, ended=tokens.ended)


def write_npz(file: BinaryIO, translations: Iterable[Translation]) -> None:
    """Write attention as an npz archive, sentence by sentence; no array needs pickle.

    Line n, from 1, has `n.source_tokens`; its candidate k, from 1, has `n.k.tokens`,
    `n.k.token_log_probs` (nats, float32) and `n.k.attention` (tokens, source tokens; float32). A
    model with layers or heads adds `alignment.words.Maps` as `n.k.heads`, `n.k.encoder` and
    `n.k.decoder` (float16). The same input gives the same bytes.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for number, translation in enumerate(translations, start=1):
            arrays: dict[str, NDArray[Any]] = {}
            arrays["source_tokens"] = np.array(translation.source_tokens, np.str_)
            for rank, candidate in enumerate(translation.candidates, start=1):
                log_probs = np.array(candidate.token_log_probs, np.float32)
                arrays[f"{rank}.tokens"] = np.array(candidate.tokens, np.str_)
                arrays[f"{rank}.token_log_probs"] = log_probs
                arrays[f"{rank}.attention"] = candidate.alignment
                for name, weights in candidate.maps.items():
                    arrays[f"{rank}.{name}"] = weights.astype(np.float16)
            for name, array in arrays.items():
                with archive.open(f"{number}.{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array)


def draw_along(
    translations: Iterable[Translation],
    directory: RunDir,
    form: str,
    level: str | None,
    cfg: Config,
) -> Iterator[Translation]:
    """Yield translations unchanged; draw the best candidate of each into `line-NNNN.FORM`.

    Tokens are words unless another level is given.
    """
    for number, translation in enumerate(translations, start=1):
        if translation.candidates:
            title, font = f"{cfg.name}, line {number}", cfg.evaluate.heatmap_font
            tokens = at_level(translation, level or "words")
            figure = tokens.plot(words=False, title=title, font=font)
            directory.write(f"line-{number:04d}.{form}", render(figure, form))
        yield translation
