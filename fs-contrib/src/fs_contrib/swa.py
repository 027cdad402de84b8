"""FedSWA: stochastic weight averaging of the server model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.server_optimizers import SGD
from fscore.component import ge, option, state

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.params import Tensors


@define(eq=False, slots=False)
class SWA(SGD):
    """Averages versions along the way; the last version of the course is their average.

    Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018, algorithm 1, with the
    server's versions in the place of the iterates. Versions start, start + every, start + 2 every, ... enter the average
    with equal weight. All versions before the last are those of the server optimizer `sgd` with the same options: clients
    never train on an average. So `course.until` must name the last version, and nothing else may end the course first.
    """

    name = "swa"
    start: int = option(doc="First version that enters the average.", validator=ge(1))
    every: int = option(
        1, doc="Versions from one that enters the average to the next.", validator=ge(1)
    )
    made: int = state(int)
    averaged: int = state(int)
    average: dict[str, Any] = state(dict)

    def bind(self, course: Course) -> None:
        """Remember which version is the last."""
        self.last = course.config.course.until.versions

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a course whose last version is not known, or in which nothing is averaged."""
        until = course.config.course.until
        if until.versions is None or until.virtual_time or until.client_updates:
            yield (
                "course.until: 'swa' makes the last version the average, so that it must be known. "
                "Remedy: set until = { versions = N } alone."
            )
        elif self.start > until.versions:
            yield (
                f"server_optimizer.start: version {self.start} is after the last, {until.versions}. "
                "Remedy: lower it."
            )

    def step(self, slots: Tensors, directions: Tensors) -> Tensors:
        moved = super().step(slots, directions)
        self.made += 1
        if self.made >= self.start and (self.made - self.start) % self.every == 0:
            self._include(moved)
        return dict(self.average) if self.made == self.last else moved

    def _include(self, moved: Tensors) -> None:
        self.averaged += 1
        for name, value in moved.items():
            mean = self.average.get(name, value)
            self.average[name] = mean + (value - mean) / self.averaged
