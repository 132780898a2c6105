"""Random draws of training, by counter: each is a function of its key, site and place alone.

The key of a sentence is made of (seed, update, entry of the update's plan, pass). What a sentence
draws therefore depends neither on its batch, nor on the parts or processes it is computed in, nor
on what was drawn before. The generator is SplitMix64 (Steele, Lea & Flood 2014): a counter times an
odd constant, through a bijection that mixes its bits.
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
    """A module that draws in training. `name_sites` gives every one in a model its own numbers."""

    site = 0

    def bits(self, sentences: Tensor, first: Tensor, count: int) -> Tensor:
        """Return 64 random bits, int64 (..., count), of sentences of the batch (...).

        `first` (...) is the counter of the first of them.
        """
        try:
            keys = _keys.get()
        except LookupError:
            raise RuntimeError("training draws at random: use `with draws.keyed(keys):`") from None
        begins = (keys ^ signed(fold(self.site)))[sentences] + first * signed(GAMMA)
        steps = torch.arange(1, count + 1, device=keys.device) * signed(GAMMA)
        return mix_(begins[..., None] + steps)

    def uniform(self, sentences: Tensor, first: Tensor, count: int) -> Tensor:
        """Return numbers in [0, 1), float64, of 53 random bits each; arguments as of `bits`."""
        return shifted(self.bits(sentences, first, count), 11).double() * 2.0**-53


def name_sites(model: nn.Module) -> None:
    """Let each module that draws know its site: its name in the model."""
    for name, module in model.named_modules():
        if isinstance(module, Drawing):
            module.site = zlib.crc32(name.encode())


@contextmanager
def keyed(keys: Tensor) -> Iterator[None]:
    """Draw with the keys (B,) of the sentences of a batch, int64."""
    token = _keys.set(keys)
    try:
        yield
    finally:
        _keys.reset(token)


def entry_keys(seed: int, update: int, count: int, *, number: int = 0) -> Tensor:
    """Return the keys (count,) of the sentences of an update, in the order of its plan, int64.

    Args:
        seed: Of the run.
        update: The first is 1.
        count: Sentences.
        number: Of the pass; a sentence that passes twice draws anew.
    """
    base = fold(seed, update, number)
    return mix_(signed(base) + (torch.arange(count) + 1) * signed(GAMMA))


def seed_others(seed: int, update: int) -> None:
    """Seed torch's generator, which an extension may draw from, for an update."""
    torch.manual_seed(fold(seed, update) >> 1)


def stream(key: int) -> Callable[[], float]:
    """Return a function that gives number after number in [0, 1), on the CPU."""
    counter = 0

    def uniform() -> float:
        nonlocal counter
        counter += 1
        return (mix(key + counter * GAMMA) >> 11) * 2.0**-53

    return uniform


def fold(*numbers: int) -> int:
    """Return a key of 64 bits made of some numbers."""
    key = 0
    for number in numbers:
        key = mix(key + (number + 1) * GAMMA)
    return key


def mix(z: int) -> int:
    """Return the output of SplitMix64 for a state, both of 64 bits."""
    z %= 1 << 64
    for shift, multiplier in zip(SHIFTS[:2], MULTIPLIERS, strict=True):
        z = (z ^ z >> shift) * multiplier % (1 << 64)
    return z ^ z >> SHIFTS[2]


def mix_(z: Tensor) -> Tensor:
    """`mix`, in place: int64 wraps around as unsigned numbers of 64 bits do."""
    for shift, multiplier in zip(SHIFTS[:2], MULTIPLIERS, strict=True):
        z = z.bitwise_xor_(shifted(z, shift)).mul_(signed(multiplier))
    return z.bitwise_xor_(shifted(z, SHIFTS[2]))


def shifted(z: Tensor, by: int) -> Tensor:
    """Shift to the right and fill with zeros; torch fills with the sign."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def signed(number: int) -> int:
    """Return the int64 of the same 64 bits."""
    return number - (1 << 64) if number >> 63 else number
