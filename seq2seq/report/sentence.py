"""The data of a translation on a page: its candidates and their attention, in words and pieces.

Weights are rounded to 1/255, finer than a screen shows. Runs of zeros are run-length encoded, since
most words attend to one or two positions.
"""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from seq2seq.alignment.heatmap import Weights, printable, printable_line
from seq2seq.alignment.measures import measure
from seq2seq.alignment.words import SoftAlignment, to_words
from seq2seq.data.words import Splitter, word_spans
from seq2seq.decoding.flags import MEANINGS
from seq2seq.report.page import frame, page

Ranked = Sequence[tuple[SoftAlignment, float]]
"""The candidates of a sentence, best first: attention between pieces, and the score."""

ROW, REST = 36, 330  # pixels of a notebook's frame: per word or hypothesis, and for everything else
MAX_HEIGHT = 900  # maximum pixels of a frame, which scrolls


def describe(
    label: str,
    pieces: SoftAlignment,
    score: float,
    chrf: float | None = None,
    split: Splitter | None = word_spans,
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the JSON-compatible values that a page shows of a candidate.

    The label is its name on the page, such as "Beam 1" or "Reference", the score that of the
    search, chrF against the reference. Without `split`, which finds words, pieces are shown.
    """
    words = to_words(pieces, split)
    measures = measure(words.weights, ended=words.ended)
    covered = None if measures.uncovered is None else 1 - measures.uncovered
    return {
        "label": label,
        "text": printable_line(pieces.target),
        "score": _number(score, 6),
        "entropy": _number(measures.entropy),
        "coverage": _number(covered),
        "chrf": _number(chrf),
        "flags": {name: MEANINGS[name] for name in flags},
        "words": _level(words),
        "pieces": _level(pieces),
    }


def _level(tokens: SoftAlignment) -> dict[str, Any]:
    """Return labels, weights (target, source), and probabilities of the tokens.

    For a model with layers and heads also its `alignment.words.Maps`, if present.
    """
    level = {
        "source": list(map(printable, tokens.source_tokens)),
        "target": list(map(printable, tokens.target_tokens)),
        "probability": [_number(math.exp(min(p, 0.0)), 4) or 0.0 for p in tokens.log_probs],
        "weights": pack(tokens.weights),
    }
    maps = {n: {"shape": m.shape, "weights": pack(m)} for n, m in tokens.maps.items()}
    return level | ({"maps": maps} if maps else {})


def pack(weights: Weights) -> str:
    """Return weights in [0, 1] as base64 of bytes in units of 1/255, row by row.

    A zero is followed by the length of its run of zeros, itself included, up to 255.
    """
    levels = np.rint(np.nan_to_num(np.clip(weights, 0, 1)) * 255).astype(np.uint8)
    packed, zeros = bytearray(), 0
    for level in (*levels.ravel().tolist(), None):
        if zeros and (level or level is None or zeros == 255):
            packed += bytes((0, zeros))
            zeros = 0
        if level:
            packed.append(level)
        elif level == 0:
            zeros += 1
    return base64.b64encode(packed).decode()


def _number(value: float | None, digits: int = 3) -> float | None:
    """Round a number; return None if it is not finite, which a broken model may give."""
    return round(value, digits) if value is not None and math.isfinite(value) else None


def translation_page(source: str, candidates: Ranked) -> str:
    """Return a page that shows a single translation."""
    ranked = enumerate(candidates, start=1)
    found = [describe(f"Beam {rank}", pieces, score) for rank, (pieces, score) in ranked]
    layers = any("maps" in candidate["words"] for candidate in found)
    run = {"name": "", "shown": [None, None], "layers": layers}
    line = printable_line(source)
    sentence = {"number": 1, "source": line, "runs": [{"found": found}]}
    data = {"runs": [run], "sentences": [sentence]}
    return page(f"Attention: {line[:80]}", data, ("attention.js", "heads.js", "single.js"))


def translation_frame(source: str, candidates: Ranked) -> str:
    """Return the page of a translation as an element for a notebook."""
    sizes = [len(side) for c, _ in candidates for side in (c.source_tokens, c.target_tokens)]
    height = ROW * (max(sizes, default=0) + len(candidates)) + REST
    return frame(translation_page(source, candidates), min(height, MAX_HEIGHT))
