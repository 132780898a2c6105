"""Random subword segmentation, a deterministic function of the given draws.

SentencePiece can sample, too, but not reproducibly: its generator is seeded anew in every process,
so neither a resumed run nor a second one would see the same pieces.

BPE-dropout (Provilkov et al. 2020) skips each merge with some probability, and at the next step
offers it again. SentencePiece's own sampler does not: at rate 0.1 it makes sequences 1.4 times as
long, and the paper's rule 1.2 times (Multi30k, 5,000 pieces). For a unigram model, p(segmentation)
~ exp(rate * sum of its pieces' log probabilities) (Kudo 2018).
"""

import heapq
import math
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import sentencepiece

from seq2seq.data.tokenizer import Draw, Draws, parted_at

# No piece crosses a space, so words are segmented one by one; the space is a word's first letter.
_WORDS = re.compile("^[^\u2581]+|\u2581[^\u2581]*")
# Maximal number of words whose segmentation or lattice is cached.
_KNOWN = 1 << 17
# How far an unknown letter lies below the rarest piece, as in SentencePiece, nats.
_UNKNOWN_PENALTY = 10.0

# For each end position in a word: cumulative weights, and for each the start and id of a piece.
Lattice = list[tuple[list[float], list[tuple[int, int]]]]


class Sampler:
    """Segments text at random into the pieces of a SentencePiece model.

    Args:
        processor: The model.
        rate: Fraction of merges skipped (BPE), or the exponent of probabilities (unigram).
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor, rate: float) -> None:
        from sentencepiece import sentencepiece_model_pb2 as proto

        model = proto.ModelProto.FromString(processor.serialized_model_proto())
        kinds, numbered = proto.ModelProto.SentencePiece, [*enumerate(model.pieces)]
        pieces = {p.piece: (i, p.score) for i, p in numbered if p.type == kinds.NORMAL}
        self._symbols = {p.piece: i for i, p in numbered if p.type == kinds.USER_DEFINED}
        self._parted = parted_at([*self._symbols])
        self.rate, self._normalize = rate, processor.normalize
        self._unknown = int(processor.unk_id())
        unigram = model.trainer_spec.model_type == proto.TrainerSpec.UNIGRAM
        self._cutter = (UnigramCutter if unigram else BpeCutter)(pieces, self._unknown, rate)

    def sample(self, texts: Sequence[str], draws: Draws) -> list[list[int]]:
        """Return the ids of each text, from its own draws.

        A run of unknown letters is one unknown symbol.
        """
        lines = zip(self._normalize(list(texts)), draws, strict=True)
        return [list(self._line(text, draw)) for text, draw in lines]

    def _line(self, text: str, draw: Draw) -> Iterator[int]:
        before = None
        for part in self._parted(text):
            for token in self._part(part, draw):
                if token != before or token != self._unknown:
                    yield token
                before = token

    def _part(self, part: str, draw: Draw) -> Iterator[int]:
        if (symbol := self._symbols.get(part)) is not None:
            yield symbol
        else:
            for word in _WORDS.findall(part):
                yield from self._cutter.cut(word, draw)


class BpeCutter:
    """BPE-dropout: at each step, each merge is skipped with probability `rate`.

    The best merge that is not skipped is done; the next step offers all the others again. The
    number of merges until the next skip is drawn at once, so most words, in which no merge is
    skipped, cost one lookup.
    """

    def __init__(self, pieces: dict[str, tuple[int, float]], unknown: int, rate: float) -> None:
        self._pieces, self._unknown, self._rate = pieces, unknown, rate
        self._whole = lru_cache(_KNOWN)(partial(self._merge, draw=None))
        self._draw: Draw | None = None
        self._until_next = 0

    def cut(self, word: str, draw: Draw) -> Sequence[int]:
        """Return the ids of a word."""
        if draw is not self._draw:
            self._draw, self._until_next = draw, self._gap(draw)
        ids, merges = self._whole(word)
        if self._until_next >= merges:
            self._until_next -= merges
            return ids
        return self._merge(word, draw)[0]

    def _gap(self, draw: Draw) -> int:
        """Draw the number of merges before the next skip."""
        if self._rate <= 0:
            return 1 << 62
        if self._rate >= 1:
            return 0
        return int(math.log(1 - draw()) / math.log(1 - self._rate))

    def _is_skipped(self, draw: Draw) -> bool:
        self._until_next -= 1
        if self._until_next >= 0:
            return False
        self._until_next = self._gap(draw)
        return True

    def _merge(self, word: str, draw: Draw | None) -> tuple[list[int], int]:
        """Merge letters, best pair first; with draws, some merges are skipped at each step.

        Returns:
            The ids, and the number of merges considered.
        """
        parts = list(word)  # "" once merged into the part before
        after = list(range(1, len(word) + 1))  # start of the next part
        queue: list[tuple[float, int, int, str]] = []
        skipped: list[tuple[float, int, int, str]] = []  # at this step

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < len(parts):
                piece = self._pieces.get(parts[left] + parts[right])
                if piece is not None:
                    heapq.heappush(queue, (-piece[1], left, right, parts[left] + parts[right]))

        # Start from neighbouring letters; each merge adds candidates on both of its sides.
        for left in range(len(parts) - 1):
            offer(left, left + 1)
        count = 0
        while queue:
            merge = heapq.heappop(queue)
            _, left, right, merged = merge
            if not parts[left] or not parts[right] or parts[left] + parts[right] != merged:
                continue  # one of them has been merged elsewhere
            count += 1
            if draw is not None and self._is_skipped(draw):
                skipped.append(merge)
                continue
            parts[left], parts[right] = merged, ""
            after[left] = after[right]
            offer(next((i for i in range(left - 1, -1, -1) if parts[i]), -1), left)
            offer(left, after[left])
            while skipped:
                heapq.heappush(queue, skipped.pop())
        return [self._pieces.get(p, (self._unknown, 0.0))[0] for p in parts if p], count


class UnigramCutter:
    """Draws a segmentation of each word from the lattice of its pieces.

    `rate` is the exponent: the smaller it is, the more uniform the distribution.
    """

    def __init__(self, pieces: dict[str, tuple[int, float]], unknown: int, rate: float) -> None:
        self._pieces, self._unknown, self._rate = pieces, unknown, rate
        self._longest = max(map(len, pieces), default=1)
        lowest = min((score for _, score in pieces.values()), default=0.0)
        self._unknown_score = lowest - _UNKNOWN_PENALTY
        self._known_lattice = lru_cache(_KNOWN)(self._lattice)

    def cut(self, word: str, draw: Draw) -> Sequence[int]:
        """Return the ids of a word."""
        lattice = self._known_lattice(word)
        ids: list[int] = []
        end = len(word)
        while end:
            sums, entries = lattice[end]
            chosen = bisect(sums, draw() * sums[-1]) if len(sums) > 1 else 0
            end, token = entries[min(chosen, len(entries) - 1)]
            ids.append(token)
        return ids[::-1]

    def _lattice(self, word: str) -> Lattice:
        """Sum, in log space, the weights of all segmentations of each prefix of a word."""
        totals = [0.0]  # log of the summed weights of all segmentations of each prefix
        lattice: Lattice = [([], [])]
        for end in range(1, len(word) + 1):
            entries, weights = [], []
            for start in range(max(0, end - self._longest), end):
                piece = self._pieces.get(word[start:end])
                if piece is None and end - start == 1:
                    piece = (self._unknown, self._unknown_score)
                if piece is not None:
                    entries.append((start, piece[0]))
                    weights.append(totals[start] + self._rate * piece[1])
            most = max(weights)  # subtracted, so that no exponential overflows
            sums, total = [], 0.0
            for weight in weights:
                total += math.exp(weight - most)
                sums.append(total)
            totals.append(most + math.log(total))
            lattice.append((sums, entries))
        return lattice
