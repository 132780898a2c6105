"""The decode stage: translations of the test set, and the limits beyond which they are flagged.

Several processes share the lines of a text; only the first one writes.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from seq2seq.config.schema import Config, DecodeConfig
from seq2seq.data.prepare import SIDES, directions_of, load_text
from seq2seq.decoding import flags, formats
from seq2seq.decoding.chunks import CHUNK_BATCHES, Feed
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translate import for_search, translate
from seq2seq.decoding.translation import Translation
from seq2seq.evaluation import figures, test_set
from seq2seq.run.directory import RunDir
from seq2seq.run.jsonable import to_json
from seq2seq.run.signals import Interrupted, StopRequest
from seq2seq.training.distributed import ALONE, Attempt, World
from seq2seq.training.trainer import stopped

log = logging.getLogger(__name__)

NO_UNKNOWN = "decode/test.no_unknown.txt"
Made = TypeVar("Made")
Line = tuple[str, str, list[str]]  # the translation, all about it as JSON, and its flags


@dataclass(frozen=True)
class Job:
    """A run's decode stage: what it works on, and with which other processes."""

    cfg: Config
    run: RunDir
    stop: StopRequest
    world: World = ALONE

    def each(self, count: int, work: Callable[[slice], Iterable[Made]]) -> Iterator[Made]:
        """Yield what `work` makes of each of `count` lines, in order, in every process.

        Lines come in rounds, of which each process works on a part. What several make is JSON.

        Raises:
            Interrupted: a process that is alone was asked to stop.
            StoppedError: one of several was.
        """
        size = self.cfg.decode.batch_sentences * CHUNK_BATCHES * self.world.size
        for start in range(0, count, size):
            part = self.world.part_of(min(size, count - start))
            own = slice(start + part.start, start + part.stop)
            attempt, made = Attempt(self.world, self.stop), []
            with attempt():
                for result in work(own):
                    if self.stop.exit_code is not None:
                        raise Interrupted
                    made.append(result)
            if attempt.shortage:
                raise MemoryError(attempt.shortage)
            if self.world.highest([attempt.interrupted]) == [1]:
                stop = self.world.agreed(self.stop)
                raise self.world.together(stopped(self.run, stop, "interrupted in stage decode"))
            yield from chain(*self.world.gather(made))


def decode(cfg: Config, run: RunDir, stop: StopRequest, world: World = ALONE) -> None:
    """Translate the test set with the best weights into `decode/test.txt` and `.jsonl`.

    Before, the validation references give the limits of its flags.
    If some but not all of its sentences have unknown words, those without are translated again
    with the unknown symbol forbidden: the "No UNK" of Table 1.
    """
    # The weights, which the process that leads may just have written, and the text.
    world.meet("trained")
    job = Job(cfg, run, stop, world)
    with world.interruptible(stop):
        model = Pretrained(run, cfg)
        lines, references = (load_text(run, "test", side) for side in SIDES)
        languages = [target for _, target in directions_of(run, cfg, "test")]
    model.limits = limits_of(job, model)

    # The whole test set; both files appear, complete, after the last sentence.
    found = _translated(job, model, lines, languages, cfg.decode)
    flagged = _written(job, [test_set.TRANSLATIONS, figures.DETAILS], found)
    if world.leads:
        saved = flags.Flags(model.limits, flags.by_flag(flagged), to_json(cfg.decode))
        run.write_json(flags.SAVED, to_json(saved))
        run.record(test_set.TRANSLATIONS, figures.DETAILS, flags.SAVED)

    # "No UNK": the sentences without unknown words, unless the first pass suffices.
    rows = test_set.known_rows(model.tokenizers, lines, references)
    if again := test_set.second_pass(rows, len(lines), cfg.decode):
        log.info("once more %s sentences, without unknown words", f"{len(rows):,}")
        some, own = [lines[i] for i in rows], [languages[i] for i in rows]
        _written(job, [NO_UNKNOWN], _translated(job, model, some, own, again))
        if world.leads:
            run.record(NO_UNKNOWN)


def limits_of(job: Job, model: Pretrained) -> flags.Measures:
    """Return the limits of flags, from the validation references, evenly spread if many."""
    sources, references = (load_text(job.run, "validation", side) for side in SIDES)
    some = slice(None, None, max(1, -(-len(sources) // flags.MOST)))
    pairs = [*zip(sources[some], references[some], strict=True)]
    languages = [target for _, target in directions_of(job.run, job.cfg, "validation")[some]]

    def measured(own: slice) -> Iterator[flags.Measures]:
        for forced in model.force(pairs[own], target_language=languages[own]):
            yield model.measures(forced) if forced.candidates else {}

    return flags.calibrated([each for each in job.each(len(pairs), measured) if each])


def _translated(
    job: Job, model: Pretrained, lines: Sequence[str], languages: Sequence[str], rules: DecodeConfig
) -> Iterator[Line]:
    """Yield what is saved of the translation of each line; log how far they are."""
    searcher, tags = for_search(model.model, rules), model.tagging(languages)

    def translated(own: slice) -> Iterator[Line]:
        parts, feed = (model.model, model.tokenizers), Feed(tags, first=own.start + 1)
        found = translate(*parts, lines[own], rules, feed, searcher=searcher)
        for number, translation in enumerate(found, start=feed.first):
            flagged = model.flags(translation)
            yield translation.text, _details(translation, number, flagged), flagged

    for number, line in enumerate(job.each(len(lines), translated), start=1):
        yield line
        if number % 1000 == 0:
            log.info("decoded %s of %s", f"{number:,}", f"{len(lines):,}")


def _details(translation: Translation, number: int, flagged: list[str]) -> str:
    return formats.line(translation, number, "jsonl", None, lambda _: flagged)


def _written(job: Job, names: Sequence[str], lines: Iterable[Line]) -> list[Sequence[str]]:
    """Write translations, then their details, to files of these names; return their flags."""
    flagged: list[Sequence[str]] = []
    if not job.world.leads:
        deque(lines, maxlen=0)  # takes part in making them
        return flagged
    with ExitStack() as stack:
        files = [stack.enter_context(job.run.stream(name)) for name in names]
        for *texts, own in lines:
            flagged.append(own)
            for file, text in zip(files, texts, strict=False):
                file.write(f"{text}\n".encode())
    return flagged
