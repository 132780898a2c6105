"""Translate standard input line by line, word by word: `python decode_onnx.py < TEXT`."""

import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from sentencepiece import SentencePieceProcessor

here = Path(__file__).parent
about = json.loads((here / "export.json").read_text("utf-8"))
source, target = (SentencePieceProcessor(str(here / name)) for name in about["vocabularies"])
begin, step = (InferenceSession(here / f"{name}.onnx") for name in ("begin", "step"))
limits, eos = about["decode"], about["special"]["eos"]
hidden, shown = (str.maketrans(table) for table in about["replace"])


def run(graph: InferenceSession, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of a graph by name; the next state is named like the one before."""
    names = [output.name.removeprefix("next.") for output in graph.get_outputs()]
    return dict(zip(names, graph.run(None, inputs), strict=True))


for line in sys.stdin:
    text = line.rstrip("\n").translate(hidden)
    ids = source.encode(unicodedata.normalize("NFC", text) if about["nfc"] else text)
    src = np.array([[*ids[: limits["max_source_tokens"]], eos]])
    shortest, longest = (int(limits[name] * src.size) for name in ("min_ratio", "max_ratio"))
    words: list[int] = []
    found = run(begin, src=src, mask=src >= 0)
    state = {name: x for name, x in found.items() if name.startswith("state.")}
    while ids and eos not in words and len(words) < max(1, longest + limits["extra_steps"]):
        found["log_probs"][0, limits["forbidden"] + [eos] * (len(words) < shortest)] = -np.inf
        words.append(int(found["log_probs"].argmax()))
        found = run(step, y=np.array(words[-1:]), **state)
        state |= {name: x for name, x in found.items() if name in state}
    written = "".join(target.id_to_piece(words)).replace("</s>", "").replace("<unk>", " \u2047 ")
    sys.stdout.write(" ".join(written.replace("\u2581", " ").split()).translate(shown) + "\n")
