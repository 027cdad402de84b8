"""ASHA: successive halving without waiting for whole rungs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import define

from fs_hpo.halving import halvings
from fs_hpo.sampling import Proposing
from fscore.builtin.tuning.space import Params
from fscore.component import ge, option, state
from fscore.kinds.tuner import Report, Trial

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class ASHA(Proposing):
    """Asynchronous successive halving (Li et al., MLSys 2020, algorithm 2).

    Whenever one of `slots` workers is free it promotes a trial that is among the best 1/eta of its rung, from the highest
    rung down, and begins a new one where there is none. The slots live in virtual time, in which a version takes one unit:
    what is promoted does not depend on how many processes compute.
    """

    name = "asha"
    asynchronous: ClassVar[bool] = True

    eta: int = option(3, doc="The best of so many trials may go on.", validator=ge(2))
    min_versions: int = option(1, doc="Versions of the shortest trials.", validator=ge(1))
    trials: int = option(27, doc="New trials in all.", validator=ge(1))
    slots: int = option(4, doc="Trials at once, in virtual time.", validator=ge(1))
    params: list[Params] = state(list)
    """By trial."""
    rungs: dict[int, list[tuple[float, int]]] = state(dict)
    """(loss, trial) of those that ended a rung."""
    promoted: list[tuple[int, int]] = state(list)
    """(rung, trial) of those that left it upwards."""
    running: int = state(int)

    @property
    def top(self) -> int:
        """The number of the highest rung."""
        return halvings(self.min_versions, self.versions, self.eta)

    def at(self, rung: int) -> int:
        """Return the versions of a rung."""
        return int(self.versions // self.eta ** (self.top - rung))

    def check(self, course: Course) -> Iterable[str]:
        """Refuse trials whose first rung is longer than their last."""
        if self.min_versions > self.versions:
            yield f"tune.min_versions: {self.min_versions} versions, but a full trial has {self.versions}"

    def ask(self) -> Sequence[Trial]:
        jobs = []
        while self.running < self.slots and (job := self._job()) is not None:
            self.running += 1
            jobs.append(job)
        return jobs

    def _job(self) -> Trial | None:
        for rung in range(self.top - 1, -1, -1):
            for _, trial in self._best(rung):
                if (rung, trial) not in self.promoted:
                    self.promoted.append((rung, trial))
                    return Trial(trial, self.params[trial], self.at(rung + 1))
        if len(self.params) < self.trials:
            self.params.append(self.propose())
            return Trial(len(self.params) - 1, self.params[-1], self.at(0))
        return None

    def _best(self, rung: int) -> list[tuple[float, int]]:
        """Return the best 1/eta of what ended a rung."""
        ended = sorted(self.rungs.get(rung, ()))
        return ended[: len(ended) // self.eta]

    def tell(self, trial: Trial, report: Report | None) -> None:
        self.running -= 1
        if report is not None:
            rung = next(r for r in range(self.top + 1) if self.at(r) == trial.versions)
            self.rungs.setdefault(rung, []).append((self.loss(report), trial.id))
