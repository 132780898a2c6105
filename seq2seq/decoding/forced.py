"""Forced decoding: what a model makes of translations that are given, none of them searched for.

The model reads the target as in training, the whole sentence at once. What comes out has the shape
of a search result, so that everything that shows or writes one takes the other, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from seq2seq.config.schema import DecodeConfig
from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import EOS, PAD, Tokenizer
from seq2seq.decoding.search import Hypothesis
from seq2seq.decoding.translate import END, Candidate, Translation, chunks, cut, readable
from seq2seq.model import RNNSearch
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.memory import OutOfMemory

TextPair = tuple[str, str]
"""A sentence and its translation."""

IdPair = tuple[Sequence[int], Sequence[int]]
"""The same as ids; the source ends with the end symbol, the target need not."""


def force(
    model: RNNSearch,
    tokenizers: tuple[Tokenizer, Tokenizer],
    pairs: Iterable[TextPair],
    cfg: DecodeConfig,
) -> Iterator[Translation]:
    """Lead a model along given translations; yields one result a pair, in order.

    The one candidate of a result is the target as it was given, with the log-probability of each
    of its tokens and of the end symbol, and the attention while they are said. It is left out where
    a side is blank: there is nothing to score. Sides of more than `max_source_tokens` are cut, with
    a warning. Of the config only that, `batch_sentences` and `length_penalty` matter.

    Args:
        model: In evaluation mode.
        tokenizers: Of its source and of its target.
        pairs: Any number of them, without line ends.
        cfg: How much at once.
    """
    assert not model.training
    for chunk in chunks(pairs, cfg.batch_sentences, lambda pair: sum(map(len, pair))):
        yield from _force_chunk(model, tokenizers, chunk, cfg)


def _force_chunk(
    model: RNNSearch,
    tokenizers: tuple[Tokenizer, Tokenizer],
    chunk: Sequence[tuple[int, TextPair]],
    cfg: DecodeConfig,
) -> list[Translation]:
    src, tgt = (
        _read(tokenizer, [(number, pair[side]) for number, pair in chunk], cfg.max_source_tokens)
        for side, tokenizer in enumerate(tokenizers)
    )
    longest = {
        i: max(len(src[i].ids), len(tgt[i].ids))
        for i in range(len(chunk))
        if src[i].ids and tgt[i].ids
    }
    by_length = sorted(longest, key=lambda i: longest[i])
    found: dict[int, Hypothesis] = {}
    for start in range(0, len(by_length), cfg.batch_sentences):
        batch = by_length[start : start + cfg.batch_sentences]
        ids = [([*src[i].ids, EOS], [*tgt[i].ids, EOS]) for i in batch]
        with OutOfMemory() as oom:
            scored = force_ids(model, ids, cfg.length_penalty)
        if oom:
            raise MemoryLimitError(
                f"line {chunk[batch[-1]][0]}",
                f"out of memory with {len(ids)} pairs of up to {longest[batch[-1]] + 1} tokens, "
                "this the longest",
                f"Lower decode.batch_sentences (now {cfg.batch_sentences}) or "
                "decode.max_source_tokens.",
            )
        found.update(zip(batch, scored, strict=True))
    return [
        _as_translation(pair, src[i], tgt[i], found.get(i)) for i, (_, pair) in enumerate(chunk)
    ]


@dataclass(frozen=True)
class _Tokens:
    """A side of a pair, the end symbol left out."""

    ids: list[int]
    written: list[str]  # as in the text, unknown ones too


def _read(tokenizer: Tokenizer, lines: Sequence[tuple[int, str]], max_tokens: int) -> list[_Tokens]:
    """Turn numbered lines into tokens, no more than so many of each."""
    texts = [readable(text) for _, text in lines]
    read = []
    for (number, text), ids, written in zip(
        lines, tokenizer.encode(texts), tokenizer.tokens(texts), strict=True
    ):
        cut(number, text, ids, max_tokens)
        read.append(_Tokens(ids, written[: len(ids)]))
    return read


def _as_translation(
    pair: TextPair, src: _Tokens, tgt: _Tokens, found: Hypothesis | None
) -> Translation:
    source, target = pair
    if found is None:
        return Translation(source, (), ())
    candidate = Candidate(
        text=target,
        tokens=(*tgt.written, END),
        token_log_probs=found.token_log_probs,
        log_prob=found.log_prob,
        score=found.score,
        alignment=found.alpha,
        finished=True,
    )
    return Translation(source, (*src.written, END), (candidate,))


def force_ids(model: RNNSearch, pairs: Sequence[IdPair], length_penalty: float) -> list[Hypothesis]:
    """Score ids: those of a text, or of a hypothesis, of which all but its ids is then told again.

    Args:
        model: In evaluation mode.
        pairs: One batch; no side is empty.
        length_penalty: For `score`, as in the search.

    Returns:
        One hypothesis a pair; `finished` says whether the end symbol is its last id. The forbidden
        words and the bounds of a search do not exist here: nothing is chosen.
    """
    assert not model.training
    batch = collate(list(pairs), PAD).to(next(model.parameters()).device)
    with torch.inference_mode():
        followed = model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
        # (N,), one number a real target token: the row of every word goes no further
        words, logits = batch.tgt[batch.tgt_mask], model.logits(followed.t).float()
        log_p = -torch.nn.functional.cross_entropy(logits, words, reduction="none")
    sizes = [(len(src), len(tgt)) for src, tgt in pairs]
    by_sentence = log_p.cpu().split([num_tgt for _, num_tgt in sizes])
    alphas = followed.alpha.float().cpu().numpy()
    found = []
    for (_, ids), probabilities, alpha, (num_src, num_tgt) in zip(
        pairs, by_sentence, alphas, sizes, strict=True
    ):
        log_prob = float(probabilities.sum())
        found.append(
            Hypothesis(
                ids=tuple(map(int, ids)),
                log_prob=log_prob,
                score=log_prob / num_tgt**length_penalty,
                token_log_probs=tuple(probabilities.tolist()),
                alpha=alpha[:num_tgt, :num_src].copy(),  # not a view that keeps the whole batch
                finished=int(ids[-1]) == EOS,
            )
        )
    return found
