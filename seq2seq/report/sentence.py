"""What a page holds of a translation: its candidates with their attention, in words and pieces.

Weights are rounded to 1/255, which is finer than a screen, and runs of zeros are counted: most
words look at one or two places.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seq2seq.alignment.heatmap import Weights, printable, printable_line
from seq2seq.alignment.measures import measure
from seq2seq.alignment.word_level import to_words
from seq2seq.decoding.translate import Candidate, Translation
from seq2seq.report.page import frame, page

ROW, REST = 36, 330
"""Pixels of a notebook's frame: of a word or hypothesis, and of all else."""

MOST = 900
"""Pixels of a frame at most; it scrolls."""


@dataclass(frozen=True)
class Found:
    """A candidate under the name by which a reader chooses it."""

    label: str  # "Beam 1", "Greedy", "Reference"
    translation: Translation
    candidate: Candidate
    chrf: float | None  # against the reference


def describe(found: Found) -> dict[str, Any]:
    """Return the plain values of a candidate that a page shows."""
    candidate, words = found.candidate, to_words(found.translation, found.candidate)
    measured = measure(words.alignment, ended=words.ended)
    covered = None if measured.uncovered is None else 1 - measured.uncovered
    return {
        "label": found.label,
        "text": printable_line(candidate.text),
        "score": _number(candidate.score),
        "entropy": _number(measured.entropy),
        "coverage": _number(covered),
        "chrf": _number(found.chrf),
        "words": _level(words.source_words, words.words, words.alignment, words.log_probs),
        "pieces": _level(
            found.translation.source_tokens,
            candidate.tokens,
            candidate.alignment,
            candidate.token_log_probs,
        ),
    }


def _level(
    source: Sequence[str], target: Sequence[str], weights: Weights, log_probs: Sequence[float]
) -> dict[str, Any]:
    """Return an alignment: labels, weights (target, source), and log-probabilities as chances."""
    return {
        "source": list(map(printable, source)),
        "target": list(map(printable, target)),
        "probability": [_number(math.exp(min(p, 0.0)), 4) or 0.0 for p in log_probs],
        "weights": pack(weights),
    }


def pack(weights: Weights) -> str:
    """Return weights in [0, 1] as base64 of bytes of 1/255, row by row.

    A zero is followed by the number of zeros, itself included, up to 255.
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
    """Round a number; None for what is none, as of a model that a stranger broke."""
    return round(value, digits) if value is not None and math.isfinite(value) else None


def translation_page(translation: Translation) -> str:
    """Return a page that shows one translation and nothing else."""
    found = [
        describe(Found(f"Beam {rank}", translation, candidate, chrf=None))
        for rank, candidate in enumerate(translation.candidates, start=1)
    ]
    source = printable_line(translation.source)
    data = {
        "runs": [{"name": "", "source": None, "target": None, "unit": "Tokens"}],
        "sentences": [{"number": 1, "source": source, "runs": [{"found": found}]}],
    }
    return page(f"Attention: {source[:80]}", data, ("attention.js", "single.js"))


def translation_frame(translation: Translation) -> str:
    """Return the same as an element for a notebook."""
    sizes = [len(translation.source_tokens), *(len(c.tokens) for c in translation.candidates)]
    height = ROW * (max(sizes) + len(translation.candidates)) + REST
    return frame(translation_page(translation), min(height, MOST))
