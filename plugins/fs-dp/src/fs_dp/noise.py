"""Gaussian noise on a grid: sums and noise are integers, so that no output betrays its input by its bits.

Floating point Gaussians leave gaps that tell neighbouring inputs apart (Mironov, CCS 2012). Here a value is rounded to a
grid whose step is the standard deviation over 2^24, and integer noise is added to it. Two neighbouring sums differ on the
grid by at most sensitivity + step * sqrt(d); the standard deviation is enlarged by exactly that, so that the noise
multiplier which the ledger is charged is the true one. What follows (scaling, float32) is post-processing.

`Secure` draws exact discrete Gaussians (Canonne, Kamath and Steinke, NeurIPS 2020, algorithms 1 to 3) from the operating
system's generator; their Renyi divergences are bounded by those of the Gaussian (same, proposition 5). `Seeded` rounds a
pseudorandom Gaussian: it repeats, and whoever knows the seed knows the noise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fscore.errors import CourseError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

SCALE_BITS = 24
SCALE = 1 << SCALE_BITS
"""Standard deviation of the noise in steps of the grid."""
LARGEST = 2.0**62
"""Steps from zero at most: beyond lie values that nobody clipped, and integers that wrap around."""
_SLACK = 2.0**-20
"""Relative error that float32 arithmetic may leave on a clipped norm."""


class Source(Protocol):
    """Where noise comes from."""

    def gaussian(self, count: int, clients: int = 1) -> NDArray[np.int64]:
        """Return `clients * count` integers of standard deviation `SCALE`, client after client."""

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return `count` numbers in [0, 1)."""


class Seeded:
    """Repeatable noise, for tests and examples; it protects against nobody who knows the seed.

    Args:
        rng: of one client, or of many: then each of its draws is one of all of them, stacked.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def gaussian(self, count: int, clients: int = 1) -> NDArray[np.int64]:
        """Return `clients * count` integers of standard deviation `SCALE`, client after client."""
        return np.rint(self._rng.standard_normal(count) * SCALE).astype(np.int64).reshape(-1)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return `count` numbers in [0, 1)."""
        return self._rng.random(count)


class Secure:
    """Noise from the operating system's generator; nobody can draw it again.

    Args:
        entropy: returns so many random bytes; replaced in tests only.
    """

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return `count` numbers in [0, 1) with 53 random bits each."""
        return self._integers(count, 53) * np.float64(2.0**-53)

    def gaussian(self, count: int, clients: int = 1) -> NDArray[np.int64]:
        """Return `clients * count` exact discrete Gaussians of parameter `SCALE` (CKS 2020, algorithm 3)."""
        pieces: list[NDArray[np.int64]] = []
        missing = count * clients
        while missing > 0:
            drawn = self._laplace(int(1.4 * missing) + 16)
            distance = (np.abs(drawn) - SCALE) ** 2
            kept = drawn[self._survives(distance, 2 * SCALE_BITS + 1)][:missing]
            pieces.append(kept)
            missing -= len(kept)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def _laplace(self, least: int) -> NDArray[np.int64]:
        """Return about `least` discrete Laplace numbers of scale `SCALE` (CKS 2020, algorithm 2)."""
        fine = self._integers(int(1.7 * least) + 16, SCALE_BITS)
        fine = fine[self._survives(fine, SCALE_BITS)]
        magnitude = fine + SCALE * self._geometric(len(fine))
        negative = self._integers(len(fine), 1).astype(bool)
        kept = ~(negative & (magnitude == 0))
        signed: NDArray[np.int64] = np.where(negative, -magnitude, magnitude)[kept]
        return signed

    def _geometric(self, count: int) -> NDArray[np.int64]:
        """Return how many successes of probability 1/e come before the first failure."""
        successes = np.zeros(count, np.int64)
        alive = np.arange(count)
        while len(alive):
            alive = alive[self._survives(np.ones(len(alive), np.int64), 0)]
            successes[alive] += 1
        return successes

    def _survives(self, exponent: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
        """Return Bernoulli(exp(-exponent / 2^bits)), exactly; exponents are not negative."""
        whole, rest = exponent >> bits, exponent & ((1 << bits) - 1)
        alive = self._survives_below_one(rest, bits)
        turns = np.flatnonzero(alive & (whole > 0))
        turn = 0
        while len(turns):
            turn += 1
            lucky = self._survives_below_one(np.ones(len(turns), np.int64), 0)
            alive[turns[~lucky]] = False
            turns = turns[lucky & (whole[turns] > turn)]
        return alive

    def _survives_below_one(self, numerator: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
        """Return Bernoulli(exp(-numerator / 2^bits)) for exponents in [0, 1] (CKS 2020, algorithm 1)."""
        odd = np.ones(len(numerator), bool)
        alive = np.arange(len(numerator))
        turn = 0
        while len(alive):
            turn += 1
            happens = self._integers(len(alive), bits) < numerator[alive]
            if turn > 1:
                happens &= self._below(len(alive), turn) == 0
            alive = alive[happens]
            odd[alive] = turn % 2 == 0
        return odd

    def _integers(self, count: int, bits: int) -> NDArray[np.int64]:
        """Return uniform integers of so many bits, at most 62."""
        if not bits:
            return np.zeros(count, np.int64)
        kind: Any = np.uint32 if bits <= 32 else np.uint64
        width = np.dtype(kind).itemsize
        words = np.frombuffer(self._entropy(width * count), kind)
        found: NDArray[np.int64] = (words >> kind(8 * width - bits)).astype(np.int64)
        return found

    def _below(self, count: int, bound: int) -> NDArray[np.int64]:
        """Return uniform integers in [0, bound), by rejection."""
        limit = (1 << 32) - (1 << 32) % bound
        numbers = self._integers(count, 32)
        while len(bad := np.flatnonzero(numbers >= limit)):
            numbers[bad] = self._integers(len(bad), 32)
        return numbers % bound


def fits(multiplier: float, size: int) -> bool:
    """Whether rounding `size` numbers to the grid adds less than the sensitivity itself."""
    return multiplier * math.sqrt(size) < SCALE


def deviation(multiplier: float, sensitivity: float, size: int) -> float:
    """Return the standard deviation that gives `multiplier` on the grid.

    Args:
        multiplier: standard deviation over the true sensitivity.
        sensitivity: L2 distance of neighbouring values before they are rounded to the grid.
        size: d, how many numbers are rounded.

    Raises:
        CourseError: so many numbers leave no room for the grid.
    """
    if not fits(multiplier, size):
        raise CourseError(f"{size} numbers are too many for a grid of {SCALE} steps a deviation")
    return multiplier * sensitivity * (1 + _SLACK) / (1 - multiplier * math.sqrt(size) / SCALE)


def noised(
    values: Sequence[torch.Tensor],
    multiplier: float,
    sensitivity: float,
    source: Source,
    clients: int = 1,
) -> list[torch.Tensor]:
    """Return the values on the grid with noise added: same shapes and types.

    Args:
        values: floating point tensors that are finite; their joint L2 sensitivity is `sensitivity`.
        multiplier: greater than 0.
        clients: length of their first axis, where they hold values of many clients that are noised each by itself.
    """
    import torch

    size = sum(v.numel() for v in values) // clients
    step = deviation(multiplier, sensitivity, size) / SCALE
    made = []
    for value in values:
        steps = torch.round(value.double() / step).clamp(-LARGEST, LARGEST).to(torch.int64)
        noise = source.gaussian(value.numel() // clients, clients)
        steps += torch.from_numpy(noise).reshape(value.shape)
        made.append((steps.double() * step).to(value.dtype))
    return made
