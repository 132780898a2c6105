"""Validation during training: loss, BLEU and chrF on the validation set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from statistics import fmean

from torch import Tensor

from seq2seq.config.schema import Config, DecodeConfig, Direction, SelectBy
from seq2seq.data.batching import TokenizedPairs, shape
from seq2seq.data.languages import unspaced_script
from seq2seq.data.mixture import Mixture
from seq2seq.data.store import Lengths
from seq2seq.data.tags import rows_of, tagging
from seq2seq.data.tokenizer import PAD, Tokenizer
from seq2seq.decoding.chunks import Feed
from seq2seq.decoding.translate import translate
from seq2seq.decoding.translation import Translation
from seq2seq.evaluation.by_length import bin_of, label_of
from seq2seq.evaluation.error_rates import NAMES, are_shown, higher_better, measure
from seq2seq.evaluation.scoring import Against, sample_of
from seq2seq.model import EncoderDecoder
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.memory import OutOfMemory
from seq2seq.run.signals import StopRequest
from seq2seq.training.distributed import ALONE, Attempt, World
from seq2seq.training.links import TokenLinks
from seq2seq.training.loss import sentence_losses
from seq2seq.training.monitor import Validated

LEAST_NOISE, MOST_NOISE = 1.0, 25.0
"""Bounds of `noise_level`. BLEU below 1 is some 20 n-grams that match by chance; the upper bound
applies to validation sets of similar sentences, which match each other without being noise."""


@dataclass(frozen=True)
class TrainingData:
    """All data that training reads."""

    train: TokenizedPairs
    texts: tuple[Sequence[str], Sequence[str]] | None
    """Training text, source and target; only needed for subword sampling."""
    links: TokenLinks | None
    """Only needed for guided alignment."""
    mixture: Mixture | None
    validation: TokenizedPairs
    validation_source: Sequence[str]
    validation_references: Sequence[str]
    validation_directions: Sequence[Direction]
    tokenizers: tuple[Tokenizer, Tokenizer]


@dataclass(frozen=True)
class Shown:
    """The validation sentences that are translated."""

    directions: Sequence[Direction]
    lines: Sequence[str]
    references: Sequence[str]


def validate(
    model: EncoderDecoder, data: TrainingData, cfg: Config, stop: StopRequest, world: World = ALONE
) -> Validated | None:
    """Score a model on the validation set: loss over all pairs, BLEU and chrF of translations.

    With a vocabulary of characters, or if they select the best, also exact match and error rates.
    Of several directions, scores are the means of theirs. Several processes share the sentences;
    all return the same scores, each with its own translations, those of the first lines first.
    Returns None if a stop was requested meanwhile.
    """
    limit, directions = cfg.trainer.validation_sentences, data.validation_directions
    rows = sorted(chain(*(rows[:limit] for rows in rows_of(directions).values())))
    shown = Shown(
        [directions[row] for row in rows],
        [data.validation_source[row] for row in rows],
        [data.validation_references[row] for row in rows],
    )

    # The share of this process, which a stop request may interrupt
    attempt, share = Attempt(world, stop), None
    model.eval()
    try:
        with attempt():
            share = _share(model, data, shown, cfg, stop, world)
    finally:
        model.train()
    if attempt.shortage:
        raise MemoryError(attempt.shortage)
    [stopped] = world.highest([share is None])
    if stopped or share is None:
        return None

    # The loss and the translations of all
    losses, translations = share
    nats: list[float] = world.add_(losses).tolist()
    texts = [*chain(*world.gather([translation.text for translation in translations]))]
    with world.interruptible(stop):
        return _scored(nats, texts, translations, data.validation, shown, cfg)


def _share(
    model: EncoderDecoder,
    data: TrainingData,
    shown: Shown,
    cfg: Config,
    stop: StopRequest,
    world: World,
) -> tuple[Tensor, list[Translation]] | None:
    """Return the losses (N,) of the process's pairs, others 0, and its translations."""
    losses = validation_losses(model, data.validation, cfg, stop, world)
    if stop.exit_code is not None:
        return None
    tags = tagging(cfg.data, data.tokenizers, [target for _, target in shown.directions])
    rules = _rules(cfg)
    part, translations = world.part_of(len(shown.lines)), []
    feed = Feed(tags, first=part.start + 1)
    try:
        for each in translate(model, data.tokenizers, shown.lines[part], rules, feed):
            if stop.exit_code is not None:
                return None
            translations.append(each)
    except MemoryLimitError as error:
        fix = f"Resume with a decode.batch_sentences below {cfg.decode.batch_sentences}."
        raise MemoryLimitError("validation", f"{error.where}: {error.what}", fix) from None
    return losses, translations


def _rules(cfg: Config) -> DecodeConfig:
    """Return the settings of the search; as many hypotheses at once as when decoding."""
    beam = cfg.trainer.validation_beam
    size = cfg.decode.batch_sentences * max(1, cfg.decode.beam_size // beam)
    rules = replace(cfg.decode, beam_size=beam, batch_sentences=size, n_best=1)
    return replace(rules, sample=False, mbr=None)


def _scored(
    nats: Sequence[float],
    texts: Sequence[str],
    translations: Sequence[Translation],
    pairs: TokenizedPairs,
    shown: Shown,
    cfg: Config,
) -> Validated:
    """Return the result of a validation, given the loss of each pair and all translations."""
    # The loss, by source length
    order = _by_length(pairs)
    ends = 2 if cfg.data.tags else 1  # that are not of the text: the end symbol, and a tag
    src, tgt = (side.lengths()[order].tolist() for side in (pairs.src, pairs.tgt))
    by_length = loss_by_length(nats, [n - ends for n in src], tgt)
    # Scores of each direction, and their means
    scores: dict[str, tuple[float, float]] = {}
    noise, exactness = [], []
    for direction, rows in rows_of(shown.directions).items():
        outputs, own = [texts[i] for i in rows], tuple(shown.references[i] for i in rows)
        against = _against(own, cfg.evaluate.bleu_tokenizer, direction[1])
        scores["-".join(direction)] = against.bleu(outputs), against.chrf(outputs)
        noise.append(noise_level(own, cfg, direction[1]))
        if are_shown(cfg):
            exactness.append(measure([shown.lines[i] for i in rows], outputs, own))
    means = [fmean(column) for column in zip(*scores.values(), strict=True)]
    return Validated(
        sum(nats) / max(1, sum(tgt)),
        means[0],
        translations,
        shown.references,
        by_length,
        means[1],
        fmean(noise),
        scores,
        {key: fmean(each[key] for each in exactness) for key in (exactness or [{}])[0]},
    )


# References, and their scores against each other, are the same at every validation.
_against = cache(Against)


@cache
def _exactness(outputs: tuple[str, ...], references: tuple[str, ...]) -> Mapping[str, float]:
    return measure([*map(str, range(len(outputs)))], outputs, references)


def noise_level(references: tuple[str, ...], cfg: Config, language: str) -> float:
    """Return the score below which translations are no better than those of other sentences.

    It is estimated from references against shifted references. By this measure word BLEU is below
    1; chrF and character BLEU are well above. Of an error rate, it is that of 100 minus the rate.
    """
    tokenizer, by = cfg.evaluate.bleu_tokenizer, cfg.trainer.select_by
    others = (*references[1:], *references[:1])
    level = 0.0
    if by in NAMES:
        level = higher_better(by, _exactness(others, references)[by.name])
    elif by is SelectBy.chrf:
        level = _against(references, tokenizer, language).chrf(others)
    elif unspaced_script(language, sample_of(references)):
        level = _against(references, tokenizer, language).bleu(others)
    return min(max(LEAST_NOISE, 1.2 * level), MOST_NOISE)


def validation_losses(
    model: EncoderDecoder, pairs: TokenizedPairs, cfg: Config, stop: StopRequest, world: World
) -> Tensor:
    """Return the loss (N,) without smoothing in nats of each pair, shortest targets first.

    Several processes take turns with the batches; the losses of the others' are 0.
    """
    weight = next(model.parameters())
    losses, order = weight.new_zeros(len(pairs), requires_grad=False), _by_length(pairs)
    size = cfg.decode.batch_sentences
    for start in range(world.rank * size, len(order), world.size * size):
        if stop.exit_code is not None:
            break
        rows = order[start : start + size].tolist()
        batch = pairs.batch(rows, PAD).to(weight.device)
        with OutOfMemory() as oom:
            losses[start : start + size] = sentence_losses(model, batch)
        if oom:
            raise MemoryLimitError(
                "validation",
                f"out of memory with {shape(batch, rows, 'corpus/validation.source')}",
                f"Resume with a decode.batch_sentences below {size}.",
            )
    return losses.cpu()  # waits for the device, once


def _by_length(pairs: TokenizedPairs) -> Lengths:
    return pairs.tgt.lengths().argsort(kind="stable")  # to minimize padding


def loss_by_length(
    losses: Sequence[float], source_tokens: Sequence[int], target_tokens: Sequence[int]
) -> dict[str, float]:
    """Return nats per target token by source length, in the bins of Fig. 2.

    Of each sentence: its loss in nats, its source tokens without, its target tokens with the end
    symbol.
    """
    sums: dict[int, list[float]] = {}
    for loss, length, tokens in zip(losses, source_tokens, target_tokens, strict=True):
        total = sums.setdefault(bin_of(length), [0.0, 0.0])
        total[0] += loss
        total[1] += tokens
    return {label_of(index): loss / tokens for index, (loss, tokens) in sorted(sums.items())}
