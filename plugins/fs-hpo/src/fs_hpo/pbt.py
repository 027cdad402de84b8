"""Population based training: trials side by side, of which the worst go on as changed copies of the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fs_hpo.sampling import Proposing
from fscore.builtin.tuning.lineage import changeable
from fscore.builtin.tuning.space import Axis, Params, axes
from fscore.component import Scalar, between, ge, gt, option, state
from fscore.kinds.tuner import Report, Trial

if TYPE_CHECKING:
    import numpy as np

    from fscore.course import Course


@define(eq=False, slots=False)
class PBT(Proposing):
    """Population based training (Jaderberg et al., arXiv 1711.09846, 2017, sections 3 and 4.1).

    Every `interval` versions the worst `quantile` of the population are replaced by copies of members of the best
    `quantile` (truncation selection), whose options are multiplied by `factor` or its inverse, or drawn anew with
    probability `resample`. The result is a schedule, so that only options that may differ by task can be searched.
    """

    name = "pbt"
    population: int = option(8, doc="Courses side by side.", validator=ge(2))
    interval: int = option(1, doc="Versions between selections.", validator=ge(1))
    quantile: float = option(0.25, doc="Share that is replaced.", validator=between(0, 0.5))
    factor: float = option(1.2, doc="Perturbation of numbers, up or down.", validator=gt(1))
    resample: float = option(
        0.25, doc="Probability that an option is drawn anew.", validator=between(0, 1)
    )
    members: list[tuple[int, Params]] = state(list)
    """Trial and options."""
    losses: dict[int, float] = state(dict)
    reached: int = state(int)
    used: int = state(int)
    """Trials begun."""
    selections: int = state(int)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a budget below one selection, and options that cannot change while a course runs."""
        limit, first = self.budget.versions, min(self.interval, self.versions)
        if limit is not None and limit < self.population * first:
            yield (
                f"tune.budget.versions: {limit} versions do not pay for the first {first} of {self.population} trials. "
                "Remedy: raise it, or lower tune.population."
            )
        for axis in axes(self.space):
            if not changeable(course.components, axis.key):
                yield (
                    f"tune.space.{axis.key}: 'pbt' changes options while a course runs, and this one may not differ by "
                    "task. Remedy: leave it out, or search for it with another tuner."
                )

    def ask(self) -> Sequence[Trial]:
        if self.reached >= self.versions:
            return ()
        forks: dict[int, int] = {}
        if not self.reached:
            self.members = [self._new(self.propose()) for _ in range(self.population)]
        else:
            forks = self._select()
        self.reached = min(self.reached + self.interval, self.versions)
        self.losses = {}
        return [
            Trial(trial, params, self.reached, forks.get(trial)) for trial, params in self.members
        ]

    def tell(self, trial: Trial, report: Report | None) -> None:
        if report is not None:
            self.losses[trial.id] = self.loss(report)

    def _new(self, params: Params) -> tuple[int, Params]:
        self.used += 1
        return self.used - 1, params

    def _select(self) -> dict[int, int]:
        """Replace failed and bad members; return the sources of the new ones."""
        rng = self.rng(2**31 + self.selections)
        self.selections += 1
        whole = [m for m in self.members if m[0] in self.losses]
        ranked = sorted(whole, key=lambda member: (self.losses[member[0]], member[0]))
        count = int(self.quantile * self.population)
        best = ranked[: max(1, count)]
        bad = {m[0] for m in self.members} - {
            m[0] for m in ranked[: max(1, self.population - count)]
        }
        members, forks = [], {}
        for member in self.members if best else ():
            if member[0] in bad:
                source, params = best[int(rng.integers(len(best)))]
                member = self._new(explored(axes(self.space), params, self, rng))
                forks[member[0]] = source
            members.append(member)
        self.members = members
        return forks


def explored(space: Sequence[Axis], params: Params, tuner: PBT, rng: np.random.Generator) -> Params:
    """Return changed options: each drawn anew with probability `resample`, else perturbed."""
    found: Params = {}
    for axis in space:
        anew, share, up = rng.random(), float(rng.random()), bool(rng.random() < 0.5)
        if not axis.holds(found):
            continue
        if anew < tuner.resample or axis.key not in params:
            found[axis.key] = axis.at(share)
        else:
            found[axis.key] = perturbed(axis, params[axis.key], tuner.factor, up=up)
    return found


def perturbed(axis: Axis, value: Scalar, factor: float, *, up: bool) -> Scalar:
    """Return a number times `factor` or its inverse, inside its range; of a list, the neighbour.

    An integer moves by one at least.
    """
    if axis.values:
        place = axis.values.index(value) + (1 if up else -1)
        return axis.values[min(max(place, 0), len(axis.values) - 1)]
    changed = float(value) * (factor if up else 1 / factor)
    if axis.whole:
        changed = max(round(changed), int(value) + 1) if up else min(round(changed), int(value) - 1)
    changed = min(max(changed, axis.low), axis.high)
    return int(changed) if axis.whole else float(changed)
