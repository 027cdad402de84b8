"""Built-in samplers: who takes part next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from attrs import define

from fscore.component import state
from fscore.kinds.sampler import Sampler

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.kinds.population import Population

Scheme = Literal["fixed", "poisson", "all", "other"]


@define(eq=False, slots=False)
class Uniform(Sampler):
    """A fixed number of free clients, uniformly without replacement."""

    name = "uniform"
    scheme: ClassVar[Scheme] = "fixed"

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        return population.draw(count, now, rng)


@define(eq=False, slots=False)
class Weighted(Sampler):
    """Free clients with probability proportional to their samples, without replacement; linear in the population.

    The keys of Efraimidis and Spirakis (2006): the largest of u^(1/w).
    """

    name = "weighted"

    def bind(self, course: Course) -> None:
        self.dataset = course.dataset

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        free = population.everybody_free(now)
        weights = np.array([self.dataset.samples(client) for client in free], dtype=float)
        keys = np.log(rng.random(len(free))) / np.maximum(weights, 1e-300)
        return sorted(free[i] for i in np.argsort(-keys, kind="stable")[:count])


@define(eq=False, slots=False)
class RoundRobin(Sampler):
    """Free clients in the order of their ids, going on where the last selection ended."""

    name = "round_robin"
    cursor: int = state(int)

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        chosen: list[int] = []
        for step in range(population.size):
            client = (self.cursor + step) % population.size
            if len(chosen) == count:
                break
            if population.free([client], now)[0]:
                chosen.append(client)
        if chosen:
            self.cursor = (chosen[-1] + 1) % population.size
        return chosen


@define(eq=False, slots=False)
class All(Sampler):
    """Every free client: cross-silo courses."""

    name = "all"
    scheme: ClassVar[Scheme] = "all"
    provides = frozenset({"full_participation"})

    def check(self, course: Course) -> Iterable[str]:
        """Refuse options that do not go with everybody."""
        for key in ("clients", "over_selection"):
            if (value := getattr(self, key)) != 1.0 or isinstance(value, int):
                yield f"sampler.{key}: 'all' samples every client, got {value!r}. Remedy: remove the line."

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        return population.everybody_free(now)[:count]
