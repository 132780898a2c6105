"""Translate standard input line by line, word by word: `python decode_onnx.py [LANGUAGE] < TEXT`.

It needs onnxruntime and sentencepiece; LANGUAGE is for models of several target languages.
"""

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sentencepiece

HERE = Path(__file__).parent
ABOUT = json.loads((HERE / "export.json").read_text("utf-8"))
onnxruntime.set_default_logger_severity(3)  # errors only
RULES, EOS = ABOUT["decode"], ABOUT["special"]["eos"]
SOURCE, TARGET = (
    sentencepiece.SentencePieceProcessor(str(HERE / x)) for x in ABOUT["vocabularies"]
)
BEGIN, STEP = (onnxruntime.InferenceSession(HERE / f"{x}.onnx") for x in ("begin", "step"))


def run(graph: Any, **inputs: Any) -> dict[str, Any]:
    """Return the outputs of a graph by name; the next state has the names of the one before."""
    names = [output.name.removeprefix("next.") for output in graph.get_outputs()]
    return dict(zip(names, graph.run(None, inputs), strict=True))


def translate(text: str, tag: list[int]) -> str:
    """Return the translation that takes the likeliest word at each step."""
    text = unicodedata.normalize("NFC", text) if ABOUT["nfc"][0] else text
    ids = SOURCE.encode(text.translate(str.maketrans(ABOUT["replace"][0])))
    src = np.array([[*tag, *ids[: RULES["max_source_tokens"]], EOS]])
    most = max(1, int(RULES["max_ratio"] * src.size) + RULES["extra_steps"]) if ids else 0
    found, words = run(BEGIN, src=src, mask=src >= 0), []
    state = {name: x for name, x in found.items() if name.startswith("state.")}
    while len(words) < most:
        early = [EOS] if len(words) < int(RULES["min_ratio"] * src.size) else []
        found["log_probs"][0, RULES["forbidden"] + early] = -np.inf
        y = found["log_probs"].argmax(axis=1)
        if y[0] == EOS:
            break
        words.append(int(y[0]))
        found = run(STEP, y=y, **state)
        state |= {name: x for name, x in found.items() if name in state}
    pieces = TARGET.id_to_piece(words if ABOUT["target_order"] == "left_to_right" else words[::-1])
    written = "".join(pieces).replace("<unk>", " \u2047 ").replace("\u2581", " ")
    back = {standing: character for character, standing in ABOUT["replace"][1].items()}
    return " ".join(written.split()).translate(str.maketrans(back))


if __name__ == "__main__":
    tag = [ABOUT["tags"][sys.argv[1]]] if ABOUT["tags"] else []
    for line in sys.stdin:
        sys.stdout.write(translate(line.rstrip("\n"), tag) + "\n")
