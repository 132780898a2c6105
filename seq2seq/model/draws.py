"""Counter-based random draws for training: each is a pure function of key, site and place.

The key of a sentence is made of (seed, update, entry of the update's plan, pass). What a sentence
draws therefore depends neither on its batch, nor on the parts or processes that compute it, nor on
earlier draws. The generator is SplitMix64 (Steele, Lea & Flood 2014): a counter times an odd
constant, passed through a bijection that mixes its bits.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

GAMMA = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)

_keys: ContextVar[Tensor] = ContextVar("keys")


class Drawing(nn.Module):
    """A module that draws in training. `name_sites` gives each of a model its own stream."""

    site = 0

    def bits(self, sentences: Tensor, first: Tensor, count: int) -> Tensor:
        """Return `count` words of 64 random bits, int64 (..., count), for `sentences` (...).

        `sentences` are indices into the batch; `first` (...) is the counter of the first word.
        """
        try:
            keys = _keys.get()
        except LookupError:
            raise RuntimeError("training draws at random: use `with draws.keyed(keys):`") from None
        begins = (keys ^ signed(fold(self.site)))[sentences] + first * signed(GAMMA)
        steps = torch.arange(1, count + 1, device=keys.device) * signed(GAMMA)
        return mix_(begins[..., None] + steps)

    def uniform(self, sentences: Tensor, first: Tensor, count: int) -> Tensor:
        """Return float64 numbers in [0, 1) of 53 random bits each; arguments as for `bits`."""
        return shifted(self.bits(sentences, first, count), 11).double() * 2.0**-53


def name_sites(model: nn.Module) -> None:
    """Set the site of each module that draws, a checksum of its name in the model."""
    for name, module in model.named_modules():
        if isinstance(module, Drawing):
            module.site = zlib.crc32(name.encode())


@contextmanager
def keyed(keys: Tensor) -> Iterator[None]:
    """Use the keys (B,), int64, of the sentences of a batch for all draws inside."""
    token = _keys.set(keys)
    try:
        yield
    finally:
        _keys.reset(token)


def entry_keys(seed: int, update: int, count: int, *, number: int = 0) -> Tensor:
    """Return the keys (count,), int64, of the sentences of an update, in the order of its plan.

    The first update is 1. `number` is that of the pass: a second one over a sentence draws anew.
    """
    base = fold(seed, update, number)
    return mix_(signed(base) + (torch.arange(count) + 1) * signed(GAMMA))


def seed_others(seed: int, update: int) -> None:
    """Seed torch's generator for an update; only extensions draw from it."""
    torch.manual_seed(fold(seed, update) >> 1)


def stream(key: int) -> Callable[[], float]:
    """Return a function whose calls give successive random numbers in [0, 1), on the CPU."""
    counter = 0

    def uniform() -> float:
        nonlocal counter
        counter += 1
        return (mix(key + counter * GAMMA) >> 11) * 2.0**-53

    return uniform


def fold(*numbers: int) -> int:
    """Hash numbers to a key of 64 bits."""
    key = 0
    for number in numbers:
        key = mix(key + (number + 1) * GAMMA)
    return key


def mix(z: int) -> int:
    """Return the SplitMix64 output for a state, both of 64 bits."""
    z %= 1 << 64
    for shift, multiplier in zip(SHIFTS[:2], MULTIPLIERS, strict=True):
        z = (z ^ z >> shift) * multiplier % (1 << 64)
    return z ^ z >> SHIFTS[2]


def mix_(z: Tensor) -> Tensor:
    """`mix` in place; int64 arithmetic wraps around like that of unsigned 64-bit numbers."""
    for shift, multiplier in zip(SHIFTS[:2], MULTIPLIERS, strict=True):
        z = z.bitwise_xor_(shifted(z, shift)).mul_(signed(multiplier))
    return z.bitwise_xor_(shifted(z, SHIFTS[2]))


def shifted(z: Tensor, by: int) -> Tensor:
    """Shift right, filling with zeros; torch's shift fills with the sign bit."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def signed(number: int) -> int:
    """Reinterpret an unsigned 64-bit number as int64."""
    return number - (1 << 64) if number >> 63 else number
