"""Translates lines by beam search or sampling: one translation per line, in order."""

import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from seq2seq.config.schema import DecodeConfig, DecodePrecision
from seq2seq.data.batching import pad_ids
from seq2seq.data.placeholders import CarryingTokenizer
from seq2seq.data.tokenizer import EOS, PAD, UNK, Tokenizer
from seq2seq.decoding.carried import Carried, carried
from seq2seq.decoding.chunks import Feed, Ids, in_chunks
from seq2seq.decoding.constrained import ConstrainedBeams, Constraints
from seq2seq.decoding.constraints import ConstraintBuilder, LineConstraints
from seq2seq.decoding.forced import has_maps, ranking_of, with_maps, without_tag
from seq2seq.decoding.minimum_bayes_risk import by_utility
from seq2seq.decoding.prefix import Prefix, write
from seq2seq.decoding.ranking import Floats
from seq2seq.decoding.request import Request
from seq2seq.decoding.sampling import SamplingRules, sample
from seq2seq.decoding.search import Hypothesis, SearchRules, beam_search
from seq2seq.decoding.translation import END, Candidate, Translation, candidate_of
from seq2seq.model.ensemble import Decodable
from seq2seq.model.protocols import Stepper
from seq2seq.model.shortlist import ShortlistStepper
from seq2seq.run.errors import DataError
from seq2seq.training.precision import autocast

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Control characters, line ends included: a vocabulary may hold them, a line of output must not."""


def translate(
    model: Decodable,
    tokenizers: tuple[Tokenizer, Tokenizer],
    lines: Iterable[str | Request],
    cfg: DecodeConfig,
    feed: Feed = Feed(),  # noqa: B008 - it is frozen
    *,
    maps: bool = False,
    searcher: Stepper | None = None,
) -> Iterator[Translation]:
    """Yield one translation per line, in order; a request that cannot be met is an error.

    `in_chunks` explains how long and empty lines are handled, `Pretrained.stream` explains `maps`.
    `searcher` is what `for_search` returned before, if it is known.
    """
    # The caller passes a model in evaluation mode, with averaged weights if it wants them.
    assert not model.training
    source, target = tokenizers
    # With carried texts, keep the whole beam: candidates that need no repair come first.
    carrying = isinstance(source, CarryingTokenizer)
    wide = replace(cfg, n_best=cfg.beam_size) if carrying and not cfg.sample else cfg
    # Prepare the weights for search once, not per batch.
    searcher, forbidden = searcher or for_search(model, cfg), feed.tags.forbidden
    builder = ConstraintBuilder(target, cfg, carrying=carrying)
    by_line: dict[int, LineConstraints] = {}
    search = partial(search_batch, model, searcher, cfg=wide, by_line=by_line, forbidden=forbidden)
    maps = maps and has_maps(model)

    sources = _sources(lines, feed.first, builder, by_line)
    results = in_chunks(sources, (source,), search, cfg, feed)
    for number, ((line,), (src,), found) in enumerate(results, feed.first):
        constraints = by_line.pop(number, None)
        if found == [] and constraints is not None:
            what = "no translation was found that does all that is asked of it"
            raise DataError(constraints.where, what, "Ask for less.")
        # Repair what is carried over, add maps, and drop the tag, hypothesis by hypothesis.
        hypotheses: Iterable[Hypothesis] = found or ()
        tag = feed.tags.of_line(number)
        ids = [*tag, *src.ids]
        if (own := carried(source, line, src, shift=len(tag))) is not None:
            hypotheses = own.whole_first(model, target, ids, hypotheses, ranking_of(cfg))
        if maps:
            hypotheses = with_maps(model, [*ids, EOS], hypotheses)
        hypotheses = map(partial(without_tag, size=len(tag)), hypotheses)
        # Write them as text.
        prefix = constraints.prefix if constraints else None
        copied = src.written if cfg.replace_unknown else None
        every = (_candidate(target, h, copied, own, prefix) for h in hypotheses)
        candidates = tuple(every) if cfg.sample else _distinct(every, cfg.n_best)
        if cfg.mbr is not None:
            candidates = by_utility(candidates, cfg.mbr, uniform=cfg.sample)
        tokens = (*src.written, END) if src.ids else ()
        yield Translation(line, tokens, candidates, src.spans, UNK in src.ids)


def _sources(
    lines: Iterable[str | Request],
    first: int,
    builder: ConstraintBuilder,
    by_line: MutableMapping[int, LineConstraints],
) -> Iterator[tuple[str]]:
    """Yield the source of each line; put its constraints, if any, into `by_line`."""
    for number, line in enumerate(lines, first):
        request = Request(line) if isinstance(line, str) else line
        if (constraints := builder.build(request, number)) is not None:
            by_line[number] = constraints
        yield (request.source,)


@torch.inference_mode()
def for_search(model: Decodable, cfg: DecodeConfig) -> Stepper:
    """Return the stepper for `search_batch`; it is valid as long as the weights do not change."""
    with autocast(next(model.parameters()).device, cfg.precision):
        stepper = model.for_search(int8=cfg.precision is DecodePrecision.int8)
    return stepper if model.shortlist is None else ShortlistStepper(stepper, model.shortlist)


@torch.inference_mode()
def search_batch(
    model: Decodable,
    searcher: Stepper,
    batch: Sequence[Ids],
    numbers: Sequence[int],
    cfg: DecodeConfig,
    by_line: MutableMapping[int, LineConstraints],
    forbidden: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Search or sample translations of source ids; the only place that calls the search.

    The samples of a line depend on its number. Lines with constraints (`by_line`, by number) are
    searched apart from the others; their constraints are then dropped from `by_line`, all but what
    writes the text. No translation contains a forbidden id.
    """
    constrained = [i for i, number in enumerate(numbers) if number in by_line]
    if 0 < len(constrained) < len(batch):
        found: list[list[Hypothesis]] = [[]] * len(batch)
        for part in ([i for i in range(len(batch)) if i not in {*constrained}], constrained):
            some = [batch[i] for i in part], [numbers[i] for i in part]
            own = search_batch(model, searcher, *some, cfg, by_line, forbidden)
            for i, hypotheses in zip(part, own, strict=True):
                found[i] = hypotheses
        return found
    # All with constraints, or none: one batch.
    device = next(model.parameters()).device
    src, mask = (tensor.to(device) for tensor in pad_ids([ids for (ids,) in batch], PAD))
    rules = search_rules(cfg)
    rules = replace(rules, forbidden=(*rules.forbidden, *forbidden))
    with autocast(device, cfg.precision):
        if constrained:
            constraints = [by_line[number].constraints for number in numbers]
            for number in numbers:  # free megabytes of tables that no other batch needs
                by_line[number] = replace(by_line[number], constraints=Constraints())
            beams = ConstrainedBeams(rules, constraints, cfg.beam_groups, cfg.diversity)
            return beam_search(searcher, src, mask, rules, beams)
        if not cfg.sample:
            return beam_search(searcher, src, mask, rules)
        drawn = SamplingRules(rules, cfg.temperature, cfg.top_k, cfg.top_p, cfg.seed)
        return sample(searcher, src, mask, numbers, drawn)


def search_rules(cfg: DecodeConfig) -> SearchRules:
    """Return the search rules of a config, in ids."""
    return SearchRules(
        beam_size=cfg.beam_size,
        # Several hypotheses may be the same text, segmented differently.
        n_best=cfg.n_best if cfg.sample or cfg.n_best == 1 else cfg.beam_size,
        **vars(ranking_of(cfg)),
        min_ratio=cfg.min_ratio,
        max_ratio=cfg.max_ratio,
        extra_steps=cfg.extra_steps,
        forbidden=(PAD, UNK) if cfg.forbid_unknown else (PAD,),
        start=PAD,
        eos=EOS,
    )


def _distinct(candidates: Iterable[Candidate], count: int) -> tuple[Candidate, ...]:
    """Return the first `count` candidates with distinct texts; of duplicates the best stays."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        if len(found) == count:
            break
        found.setdefault(candidate.text, candidate)
    return tuple(found.values())


def _candidate(
    target: Tokenizer,
    h: Hypothesis,
    copied: Sequence[str] | None,
    own: Carried | None = None,
    prefix: Prefix | None = None,
) -> Candidate:
    """Write a hypothesis as text; source tokens in `copied` replace its unknown words.

    A prefix is written as given.
    """
    words = h.ids[:-1] if h.finished else h.ids
    pieces = target.pieces(words)
    if copied is not None:
        alpha = h.alpha.copy()
        alpha[:, list(own.places.values()) if own else []] = 0  # these are already in the text
        pieces = replace_unknown(words, pieces, alpha, copied)
    pieces, text, spans = write(target, pieces, prefix)
    if own is not None:
        pieces, text, spans = own.restored(words, pieces, text, spans)
    return candidate_of(h, target, _CONTROL.sub(" ", text), pieces, spans)


def replace_unknown(
    ids: Sequence[int], pieces: Sequence[str], alpha: Floats, source_tokens: Sequence[str]
) -> list[str]:
    """Replace each unknown symbol by the source token with the greatest attention weight.

    The idea of Luong et al. 2015 (arXiv:1410.8206) and Jean et al. 2015 (arXiv:1412.2007),
    without their dictionary: names and numbers often stay the same. The first of equal weights
    wins; neither the target ids and their pieces nor the Tx - 1 source tokens include the end
    symbol, while alpha is (at least len(ids), Tx).
    """
    most = alpha[:, : len(source_tokens)].argmax(axis=1)
    return [
        source_tokens[most[i]] if token == UNK else piece
        for i, (token, piece) in enumerate(zip(ids, pieces, strict=True))
    ]
