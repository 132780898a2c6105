"""Measure speed: `train`, `members`, `decode RUN`, `startup RUN`, `prepare`, or a `pipeline`.

Contestants take turns in one process, round by round, and the median round counts. A peer's program
also takes a turn in each round.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

# As in train.py: waiting threads yield their cores.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
import checkout  # noqa: F401
from seq2seq.cli.console import option_parser, run_script, table, write_json, write_text
from seq2seq.run.errors import PlatformError, UsageError
from seq2seq.run.naming import run_path

if TYPE_CHECKING:
    from bench import Size, Training
    from seq2seq.config.schema import Config

Row = dict[str, Any]
Translated = tuple[str, int]  # a translation, and its number of pieces
Translator = Callable[[Sequence[str]], list[Translated]]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    add = parser.add_argument
    kinds = ["train", "members", "decode", "startup", "prepare", "pipeline"]
    add("what", choices=kinds)
    add("run", nargs="?", type=run_path, help="decode, startup: a trained run")
    add("--sizes", default="medium", help="train: small,medium,paper")
    add("--vocabulary", default="8000", help="train, members: 8000,30000")
    add("--members", help="members: PRESET KEY=VALUE ...; PRESET ... (default: all)")
    add(
        "--ways",
        help="backend, precision and, to decode, settings, such as fused bf16 shortlist=300; or "
        "ctranslate2 int8, of a Transformer (default: fused fp32,fused bf16)",
    )
    add("--batch", type=int, default=80, help="sentences")
    add("--updates", type=int, help="a round; default: 6, pipeline: 500")
    add("--rounds", type=int, help="default: 5, pipeline: 1")
    add("--threads", type=int, default=2)
    add("--beams", default="5,1", help="decode: beam sizes")
    add("--cpu-time", action="store_true", help="decode: count CPU seconds, if others run beside")
    add("--limit", type=int, default=200, help="decode: sentences a round")
    add("--lengths", default="captions", help="of drawn text: captions, full (50)")
    add("--data", type=Path, help="directory with train.LANGUAGE; otherwise drawn")
    add("--languages", default="en,fr", help="of --data, source first")
    add("--pairs", type=int, default=200_000, help="prepare: drawn sentence pairs")
    add("--workers", default="1,2", help="prepare: processes")
    add("--preset", default="multi30k_en_fr", help="pipeline: what is run")
    add("--against", type=Path, help="script of a peer, which needs --data")
    add("--peer-updates", type=int, default=30, help="of the peer, a round")
    add("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args(argv)
    # Some members cannot run on the fused kernels alone.
    backend = "auto" if args.what == "members" else "fused"
    args.ways = args.ways or f"{backend} fp32,{backend} bf16"
    updates, rounds = (500, 1) if args.what == "pipeline" else (6, 5)
    args.updates, args.rounds = args.updates or updates, args.rounds or rounds
    if args.against and not args.data:
        raise UsageError("--against", "the peer reads text", "Give --data, too.")
    if args.what in ("decode", "startup") and not args.run:
        raise UsageError(args.what, "no run to decode with", "Give RUN.")
    return args


def main(argv: Sequence[str]) -> None:
    """Measure and print a table."""
    args = parse(argv)
    import torch

    torch.set_num_threads(args.threads)
    measure = {"train": train, "members": members, "decode": decode, "startup": startup}
    measure |= {"prepare": prepare, "pipeline": pipeline}
    rows = measure[args.what](args)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = ([shown(row.get(name, "")) for name in names] for row in rows)
    write_text(None, f"{table(cells, names, style='github')}\n\n{machine(args)}\n")
    if args.json:
        write_json(args.json, {"machine": machine(args), "rows": rows})


def train(args: argparse.Namespace) -> list[Row]:
    """Time updates at each size, for each backend and precision."""
    from bench import SIZES, Size

    if unknown := {*args.sizes.split(",")} - {*SIZES}:
        fix = f"Choose from {', '.join(SIZES)}."
        raise UsageError("--sizes", f"{min(unknown)!r} is no size", fix)
    cases = product(args.sizes.split(","), args.vocabulary.split(","))
    sizes = (Size(name, *SIZES[name], int(words)) for name, words in cases)
    return [row for size in sizes for row in train_at(args, size)]


def train_at(args: argparse.Namespace, size: "Size") -> list[Row]:
    """Time updates at one size."""
    from bench import PAPERS

    cfg = size.apply_to(config_of(args, PAPERS))
    with TemporaryDirectory() as directory:
        trainings = trainings_of(args, [cfg], size.vocabulary, Path(directory))
        others = [peer(args, size, "train_target_tokens_per_s")] if args.against else []
        rates = measured(args, trainings, others)
        name: Row = {"size": size.name, "words": size.vocabulary}
        rows = [name | training_row(*both) for both in zip(trainings, rates, strict=False)]
    if args.against:  # add the peer, and our speedups over it
        for row in rows:
            row["x peer"] = round(row["tokens/s"] / median(rates[-1]), 2)
        rows.append(name | {"way": args.against.stem} | figures(rates[-1], "tokens/s"))
    return rows


def members(args: argparse.Namespace) -> list[Row]:
    """Time updates of the family, and compare each member's time per operation to the first's."""
    from bench import MEMBERS, PAPERS

    names = [name.strip() for name in args.members.split(";")] if args.members else [*MEMBERS]
    configs = [config_of(args, *name.split()) for name in names]
    words, ways = int(args.vocabulary), args.ways.split(",")
    with TemporaryDirectory() as directory:
        trainings = trainings_of(args, configs, words, Path(directory))
        rates = measured(args, trainings)
    rows: list[Row] = []
    speeds: list[float] = []  # operations per second
    for number, (training, rate) in enumerate(zip(trainings, rates, strict=True)):
        name = names[number // len(ways)].removeprefix(f"{PAPERS} ")
        speeds.append(median(rate) * training.operations)
        slower = round(speeds[number % len(ways)] / speeds[-1], 2)
        row = {"member": name} | training_row(training, rate)
        rows.append(row | {"time per operation": slower})
    return rows


def config_of(args: argparse.Namespace, name: str, *changes: str) -> "Config":
    """Return a preset with the requested batch size."""
    from seq2seq.config.compose import preset

    batch = [f"trainer.batch_sentences={args.batch}", "trainer.batch_tokens=null"]
    return preset(name, [*changes, *batch, "data.root=."])


def measured(
    args: argparse.Namespace,
    trainings: "Sequence[Training]",
    others: Sequence[Callable[[], float]] = (),
) -> list[list[float]]:
    """Return target tokens per second of trainings and of other contestants, round by round."""
    from bench import interleaved, timed

    own = [partial(timed, partial(training.updates, args.updates)) for training in trainings]
    return interleaved([*own, *others], args.rounds)


def trainings_of(
    args: argparse.Namespace, configs: "Sequence[Config]", words: int, directory: Path
) -> "list[Training]":
    """Build each model for each backend and precision, on one corpus."""
    from bench import Training, batches_of, drawn_pairs, pieces_of, stored
    from seq2seq.decoding.pretrained import pick_device
    from seq2seq.run.memory import keep_freed_memory

    pairs = drawn_pairs(args.lengths, 200 * args.batch, words)
    if args.data:
        source, target = (args.data / f"train.{code}" for code in args.languages.split(","))
        pairs = pieces_of(source, words), pieces_of(target, words)
    corpus = stored(pairs, words, directory)
    keep_freed_memory()  # as in train.py
    device, ways = pick_device("auto"), args.ways.split(",")
    return [
        Training(cfg, way, words, batches_of(corpus, cfg.trainer), device)
        for cfg, way in product(configs, ways)
    ]


def training_row(training: "Training", rates: list[float]) -> Row:
    """Return the figures of one training, and its fraction of the matmul rate."""
    import torch

    from bench import matmul_rate

    operations = median(rates) * training.operations
    dtype = torch.bfloat16 if training.way.endswith("bf16") else torch.float32
    share = operations / matmul_rate(dtype, training.device)
    row = {"way": training.way} | figures(rates, "tokens/s")
    return row | {"GFLOP/s": round(operations / 1e9, 1), "of products": f"{share:.0%}"}


def figures(rates: list[float], unit: str) -> Row:
    """Return the median and the range of the rounds."""
    return {unit: round(median(rates), 1), "range": f"{min(rates):.0f}-{max(rates):.0f}"}


def peer(args: argparse.Namespace, size: "Size", field: str) -> Callable[[], float]:
    """Return a contestant that runs a peer's script, which times itself without its startup."""
    import torch

    source, target = args.languages.split(",")
    options = {
        "data": args.data, "src": source, "tgt": target, "emb": size.embedding,
        "hid": size.hidden, "vocab": size.vocabulary, "batch": args.batch,
        "threads": args.threads, "updates": args.peer_updates,
    }  # fmt: skip
    command = [sys.executable, str(args.against), args.what]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command += ["--cuda"] if torch.cuda.is_available() else []

    def contest() -> float:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlatformError(args.against, f"failed: {done.stderr[-300:]}", "Run it alone.")
        return float(json.loads(done.stdout.splitlines()[-1])[field])

    return contest


def decode(args: argparse.Namespace) -> list[Row]:
    """Time the translation of a run's test set for each beam size and way.

    Changed lines are those that the first of the ways translates differently.
    """
    import time

    from bench import interleaved, timed
    from seq2seq.config.compose import load_run_config
    from seq2seq.data.prepare import SIDES, load_text
    from seq2seq.evaluation.scoring import bleu
    from seq2seq.run.directory import RunDir

    run = RunDir.open(args.run)
    lines, references = (load_text(run, "test", side)[: args.limit] for side in SIDES)
    cases = [*product(args.beams.split(","), args.ways.split(","))]
    found: dict[tuple[str, str], list[Translated]] = {}  # the last translations of each case

    def contestant(beam: str, way: str) -> Callable[[], float]:
        translate = with_ctranslate2 if way.startswith("ctranslate2") else with_ours
        translator = translate(args, beam, *way.split())

        def run_once() -> float:
            found[beam, way] = translator(lines)
            return float(len(lines))

        clock = time.process_time if args.cpu_time else time.perf_counter
        return partial(timed, run_once, clock)

    # Time all cases in turn; then score the last translations of each.
    rates = interleaved([contestant(*case) for case in cases], args.rounds)
    cfg = load_run_config(run.checked("config.yaml"))
    language = cfg.evaluate.bleu_tokenizer, cfg.data.target_language
    rows = []
    for case, rate in zip(cases, rates, strict=True):
        texts, counts = zip(*found[case], strict=True)
        row = {"beam": int(case[0]), "way": case[1]} | figures(rate, "sentences/s")
        row["pieces/s"] = round(median(rate) * sum(counts) / len(texts), 1)
        row["BLEU"] = round(bleu(texts, references, *language), 2)
        first = found[case[0], cases[0][1]]
        changed = sum(x != y for (x, _), (y, _) in zip(found[case], first, strict=True))
        rows.append(row | {"changed lines": f"{changed / len(texts):.1%}"})
    return rows


def with_ours(
    args: argparse.Namespace, beam: str, backend: str, precision: str, *changes: str
) -> Translator:
    """Return our own way to translate."""
    from seq2seq.config.compose import load_run_config
    from seq2seq.config.schema import Backend
    from seq2seq.decoding.pretrained import Pretrained
    from seq2seq.run.directory import RunDir

    run = RunDir.open(args.run)
    settings = [f"beam_size={beam}", f"precision={precision}", "n_best=1", *changes]
    overrides = [f"decode.{setting}" for setting in settings]
    cfg = load_run_config(run.checked("config.yaml"), overrides)
    cfg = replace(cfg, model=replace(cfg.model, backend=Backend[backend]))
    model = Pretrained(run, cfg)
    return lambda lines: [(t.text, len(t.candidates[0].tokens)) for t in model.translate(lines)]


def with_ctranslate2(args: argparse.Namespace, beam: str, _: str, precision: str) -> Translator:
    """Return CTranslate2's way to translate with the weights of a Transformer."""
    import ctranslate2
    from sentencepiece import SentencePieceProcessor

    from seq2seq.cli.export import export
    from seq2seq.run.models import named_runs

    types = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
    with TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        export(named_runs(str(args.run))[0], out, "ctranslate2")
        options = {"compute_type": types[precision], "intra_threads": args.threads}
        engine = ctranslate2.Translator(str(out), **options)
        source, target = (
            SentencePieceProcessor(model_file=str(out / f"{side}.model"))
            for side in ("source", "target")
        )

    def translate(lines: Sequence[str]) -> list[Translated]:
        pieces = source.encode([*lines], out_type=str)
        found = engine.translate_batch(pieces, beam_size=int(beam), max_batch_size=64)
        best = [result.hypotheses[0] for result in found]
        return [(target.decode(each), len(each) + 1) for each in best]  # with the end symbol

    return translate


def startup(args: argparse.Namespace) -> list[Row]:
    """Time whole processes: the help, and the translation of one line."""
    import resource
    import time

    rows: list[Row] = []
    for words in (["--help"], ["decode", str(args.run)]):
        times: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "seq2seq", *words]
            subprocess.run(command, input=b"One line.\n", stdout=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            times.append((time.perf_counter() - begun, used))
        wall, cpu = (round(median(column), 2) for column in zip(*times, strict=True))
        rows.append({"command": f"seq2seq {words[0]}", "seconds": wall, "CPU seconds": cpu})
    return rows


def prepare(args: argparse.Namespace) -> list[Row]:
    """Time the preparation of drawn text by vocabulary and number of workers, in turn.

    The peak of memory is that of the reading process, above that of a corpus of 100 pairs.
    """
    from bench import write_text

    rows: list[Row] = []
    sizes = {"words": 30_001, "sentencepiece": 8000}
    with TemporaryDirectory() as directory:
        for pairs, name in ((args.pairs, "train"), (100, "few")):
            write_text(Path(directory), name, pairs)
        for tokenizer, size in sizes.items():
            made = [f"tokenizer={tokenizer}", f"data.root={directory}"]
            few = ["data.train=[few.en,few.fr]", "tokenizer.vocab_size=200"]
            base = prepared([*made, *few])
            made.append(f"tokenizer.vocab_size={size}")
            counts = [int(count) for count in args.workers.split(",")]
            # The counts of workers take turns, and must make the same files.
            rounds = [
                [prepared([*made, f"data.workers={count}"]) for count in counts]
                for _ in range(args.rounds)
            ]
            if len({row["checksum"] for each in rounds for row in each}) > 1:
                what = f"{tokenizer}: the files differ between workers or rounds"
                raise PlatformError("prepare", what, "Report it.")
            for column, count in zip(zip(*rounds, strict=True), counts, strict=True):
                seconds = median(row["seconds"] for row in column)
                peak = max(row["MB"] for row in column) - base["MB"]
                own = {"vocabulary": tokenizer, "workers": count, "pairs": args.pairs}
                speed = {"seconds": round(seconds, 1), "pairs/s": round(args.pairs / seconds)}
                rows.append({**own, **speed, "MB above 100 pairs": round(peak)})
    return rows


def prepared(words: Sequence[str]) -> Row:
    """Prepare a corpus in a new process; return seconds, peak memory and a checksum."""
    import time

    with TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "seq2seq", "train", "+experiment=own_corpus"]
        command += [f"data.{part}=[few.en,few.fr]" for part in ("validation", "test")]
        command += ["data.target_language=fr", "stages=[tokenize]", f"run_dir={directory}/run"]
        begun = time.perf_counter()
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([*command, *words], stdout=quiet, stderr=quiet)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise PlatformError("prepare", f"exit code {process.returncode}", "Run it alone.")
        report = json.loads(Path(directory, "run/data_report.json").read_bytes())
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "MB": used.ru_maxrss / 1024, "checksum": report["sha256"]}


def pipeline(args: argparse.Namespace) -> list[Row]:
    """Time the parts of a short run of a preset, and tell from them those of the whole run."""
    from pipeline import rows_of, timed_run
    from seq2seq.config.compose import preset

    trainer = preset(args.preset, ["data.root=."] if args.data else []).trainer
    every = min(args.updates, trainer.validate_every)
    arguments = [f"+experiment={args.preset}", f"threads={args.threads}"]
    arguments += [f"data.root={args.data}"] if args.data else []
    arguments += [f"trainer.max_updates={args.updates}", f"trainer.validate_every={every}"]
    found = [timed_run(arguments) for _ in range(args.rounds)]
    validations = -(-trainer.max_updates // trainer.validate_every)
    return rows_of(found, trainer.max_updates, validations)


def shown(value: object) -> str:
    """Return a figure for a table; unrounded ones get three digits."""
    if isinstance(value, float) and len(str(value)) > 7:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def machine(args: argparse.Namespace) -> str:
    """Describe the machine, the software and the measurement."""
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
    scaled = ""
    if args.what == "pipeline":
        from pipeline import SCALED

        scaled = f"; {SCALED.format(args.updates)}"
    return (
        f"{name} ({capability}), {args.threads} threads, torch {torch.__version__}, "
        f"median of {args.rounds} rounds in turn{scaled}"
    )


if __name__ == "__main__":
    run_script(main)
