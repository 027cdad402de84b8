"""Built-in triggers: when a cohort is ready."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define, validators

from fscore.component import finite, gt, option
from fscore.kinds.trigger import Trigger

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.kinds.trigger import Pool
    from fscore.tasks import Task


@define(eq=False, slots=False)
class AllReceived(Trigger):
    """Ready when nothing is in flight any more: the synchronous round."""

    name = "all_received"

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        return () if pool.in_flight else [task for task, _ in pool.arrived]


@define(eq=False, slots=False)
class GoalAchieved(Trigger):
    """Ready when enough results arrived; it takes the first of them (Nguyen et al., FedBuff, AISTATS 2022)."""

    name = "goal_achieved"
    goal: int | float | None = option(
        None,
        doc="Results of a version: a number, or a share of the clients wanted.",
        validator=gt(0),
    )

    def check(self, course: Course) -> Iterable[str]:
        issued = course.protocol.tasks_at_once(course)
        goal = self._goal(course.sampler.wanted(course.population))
        if goal > issued:
            yield (
                f"trigger.goal: {goal} results, but only {issued} tasks are in flight. "
                "Remedy: lower it, or raise sampler.clients."
            )

    def _goal(self, wanted: int) -> int:
        if isinstance(self.goal, int):
            return self.goal
        return max(1, math.ceil((1.0 if self.goal is None else self.goal) * wanted - 1e-9))

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        goal, arrived = self._goal(pool.wanted), pool.arrived
        return [task for task, _ in arrived[:goal]] if len(arrived) >= goal else ()


@define(eq=False, slots=False)
class TimeUp(Trigger):
    """Takes whatever arrived when a budget of virtual time after the last version is spent.

    Where nobody arrived in time, `extend` moves the deadline by whole budgets until somebody has; `resample` waits no
    longer than for the first late result. Either way, clients are sampled again as soon as nobody is under way.
    """

    name = "time_up"
    budget: float = option(
        doc="Virtual seconds per version.", validator=validators.and_(gt(0), finite())
    )
    if_empty: Literal["extend", "resample"] = option(
        "extend",
        doc="When nobody arrived in time: 'extend' by another budget, or 'resample'.",
    )

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        if not pool.arrived or now < self.deadline(pool):
            return ()
        return [task for task, _ in pool.arrived]

    def wake(self, pool: Pool, now: float) -> float | None:
        """Return the deadline of what arrived; while nobody has, only an arrival can change anything."""
        return self.deadline(pool) if pool.arrived else None

    def deadline(self, pool: Pool) -> float:
        """Return the first deadline at or after the first arrival (`extend`), or the first of all (`resample`)."""
        first = pool.since + self.budget
        arrival = pool.arrived[0][1]
        if self.if_empty == "resample" or arrival <= first:
            return first
        budgets = math.ceil((arrival - pool.since) / self.budget)
        return max(
            pool.since + budgets * self.budget, arrival
        )  # rounding must not put it before the arrival
