"""Measures the faithfulness sheet along a model's own translations, block by block.

Counterfactual weights are tried at every word, erasure and gradients at one word of each sentence,
which the seed draws. A run keeps what was measured so far, so an interrupted job can be continued.
"""

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.config.schema.placeholders import all_symbols
from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import EOS, PAD, SPACE, UNK, Tokenizer
from seq2seq.decoding.chunks import Feed, Ids, in_chunks
from seq2seq.decoding.constraints import ConstraintBuilder
from seq2seq.decoding.forced import TextPair, force
from seq2seq.decoding.pretrained import Pretrained, load
from seq2seq.decoding.request import Request
from seq2seq.decoding.translate import for_search, search_batch, search_rules
from seq2seq.evaluation import faithfulness
from seq2seq.evaluation.counterfactual import EXCHANGES, counterfactuals
from seq2seq.evaluation.erasure import Floats, Question, attributions, erased, kendall, rollout
from seq2seq.evaluation.faithfulness import CLASSES, RANKINGS, WAYS, WEIGHTS, Faithfulness
from seq2seq.model.draws import fold, stream
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.ensemble import Ensemble
from seq2seq.model.intervention import intervened
from seq2seq.run import writing
from seq2seq.run.directory import RunDir
from seq2seq.run.jsonable import from_json, to_json
from seq2seq.run.models import NamedRun
from seq2seq.run.progress import tqdm
from seq2seq.run.reading import expected, read_json
from seq2seq.run.writing import explained

SHEET, UNFINISHED = "faithfulness.json", "faithfulness.part.json"
"""The sheet of a run, and the sentences measured so far."""

BLOCK = 64
"""Sentences per record of progress. Batches never cross blocks, so a continued job ends with the
bytes of one that was not interrupted."""

FREQUENT, PART = 100, 10
"""Function words are the first ids of the vocabulary, which is sorted by frequency, symbols left
out: 100 of them, at most a tenth of all."""

Record = dict[str, Any]  # what was measured on a sentence, in JSON types


def settings_of(
    named: NamedRun, model: Pretrained, lines: Sequence[str], languages: Sequence[str]
) -> dict[str, Any]:
    """Return everything that a sheet depends on; the languages are those of the translations."""
    own = {"update": model.update, "selector": named.selector, "sentences": len(lines)}
    for name, column in (("text", lines), ("languages", languages)):
        own[name] = hashlib.sha256("\n".join(column).encode()).hexdigest()
    groups = {"decode": model.config.decode, "attention": model.config.attention}
    chosen = {f"{name}.{k}": x for name, cfg in groups.items() for k, x in to_json(cfg).items()}
    return own | chosen


def measure(
    model: Pretrained,
    lines: Sequence[str],
    languages: Sequence[str],
    settings: Mapping[str, Any],
    run: RunDir | None,
) -> Faithfulness:
    """Measure source sentences, or continue an earlier job with the same `settings_of`.

    The run, if one is given, keeps the progress until `keep`.

    Raises:
        ConfigError: the model has no attention weights.
    """
    recorder = Recorder(model, languages)
    if run is None:
        return summed(recorder.measure(lines, first=1), settings)
    run.lock()
    try:
        records = _begun(run, settings)
        with tqdm(total=len(lines), initial=len(records), unit=" sentences", disable=None) as bar:
            while block := lines[len(records) : len(records) + BLOCK]:
                records += recorder.measure(block, first=len(records) + 1)
                run.write_json(UNFINISHED, {"settings": settings, "records": records})
                bar.update(len(block))
    finally:
        run.unlock()
    return summed(records, settings)


def keep(run: RunDir, sheet: Faithfulness) -> None:
    """Save the sheet of a run; what led to it is no longer needed."""
    run.lock()
    try:
        run.write_json(SHEET, to_json(sheet))
        run.record(SHEET)
        with explained(run.path(UNFINISHED)):
            writing.delete(run.path(UNFINISHED))
    finally:
        run.unlock()


def _begun(run: RunDir, settings: Mapping[str, Any]) -> list[Record]:
    """Return what an earlier job with these settings has measured."""
    if not (path := run.path(UNFINISHED)).exists():
        return []
    with expected(path):
        found = read_json(path)
        return list(found["records"]) if found["settings"] == settings else []


def saved(run: RunDir) -> Faithfulness | None:
    """Return the sheet of a run, if it has one.

    Raises:
        RunDirError: it is damaged.
    """
    if not (path := run.checked(SHEET)).exists():
        return None
    with expected(path):
        return from_json(Faithfulness, read_json(path))


def distance_between(
    runs: Sequence[str],
    pairs: Sequence[TextPair],
    languages: Sequence[str],
    overrides: Sequence[str],
) -> faithfulness.Seeds:
    """Return how far the attention of runs is apart along given translations.

    Raises:
        RunDirError: their vocabularies differ.
    """
    whole = load(runs, overrides)
    tags, apart = whole.tagging(languages), []
    assert isinstance(whole.model, Ensemble)
    forced = (
        force(member, whole.tokenizers, pairs, whole.config.decode, tags=tags)
        for member in whole.model.members
    )
    for of_runs in zip(*forced, strict=True):
        if of_runs[0].candidates:
            alphas = [translation.alignment[:-1].astype(np.float64) for translation in of_runs]
            two = [np.abs(a - b).sum(axis=1) / 2 for a, b in combinations(alphas, 2)]
            apart += np.mean(two, axis=0).tolist()
    return faithfulness.Seeds(len(runs), float(np.mean(apart)))


class Recorder:
    """Measures sentences with a model; its weights are prepared once."""

    def __init__(self, pretrained: Pretrained, languages: Sequence[str]) -> None:
        model, config = pretrained.model, pretrained.config
        assert isinstance(model, EncoderDecoder)
        intervened(model, lambda weights, *_: weights)  # or the model is refused
        self.model, self.tokenizers = model, pretrained.tokenizers
        self.cfg = replace(config.decode, sample=False, mbr=None, n_best=1)
        self.tags = pretrained.tagging(languages)
        self.function = function_words(self.tokenizers[1], all_symbols(config))
        self.searcher = for_search(model, self.cfg)
        self.constraints = ConstraintBuilder(self.tokenizers[1], self.cfg)

    def measure(self, lines: Sequence[str], first: int) -> list[Record]:
        """Translate lines and measure; `first` is the number of the first one."""
        items, feed = [(line,) for line in lines], Feed(self.tags, first)
        found = in_chunks(items, self.tokenizers[:1], self._batch, self.cfg, feed)
        return [record or {} for _, _, record in found]

    def _batch(self, ids: Sequence[Ids], numbers: Sequence[int]) -> list[Record]:
        """Return a record of each source."""
        tagged, seed = self.tags.forbidden, self.cfg.seed
        # As `decode` translates: repeated n-grams and diverse groups are constraints, too.
        built = ((number, self.constraints.build(Request(""), number)) for number in numbers)
        by_line = {number: own for number, own in built if own is not None}
        best = search_batch(self.model, self.searcher, ids, numbers, self.cfg, by_line, tagged)
        pairs = [(src, found[0].ids) for (src,), found in zip(ids, best, strict=True)]
        classes = [classes_of(self.tokenizers, self.function, *pair) for pair in pairs]
        batch = collate(pairs, PAD).to(next(self.model.parameters()).device)
        with torch.inference_mode():
            followed = self.model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
            maps = {key: x.double().cpu().numpy() for key, x in followed.maps().items()}
            maps["alpha"] = followed.alpha.double().cpu().numpy()
        # Counterfactual weights, at every word
        forbidden = [*search_rules(self.cfg).forbidden, *tagged]
        other = counterfactuals(self.model, batch, numbers, seed, forbidden)
        shape = maps["heads"].shape[0:3:2] if "heads" in maps else (0, 0)
        records = [
            counted(own, other.stays[row, : len(own)], other.distance[row, : len(own)], shape)
            for row, own in enumerate(classes)
        ]
        # Gradients and erasure, at one word of each sentence
        asked = []
        for row, number in enumerate(numbers):
            first, num_words = len(self.tags.of_line(number)), len(classes[row])
            if num_words and len(pairs[row][0]) > first + 1:
                asked.append(Asked.draw(row, pairs[row], num_words, first, fold(seed, number)))
        for each, answer in zip(asked, answers(self.model, asked, maps), strict=True):
            records[each.row] |= answer
        return records


def function_words(target: Tokenizer, symbols: Sequence[str]) -> frozenset[int]:
    """Return the most frequent ids; protected symbols, such as placeholders, are not words."""
    ids, own = range(EOS + 1, len(target)), {*symbols}
    words = (
        i for i, piece in zip(ids, target.pieces(ids), strict=True) if piece.strip(SPACE) not in own
    )
    return frozenset(islice(words, min(FREQUENT, len(target) // PART)))


def classes_of(
    tokenizers: tuple[Tokenizer, Tokenizer],
    function: Container[int],
    src: Sequence[int],
    tgt: Sequence[int],
) -> list[str]:
    """Return the class of each target word, the end symbol left out; `function` are ids."""
    words = tgt[:-1] if tgt[-1] == EOS else tgt
    source, target = tokenizers
    copied = {piece.strip(SPACE) for piece in source.pieces(src[:-1])}

    def kind(word: int, piece: str) -> str:
        if word in function:
            return "function"
        return "copied" if word != UNK and piece.strip(SPACE) in copied else "content"

    return list(map(kind, words, target.pieces(words)))


def counted(
    classes: Sequence[str], stays: NDArray[np.bool_], distance: Floats, shape: tuple[int, ...]
) -> Record:
    """Return sums over the words of a sentence, given their classes and `Counterfactuals`.

    `stays` and `distance` are (words, C); `shape` has the numbers of layers and heads, or zeros.
    """
    own = 1 + len(EXCHANGES)  # where the heads begin
    farthest = np.where(stays[:, :own], distance[:, :own], 0).max(axis=1, initial=0)
    each = [list(EXCHANGES).index(name) + 1 for name in WEIGHTS[:-1]]
    held = np.column_stack([stays[:, each], farthest >= faithfulness.FAR])
    kinds = np.array(classes, dtype=object)
    return {
        "words": {kind: int((kinds == kind).sum()) for kind in CLASSES},
        "stays": {kind: held[kinds == kind].sum(axis=0).tolist() for kind in CLASSES},
        "moved": [*distance[:, each].sum(axis=0).tolist(), float(farthest.sum())],
        "heads": stays[:, own:].sum(axis=0).reshape(shape).tolist(),
    }


@dataclass(frozen=True)
class Asked:
    """A word of a translation, and a random ranking of the source words."""

    row: int  # of the batch
    src: Sequence[int]
    tgt: Sequence[int]  # up to and with the word
    places: slice  # of the source words: neither a tag nor the end symbol
    chance: Floats

    @classmethod
    def draw(
        cls,
        row: int,
        pair: tuple[Sequence[int], Sequence[int]],
        num_words: int,
        first: int,
        key: int,
    ) -> "Asked":
        """Draw one of the words; the source words start at `first`."""
        uniform, (src, tgt) = stream(key), pair
        word = int(uniform() * num_words)
        chance = np.array([uniform() for _ in src[first:-1]])
        return cls(row, src, tgt[: word + 1], slice(first, len(src) - 1), chance)

    def rows(self, weights: Floats) -> Floats:
        """Return the weights (..., source words) of the step, from those (..., Ty, Tx)."""
        own: Floats = weights[..., len(self.tgt) - 1, self.places]
        return own


def answers(
    model: EncoderDecoder, asked: Sequence[Asked], maps: Mapping[str, Floats]
) -> Iterator[Record]:
    """Yield what gradients and erasure say of each word.

    `maps` is the attention of the batch: `alpha`, and those of `Followed.maps`.
    """
    if not asked:
        return
    # The rankings of the source words for each word
    prefixes = collate([(each.src, each.tgt) for each in asked], PAD)
    found = attributions(model, prefixes.to(next(model.parameters()).device))
    questions, alphas = [], [each.rows(maps["alpha"][each.row]) for each in asked]
    for each, alpha, *values in zip(asked, alphas, *found, strict=True):
        rankings = [alpha, *(value[each.places] for value in values), each.chance]
        named = dict(zip(RANKINGS, rankings, strict=True))
        questions.append(Question(each.src, each.tgt, range(len(each.src))[each.places], named))
    # What each word loses, and the agreement of the rankings
    for each, question, (p, lost) in zip(asked, questions, erased(model, questions), strict=True):
        attention, gradient, integrated, _ = question.rankings.values()
        # In size, as a word may also speak against the target word: Jain & Wallace 2019.
        tau = {"gradient": kendall(attention, np.abs(gradient))}
        tau["integrated"] = kendall(attention, np.abs(integrated))
        if "encoder" in maps:
            size, whole = len(each.src), maps["alpha"][each.row, len(each.tgt) - 1]
            within = maps["encoder"][:, each.row, :, :size, :size]
            tau["rollout"] = kendall(attention, rollout(within, whole[:size])[each.places])
        heads = [
            [kendall(head, np.abs(integrated)) for head in layer]
            for layer in (each.rows(maps["heads"][:, each.row]) if "heads" in maps else ())
        ]
        yield {"p": p, "lost": lost.tolist(), "tau": tau, "tau_heads": heads}


def summed(records: Sequence[Record], settings: Mapping[str, Any]) -> Faithfulness:
    """Return the sheet of all sentences."""
    # Counts at every word
    measured = [record for record in records if record]
    words = {kind: sum(r["words"][kind] for r in measured) for kind in CLASSES}
    held = {kind: _sum([r["stays"][kind] for r in measured], len(WEIGHTS)) for kind in CLASSES}
    words["all"], held["all"] = sum(words.values()), np.sum([*held.values()], axis=0)
    moved = _sum([r["moved"] for r in measured], len(WEIGHTS))
    # Means over the words that were asked about
    asked = [r for r in measured if "p" in r]
    lost = np.mean([r["lost"] for r in asked], axis=0) if asked else ()
    erasure = {
        ranking: {way: _erased(kinds) for way, kinds in zip(WAYS, ways, strict=True)}
        for ranking, ways in zip(RANKINGS, lost, strict=False)
    }
    taus = [r["tau"] for r in asked]
    return Faithfulness(
        settings=settings,
        words=words,
        stays={
            name: {kind: _share(held[kind][i], words[kind]) for kind in words}
            for i, name in enumerate(WEIGHTS)
        },
        distance={name: _share(moved[i], words["all"]) for i, name in enumerate(WEIGHTS)},
        asked=len(asked),
        probability=float(np.mean([r["p"] for r in asked])) if asked else None,
        erasure=erasure,
        agreement={name: _mean([tau[name] for tau in taus]) for name in (taus or [{}])[0]},
        heads=_heads(measured, asked, words["all"]),
    )


def _erased(kinds: Floats) -> faithfulness.Erased:
    curves = (faithfulness.Curve(values.tolist(), float(values.mean())) for values in kinds)
    return faithfulness.Erased(*curves)


def _heads(
    measured: Sequence[Record], asked: Sequence[Record], num_words: int
) -> faithfulness.Heads | None:
    if not measured or not np.size(measured[0]["heads"]):
        return None
    held = np.sum([r["heads"] for r in measured], axis=0)
    shares = [[_share(count, num_words) for count in layer] for layer in held]
    taus = np.array([r["tau_heads"] for r in asked], dtype=float)  # None is not a number
    by_head = taus.reshape(-1, *held.shape).transpose(1, 2, 0)  # also if no word was asked about
    agreement = [[_mean(head.tolist()) for head in layer] for layer in by_head]
    return faithfulness.Heads(shares, agreement)


def _sum(rows: Sequence[Sequence[float]], size: int) -> Floats:
    return np.asarray(np.sum(np.reshape(rows, (-1, size)), axis=0, dtype=np.float64))


def _share(count: float, total: int) -> float | None:
    return float(count) / total if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and value == value]
    return float(np.mean(known)) if known else None
