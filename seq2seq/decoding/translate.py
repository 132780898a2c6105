"""From lines to translations by beam search or sampling: one out for each one in, in order."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch

from seq2seq.config.schema import DecodeConfig
from seq2seq.data.batching import pad_ids
from seq2seq.data.tokenizer import EOS, PAD, UNK, Tokenizer
from seq2seq.decoding.chunks import Ids, always, in_chunks
from seq2seq.decoding.forced import has_maps, with_maps
from seq2seq.decoding.risk import by_utility
from seq2seq.decoding.sampling import SamplingRules, sample
from seq2seq.decoding.search import Floats, Hypothesis, SearchRules, beam_search
from seq2seq.decoding.translation import END, Candidate, Translation, in_reading_order
from seq2seq.model.ensemble import Decodable
from seq2seq.model.protocols import Stepper
from seq2seq.training.precision import autocast

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What a vocabulary may hold, and no line of text: as white space, which line ends are, too."""


def translate(
    model: Decodable,
    tokenizers: tuple[Tokenizer, Tokenizer],
    lines: Iterable[str],
    cfg: DecodeConfig,
    ready: Callable[[], bool] = always,
    *,
    maps: bool = False,
    first: int = 1,
) -> Iterator[Translation]:
    """Translate lines; yields one translation a line, in order, read in chunks as they are `ready`.

    See `in_chunks` for what becomes of long and empty lines, and `Pretrained.stream` for `ready`
    and `maps`. `first` is the number of the first line, which samples depend on.
    """
    # Training weights may be averaged or in training mode; the caller hands over an eval model.
    assert not model.training
    source, target = tokenizers
    # The weights are made ready for the search once, not for each batch.
    search = partial(search_batch, model, for_search(model, cfg), cfg=cfg)
    maps = maps and has_maps(model)
    items = ((line,) for line in lines)
    for (line,), (src,), found in in_chunks(items, (source,), search, cfg, ready, first):
        copied = src.written if cfg.replace_unknown else None
        hypotheses: Iterable[Hypothesis] = found or ()
        if maps:
            hypotheses = with_maps(model, [*src.ids, EOS], hypotheses)
        every = (_candidate(target, h, copied) for h in hypotheses)
        candidates = tuple(every) if cfg.sample else _distinct(every, cfg.n_best)
        if cfg.mbr is not None:
            candidates = by_utility(candidates, cfg.mbr, uniform=cfg.sample)
        tokens = (*src.written, END) if src.ids else ()
        yield Translation(line, tokens, candidates, src.spans)


@torch.inference_mode()
def for_search(model: Decodable, cfg: DecodeConfig) -> Stepper:
    """Return what `search_batch` searches with, as long as the weights stay as they are."""
    with autocast(next(model.parameters()).device, cfg.precision):
        return model.for_search()


@torch.inference_mode()
def search_batch(
    model: Decodable,
    searcher: Stepper,
    batch: Sequence[Ids],
    numbers: Sequence[int],
    cfg: DecodeConfig,
) -> list[list[Hypothesis]]:
    """Search translations of source ids, or draw some; the one place that calls the search.

    The samples of a line depend on its number.
    """
    device = next(model.parameters()).device
    src, mask = (tensor.to(device) for tensor in pad_ids([ids for (ids,) in batch], PAD))
    rules = search_rules(cfg)
    with autocast(device, cfg.precision):
        if not cfg.sample:
            return beam_search(searcher, src, mask, rules)
        drawn = SamplingRules(rules, cfg.temperature, cfg.top_k, cfg.top_p, cfg.seed)
        return sample(searcher, src, mask, numbers, drawn)


def search_rules(cfg: DecodeConfig) -> SearchRules:
    """Translate the config into ids."""
    return SearchRules(
        beam_size=cfg.beam_size,
        # Of a beam some may be one text, cut otherwise.
        n_best=cfg.n_best if cfg.sample or cfg.n_best == 1 else cfg.beam_size,
        length_penalty=cfg.length_penalty,
        min_ratio=cfg.min_ratio,
        max_ratio=cfg.max_ratio,
        extra_steps=cfg.extra_steps,
        forbidden=(PAD, UNK) if cfg.forbid_unknown else (PAD,),
        start=PAD,
        eos=EOS,
    )


def _distinct(candidates: Iterable[Candidate], count: int) -> tuple[Candidate, ...]:
    """Return the first candidates whose texts differ, at most `count`; of equal ones the best."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        if len(found) == count:
            break
        found.setdefault(candidate.text, candidate)
    return tuple(found.values())


def _candidate(target: Tokenizer, h: Hypothesis, copied: Sequence[str] | None) -> Candidate:
    """Write a hypothesis as text; source tokens in `copied` stand in for its unknown words."""
    words = h.ids[:-1] if h.finished else h.ids
    pieces = target.pieces(words)
    if copied is not None:
        pieces = replace_unknown(words, pieces, h.alpha, copied)
    text, spans = target.write(pieces)
    candidate = Candidate(
        text=_CONTROL.sub(" ", text),
        tokens=(*pieces, END) if h.finished else tuple(pieces),
        token_log_probs=h.token_log_probs,
        log_prob=h.log_prob,
        score=h.score,
        alignment=h.alpha,
        finished=h.finished,
        spans=tuple(spans),
        maps=h.maps,
    )
    return in_reading_order(candidate, target)


def replace_unknown(
    ids: Sequence[int], pieces: Sequence[str], alpha: Floats, source_tokens: Sequence[str]
) -> list[str]:
    """Put the source token with the greatest weight in place of each unknown symbol.

    The idea of Luong et al. 2015 (arXiv:1410.8206) and Jean et al. 2015 (arXiv:1412.2007),
    without their dictionary: names and numbers often stay the same. Of equal weights the first
    counts; the end symbol is neither among the ids nor among the source tokens.

    Args:
        ids: Of the target.
        pieces: Their written form.
        alpha: (at least len(ids), Tx).
        source_tokens: Tx - 1 tokens.
    """
    most = alpha[:, : len(source_tokens)].argmax(axis=1)
    return [
        source_tokens[most[i]] if token == UNK else piece
        for i, (token, piece) in enumerate(zip(ids, pieces, strict=True))
    ]
