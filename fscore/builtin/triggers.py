"""Built-in triggers: when a cohort is ready."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define

from fscore.component import gt, option, state
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
        None, doc="Results of a version: a number, or a share of the clients wanted.", validator=gt(0)
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
    """Ready when the time budget of a version is used up, with what arrived by then."""

    name = "time_up"
    budget: float = option(doc="Virtual seconds of a version.", validator=gt(0))
    if_empty: Literal["extend", "resample"] = option(
        "extend", doc="When nobody arrived: wait another budget, or sample more clients as well."
    )
    deadline: tuple[int, float] = state(lambda: (-1, 0.0))

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        if now < self._deadline(pool, now):
            return ()
        return [task for task, _ in pool.arrived]

    def wake(self, pool: Pool, now: float) -> float | None:
        deadline = self._deadline(pool, now)
        if deadline <= now:  # nobody arrived by then
            if self.if_empty == "resample" and not pool.in_flight:
                return None
            deadline = now + self.budget
            self.deadline = (pool.version, deadline)
        return deadline

    def _deadline(self, pool: Pool, now: float) -> float:
        version, deadline = self.deadline
        return deadline if version == pool.version else pool.since + self.budget
