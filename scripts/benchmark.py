"""Measure speed and memory: `benchmark.py train`, `decode RUN` or `growth RUN`.

Contenders take turns in one process, round by round, and the median round counts. A peer's program
takes its turn in each round, too.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

# As train.py: a waiting thread gives its core away.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.run.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli.console import option_parser, output_stream, run_script, table
from seq2seq.run.errors import PlatformError, UsageError

if TYPE_CHECKING:
    from bench.measure import Rate
    from bench.sizes import Size
    from bench.training import Contender, Training

Row = dict[str, Any]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("what", choices=["train", "decode", "growth"])
    parser.add_argument("run", nargs="?", type=Path, help="decode: a trained run")
    parser.add_argument("--sizes", default="medium", help="train: small,medium,paper")
    parser.add_argument("--vocabulary", default="8000", help="train: 8000,30000")
    parser.add_argument("--ways", default="fused fp32,fused bf16", help="backend and precision")
    parser.add_argument("--batch", type=int, default=80, help="sentences")
    parser.add_argument("--updates", type=int, default=6, help="train: a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beams", default="5,1", help="decode: beam sizes")
    parser.add_argument("--limit", type=int, default=200, help="decode: sentences a round")
    parser.add_argument("--lengths", default="captions", help="of drawn text: captions, full (50)")
    parser.add_argument("--data", type=Path, help="directory with train.LANGUAGE; otherwise drawn")
    parser.add_argument("--languages", default="en,fr", help="of --data, source first")
    parser.add_argument("--against", type=Path, help="script of a peer, which needs --data")
    parser.add_argument("--peer-updates", type=int, default=30, help="of the peer, a round")
    parser.add_argument("--memory", action="store_true", help="train: measure an update's peak")
    parser.add_argument("--pairs", default="10000,100000,1000000", help="growth: corpora")
    parser.add_argument("--plot", type=Path, help="growth: PNG")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args()
    if args.against and not args.data:
        raise UsageError("--against", "the peer reads text", "Give --data, too.")
    if args.what != "train" and not args.run:
        raise UsageError(args.what, "no run to decode with", "Give RUN, as train.py prints it.")
    return args


def main() -> None:
    """Measure and print a table."""
    args = parse()
    import torch

    torch.set_num_threads(args.threads)
    rows = {"train": train, "decode": decode, "growth": growth}[args.what](args)
    with output_stream(None) as output:
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = ([shown(row.get(name, "")) for name in names] for row in rows)
        output.write(f"{table(cells, names, style='github')}\n\n{machine(args)}\n".encode())
    if args.json:
        with output_stream(args.json) as file:
            file.write(json.dumps({"machine": machine(args), "rows": rows}, indent=2).encode())


def train(args: argparse.Namespace) -> list[Row]:
    """Time updates at each size, with each way to make them."""
    from bench.sizes import SIZES, Size

    rows = []
    for name in args.sizes.split(","):
        if name not in SIZES:
            raise UsageError("--sizes", f"{name!r} is no size", f"Take some of {', '.join(SIZES)}.")
        for words in args.vocabulary.split(","):
            rows += train_at(args, Size(name, *SIZES[name], int(words)))
    return rows


def train_at(args: argparse.Namespace, size: "Size") -> list[Row]:
    """Time updates at one size."""
    from bench.measure import interleaved, timed
    from bench.training import Contender

    contenders = [Contender.named(way) for way in args.ways.split(",")]
    with TemporaryDirectory() as directory:
        trainings = trainings_of(args, size, contenders, Path(directory))
        contestants: list[Callable[[], float]] = [
            partial(timed, partial(t.updates, args.updates)) for t in trainings
        ]
        if args.against:
            contestants.append(peer(args, size, "train_target_tokens_per_s"))
        rates = interleaved(contestants, args.rounds)
        rows = [
            training_row(training, contender, rate)
            for training, contender, rate in zip(trainings, contenders, rates, strict=False)
        ]
        if args.memory:
            add_memory(rows, trainings)
    return beside(args, rows, rates, {"size": size.name, "words": size.vocabulary}, "tokens/s")


def trainings_of(
    args: argparse.Namespace, size: "Size", contenders: "list[Contender]", directory: Path
) -> "list[Training]":
    """Build a model for each contender, on one corpus."""
    from bench.training import Training, batches_of
    from bench.workload import drawn_pairs, plan, read_pairs, stored
    from seq2seq.config.compose import preset
    from seq2seq.config.schema import Device
    from seq2seq.decoding.pretrained import pick_device
    from seq2seq.run.memory import keep_freed_memory

    cfg = preset("multi30k_en_fr", [f"trainer.batch_sentences={args.batch}"])
    if args.data:
        files = [args.data / f"train.{language}" for language in args.languages.split(",")]
        pairs = read_pairs(files[0], files[1], size.vocabulary)
    else:
        pairs = drawn_pairs(args.lengths, 200 * args.batch, size.vocabulary)
    corpus = stored([pairs], size.vocabulary, directory)
    device, batches = pick_device(Device.auto), plan(corpus, cfg.trainer)
    keep_freed_memory()  # as train.py
    return [Training(size, c, cfg, batches_of(corpus, batches), device) for c in contenders]


def add_memory(rows: list[Row], trainings: "list[Training]") -> None:
    """Measure the peak of an update, each in a process of its own, where nothing is left over."""
    import multiprocessing

    from bench.training import update_memory

    for row, training in zip(rows, trainings, strict=True):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            size, contender, batch = training.size, training.contender, next(training.batches)
            given = (size, contender, training.cfg, batch, training.device)
            peak = pool.apply(update_memory, given)
        row["peak MB"] = None if peak is None else round(peak / 1e6)


def training_row(training: "Training", contender: "Contender", rate: "Rate") -> Row:
    """Return the figures of one way to train, and how near it comes to what products allow."""
    import torch

    from bench.measure import product_rate
    from seq2seq.config.schema import Precision

    row: Row = {"size": training.size.name, "words": training.size.vocabulary}
    row |= {"way": contender.name} | figures(rate, "tokens/s")
    tokens = training.updates(1)
    operations = training.operations / tokens * rate.median
    bf16 = contender.precision is Precision.bf16
    ceiling = product_rate(torch.bfloat16 if bf16 else torch.float32, training.device)
    row |= {"GFLOP/s": round(operations / 1e9, 1), "of products": f"{operations / ceiling:.0%}"}
    return row


def beside(
    args: argparse.Namespace, rows: list[Row], rates: "list[Rate]", name: Row, unit: str
) -> list[Row]:
    """Add the peer and how many times faster than it each of ours is."""
    if not args.against:
        return rows
    for row in rows:
        row["x peer"] = round(row[unit] / rates[-1].median, 2)
    return [*rows, name | {"way": args.against.stem} | figures(rates[-1], unit)]


def figures(rate: "Rate", unit: str) -> Row:
    """Return the median and the range of the rounds."""
    return {unit: round(rate.median, 1), "range": f"{min(rate.rounds):.0f}-{max(rate.rounds):.0f}"}


def peer(args: argparse.Namespace, size: "Size", field: str) -> Callable[[], float]:
    """Return a contestant that runs a peer's script, which measures itself, without its start."""
    source, target = args.languages.split(",")
    options = {
        "data": args.data, "src": source, "tgt": target, "emb": size.embedding,
        "hid": size.hidden, "vocab": size.vocabulary, "batch": args.batch,
        "threads": args.threads, "updates": args.peer_updates,
    }  # fmt: skip
    command = [sys.executable, str(args.against), args.what]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]

    def contest() -> float:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlatformError(args.against, f"failed: {done.stderr[-300:]}", "Run it alone.")
        return float(json.loads(done.stdout.splitlines()[-1])[field])

    return contest


def decode(args: argparse.Namespace) -> list[Row]:
    """Time the translation of a run's test set, with each beam and each way."""
    from itertools import product

    from bench.measure import interleaved, timed

    cases = [
        Decoding(args.run, int(beam), way, args.limit)
        for beam, way in product(args.beams.split(","), args.ways.split(","))
    ]
    rates = interleaved([partial(timed, case.translate) for case in cases], args.rounds)
    return [
        {"beam": case.beam, "way": case.way}
        | figures(rate, "sentences/s")
        | {"pieces/s": round(rate.median * case.pieces, 1), "BLEU": round(case.bleu(), 2)}
        for case, rate in zip(cases, rates, strict=True)
    ]


class Decoding:
    """A run that translates the first sentences of its test set."""

    def __init__(self, run: Path, beam: int, way: str, limit: int) -> None:
        from seq2seq.config.compose import load_run_config
        from seq2seq.config.schema import Backend
        from seq2seq.data.prepare import load_text
        from seq2seq.decoding.pretrained import Pretrained
        from seq2seq.run.directory import RunDir

        self.beam, self.way = beam, way
        backend, precision = way.split()
        overrides = [f"decode.beam_size={beam}", f"decode.precision={precision}"]
        overrides += ["decode.n_best=1"]
        directory = RunDir.open(run)
        cfg = load_run_config(directory.path("config.yaml"), overrides)
        self.model = Pretrained(
            directory, replace(cfg, model=replace(cfg.model, backend=Backend[backend]))
        )
        self.lines = load_text(directory, "test", "source")[:limit]
        self.references = load_text(directory, "test", "target")[:limit]
        self.texts: list[str] = []
        self.pieces = 0.0  # of a translation, on average

    def translate(self) -> float:
        """Translate all of them; return how many."""
        found = self.model.translate(self.lines)
        self.texts = [translation.text for translation in found]
        tokens = sum(len(translation.candidates[0].tokens) for translation in found)
        self.pieces = tokens / len(found)
        return float(len(found))

    def bleu(self) -> float:
        """Score the last translations."""
        from seq2seq.evaluation.scoring import bleu

        cfg = self.model.config
        tokenizer, language = cfg.evaluate.bleu_tokenizer, cfg.data.target_language
        return bleu(self.texts, self.references, tokenizer, language)


def growth(args: argparse.Namespace) -> list[Row]:
    """Measure how speed, time and memory grow with what there is to do."""
    from bench.growth import memory_of_data_stage, plot, speed_by_corpus, time_by_length
    from seq2seq.config.compose import preset
    from seq2seq.data.prepare import load_text
    from seq2seq.decoding.pretrained import load
    from seq2seq.run.directory import RunDir

    pairs = [int(number) for number in args.pairs.split(",")]
    root = Path(__file__).resolve().parents[1]
    sentences = load_text(RunDir.open(args.run), "test", "source")
    with TemporaryDirectory() as directory:
        cfg = preset("multi30k_en_fr", [f"trainer.batch_sentences={args.batch}"])
        speed = speed_by_corpus(cfg, pairs, args.updates, Path(directory))
        model = load(args.run, ["decode.max_ratio=2", f"threads={args.threads}"])
        times = time_by_length(model, sentences[:], (10, 20, 40, 80, 160), 32)
        memory = memory_of_data_stage(root, pairs, Path(directory))
    if args.plot:
        with output_stream(args.plot) as file:
            file.write(plot(speed, times, memory))
    return [*speed, *times, *memory]


def shown(value: object) -> str:
    """Return a figure of a table; those that nobody rounded get three digits."""
    if isinstance(value, float) and len(str(value)) > 7:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def machine(args: argparse.Namespace) -> str:
    """Say on what and with what this was measured."""
    import platform
    import re

    import torch

    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        found = re.search(r"^model name\s*: (.+)$", info.read_text(encoding="utf-8"), re.M)
        name = found[1] if found else name
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{name} ({capability}), {args.threads} threads, torch {torch.__version__}, "
        f"median of {args.rounds} rounds in turn"
    )


if __name__ == "__main__":
    run_script(main)
