"""Samplers that know nothing of the past: uniform, Poisson, by samples, in turn, everybody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from attrs import define

from fscore.component import state
from fscore.kinds.sampler import Sampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fscore.course import Course
    from fscore.kinds.population import Population

Scheme = Literal["fixed", "poisson", "all", "other"]


def without_replacement(
    weights: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return `count` places, by successive draws in proportion to weights (places,).

    By the keys of Efraimidis and Spirakis (2006): the largest of u^(1/w).
    """
    keys = np.log(rng.random(len(weights))) / np.maximum(weights, 1e-300)
    return np.argsort(-keys, kind="stable")[:count]


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
class Poisson(Sampler):
    """Each client with the same probability, independently: what accountants of differential privacy mean by sampling.

    `clients` is the expected number, or the probability itself. The number drawn is binomial, whatever number is asked for.
    A draw of nobody is a draw: it makes a version of nobody's updates. The cost grows with the number drawn, not with the
    population: the gaps between those drawn are geometric (Vitter, ACM TOMS 1987, section 2).
    """

    name = "poisson"
    scheme: ClassVar[Scheme] = "poisson"
    needs = frozenset({"closed_cohort"})

    def check(self, course: Course) -> Iterable[str]:
        """Refuse what would bound or change the number drawn."""
        yield from super().check(course)
        if self.over_selection != 1.0:
            yield (
                f"sampler.over_selection: 'poisson' draws a random number of clients, got {self.over_selection!r}. "
                "Remedy: raise sampler.clients."
            )
        if getattr(course.protocol, "concurrency", None) is not None:
            yield (
                "protocol.concurrency: sampler 'poisson' draws a random number of clients, which no bound may cut. "
                "Remedy: remove the line."
            )

    def rate(self, population: Population) -> float:
        """Return the probability of each client."""
        if isinstance(self.clients, float):
            return self.clients
        return self.clients / population.participants

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        drawn = skipping(population.size, self.rate(population), rng)
        free = population.free(drawn, now)
        return [client for client, able in zip(drawn, free, strict=True) if able]


def skipping(size: int, rate: float, rng: np.random.Generator) -> list[int]:
    """Return each of 0 .. size - 1 with probability `rate`, ascending, by geometric gaps."""
    found: list[int] = []
    last = -1
    while last < size:
        gaps = rng.geometric(rate, size=max(16, int(rate * size)))
        places = last + np.cumsum(np.minimum(gaps, size + 1))
        found += [int(i) for i in places[places < size]]
        last = int(places[-1])
    return found


@define(eq=False, slots=False)
class Weighted(Sampler):
    """Free clients with probability proportional to their samples, without replacement; linear in the population."""

    name = "weighted"

    def bind(self, course: Course) -> None:
        self.dataset = course.dataset

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        free = population.everybody_free(now)
        weights = np.array([self.dataset.samples(client) for client in free], dtype=float)
        return sorted(free[i] for i in without_replacement(weights, count, rng))


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
