"""Cutting text into subwords at random, decided by the draws it is given.

SentencePiece can sample, too, but what it draws cannot be repeated: its generator is salted anew
in every process, so neither a resumed run nor a second one would see the same pieces.

BPE-dropout (Provilkov et al. 2020) leaves each merge out with a probability. Of a unigram model a
cut is drawn with p(cut) ~ exp(rate * sum of its pieces' log probabilities) (Kudo 2018).
"""

import heapq
import math
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence

import sentencepiece

from seq2seq.data.tokenizer import parted_at

# No piece goes over a space, so words are cut one by one; the space is the word's first letter.
_WORDS = re.compile("^[^\u2581]+|\u2581[^\u2581]*")
# Words of which the cut, or the lattice, is remembered.
_KNOWN = 1 << 17
# How far an unknown letter lies below the rarest piece, as in SentencePiece, nats.
_UNKNOWN_PENALTY = 10.0

# The next number of a text, in [0, 1).
Draw = Callable[[], float]
# For each end in a word: growing sums of weights, and to each the start of a piece and its id.
Lattice = list[tuple[list[float], list[tuple[int, int]]]]


class Sampler:
    """Cuts text into the pieces of a SentencePiece model at random.

    Args:
        processor: The model.
        rate: Of merges left out, or the exponent of the probabilities.
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

    def sample(self, texts: Sequence[str], draws: Sequence[Draw]) -> list[list[int]]:
        """Return the ids of each text, by its own draws.

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
    """BPE-dropout: each merge that comes up is left out with probability `rate`.

    Drawn is the number of merges made until the next one is left out, so that most words, of which
    every merge is made, cost one lookup.
    """

    def __init__(self, pieces: dict[str, tuple[int, float]], unknown: int, rate: float) -> None:
        self._pieces, self._unknown, self._rate = pieces, unknown, rate
        self._whole: dict[str, tuple[list[int], int]] = {}
        self._draw: Draw | None = None
        self._until_next = 0

    def cut(self, word: str, draw: Draw) -> Sequence[int]:
        """Return the ids of a word."""
        if draw is not self._draw:
            self._draw, self._until_next = draw, self._gap(draw)
        whole = self._whole.get(word)
        if whole is None:
            whole = self._merge(word, None)
            if len(self._whole) < _KNOWN:
                self._whole[word] = whole
        ids, merges = whole
        if self._until_next >= merges:
            self._until_next -= merges
            return ids
        return self._merge(word, draw)[0]

    def _gap(self, draw: Draw) -> int:
        """Draw how many merges are made before the next one is left out."""
        if self._rate <= 0:
            return 1 << 62
        if self._rate >= 1:
            return 0
        return int(math.log(1 - draw()) / math.log(1 - self._rate))

    def _left_out(self, draw: Draw) -> bool:
        self._until_next -= 1
        if self._until_next >= 0:
            return False
        self._until_next = self._gap(draw)
        return True

    def _merge(self, word: str, draw: Draw | None) -> tuple[list[int], int]:
        """Merge letters, the best pair first; with draws some merges are left out.

        Returns:
            The ids, and how many merges came up.
        """
        parts = list(word)  # a part that was merged into the one before it is ""
        after = list(range(1, len(word) + 1))  # where the next part begins
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < len(parts):
                piece = self._pieces.get(parts[left] + parts[right])
                if piece is not None:
                    heapq.heappush(queue, (-piece[1], left, right, parts[left] + parts[right]))

        # Neighbouring letters first, then what each merge makes possible on both of its sides.
        for left in range(len(parts) - 1):
            offer(left, left + 1)
        count = 0
        while queue:
            _, left, right, merged = heapq.heappop(queue)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != merged:
                continue  # one of them is part of something else by now
            count += 1
            if draw is not None and self._left_out(draw):
                continue
            parts[left], parts[right] = merged, ""
            after[left] = after[right]
            offer(next((i for i in range(left - 1, -1, -1) if parts[i]), -1), left)
            offer(left, after[left])
        return [self._pieces.get(p, (self._unknown, 0.0))[0] for p in parts if p], count


class UnigramCutter:
    """Draws a cut of each word from the lattice of its pieces.

    `rate` is the exponent: the smaller, the more evenly cuts are drawn.
    """

    def __init__(self, pieces: dict[str, tuple[int, float]], unknown: int, rate: float) -> None:
        self._pieces, self._unknown, self._rate = pieces, unknown, rate
        self._longest = max(map(len, pieces), default=1)
        lowest = min((score for _, score in pieces.values()), default=0.0)
        self._unknown_score = lowest - _UNKNOWN_PENALTY
        self._lattices: dict[str, Lattice] = {}

    def cut(self, word: str, draw: Draw) -> Sequence[int]:
        """Return the ids of a word."""
        lattice = self._lattices.get(word)
        if lattice is None:
            lattice = self._lattice(word)
            if len(self._lattices) < _KNOWN:
                self._lattices[word] = lattice
        ids: list[int] = []
        end = len(word)
        while end:
            sums, entries = lattice[end]
            chosen = bisect(sums, draw() * sums[-1]) if len(sums) > 1 else 0
            end, token = entries[min(chosen, len(entries) - 1)]
            ids.append(token)
        return ids[::-1]

    def _lattice(self, word: str) -> Lattice:
        """Sum the weights of all cuts of each beginning of a word, in logarithms."""
        totals = [0.0]  # log of the summed weights of all cuts up to here
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
