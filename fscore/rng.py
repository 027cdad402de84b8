"""Named, counter-based random streams from one seed.

A stream is named by a purpose and keyed by integers (client, task, version). Its numbers are a hash of the key, so they
do not depend on what else was drawn, and are the same for one client at a time or for a thousand at once. Nothing in
fscore uses a global generator.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_MASK = (1 << 64) - 1
GOLDEN, _MUL1, _MUL2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@lru_cache(maxsize=1024)
def _purpose(seed: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014) on one integer."""
    value = (value + GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _MUL1) & _MASK
    value = ((value ^ (value >> 27)) * _MUL2) & _MASK
    return value ^ (value >> 31)


def _mix_array(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(GOLDEN)
    values ^= values >> np.uint64(30)
    values *= np.uint64(_MUL1)
    values ^= values >> np.uint64(27)
    values *= np.uint64(_MUL2)
    values ^= values >> np.uint64(31)
    return values


@lru_cache(maxsize=16)
def _counters(count: int) -> NDArray[np.uint64]:
    return np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN)


@frozen
class Streams:
    """All random streams of one course."""

    seed: int

    def key(self, purpose: str, *key: int) -> int:
        """Return a 64-bit hash of (seed, purpose, key): a seed for any generator."""
        value = _purpose(self.seed, purpose)
        for part in key:
            value = mix(value ^ (part & _MASK))
        return value

    def numbers(self, purpose: str, *key: int, count: int) -> NDArray[np.uint64]:
        """Return `count` uniform 64-bit numbers of one stream: shape (count,)."""
        return _mix_array(_counters(count) ^ np.uint64(self.key(purpose, *key)))

    def bits(
        self, purpose: str, clients: ArrayLike, tasks: ArrayLike, *further: ArrayLike, count: int
    ) -> NDArray[np.uint64]:
        """Return `numbers` of many (client, task, *further) keys at once: shape (clients, count)."""
        start = np.full(np.shape(clients), _purpose(self.seed, purpose), dtype=np.uint64)
        for part in (clients, tasks, *further):
            start = _mix_array(start ^ np.asarray(part, dtype=np.int64).astype(np.uint64))
        return _mix_array(_counters(count)[None, :] ^ start[:, None])

    def uniform(self, purpose: str, *key: int, count: int) -> NDArray[np.float64]:
        """Return `count` floats in [0, 1) with 53 random bits each: shape (count,)."""
        return (self.numbers(purpose, *key, count=count) >> np.uint64(11)) * np.float64(2.0**-53)

    def generator(self, purpose: str, *key: int) -> np.random.Generator:
        """Return a numpy generator for sequential use."""
        return np.random.Generator(np.random.Philox(self.key(purpose, *key)))

    @contextlib.contextmanager
    def torch(self, purpose: str, *key: int) -> Iterator[Any]:
        """Seed torch's generator inside the block and restore it after it; generators of GPUs are left alone.

        For code that offers no generator argument: module initialisation and dropout, which are computed on the CPU.
        Asking for a GPU's generator would begin CUDA, which a forked worker cannot.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.key(purpose, *key) & (2**63 - 1))
            yield


class LazyGenerator:
    """A numpy generator that is made when it is first used."""

    def __init__(self, streams: Streams, *key: Any) -> None:
        self._made: np.random.Generator | None = None
        self._streams, self._key = streams, key

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = self._streams.generator(*self._key)
        return getattr(self._made, name)
