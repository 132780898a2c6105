"""Forced decoding: scores given translations with the model, the whole target at once.

Results have the type of search results, so everything that shows or writes one accepts the other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from seq2seq.alignment.heatmap import Weights
from seq2seq.alignment.words import Maps
from seq2seq.config.schema import DecodeConfig, LengthNorm
from seq2seq.data.batching import collate
from seq2seq.data.tags import UNTAGGED, Tagging
from seq2seq.data.tokenizer import EOS, PAD, UNK, Tokenizer
from seq2seq.decoding.chunks import Feed, Ids, in_chunks
from seq2seq.decoding.ranking import Ranking
from seq2seq.decoding.search import Hypothesis
from seq2seq.decoding.translation import END, Translation, candidate_of
from seq2seq.model.ensemble import Decodable
from seq2seq.model.protocols import Followed

TextPair = tuple[str, str]  # a sentence and its translation
IdPair = tuple[Sequence[int], Sequence[int]]
"""The same as ids; the source ends with the end symbol, the target may end without it."""


def force(
    model: Decodable,
    tokenizers: tuple[Tokenizer, Tokenizer],
    pairs: Iterable[TextPair],
    cfg: DecodeConfig,
    *,
    maps: bool = False,
    tags: Tagging = UNTAGGED,
) -> Iterator[Translation]:
    """Score given translations; yields one result per pair, in order, read in chunks.

    The only candidate of a result is the given target, with the log-probability and the attention
    of each of its tokens and of the end symbol. There is no candidate if a side is empty. Of the
    config, only batch size, text size and the penalties matter. With `maps`, the candidate has the
    attention of every layer and head if the model has layers or heads.
    """
    assert not model.training
    maps = maps and has_maps(model)

    def score(batch: Sequence[Ids], _numbers: Sequence[int]) -> list[Hypothesis]:
        return force_ids(model, [(src, tgt) for src, tgt in batch], ranking_of(cfg))

    results = in_chunks(pairs, tokenizers, score, cfg, Feed(tags))
    for number, ((source, target), (src, tgt), found) in enumerate(results, start=1):
        # An empty side.
        if found is None:
            yield Translation(source, (), ())
            continue
        tag = tags.of_line(number)
        if maps:
            [found] = with_maps(model, [*tag, *src.ids, EOS], [found])
        found = without_tag(found, len(tag))
        candidate = candidate_of(found, tokenizers[1], target, tgt.written, tgt.spans)
        yield Translation(source, (*src.written, END), (candidate,), src.spans, UNK in src.ids)


def ranking_of(cfg: DecodeConfig) -> Ranking:
    """Return the scoring formula of a config."""
    return Ranking(
        length_penalty=cfg.length_penalty,
        gnmt=cfg.length_norm is LengthNorm.gnmt,
        coverage_penalty=cfg.coverage_penalty,
    )


def force_ids(model: Decodable, pairs: Sequence[IdPair], ranking: Ranking) -> list[Hypothesis]:
    """Score a batch of target ids: of texts, or of hypotheses whose other fields are recomputed.

    No side is empty. Returns a hypothesis per pair, `finished` if the end symbol is its last id.
    The search's forbidden words and length limits do not apply.
    """
    assert not model.training
    with torch.inference_mode():
        found = followed(model, pairs)
        # (N,), one number per real target token; the logits (N, K_y) are dropped here
        logits = model.logits(found.t).float()
        words = torch.tensor([token for _, ids in pairs for token in ids], device=logits.device)
        log_p = -torch.nn.functional.cross_entropy(logits, words, reduction="none")
        alphas = found.alpha.float().cpu().numpy()
    by_sentence = log_p.cpu().split([len(tgt) for _, tgt in pairs])
    hypotheses = []
    for (src, ids), own, alpha in zip(pairs, by_sentence, alphas, strict=True):
        alpha = alpha[: len(ids), : len(src)].copy()  # not a view that keeps the whole batch
        each = [*map(int, ids)], float(own.sum()), own.tolist()
        hypotheses.append(Hypothesis.scored(*each, alpha, ranking, EOS))
    return hypotheses


def followed(model: Decodable, pairs: Sequence[IdPair]) -> Followed:
    """Run a model along the targets of a batch, on its own device."""
    batch = collate(list(pairs), PAD).to(next(model.parameters()).device)
    return model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)


def has_maps(model: Decodable) -> bool:
    """Return whether a model has layers or heads, by running it on the shortest pair."""
    return bool(maps_along(model, (EOS,), (EOS,)))


def with_maps(
    model: Decodable, src: Sequence[int], found: Iterable[Hypothesis]
) -> Iterator[Hypothesis]:
    """Run the model along hypotheses again for the attention of every layer and head.

    One hypothesis at a time, on demand: the maps of a chunk can be gigabytes.
    """
    for h in found:
        yield replace(h, maps=maps_along(model, src, h.ids))


def without_tag(h: Hypothesis, size: int) -> Hypothesis:
    """Return a hypothesis whose attention to the source tag is added to that of the end symbol.

    Neither stands for a word. Rows still sum to 1, and columns match the tokens of the line.
    """
    if not size:
        return h

    def joined(weights: Weights) -> Weights:
        rest = weights[..., size:].copy()
        rest[..., -1] += weights[..., :size].sum(axis=-1)
        return rest

    maps = dict(h.maps)
    for name in maps.keys() & {"heads", "encoder"}:
        rows = slice(size if name == "encoder" else 0, None)
        maps[name] = joined(maps[name][..., rows, :])
    return replace(h, alpha=joined(h.alpha), maps=maps)


@torch.inference_mode()
def maps_along(model: Decodable, src: Sequence[int], tgt: Sequence[int]) -> Maps:
    """Return the attention of every layer and head along a target."""
    maps = followed(model, [(src, tgt)]).maps()
    return {name: weights[:, 0].float().cpu().numpy() for name, weights in maps.items()}
