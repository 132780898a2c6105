"""The four stages of a run, in order; each reads what earlier ones wrote to the run directory."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from seq2seq.alignment.heatmap import printable_line, to_png
from seq2seq.cli.console import Printable, show
from seq2seq.cli.decode_stage import NO_UNKNOWN, decode
from seq2seq.config.compose import load_run_config
from seq2seq.config.schema import (
    Config,
    DecodeConfig,
    DecodePrecision,
    GuidedAlignmentConfig,
    SentencePieceConfig,
    Stage,
)
from seq2seq.data.mixture import mixture
from seq2seq.data.prepare import (
    SIDES,
    check_data,
    directions_of,
    load_blocks,
    load_pairs,
    load_text,
    load_tokenizers,
    prepare,
)
from seq2seq.data.tags import rows_of
from seq2seq.decoding import flags
from seq2seq.decoding.pretrained import Pretrained, new_model, visible_devices
from seq2seq.decoding.translate import for_search
from seq2seq.evaluation import attention, by_length, figures, test_set
from seq2seq.evaluation.projector import project
from seq2seq.evaluation.scoring import bleu_metric
from seq2seq.fidelity import Report, compare
from seq2seq.run import crash
from seq2seq.run.checkpoints import updates
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import MemoryLimitError, UserError
from seq2seq.run.jsonable import to_json
from seq2seq.run.memory import ADVICE, is_out_of_memory, keep_freed_memory
from seq2seq.run.provenance import note_restart
from seq2seq.run.reading import read_lines_of
from seq2seq.run.signals import Interrupted, StopRequest
from seq2seq.run.writing import explained
from seq2seq.training.checkpoint import load_some
from seq2seq.training.distributed import ALONE, World
from seq2seq.training.export import export
from seq2seq.training.links import TokenLinks
from seq2seq.training.selection import closing_line
from seq2seq.training.trainer import Trainer, stopped
from seq2seq.training.validation import TrainingData
from seq2seq.training.vectors import fill_embeddings
from seq2seq.training.warm_start import ORIGIN

log = logging.getLogger(__name__)

SHARED = (Stage.train, Stage.decode)  # by the processes that torchrun started


@contextmanager
def recorded(run: RunDir) -> Iterator[None]:
    """Send the log of a job to stderr and `train.log`, and convert a bug to one line.

    Raises:
        MemoryLimitError: memory ran out, and no more specific error was raised.
        InternalError: a bug; the traceback is in the run's `crash/`.
    """
    with logging_to(run.path("train.log")), logging_redirect_tqdm():
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the only place that converts a bug to one line
            if is_out_of_memory(error):
                raise MemoryLimitError(run.root, "out of memory", ADVICE) from None
            raise crash.record_bug(run, error) from error


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send the package's log to stderr and to a UTF-8 file."""
    logger = logging.getLogger("seq2seq")
    with explained(path):
        file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(Printable("%(asctime)s %(levelname)s %(message)s"))
    file.handleError = partial(_give_up, logger, file)  # type: ignore[method-assign]
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), file]
    handlers[0].setFormatter(Printable())
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
    """Stop writing to a log file that fails; warn once instead of a traceback per message."""
    logger.removeHandler(file)
    logger.warning("train.log gets no more of this run: %s", sys.exc_info()[1])


def run_stages(cfg: Config, run: RunDir, stop: StopRequest, world: World = ALONE) -> None:
    """Run the stages of a config, in order; several processes share some, the first runs the rest.

    Raises:
        StoppedError: stopped by a signal. During `tokenize`, signals end the process at once: C++
            code would delay a handler, and files on disk are always complete.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    # Fail now, not at the first validation.
    for _, language in cfg.data.directions:
        bleu_metric(cfg.evaluate.bleu_tokenizer, language)

    fidelity = _record_fidelity(cfg, run, world)
    stages = [stage for stage in Stage if stage in cfg.stages]
    shared = [stage for stage in stages if stage in SHARED]
    for stage in stages if world.leads else shared:
        log.info("== %s", stage.name)
        if stage is Stage.tokenize:
            prepare(run, cfg)
            continue
        with stop.installed():
            try:
                match stage:
                    case Stage.train:
                        log.info("%s", fidelity.count())
                        with training(cfg, run, stop, world) as trainer:
                            trainer.fit()
                    case Stage.decode:
                        decode(cfg, run, stop, world)
                    case Stage.evaluate:
                        evaluate(cfg, run, stop)
            except Interrupted:
                raise stopped(run, stop, f"interrupted in stage {stage.name}") from None
        if stage in shared[-1:]:
            world.part()


def _record_fidelity(cfg: Config, run: RunDir, world: World) -> Report:
    """Record the differences from the paper, for every job: a resumed run may decode otherwise."""
    fidelity = compare(cfg)
    if world.leads:
        run.write("fidelity.md", fidelity.as_markdown())
        run.write_json("fidelity.json", fidelity.as_dict())
    return fidelity


@contextmanager
def training(
    cfg: Config, run: RunDir, stop: StopRequest, world: World = ALONE
) -> Iterator[Trainer]:
    """Begin or resume training on the tokenized corpus of the run; at the end, export the best."""
    # Verify the data, and warn if versions or hardware differ from the last start.
    if world.leads:
        with stop.interruptible():
            check_data(run)
        for difference in note_restart(run, cfg, world.size):
            log.warning("from here on not bit-exact: %s", difference)
    world.meet("prepared")
    with stop.interruptible():
        trainer = trainer_of(cfg, run, stop, world)
    if trainer.flat is not None:
        world.log_shares(cfg, trainer.device, trainer.flat.bytes_sent)
    keep_freed_memory()
    begun_at = trainer.progress.update
    yield trainer
    if world.leads:
        log.info("%s", closing_line(trainer.progress, cfg.trainer, begun_at=begun_at))
        export(run, load_run_config(run.checked("config.yaml")))


def trainer_of(cfg: Config, run: RunDir, stop: StopRequest, world: World = ALONE) -> Trainer:
    """Load what training needs; changes nothing on disk."""
    # The data.
    tokenizers = load_tokenizers(run, cfg)
    texts = None  # needed only if subwords are sampled for each update
    if isinstance(cfg.tokenizer, SentencePieceConfig) and cfg.tokenizer.sampling:
        texts = (load_text(run, "train", "source"), load_text(run, "train", "target"))
    sizes = [count for _, count in load_blocks(run, cfg, "train")]
    weights = [corpus.weight for corpus in cfg.data.corpora] or [1.0]
    guided = isinstance(cfg.objective, GuidedAlignmentConfig)
    data = TrainingData(
        train=load_pairs(run, "train", tokenizers),
        texts=texts,
        links=TokenLinks(run, cfg, tokenizers) if guided else None,
        mixture=mixture(sizes, weights, cfg.data.temperature),
        validation=load_pairs(run, "validation", tokenizers),
        validation_source=load_text(run, "validation", "source"),
        validation_references=load_text(run, "validation", "target"),
        validation_directions=directions_of(run, cfg, "validation"),
        tokenizers=tokenizers,
    )
    # The model: where no checkpoint will replace them, with the weights that a run begins with.
    model = new_model(cfg, tokenizers)
    if cfg.decode.precision is DecodePrecision.int8:
        for_search(model, cfg.decode)  # fail now, not at the first validation
    if not updates(run):
        if cfg.init.run is not None:
            load_some(run.path(ORIGIN), model)
        fill_embeddings(model, cfg, tokenizers)
    count = sum(p.numel() for p in model.parameters())
    device = next(model.parameters()).device
    visible = "" if device.type == "cpu" else visible_devices()
    log.info("model: %s parameters on %s%s", f"{count:,}", device, visible)
    return Trainer(model, data, cfg, run, stop, world)


def evaluate(cfg: Config, run: RunDir, stop: StopRequest) -> None:
    """Score the translations and the alignment of the test set, and draw all figures."""
    with stop.interruptible():
        results, lengths = score(cfg, run)
    run.write_json(test_set.SCORES, to_json(results))  # first, as a figure may fail
    if results.note:
        log.info("%s", results.note)
    if len(lengths) == 1:  # several directions are only plotted
        run.write_json(by_length.LENGTH_BLEU, to_json(lengths[cfg.name]))
        run.record(by_length.LENGTH_BLEU)
    run.record(test_set.SCORES)
    # Figures are drawn one by one, and written as they are finished.
    bins = {name: found.bins for name, found in lengths.items()}
    unit = by_length.unit_of(lengths.values())
    note = figures.HARDLY_LEARNT if results.note else None
    drawings = chain(
        [(by_length.LENGTH_PLOT, lambda: to_png(by_length.plot_length_bleu(bins, unit)))],
        figures.draw_heatmaps(cfg, run, note),
        figures.draw_examples(cfg, run, note),
        figures.draw_curves(cfg, run),
        project(cfg, run),
    )
    for name, data in stop.each(figures.drawn(drawings)):
        run.write(name, data)


def score(cfg: Config, run: RunDir) -> tuple[test_set.Results, dict[str, by_length.LengthBleu]]:
    """Score the output of the decode stage, as a whole and by source length.

    The latter is keyed by the name of the run, or by direction if there are several.
    """
    sources, references = (list(load_text(run, "test", side)) for side in SIDES)
    hypotheses = test_set.saved_lines(run.checked(test_set.TRANSLATIONS), len(sources))

    def again(rows: Sequence[int], _cfg: DecodeConfig) -> list[str]:
        return test_set.saved_lines(run.checked(NO_UNKNOWN), len(rows))

    # The test set as a whole, and without what stands in the training data.
    tokenizers, text = load_tokenizers(run, cfg), (sources, references)
    rows = rows_of(directions := directions_of(run, cfg, "test"))
    results = test_set.score_all(
        cfg, tokenizers, text, hypotheses, again, align(cfg, run), directions
    )
    unseen = test_set.score_unseen(cfg, run, text, hypotheses, directions)
    # BLEU by length, of each direction.
    lengths = {}
    for direction, own in rows.items():
        name = cfg.name if len(rows) == 1 else "-".join(direction)
        src, hyp, ref = ([column[i] for i in own] for column in (sources, hypotheses, references))
        lengths[name] = by_length.score_by_length(cfg, src, hyp, ref, direction)
    return replace(results, unseen=unseen, flags=flags.saved_flags(run)), lengths


def align(cfg: Config, run: RunDir) -> attention.AttentionScores:
    """Score the attention of the best weights against gold links, if the run has them."""
    if not run.path(attention.GOLD).exists():
        return attention.AttentionScores()
    found = attention.align_test_set(run, Pretrained(run, cfg))
    if found.alignment is None:
        log.warning(
            "no alignment score: the words of no test sentence could be found in its pieces"
        )
    return found


def draw_sweep(directory: Path) -> None:
    """Plot BLEU by source length for all finished runs of a sweep, in the sweep's directory."""
    if figure := by_length.compare_lengths(directory):
        show(f"lengths    {RunDir(directory).write(by_length.LENGTH_PLOT, figure)}")


def summary(run: RunDir) -> str:
    """Return the text shown at the end of a run: scores, three translations, figures."""
    parts = []
    if run.path(test_set.SCORES).exists():
        parts += [str(test_set.read_results(run.checked(test_set.SCORES))), ""]
        sides = (load_text(run, "test", "source"), load_text(run, "test", "target"))
        outputs = read_lines_of(run.checked(test_set.TRANSLATIONS))
        for row in islice(zip(*sides, outputs, strict=False), 3):
            # Escape control characters for the terminal.
            source, reference, output = (printable_line(text) for text in row)
            parts += [f"source     {source}", f"output     {output}", f"reference  {reference}", ""]
        parts += [f"heatmap    {path}" for path in sorted(run.path("heatmaps").glob("*.png"))[:4]]
    return "\n".join([*parts, f"run        {run.root}"])
