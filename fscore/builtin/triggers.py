"""Built-in triggers: when a cohort is ready."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define

from fscore.builtin.bounds import POSITIVE
from fscore.component import gt, option
from fscore.kinds.trigger import Trigger

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.kinds.trigger import Pool
    from fscore.tasks import Task

Flags = tuple[frozenset[str], frozenset[str], frozenset[str]]


@define(eq=False, slots=False)
class AllReceived(Trigger):
    """Ready when nothing is in flight any more: the synchronous round."""

    name = "all_received"
    provides = frozenset({"closed_cohort"})

    def check(self, course: Course) -> Iterable[str]:
        """Refuse to wait for all while each arrival sends out another."""
        yield from _waits_for_ever(self, course)

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        return () if pool.in_flight else [task for task, _ in pool.arrived]


@define(eq=False, slots=False)
class PerTier(Trigger):
    """Ready when all of one wave came or were lost: with the sampler `tiers`, each tier's own synchronous round.

    FedAT (Chai et al., SC 2021): synchronous inside a tier, asynchronous across tiers.
    """

    name = "per_tier"
    needs = frozenset({"tiers"})
    provides = frozenset({"closed_cohort"})
    removes = frozenset({"fresh_updates"})

    def check(self, course: Course) -> Iterable[str]:
        """Refuse to wait for a whole wave while each arrival sends out another."""
        yield from _waits_for_ever(self, course)

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        if not pool.waiting:
            return ()
        running = {task.wave for task in pool.flying()}
        arrived = [task for task, _ in pool.arrived]
        done = next((task.wave for task in arrived if task.wave not in running), None)
        return [task for task in arrived if task.wave == done]


@define(eq=False, slots=False)
class Early(Trigger):
    """What triggers have in common that fire while tasks are under way.

    Unless the protocol gives those up with each version, late results meet a later version.
    """

    def bind(self, course: Course) -> None:
        """Remember what becomes of late results."""
        self.closes = bool(getattr(course.protocol, "closes", False))

    def flags(self) -> Flags:
        needs, provides, removes = super().flags()
        if self.closes:
            return needs, provides | {"closed_cohort"}, removes
        return needs | {"open_cohort"}, provides, removes | {"fresh_updates"}


def goal_of(goal: float | None, wanted: int) -> int:
    """Return a goal as a number of results: a number, a share of the clients wanted, or all of them."""
    if isinstance(goal, int):
        return goal
    return max(1, math.ceil((1.0 if goal is None else goal) * wanted - 1e-9))


@define(eq=False, slots=False)
class Goal(Early):
    """What triggers have in common that wait for a number of results."""

    goal: int | float | None = option(
        None,
        doc="Results of a version: a number, or a share of the clients wanted.",
        validator=gt(0),
    )

    def check(self, course: Course) -> Iterable[str]:
        """Say where a goal is larger than what is in flight."""
        issued = course.protocol.tasks_at_once(course)
        results = goal_of(self.goal, course.sampler.wanted(course.population))
        if results > issued:
            yield (
                f"trigger.goal: {results} results, but only {issued} tasks are in flight. "
                "Remedy: lower it, or raise sampler.clients."
            )

    def reached(self, pool: Pool) -> Sequence[Task]:
        """Return the first results, as many as the goal; none: there are fewer."""
        goal = goal_of(self.goal, pool.wanted)
        return [task for task, _ in pool.arrived[:goal]] if pool.waiting >= goal else ()


@define(eq=False, slots=False)
class GoalAchieved(Goal):
    """Ready when enough results arrived; it takes the first of them (Nguyen et al., FedBuff, AISTATS 2022)."""

    name = "goal_achieved"

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        return self.reached(pool)


@define(eq=False, slots=False)
class TimeUp(Early):
    """Takes whatever arrived when a budget of virtual time after the last version is spent.

    Where nobody arrived in time, `extend` moves the deadline by whole budgets until somebody has, as FederatedScope does
    (Xie et al., VLDB 2023); `resample` gives up who is under way and samples others, for another budget. Either way clients
    are sampled again as soon as nobody is under way.
    """

    name = "time_up"
    budget: float = option(doc="Virtual seconds per version.", validator=POSITIVE)
    if_empty: Literal["extend", "resample"] = option(
        "extend",
        doc="When nobody arrived in time: 'extend' by another budget, or 'resample'.",
    )

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        if not pool.waiting or now < self.deadline(pool):
            return ()
        return [task for task, _ in pool.arrived]

    def wake(self, pool: Pool, now: float) -> float | None:
        """Return the deadline, where it does not wait for an arrival (`extend`, while nobody has)."""
        if pool.waiting:
            return self.deadline(pool)
        if self.if_empty == "extend" or not pool.in_flight:
            return None
        return self._begun(pool) + self.budget

    def given_up(self, pool: Pool, now: float) -> Sequence[Task]:
        """Return everybody under way, where the budget is spent and `resample` is set."""
        if pool.waiting or self.if_empty == "extend" or not pool.in_flight:
            return ()
        return tuple(pool.flying()) if now >= self._begun(pool) + self.budget else ()

    def deadline(self, pool: Pool) -> float:
        """Return the first deadline that is not before the first arrival."""
        begun = self._begun(pool)
        first, arrival = begun + self.budget, pool.arrived[0][1]
        if self.if_empty == "resample" or arrival <= first:
            return first
        budgets = math.ceil((arrival - begun) / self.budget)
        return max(
            begun + budgets * self.budget, arrival
        )  # rounding must not put it before the arrival

    def _begun(self, pool: Pool) -> float:
        """Return when the budget began: with the version, or with the oldest task that is not given up."""
        if self.if_empty == "extend":
            return pool.since
        issues = [task.issued_at for task in pool.flying()]
        issues += [task.issued_at for task, _ in pool.arrived]
        return max(pool.since, min(issues))


@define(eq=False, slots=False)
class GoalOrDeadline(Goal, TimeUp):
    """Ready when enough results arrived, and at the latest when the budget is spent (Bonawitz et al., MLSys 2019, 2.2)."""

    name = "goal_or_deadline"

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        return self.reached(pool) or TimeUp.ready(self, pool, now)


def _waits_for_ever(trigger: Trigger, course: Course) -> Iterable[str]:
    if getattr(course.protocol, "broadcast", "") == "after_receiving":
        yield (
            f"trigger.use: '{trigger.name}' waits until nobody is under way, but with broadcast = 'after_receiving' "
            "each arrival sends out another. Remedy: 'goal_achieved', or broadcast = 'after_aggregating'."
        )
