"""Attacks in which the controlled clients agree on what they send, knowing honest updates: ALIE, IPM, min-max, min-sum.

All send the same vector, so that no rule that compares updates finds an outlier. `knowledge` says whose honest updates they
know: everybody's (omniscient), or what the controlled clients would have sent if they were honest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
from attrs import define

from fs_byzantine.base import Byzantine
from fscore.component import finite, gt, option

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from fscore.course import Course
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Colluding(Byzantine):
    """Controlled clients that all send one vector, made of honest updates."""

    knowledge: Literal["all", "controlled"] = option(
        "all",
        doc="Whose honest updates it knows: those of the whole cohort, or of its own clients.",
    )

    @property
    def colludes(self) -> Literal["all", "controlled"]:  # type: ignore[override]
        """Whose honest updates the kernel shows it."""
        return self.knowledge

    def advise(self, course: Course) -> Iterable[str]:
        """Say where nobody could know what it knows."""
        yield from super().advise(course)
        if self.knowledge == "all" and "individual_updates" in course.removed:
            yield (
                f"{self.key}.knowledge: single updates are hidden in this course, but '{self.name}' knows them all. "
                "Remedy: set it to 'controlled'."
            )

    def craft(
        self,
        honest: torch.Tensor,
        mine: Sequence[int],
        cohort: Cohort,
        rng: np.random.Generator,
    ) -> torch.Tensor:
        own = honest[list(mine)]
        tasks = [task for task in cohort.tasks if task.client in self.controlled]
        acting = honest.new_tensor([self.acts(task.version) for task in tasks]).bool()[:, None]
        if not acting.any():
            return own
        others = [place for place in range(len(honest)) if place not in set(mine)]
        known = honest[others] if others else own
        sent = self.agreed(known, cohort, rng)
        return sent.to(own.dtype).where(acting, own)

    def agreed(self, known: torch.Tensor, cohort: Cohort, rng: np.random.Generator) -> torch.Tensor:
        """Return what they all send (values,).

        Args:
            known: (honest, values) updates of clients that they do not control; of their own ones, if they know no other.
        """
        raise NotImplementedError

    def attackers(self, cohort: Cohort) -> int:
        """Return how many of a cohort's tasks are of its clients."""
        return sum(task.client in self.controlled for task in cohort.tasks)


def z_max(clients: int, attackers: int) -> float:
    """Return how many standard deviations ALIE may go: Phi^-1((n - f - s) / (n - f)), s = floor(n / 2) + 1 - f.

    Not above 0 where the attackers are too few to find supporters; infinite where they need none.
    """
    share = (clients - attackers - (clients // 2 + 1 - attackers)) / (clients - attackers)
    return math.inf if share >= 1 else NormalDist().inv_cdf(share) if share > 0 else -math.inf


@define(eq=False, slots=False)
class ALIE(Colluding):
    """A little is enough (Baruch et al., NeurIPS 2019, algorithm 3): mean plus z standard deviations of each coordinate."""

    name = "alie"
    z: float | None = option(
        None,
        doc="Standard deviations; default: the largest that enough honest clients exceed, of the cohort's size.",
        validator=finite(),
    )

    def agreed(self, known: torch.Tensor, cohort: Cohort, rng: np.random.Generator) -> torch.Tensor:
        z = self.z
        if z is None:
            z = max(0.0, min(z_max(len(cohort.tasks), self.attackers(cohort)), MOST))
        return known.mean(dim=0) + z * spread(known)

    def advise(self, course: Course) -> Iterable[str]:
        """Say where it will do nothing."""
        yield from super().advise(course)
        clients = int(course.sampler.wanted(course.population))
        share = self.count(course.population) / course.population.participants
        attackers = round(share * clients)
        z = z_max(clients, attackers) if self.z is None else self.z
        if z <= 0 and attackers:
            yield (
                f"{self.key}.z: with {attackers} of a version's {clients} updates z is {z:.2g}, so that 'alie' sends no "
                "more than the honest mean. Remedy: raise clients, or set z."
            )


MOST = 10.0
"""Standard deviations of ALIE where the attackers are a majority and z has no bound."""


def spread(rows: torch.Tensor) -> torch.Tensor:
    """Return the unbiased standard deviation (values,) of rows; of a single row zero."""
    return rows.std(dim=0) if len(rows) > 1 else rows[0] * 0


@define(eq=False, slots=False)
class IPM(Colluding):
    """Inner product manipulation (Xie et al., Fall of Empires, UAI 2019): the honest mean times -epsilon."""

    name = "ipm"
    epsilon: float = option(0.5, doc="Length, relative to the honest mean.", validator=gt(0))

    def agreed(self, known: torch.Tensor, cohort: Cohort, rng: np.random.Generator) -> torch.Tensor:
        return -self.epsilon * known.mean(dim=0)


@define(eq=False, slots=False)
class Distance(Colluding):
    """The honest mean, moved along a direction as far as a bound on distances allows (Shejwalkar and Houmansadr, NDSS 2021).

    The bound is a quadratic inequality in the length gamma, so that the largest gamma has a closed form.
    """

    direction: Literal["std", "unit", "sign"] = option(
        "std",
        doc="Along minus the standard deviations, the honest mean's unit vector, or its signs.",
    )

    def agreed(self, known: torch.Tensor, cohort: Cohort, rng: np.random.Generator) -> torch.Tensor:
        honest = known.double()
        mean, way = honest.mean(dim=0), self._way(honest)
        return mean.add(way, alpha=self.longest(honest - mean, way))

    def _way(self, honest: torch.Tensor) -> torch.Tensor:
        import torch

        mean = honest.mean(dim=0)
        if self.direction == "std":
            return -spread(honest)
        if self.direction == "sign":
            return -mean.sign()
        return -torch.nn.functional.normalize(mean, dim=0)

    def longest(self, apart: torch.Tensor, way: torch.Tensor) -> float:
        """Return the largest gamma.

        Args:
            apart: (honest, values) float64, honest updates less their mean. way: (values,) direction.
        """
        raise NotImplementedError


def far_apart(apart: torch.Tensor) -> NDArray[np.float64]:
    """Return the squared distances (honest, honest) of centred rows."""
    products = (apart @ apart.T).numpy()
    lengths = np.diagonal(products)
    return np.maximum(lengths[:, None] + lengths[None, :] - 2 * products, 0.0)  # type: ignore[no-any-return]


def largest_root(a: float, b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the larger root of a g^2 - 2 b g - c, for a > 0 and c >= 0."""
    return (b + np.sqrt(b * b + a * c)) / a


@define(eq=False, slots=False)
class MinMax(Distance):
    """Min-max: no farther from any honest update than the farthest two are from each other."""

    name = "min_max"

    def longest(self, apart: torch.Tensor, way: torch.Tensor) -> float:
        bound = far_apart(apart).max()
        length = float(way @ way)
        if not length:
            return 0.0
        along, own = (apart @ way).numpy(), apart.square().sum(dim=1).numpy()
        return float(largest_root(length, along, np.maximum(bound - own, 0.0)).min())


@define(eq=False, slots=False)
class MinSum(Distance):
    """Min-sum: its sum of squared distances to honest updates is no larger than any honest one's."""

    name = "min_sum"

    def longest(self, apart: torch.Tensor, way: torch.Tensor) -> float:
        bound = far_apart(apart).sum(axis=1).max()
        length = float(way @ way) * len(apart)
        if not length:
            return 0.0
        rest = np.asarray(max(bound - float(apart.square().sum()), 0.0))
        return float(largest_root(length, np.zeros(()), rest))
