"""The four stages of a run, in order. Each reads what the one before left in the run folder."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from seq2seq.cli import output_stream
from seq2seq.config import load_run_config
from seq2seq.data.prepare import (
    SIDES,
    check_data,
    load_pairs,
    load_text,
    load_tokenizers,
    prepare,
)
from seq2seq.data.tokenizer import surface
from seq2seq.errors import MemoryLimitError, RunDirError, StoppedError, UserError
from seq2seq.export import export
from seq2seq.fidelity import Report, compare
from seq2seq.inference.alignment import Weights, group_pieces, merge_words, plot_alignment, to_png
from seq2seq.inference.by_length import (
    LENGTH_BLEU,
    LENGTH_PLOT,
    compare_lengths,
    plot_length_bleu,
    score_by_length,
)
from seq2seq.inference.evaluation import Results, known_rows, score_all, second_pass
from seq2seq.inference.examples import EXAMPLES, force
from seq2seq.inference.gold import GOLD, GoldAlignment, align_test_set
from seq2seq.inference.scoring import bleu_metric
from seq2seq.inference.translate import END, Translation, translate
from seq2seq.memory import ADVICE, is_out_of_memory
from seq2seq.pretrained import Pretrained, new_model
from seq2seq.provenance import note_restart
from seq2seq.reading import read_json
from seq2seq.run import RunDir
from seq2seq.settings import Config, SentencePieceConfig, Stage
from seq2seq.signals import StopRequest
from seq2seq.training import crash
from seq2seq.training.curves import plot_curves
from seq2seq.training.monitor import METRICS
from seq2seq.training.trainer import Trainer, TrainingData

log = logging.getLogger(__name__)

DECODED = "decode/test"
NO_UNKNOWN = "decode/test.no_unknown.txt"
SCORES = "scores.json"


def run_job(cfg: Config, run: RunDir) -> None:
    """Run all stages of a job with its log on stderr and in `train.log`, and print the outcome.

    Raises:
        UserError: something a user can put right, or a stop that was asked for.
        InternalError: a bug; the traceback is in the run's `crash/`.
    """
    stop = StopRequest()
    stop.install()
    with logging_to(run.path("train.log")), logging_redirect_tqdm():
        try:
            run_stages(cfg, run, stop)
        except UserError:
            raise
        except Exception as error:  # the one place that turns a bug into a line
            if is_out_of_memory(error):
                raise MemoryLimitError(run.root, "out of memory", ADVICE) from None
            raise crash.keep_bug(run, error) from error
    with output_stream(None) as output:  # UTF-8, whatever the locale
        output.write(f"{summary(run)}\n".encode())


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send our log to stderr and to a UTF-8 file."""
    logger = logging.getLogger("seq2seq")
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    file.handleError = partial(_give_up, logger, file)  # type: ignore[method-assign]
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), file]
    before, logger.propagate = logger.propagate, False
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.propagate = before
        for handler in handlers:
            logger.removeHandler(handler)
        file.close()


def _give_up(logger: logging.Logger, file: logging.Handler, _record: logging.LogRecord) -> None:
    """Stop writing a log that cannot be written; one line instead of a traceback for each."""
    logger.removeHandler(file)
    logger.warning("train.log gets no more of this run: %s", sys.exc_info()[1])


def run_stages(cfg: Config, run: RunDir, stop: StopRequest) -> None:
    """Run the stages that the config names, in their order."""
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    bleu_metric(cfg.evaluate.bleu_tokenizer)  # now, not at the first validation
    fidelity = write_fidelity(cfg, run)
    for stage in Stage:
        if stage not in cfg.stages:
            continue
        log.info("== %s", stage.name)
        match stage:
            case Stage.tokenize:
                prepare(run, cfg)
            case Stage.train:
                for line in fidelity.lines():
                    log.info("%s", line)
                train(cfg, run, stop)
            case Stage.decode:
                decode(cfg, run, stop)
            case Stage.evaluate:
                evaluate(cfg, run)


def write_fidelity(cfg: Config, run: RunDir) -> Report:
    """Say in the run's folder what it does differently from the paper and the authors' code.

    Anew for every job: a resumed run may decode by other settings.
    """
    report = compare(cfg)
    run.write("fidelity.md", report.as_markdown())
    run.write_json("fidelity.json", report.as_dict())
    return report


def train(cfg: Config, run: RunDir, stop: StopRequest) -> None:
    """Train, or go on training, on the tokenized corpus of the run; export the best weights."""
    check_data(run)
    for difference in note_restart(run, cfg):
        log.warning("from here on not bit-exact: %s", difference)
    tokenizers = load_tokenizers(run, cfg)
    texts = None
    if isinstance(cfg.tokenizer, SentencePieceConfig) and cfg.tokenizer.sampling:
        texts = (load_text(run, "train", "source"), load_text(run, "train", "target"))
    data = TrainingData(
        train=load_pairs(run, "train"),
        texts=texts,
        validation=load_pairs(run, "validation"),
        validation_source=load_text(run, "validation", "source"),
        validation_references=load_text(run, "validation", "target"),
        tokenizers=tokenizers,
    )
    model = new_model(cfg, tokenizers)
    count = sum(p.numel() for p in model.parameters())
    log.info("model: %s parameters on %s", f"{count:,}", next(model.parameters()).device)
    progress = Trainer(model, data, cfg, run, stop).fit()
    log.info(
        "trained %s updates in %.1f minutes; best %s %.2f after update %s",
        f"{progress.update:,}",
        progress.seconds / 60,
        cfg.trainer.select_by.name,
        progress.best_score if progress.best_score is not None else float("nan"),
        f"{progress.best_update:,}",
    )
    export(run, load_run_config(run.path("config.yaml")))


def decode(cfg: Config, run: RunDir, stop: StopRequest) -> None:
    """Translate the test set with the best weights into `decode/test.txt` and `.jsonl`.

    If some of its sentences have unknown words and some have none, those without are translated
    once more, with the unknown symbol forbidden: the "No UNK" of Table 1.
    """
    check_data(run)
    model = Pretrained(run, cfg)
    lines, references = (load_text(run, "test", side) for side in SIDES)
    with run.stream(f"{DECODED}.txt") as text, run.stream(f"{DECODED}.jsonl") as details:
        for translation in _decoded(model.stream(lines), len(lines), run, stop):
            text.write(f"{translation.text}\n".encode())
            line = json.dumps(translation.as_dict(), ensure_ascii=False)
            details.write(f"{line}\n".encode())
    rows = known_rows(model.tokenizers, lines, references)
    if again := second_pass(rows, len(lines), cfg.decode):
        log.info("once more %s sentences, without unknown words", f"{len(rows):,}")
        known = translate(model.model, model.tokenizers, (lines[i] for i in rows), again)
        with run.stream(NO_UNKNOWN) as text:
            for translation in _decoded(known, len(rows), run, stop):
                text.write(f"{translation.text}\n".encode())


def _decoded(
    found: Iterable[Translation], total: int, run: RunDir, stop: StopRequest
) -> Iterator[Translation]:
    """Pass translations on; count them in the log, and stop where that was asked for."""
    for number, translation in enumerate(found, start=1):
        if stop.exit_code is not None:
            raise StoppedError(
                run.root,
                "decoding was interrupted",
                f"Continue with: python train.py resume={run.root}",
                stop.exit_code,
            )
        yield translation
        if number % 1000 == 0:
            log.info("decoded %s of %s", f"{number:,}", f"{total:,}")


def evaluate(cfg: Config, run: RunDir) -> None:
    """Score the translations of the test set and its alignment, and draw what is to be seen."""
    check_data(run)
    hypotheses = list(load_lines(run, f"{DECODED}.txt"))
    sources, references = (list(load_text(run, "test", side)) for side in SIDES)
    rows = known_rows(load_tokenizers(run, cfg), sources, references)
    if second_pass(rows, len(sources), cfg.decode):
        known = dict(zip(rows, load_lines(run, NO_UNKNOWN), strict=True))
    else:
        known = {row: hypotheses[row] for row in rows}
    results = Results(*score_all(cfg, hypotheses, references, known), align(cfg, run))
    run.write_json(SCORES, results.as_dict())
    by_length = score_by_length(cfg, sources, hypotheses, references)
    run.write_json(LENGTH_BLEU, by_length.as_dict())
    draw(run, LENGTH_PLOT, lambda: to_png(plot_length_bleu({cfg.name: by_length.bins})))
    draw_heatmaps(cfg, run)
    draw_examples(cfg, run)
    draw_curves(cfg, run)


def draw(run: RunDir, name: str, picture: Callable[[], bytes]) -> bool:
    """Write a picture; one that cannot be drawn is a warning, as nothing depends on it."""
    try:
        data = picture()
    except UserError:
        raise
    except Exception as error:  # no matplotlib, no font, strange numbers
        log.warning("no %s: %s", name, error)
        return False
    run.write(name, data)
    return True


def align(cfg: Config, run: RunDir) -> GoldAlignment | None:
    """Compare the attention of the best weights with gold links, where the run has some."""
    if not run.path(GOLD).exists():
        return None
    model = Pretrained(run, cfg)
    found = align_test_set(run, model.model, model.tokenizers, cfg.decode.batch_sentences)
    if found is None:
        log.warning(
            "no alignment score: the words of no test sentence could be found in its pieces"
        )
    return found


def load_lines(run: RunDir, name: str) -> Iterator[str]:
    """Yield the lines of a text file that a stage wrote."""
    path = run.path(name)
    if not path.exists():
        raise RunDirError(path, "missing", "Run the decode stage first.")
    with path.open("rb") as handle:
        for line in handle:
            yield line.decode().removesuffix("\n")


def draw_heatmaps(cfg: Config, run: RunDir) -> list[str]:
    """Draw the attention of the test sentences in `evaluate.heatmaps`; return the file names.

    The weights are those of the best beam hypothesis.
    """
    names = []
    wanted = set(cfg.evaluate.heatmaps)
    for number, line in enumerate(load_lines(run, f"{DECODED}.jsonl"), start=1):
        if number not in wanted:
            continue
        translation = json.loads(line)
        if not translation["hypotheses"]:
            continue
        best = translation["hypotheses"][0]
        alpha = np.array(best["attention"], np.float32)
        name = f"heatmaps/test-{number:04d}.png"
        tokens = (translation["source_tokens"], best["tokens"])
        if draw(run, name, partial(heatmap_png, cfg, alpha, *tokens)):
            names.append(name)
    return names


def draw_examples(cfg: Config, run: RunDir) -> list[str]:
    """Translate and draw the sets in `evaluate.examples`; return the file names.

    Each sentence gives two pictures: what the run says, and, ending in `-paper`, where it looks
    while it is made to say what the paper prints.
    """
    if not cfg.evaluate.examples:
        return []
    model = Pretrained(run, cfg)
    names = []
    for examples in cfg.evaluate.examples:
        for example in EXAMPLES[examples]:
            name = f"heatmaps/{examples.name}-{example.label}"
            [own] = model.translate([example.source])
            log.info("%s-%s: %s", examples.name, example.label, own.text)
            if own.candidates:
                tokens = own.candidates[0].tokens
                picture = partial(heatmap_png, cfg, own.alignment, own.source_tokens, tokens)
                if draw(run, f"{name}.png", picture):
                    names.append(f"{name}.png")
            forced = force(model.model, model.tokenizers, example)
            shown = (forced.alignment, forced.source_tokens, forced.tokens)
            if draw(run, f"{name}-paper.png", partial(heatmap_png, cfg, *shown)):
                names.append(f"{name}-paper.png")
    return names


def draw_curves(cfg: Config, run: RunDir) -> None:
    """Draw the learning curves, if the run has trained."""
    if run.path(METRICS).exists():
        rows = [json.loads(line) for line in load_lines(run, METRICS)]
        draw(run, "curves.png", lambda: to_png(plot_curves(rows, cfg.name)))


def heatmap_png(cfg: Config, alpha: Weights, source: Sequence[str], target: Sequence[str]) -> bytes:
    """Draw attention (target tokens, source tokens), laid out as the paper's Fig. 3."""
    if cfg.evaluate.heatmap_words:
        source, source_groups = _words(source)
        target, target_groups = _words(target)
        alpha = merge_words(alpha, source_groups, target_groups)
    return to_png(plot_alignment(alpha, source, target, font=cfg.evaluate.heatmap_font))


def _words(pieces: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Return the words that pieces make up, and the pieces of each; the end symbol stays one."""
    ends = [END] if pieces[-1] == END else []
    words, groups = group_pieces(*surface(pieces[: len(pieces) - len(ends)]))
    return [*words, *ends], [*groups, *([[len(pieces) - 1]] if ends else [])]


def draw_sweep(folder: Path) -> None:
    """Draw BLEU by source length of all runs of a sweep so far on one plot, in its folder."""
    if picture := compare_lengths(folder):
        path = RunDir(folder).write(LENGTH_PLOT, picture)
        with output_stream(None) as output:
            output.write(f"lengths    {path}\n".encode())


def summary(run: RunDir) -> str:
    """Return what a person wants to see at the end: scores, three translations, pictures."""
    parts = []
    if run.path(SCORES).exists():
        parts += [str(Results.from_dict(read_json(run.path(SCORES)))), ""]
        sides = (load_text(run, "test", "source"), load_text(run, "test", "target"))
        for source, reference, output in islice(
            zip(*sides, load_lines(run, f"{DECODED}.txt"), strict=True), 3
        ):
            parts += [f"source     {source}", f"output     {output}", f"reference  {reference}", ""]
        parts += [f"heatmap    {path}" for path in sorted(run.path("heatmaps").glob("*.png"))[:4]]
    parts.append(f"run        {run.root}")
    return "\n".join(parts)
