"""Storm C19, run as a program: prepare random corpora as a user would, and say what became of each.

    python tests/random_corpora.py SEED COUNT

prints one JSON object a corpus. Whatever is not a `UserError` ends the program with a traceback.
"""

import copy
import functools
import gzip
import json
import logging
import lzma
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runs import begin, composed, config_of, locked, template_pairs

from seq2seq.cli.stages import run_stages
from seq2seq.config.schema import Config, OnBadLine, PieceModel, SentencePieceConfig, Stage
from seq2seq.data.prepare import load_pairs, load_tokenizers
from seq2seq.data.tokenizer import EOS, PAD
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import UserError, one_line
from seq2seq.run.signals import StopRequest

PAIRS = template_pairs(60)
SMALL = [
    "trainer.max_updates=1",
    "trainer.validate_every=1",
    "trainer.batch_tokens=64",
    "logging.tensorboard=false",
    "data.max_words=30",
    "model.hidden_size=4",
    "model.embedding_size=4",
]
ALPHABETS = [
    "ab \n",
    "\t\r\v\f\x1c\u0085\u2028 a\n",
    "▁▅⁇ <s></s>\n",
    "漢字かな한글ไทยक्ष \n",
    "é\u0301\u200b\u200d\ufeff a\n",
]


def random_bytes(draw: random.Random) -> bytes:
    return draw.randbytes(draw.randrange(2000))


def few_bytes(draw: random.Random) -> bytes:
    """So few kinds that lines are short and some of them text."""
    kinds = bytes(draw.choices(range(256), k=draw.randrange(1, 8))) + b"\n"
    return bytes(draw.choices(kinds, k=draw.randrange(500)))


def random_characters(draw: random.Random) -> bytes:
    points = [draw.randrange(0x110000) for _ in range(draw.randrange(300))]
    text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
    return "".join(char + ("\n" if draw.random() < 0.1 else "") for char in text).encode()


def few_characters(draw: random.Random) -> bytes:
    return "".join(draw.choices(draw.choice(ALPHABETS), k=draw.randrange(2000))).encode()


def endless(draw: random.Random) -> bytes:
    return b"a b\n" * draw.randrange(3) + draw.choice([b"a", b"a ", b"\xc3\xa9"]) * 20_000


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Some bytes changed, added or taken out, or the end cut off."""
    for _ in range(draw.choice([0, 0, 1, 1, 3, 30])):
        at = draw.randrange(len(data) + 1)
        data = data[:at] + draw.randbytes(draw.randrange(3)) + data[at + draw.randrange(3) :]
    return data[: draw.randrange(len(data))] if draw.random() < 0.1 else data


KINDS: list[Callable[[random.Random], bytes]] = [
    random_bytes,
    few_bytes,
    random_characters,
    few_characters,
    endless,
]


def random_files(draw: random.Random) -> dict[str, bytes]:
    """The two sides of a corpus, or the one file that holds both."""
    pairs = draw.sample(PAIRS, draw.randrange(1, len(PAIRS)))
    if (form := draw.random()) < 0.15:
        return {"p.tsv": damaged(draw, "".join(f"{a}\t{b}\n" for a, b in pairs).encode())}
    if form < 0.3:
        rows = "".join(json.dumps({"en": a, "fr": b}) + "\n" for a, b in pairs)
        return {"p.jsonl": damaged(draw, rows.encode())}
    sides = ["".join(f"{pair[side]}\n" for pair in pairs).encode() for side in (0, 1)]
    data = [draw.choice(KINDS)(draw) if draw.random() < 0.4 else damaged(draw, s) for s in sides]
    if draw.random() < 0.6:  # mostly as many lines, so that more than the count is looked at
        count = min(side.count(b"\n") for side in data)
        data = [b"\n".join([*side.split(b"\n")[:count], b""]) for side in data]
    pack = draw.choice([None] * 8 + [gzip.compress, lzma.compress])
    if pack:
        data = [damaged(draw, pack(side)) for side in data]
    ending = draw.choice(["", "", "", ".gz", ".xz"]) if pack else ""
    return dict(zip((f"t.en{ending}", f"t.fr{ending}"), data, strict=True))


def random_config(draw: random.Random) -> Config:
    """A copy of a composed config with other settings; composing each anew would take longest."""
    words = draw.random() < 0.3
    cfg = copy.deepcopy(base("words" if words else "pieces"))
    cfg.stages = [Stage.tokenize, *([Stage.train] if draw.random() < 0.15 else [])]
    cfg.data.on_bad_line = draw.choice([OnBadLine.error, OnBadLine.skip, OnBadLine.skip])
    if isinstance(cfg.tokenizer, SentencePieceConfig):
        cfg.tokenizer.vocab_size = draw.choice([None, None, None, 40])
        cfg.tokenizer.kind = draw.choice(list(PieceModel))
        cfg.tokenizer.joint = draw.random() < 0.5
        cfg.tokenizer.normalization = draw.choice(["identity", "nmt_nfkc"])
    return cfg


@functools.cache
def base(tokenizer: str) -> Config:
    words = ["tokenizer=words", "~tokenizer.sampling", "tokenizer.vocab_size=50"]
    return composed("debug", [*SMALL, *(words if tokenizer == "words" else [])])


def try_one(folder: Path, draw: random.Random) -> dict[str, object]:
    files = random_files(draw)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    cfg = random_config(draw)
    cfg.data.root, cfg.data.train = str(folder), list(files)
    cfg.data.validation = cfg.data.test = ["v.en", "v.fr"]
    for name, side in zip(cfg.data.test, PAIRS[0], strict=True):
        (folder / name).write_text(f"{side}\n", "utf-8")
    if draw.random() < 0.1:
        cfg.data.validation = list(files)
    with locked(begin(folder / "run", cfg)) as run:
        try:
            run_stages(cfg, run, StopRequest())
            check_rows(run)
        except UserError as error:
            return {"code": error.exit_code, "line": one_line(error)}
    return {"code": 0, "line": "trained" if len(cfg.stages) == 2 else "tokenized"}


def check_rows(run: RunDir) -> None:
    """Every row that training reads has a token: its end symbol, last and alone (N4)."""
    tokenizers = load_tokenizers(run, config_of(run.root))
    for split in ("train", "validation"):
        pairs = load_pairs(run, split, tokenizers)
        assert len(pairs.src) == len(pairs.tgt) > 0
        for rows in (pairs.src, pairs.tgt):
            for i in range(len(rows)):
                ids = rows[i].tolist()
                assert ids.index(EOS) == len(ids) - 1
                assert PAD not in ids


def main() -> None:
    seed, count = map(int, sys.argv[1:])
    logging.getLogger("seq2seq").addHandler(logging.NullHandler())
    os.fsync = lambda _: None  # half of the time; what it is for is tested elsewhere
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            found = try_one(Path(folder), random.Random(f"{seed} {number}"))
        sys.stdout.write(json.dumps({"corpus": f"{seed} {number}", **found}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
