"""What all robust aggregators share: how many clients may lie, what comes before the rule, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field

from fs_robust.before import BEFORE, rows_before
from fscore.component import ge, option, state
from fscore.errors import CourseError
from fscore.kinds.aggregator import Aggregator
from fscore.rng import Streams

if TYPE_CHECKING:
    import torch

    from fscore.course import Course

BYZANTINE = "f: how many updates of a version may be Byzantine; a number, or a share of them."


def _known(instance: Any, attribute: Any, value: Any) -> None:
    for name in value:
        if name not in BEFORE:
            raise ValueError(f"expected some of {', '.join(map(repr, BEFORE))}, got {name!r}")


@define(eq=False, slots=False)
class Robust(Aggregator):
    """An aggregator that stands some Byzantine updates.

    All clients weigh the same: a weight is a number that the client states of itself, so that weighting by it would give a
    liar any influence that it likes. A rule overrides `rule`, and `needed`.
    """

    needs = frozenset({"individual_updates"})

    weighting: Literal["uniform"] = option(
        "uniform", doc="All clients weigh the same; what they state of themselves does not count."
    )
    byzantine: int | float = option(0, doc=BYZANTINE, validator=ge(0))
    before: list[str] = option(
        factory=list,
        doc="What is done to the updates before the rule, in this order: 'nnm', 'bucketing'.",
        validator=_known,
    )
    bucket_size: int = option(2, doc="Updates per bucket, of 'bucketing'.", validator=ge(1))
    calls: int = state(int)
    streams: Streams = field(factory=lambda: Streams(0), init=False)
    expected: int = field(default=1, init=False)
    """Updates of a version, where nothing is lost."""

    # -------------------------------------------------------------------------------- for rules

    def needed(self, byzantine: int) -> int:
        """Return how many updates the rule needs to stand so many Byzantine ones."""
        return 2 * byzantine + 1

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        """Return one update (values,) of rows (clients, values), of which so many may be Byzantine."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------- for the kernel

    def bind(self, course: Course) -> None:
        """Remember the course's random streams, and how many updates a version is made of."""
        self.streams, self.expected = course.streams, updates_of_a_version(course)

    def reduce(self, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        byzantine = self.faults(len(rows))
        if not self.stands(len(rows)):
            raise CourseError(
                f"aggregator '{self.name}': a version is made of {len(rows)} updates, but f = {byzantine} needs "
                f"{self._least(byzantine)}. Remedy: lower aggregator.byzantine or raise protocol.min_results."
            )
        rng = self.streams.generator("robust", self.calls)
        self.calls += 1
        for name in self.before:
            rows = BEFORE[name](rows, byzantine, self.bucket_size, rng)
        return self.rule(rows, byzantine)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a rule that cannot stand so many Byzantine updates in a version of this course."""
        clients = self.expected
        if isinstance(self.byzantine, float) and self.byzantine >= 0.5:
            yield (
                f"aggregator.byzantine: a share must be below 0.5, got {self.byzantine!r}. "
                "Remedy: write a number of updates without a decimal point."
            )
        elif not self.stands(clients):
            byzantine = self.faults(clients)
            yield (
                f"aggregator.byzantine: '{self.name}' with f = {byzantine} needs {self._least(byzantine)} updates, "
                f"but a version is made of {clients}. Remedy: lower aggregator.byzantine or raise sampler.clients."
            )
        if "nnm" in self.before and not self.byzantine:
            yield (
                "aggregator.byzantine: 'nnm' with f = 0 makes all updates equal to their mean. "
                "Remedy: set aggregator.byzantine."
            )

    @property
    def least(self) -> int:
        """Return the fewest updates that can be reduced.

        Of a share: the fewest from which on to the size of a version as many are enough. It may stand fewer again, of which
        the share is one less.
        """
        if isinstance(self.byzantine, int):
            return self._least(self.byzantine)
        clients = self.expected
        while clients > 1 and self.stands(clients - 1):
            clients -= 1
        return clients

    # -------------------------------------------------------------------------------- how many

    def faults(self, clients: int) -> int:
        """Return f for a version that is made of so many updates."""
        if isinstance(self.byzantine, int):
            return self.byzantine
        return math.floor(self.byzantine * clients + 1e-9)

    def stands(self, clients: int) -> bool:
        """Return whether so many updates are enough."""
        return clients >= self._least(self.faults(clients))

    def _least(self, byzantine: int) -> int:
        """Return how many updates are needed, so that enough are left for the rule after what comes before it."""
        left = self.needed(byzantine)
        return max(2 * byzantine + 1, rows_before(self.before, left, self.bucket_size))


def updates_of_a_version(course: Course) -> int:
    """Return how many updates a version is made of: the trigger's goal, else what the sampler wants."""
    wanted = int(course.sampler.wanted(course.population))
    goal = getattr(course.trigger, "goal", None)
    if isinstance(goal, int):
        return goal
    return wanted if goal is None else max(1, math.ceil(goal * wanted - 1e-9))
