"""Makes training pairs from monolingual text and a model that translates it.

Back-translation (Sennrich et al. 2016, arXiv:1511.06709): the text is the target of the new pairs,
its translation the source. The reverse is self-training or, on the source side of a training set,
sequence-level distillation (Kim & Rush 2016, arXiv:1606.07947).

OUTPUT.part/   grows block by block; its report records the progress, so a killed job can resume
OUTPUT/        the same directory when complete: pairs.source, pairs.target, report.json
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import regex
from numpy.typing import NDArray

from seq2seq.data.languages import is_spaced
from seq2seq.data.prepare import lengths_of
from seq2seq.data.tags import direction_to
from seq2seq.data.text import FileSummary, read_lines, scan_lines, strict
from seq2seq.data.words import is_blank, split_words
from seq2seq.decoding.chunks import Feed
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translate import translate
from seq2seq.decoding.translation import Translation
from seq2seq.model.draws import fold, stream
from seq2seq.run import writing
from seq2seq.run.checksums import entry_of_file, read_checksummed, with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, UsageError
from seq2seq.run.jsonable import from_json, to_json
from seq2seq.run.progress import tqdm
from seq2seq.run.reading import expected
from seq2seq.run.writing import explained

PAIRS, REPORT = ("pairs.source", "pairs.target"), "report.json"
REASONS = ("blank", "duplicate", "empty", "long", "unfinished", "copy", "perplexity", "ratio")
"""Why a line gives no pair, in the order of the checks."""

BLOCK = 2048
"""Lines per progress record: a killed job translates its last, unfinished block again.

Batches never cross blocks, so they do not depend on where a job resumed.
"""

BLANK = "<BLANK>"
NUM_EXAMPLES, SHOWN = 3, 200  # examples per reason; characters per text
Side = Literal["source", "target"]


@dataclass(frozen=True, kw_only=True)
class AugmentRules:
    """How pairs are made and filtered; the defaults drop only what is certainly not a translation.

    The noise is from Edunov et al. 2018 (arXiv:1808.09381), who use drop 0.1, blank 0.1 and swap 3;
    the tag is from Caswell et al. 2019 (arXiv:1906.06442). Both apply to sources.
    """

    synthetic: Side = "source"  # the side that is translated
    target_language: str | None = None  # required if the model has several
    tag: str = ""  # put in front of every source
    drop: float = 0.0  # fraction of words dropped
    blank: float = 0.0  # fraction of the remaining words replaced by `BLANK`
    swap: int = 0  # maximal distance by which words are moved
    max_perplexity: float = math.inf  # per token of the translation
    max_overlap: float = 1.0  # fraction of the translation's words that also occur in the line
    max_ratio: float = math.inf  # of the lengths of both sides, in words
    keep_duplicates: bool = False  # whether repeated lines are translated, too

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {"swap": (0, 1000)}
        ranges |= dict.fromkeys(("drop", "blank", "max_overlap"), (0, 1))
        ranges |= dict.fromkeys(("max_perplexity", "max_ratio"), (1, math.inf))
        for name, (low, high) in ranges.items():
            if not low <= (value := getattr(self, name)) <= high:
                option, what = f"--{name.replace('_', '-')}", f"{value} is out of range"
                raise UsageError(option, what, f"Give {low} to {high}.")
        if len(self.tag.splitlines()) > 1:
            raise UsageError("--tag", "has several lines", "Give one word.")


@dataclass
class AugmentReport:
    """Counts, settings and examples of an augmentation; a killed and resumed job has the same."""

    settings: dict[str, Any]  # everything that the pairs depend on
    read: int = 0  # lines
    written: int = 0  # pairs
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    sizes: list[int] = field(default_factory=lambda: [0, 0])  # bytes of each side
    # The first lines kept, and the first dropped for each reason: number, line, translation
    examples: dict[str, list[list[Any]]] = field(
        default_factory=lambda: {name: [] for name in ("written", *REASONS)}
    )
    files: dict[str, Any] = field(default_factory=dict)  # size and SHA-256, once complete

    def note(self, reason: str, number: int, line: str, text: str) -> None:
        """Count a line: dropped for this reason, or kept if the reason is empty."""
        if reason:
            self.dropped[reason] += 1
        else:
            self.written += 1
        if len(examples := self.examples[reason or "written"]) < NUM_EXAMPLES:
            examples.append([number, line[:SHOWN], text[:SHOWN]])

    def __str__(self) -> str:
        dropped = ", ".join(f"{count:,} {name}" for name, count in self.dropped.items() if count)
        line = f"{self.read:,} lines read, {self.written:,} pairs written"
        return line + (f" (dropped: {dropped})" if dropped else "")


def augment(
    model: Pretrained, text: Path, output: Path, rules: AugmentRules | None = None
) -> AugmentReport:
    """Translate a text into a directory of pairs, or resume an earlier job.

    `decode` configures search, sampling and the seed. The result of a line depends on its number
    and text alone. Memory: some 30 bytes per line, to find duplicates in the first pass.

    Raises:
        DataError: the text cannot be read.
        UsageError: the directory exists, but with other settings or not made by this function.
        RunDirError: another process is writing to it, or its files are damaged.
    """
    # What is to be translated: an earlier job with the same settings may be complete.
    maker = _PairMaker(model, rules or AugmentRules())
    summary, repeated = _survey(text, maker)
    settings = maker.settings(summary)
    if output.exists():
        return _recorded(output, settings)
    part = RunDir(output.with_name(f"{output.name}.part"))
    with explained(part.root):
        writing.make_directory(part.root)
    part.lock()
    try:
        # Translate block by block, from the last record on.
        report = _begin(part, settings)
        lines = islice(enumerate(read_lines(text), start=1), report.read, None)
        with tqdm(total=len(repeated), initial=report.read, unit=" lines", disable=None) as bar:
            while block := list(islice(lines, BLOCK)):
                _append(part, [*maker.pairs(block, repeated, report)], report)
                bar.update(len(block))
        # Complete: add checksums and rename.
        report.files = {name: entry_of_file(part.path(name)) for name in PAIRS}
        part.write_json(REPORT, with_checksum(to_json(report)))
        with explained(output):
            writing.delete(part.path("run.lock"))
            writing.rename(part.root, output)
    finally:
        part.unlock()
    return report


class _PairMaker:
    def __init__(self, model: Pretrained, rules: AugmentRules) -> None:
        self.model, self.rules, self.cfg = model, rules, model.config.decode
        if self.cfg.mbr is None:  # MBR needs several candidates
            self.cfg = replace(self.cfg, n_best=1)
        self.direction = direction_to(model.config.data, rules.target_language)
        self.tags = model.tagging(rules.target_language)
        self.lengths = lengths_of(model.config, self.direction)
        self.source_language = self.direction[rules.synthetic == "source"]  # of the pairs

    def settings(self, text: FileSummary) -> dict[str, Any]:
        """Return everything that pairs depend on; the batch size is not part of it."""
        config, digest = self.model.config, hashlib.sha256()
        for name, weight in self.model.model.named_parameters():
            digest.update(name.encode() + weight.detach().cpu().numpy().tobytes())
        origin = {"name": config.name, "update": self.model.update, "sha256": digest.hexdigest()}
        groups = {"model": origin, "attention": config.attention, "decode": self.cfg}
        groups |= {"rules": self.rules}
        groups["text"] = {"name": text.name, "sha256": text.sha256, "lines": text.lines}
        found = {f"{name}.{k}": x for name, own in groups.items() for k, x in to_json(own).items()}
        del found["decode.batch_sentences"]
        return found

    def pairs(
        self, block: Sequence[tuple[int, str]], repeated: NDArray[np.bool_], report: AugmentReport
    ) -> Iterator[tuple[str, str]]:
        """Yield source and target of the pairs made from numbered lines; count all lines."""
        # Unused lines become empty, so that the others keep their numbers.
        unused = [
            "blank" if is_blank(x) else "duplicate" if repeated[n - 1] else "" for n, x in block
        ]
        lines = ["" if why else line for (_, line), why in zip(block, unused, strict=True)]
        parts, feed = (self.model.model, self.model.tokenizers), Feed(self.tags, block[0][0])
        found = translate(*parts, lines, self.cfg, feed)
        for (number, line), why, translation in zip(block, unused, found, strict=True):
            reason = why or self._judge(translation)
            report.note(reason, number, line, translation.text)
            if not reason:
                yield self._pair(line, translation.text, number)
        report.read += len(block)

    def _judge(self, translation: Translation) -> str:
        """Return the reason to drop a translation; empty if it is kept."""
        line, text, rules = translation.source, translation.text, self.rules
        if not translation.candidates or is_blank(text):
            return "empty"
        sides = [size.in_words(x) for size, x in zip(self.lengths, (line, text), strict=True)]
        words = Counter(split_words(text))
        common = (words & Counter(split_words(line))).total()
        checks = {
            "long": len(translation.source_tokens) > self.cfg.max_source_tokens,  # maybe cut
            "unfinished": not translation.candidates[0].finished,
            "copy": text == line or common > rules.max_overlap * words.total(),
            "perplexity": translation.candidates[0].perplexity > rules.max_perplexity,
            "ratio": max(sides) > rules.max_ratio * min(sides),
        }
        return next((reason for reason, holds in checks.items() if holds), "")

    def _pair(self, line: str, text: str, number: int) -> tuple[str, str]:
        """Return source and target, with noise and tag; noise has its own random stream."""
        rules = self.rules
        source, target = (text, line) if rules.synthetic == "source" else (line, text)
        if rules.drop or rules.blank or rules.swap:
            uniform = stream(fold(self.cfg.seed, number))  # samples use a third number
            source = noisy(source, rules, uniform, self.source_language)
        return f"{rules.tag} {source}" if rules.tag else source, target


def noisy(text: str, rules: AugmentRules, uniform: Callable[[], float], language: str) -> str:
    """Drop some words (never all), blank some, and shuffle the rest locally.

    Words are separated by spaces; in a language without spaces, characters take their place.
    """
    spaced = is_spaced(language, text)
    words = text.split() if spaced else regex.findall(r"\X", "".join(text.split()))
    kept = [word for word in words if uniform() >= rules.drop]
    kept = kept or [words[int(uniform() * len(words))]]
    kept = [BLANK if uniform() < rules.blank else word for word in kept]
    # No word moves ahead of one more than `swap` places before it: Lample et al. 2018, 1711.00043.
    keys = [i + uniform() * (rules.swap + 1) for i in range(len(kept))]
    order = sorted(range(len(kept)), key=keys.__getitem__)
    return (" " if spaced else "").join(kept[i] for i in order)


def _survey(path: Path, maker: _PairMaker) -> tuple[FileSummary, NDArray[np.bool_]]:
    """Return a summary of the text, and for each line whether it repeats an earlier one.

    All of it is read first, so that errors show before hours of work.
    """
    summary = FileSummary(path.name, languages=maker.direction[:1])
    lines = strict(scan_lines(path, summary))
    digests = (hashlib.blake2b(line.encode(), digest_size=8).digest() for line in lines)
    found = np.fromiter((int.from_bytes(digest) for digest in digests), np.uint64)
    repeated = np.zeros(len(found), np.bool_)
    if not maker.rules.keep_duplicates:
        order = found.argsort(kind="stable")  # equal ones in a row, the first of them first
        found = found[order]
        repeated[order[1:][found[1:] == found[:-1]]] = True
    return summary, repeated


# The directory ------------------------------------------------------------------------------------


def _begin(part: RunDir, settings: dict[str, Any]) -> AugmentReport:
    """Return the last record, or a new one, and truncate the files to what it counts."""
    report = AugmentReport(settings)
    if part.path(REPORT).exists():
        report = _recorded(part.root, settings)
    for name, size in zip(PAIRS, report.sizes, strict=True):
        with explained(part.path(name)):
            found = writing.append(part.path(name), b"")  # creates it if missing
        if found < size:
            what, fix = f"is {found} bytes, expected {size}", f"Delete {part.root} and start again."
            raise RunDirError(part.path(name), what, fix)
        part.cut(name, size)
    return report


def _append(part: RunDir, pairs: Sequence[tuple[str, str]], report: AugmentReport) -> None:
    """Write pairs durably, then the record that counts them."""
    for side, name in enumerate(PAIRS):
        with explained(part.path(name)):
            data = "".join(f"{pair[side]}\n" for pair in pairs).encode()
            report.sizes[side] = writing.append(part.path(name), data)
        part.sync(name)
    part.write_json(REPORT, with_checksum(to_json(report)))


def _recorded(directory: Path, settings: dict[str, Any]) -> AugmentReport:
    """Return the report of a directory; its settings must be these."""
    path = directory / REPORT
    if not path.exists():
        raise UsageError(directory, "exists, but has no report.json", "Name a new directory.")
    with expected(path):
        report = from_json(AugmentReport, read_checksummed(path))
    for key in sorted(settings.keys() | report.settings.keys()):
        if (before := report.settings.get(key)) != (now := settings.get(key)):
            what = f"was written with {key}={before}, and now it is {now}"
            raise UsageError(directory, what, "Name a new directory, or delete this one.")
    return report
