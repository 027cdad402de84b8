"""What a course says of itself: lines of metrics, evaluations, what attackers found, the result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from fscore.builtin.views import scores
from fscore.component import figures_of
from fscore.folding import joined
from fscore.params import Tensors, digest
from fscore.result import Result

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.kinds.evaluator import PerClient
    from fscore.opening import Opened
    from fscore.tasks import Cohort, Output


@define(eq=False)
class Reporting:
    """One course's reports."""

    course: Course
    history: list[dict[str, Any]] = field(factory=list, init=False)
    """The lines so far."""
    last: dict[str, float] = field(factory=dict, init=False)
    """What the last aggregate said of training, and what attackers found in it."""
    began: float = field(factory=time.monotonic, init=False)
    """Real time at which this process took the course up."""
    _judged: tuple[Any, tuple[dict[str, float], PerClient]] = field(
        default=(None, ({}, {})), init=False
    )
    """The last evaluation, and of what it was."""

    @property
    def watched(self) -> bool:
        """Whether somebody sees single updates as they travel."""
        return self.course.host.implements("fscore_update_received") or any(
            {"wire", "update"} & set(attack.sees) for attack in self.course.attacks
        )

    def show(self, cohort: Cohort, outputs: Sequence[Output]) -> None:
        """Show each update's wire form to the plugins that watch the wire."""
        course = self.course
        for task, output in zip(cohort.tasks, outputs, strict=True):
            if output.wire is not None:
                course.host.call(
                    "fscore_update_received", course=course, task=task, update=output.wire
                )

    # ------------------------------------------------------------------------ one cohort

    def note(self, opened: Opened, reduced: Tensors, slots: Tensors) -> None:
        """Note what a cohort's metrics say, and what attackers make of what they see.

        Args:
            opened: the cohort.
            reduced: its groups after the division.
            slots: the version that it leads to.
        """
        course = self.course
        sums = joined(opened.outputs, "metrics")
        sums = reduced["metrics"][None] if "metrics" in reduced else sums
        loss, count = (0.0, 0.0) if sums is None else sums.sum(0).tolist()
        staleness = opened.cohort.staleness
        self.last = {
            "train_loss": loss / count if count else float("nan"),
            "updates": len(opened.outputs),
            "staleness": sum(staleness) / max(1, len(staleness)),
        }
        for attack in course.attacks:
            self.last.update(scores(attack, course, opened, slots))

    # ------------------------------------------------------------------------ one version

    def line(self) -> dict[str, Any]:
        """Evaluate the current version if that is due; keep and return its line of metrics."""
        course = self.course
        every, version = course.evaluator.every, course.book.version
        metrics = self.evaluate()[0] if every and version % every == 0 else {}
        line = {
            "version": version,
            "virtual_time": course.loop.now,
            **self.last,
            **metrics,
            **figures_of(course.everything.values()),
            "bytes_up": course.bytes_up,
            "bytes_down": course.bytes_down,
            "real_seconds": round(time.monotonic() - self.began, 3),
        }
        self.history.append(line)
        if course.record:
            course.record.append(line)
        for reporter in course.reporters:
            reporter.reported(line)
        return line

    def evaluate(self, *, everybody: bool = False) -> tuple[dict[str, float], PerClient]:
        """Return metrics of the current version, and each client's own; computed once per instant."""
        course = self.course
        key = (course.book.version, course.loop.now, everybody or course.evaluator.whole)
        if self._judged[0] != key:
            self._judged = key, course.evaluator.evaluate(course, everybody=everybody)
            metrics = self._judged[1][0]
            course.host.call("fscore_evaluated", course=course, version=key[0], metrics=metrics)
        return self._judged[1]

    # ------------------------------------------------------------------------ the end

    def result(self, reason: str, *, failed: bool) -> Result:
        """Return how the course ended, evaluated on all clients unless it failed."""
        course = self.course
        metrics, per_client = ({}, {}) if failed else self.evaluate(everybody=True)
        slots = course.bank[course.book.version]
        return Result(
            name=course.config.course.name,
            status="failed" if failed else "partial" if course.failed_cohorts else "complete",
            reason=reason,
            versions=course.book.version,
            digest=digest(slots),
            metrics={**self.last, **metrics, **figures_of(course.everything.values())},
            history=tuple(self.history),
            per_client=per_client,
            virtual_time=course.loop.now,
            real_seconds=time.monotonic() - self.began,
            tasks=course.book.summary(),
            bytes={"up": course.bytes_up, "down": course.bytes_down},
            run_dir=course.record.path if course.record else None,
            model=slots,
        )
