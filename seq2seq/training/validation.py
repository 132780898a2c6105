"""Validation during training: loss, BLEU and chrF on the validation set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from statistics import fmean

import torch
from torch import Tensor

from seq2seq.config.schema import Config, Direction, SelectBy
from seq2seq.data.batching import TokenizedPairs, shape
from seq2seq.data.languages import unspaced_script
from seq2seq.data.mixture import Mixture
from seq2seq.data.tags import rows_of, tagging
from seq2seq.data.tokenizer import PAD, Tokenizer
from seq2seq.decoding.translate import translate
from seq2seq.evaluation.by_length import bin_of, label_of
from seq2seq.evaluation.error_rates import NAMES, are_shown, higher_better, measure
from seq2seq.evaluation.scoring import bleu, chrf, sample_of
from seq2seq.model import EncoderDecoder
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.memory import OutOfMemory
from seq2seq.run.signals import StopRequest
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


def validate(
    model: EncoderDecoder, data: TrainingData, cfg: Config, stop: StopRequest
) -> Validated | None:
    """Score a model on the validation set: loss over all pairs, BLEU and chrF of translations.

    With a vocabulary of characters, or if they select the best, also exact match and error rates.
    Of several directions, scores are the means of theirs.
    Returns None if a stop was requested meanwhile.
    """
    model.eval()
    try:
        loss, by_length = validation_loss(model, data.validation, cfg, stop)
        limit, directions = cfg.trainer.validation_sentences, data.validation_directions
        shown = sorted(chain(*(rows[:limit] for rows in rows_of(directions).values())))
        directions = [directions[row] for row in shown]
        lines, references = (
            [texts[row] for row in shown]
            for texts in (data.validation_source, data.validation_references)
        )
        tags = tagging(cfg.data, data.tokenizers, [target for _, target in directions])
        rules = replace(cfg.decode, beam_size=cfg.trainer.validation_beam, n_best=1)
        rules = replace(rules, sample=False, mbr=None)
        translations = []
        for translation in translate(model, data.tokenizers, lines, rules, tags=tags):
            if stop.exit_code is not None:
                return None
            translations.append(translation)
    finally:
        model.train()
    scores: dict[str, tuple[float, float]] = {}
    noise, exactness = [], []
    for direction, rows in rows_of(directions).items():
        texts, own = [translations[i].text for i in rows], tuple(references[i] for i in rows)
        score = bleu(texts, own, cfg.evaluate.bleu_tokenizer, direction[1])
        scores["-".join(direction)] = score, chrf(texts, own)
        noise.append(noise_level(own, cfg, direction[1]))
        if are_shown(cfg):
            exactness.append(measure([lines[i] for i in rows], texts, own))
    means = [fmean(column) for column in zip(*scores.values(), strict=True)]
    return Validated(
        loss,
        means[0],
        translations,
        references,
        by_length,
        means[1],
        fmean(noise),
        scores,
        {key: fmean(each[key] for each in exactness) for key in (exactness or [{}])[0]},
    )


# Cached for scores of references against references, which are the same at every validation.
_bleu, _chrf = cache(bleu), cache(chrf)


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
        level = _chrf(others, references)
    elif unspaced_script(language, sample_of(references)):
        level = _bleu(others, references, tokenizer, language)
    return min(max(LEAST_NOISE, 1.2 * level), MOST_NOISE)


def validation_loss(
    model: EncoderDecoder, pairs: TokenizedPairs, cfg: Config, stop: StopRequest
) -> tuple[float, dict[str, float]]:
    """Return the loss without smoothing in nats per target token, end symbols included.

    Returns:
        The loss over all pairs, and by source length (see `loss_by_length`).
    """
    device = next(model.parameters()).device
    losses: list[Tensor] = []
    order = pairs.tgt.lengths().argsort(kind="stable").tolist()  # to minimize padding
    size = cfg.decode.batch_sentences
    for start in range(0, len(order), size):
        if stop.exit_code is not None:
            break
        rows = order[start : start + size]
        batch = pairs.batch(rows, PAD).to(device)
        with OutOfMemory() as oom:
            losses.append(sentence_losses(model, batch))
        if oom:
            raise MemoryLimitError(
                "validation",
                f"out of memory with {shape(batch, rows, 'corpus/validation.source')}",
                f"Resume with a decode.batch_sentences below {size}.",
            )
    nats: list[float] = torch.cat(losses).tolist() if losses else []  # waits for the device, once
    ends = 2 if cfg.data.tags else 1  # that are not of the text: the end symbol, and a tag
    src, tgt = (side.lengths()[order[: len(nats)]].tolist() for side in (pairs.src, pairs.tgt))
    return sum(nats) / max(1, sum(tgt)), loss_by_length(nats, [n - ends for n in src], tgt)


def loss_by_length(
    losses: Sequence[float], source_tokens: Sequence[int], target_tokens: Sequence[int]
) -> dict[str, float]:
    """Return nats per target token by source length, in the bins of Fig. 2.

    Args:
        losses: Loss of each sentence in nats.
        source_tokens: Source tokens of each sentence, without the end symbol.
        target_tokens: Target tokens of each sentence, with the end symbol.
    """
    sums: dict[int, list[float]] = {}
    for loss, length, tokens in zip(losses, source_tokens, target_tokens, strict=True):
        total = sums.setdefault(bin_of(length), [0.0, 0.0])
        total[0] += loss
        total[1] += tokens
    return {label_of(index): loss / tokens for index, (loss, tokens) in sorted(sums.items())}
