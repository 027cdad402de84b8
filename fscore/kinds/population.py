"""The population: all clients, as ids rather than objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import numpy as np


@frozen
class Population:
    """Answers for the ids asked about; it never lists everybody.

    size: number of clients, ids 0 .. size - 1. unseen: those that never take part in training.
    """

    size: int
    unseen: Collection[int]
    _free: Callable[[Sequence[int], float], Sequence[bool]]

    @property
    def participants(self) -> int:
        """How many clients may take part."""
        return self.size - len(self.unseen)

    def free(self, clients: Sequence[int], now: float) -> Sequence[bool]:
        """Return which of the clients take part, are online, and have no task."""
        return self._free(clients, now)

    def draw(self, count: int, now: float, rng: np.random.Generator) -> list[int]:
        """Return up to `count` different free clients, uniformly, in ascending order.

        Its cost does not grow with the population, unless almost nobody is free.
        """
        chosen: dict[int, None] = {}
        refused: set[int] = set()
        while len(chosen) < count and 4 * (len(refused) + count) < self.size:
            ids = [int(i) for i in rng.integers(self.size, size=2 * (count - len(chosen)))]
            for client, free in zip(ids, self.free(ids, now), strict=True):
                if not free:
                    refused.add(client)
                elif len(chosen) < count:
                    chosen.setdefault(client)
        if len(chosen) < count:
            left = [i for i in self.everybody_free(now) if i not in chosen]
            for i in rng.permutation(len(left))[: count - len(chosen)]:
                chosen.setdefault(left[i])
        return sorted(chosen)

    def everybody_free(self, now: float) -> list[int]:
        """Return all free clients, ascending; linear in the population."""
        ids = range(self.size)
        return [i for i, free in zip(ids, self.free(ids, now), strict=True) if free]
