"""The executor that chooses: by counted operations and the number of cores, never by time."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.executors.base import PARALLEL
from fscore.builtin.executors.cohort import MEGABYTE, CohortExecutor
from fscore.builtin.executors.process import ProcessExecutor
from fscore.builtin.executors.serial import SerialExecutor
from fscore.builtin.executors.thread import ThreadExecutor
from fscore.component import gt, option
from fscore.kinds.executor import Executor

if TYPE_CHECKING:
    from fscore.builtin.executors.counting import Cost
    from fscore.course import Course

OPERATIONS = 2e6
"""Counted operations per client and step up to which many clients at once are faster on a CPU."""
LARGE = 1_000_000
"""Parameters from which threads do as well as processes, in half the memory; not for layers that draw random numbers."""


@define(eq=False, slots=False)
class AutoExecutor(Executor):
    """Chooses the executor before the course begins, says which and why, and records it.

    Many clients at once (`cohort`) where a step counts at most 2e6 operations and the trainer and the model allow it, else
    one at a time; several cores where a version counts at least 1e9 operations. Times are not looked at: results would
    follow the load of the machine. The number of cores changes no result.
    """

    name = "auto"
    memory: float = option(1024.0, doc="Megabytes, as of `cohort`.", validator=gt(0))
    device: str = option("cpu", doc="Where it computes: 'cpu', 'cuda' or 'cuda:1'.")

    def check(self, course: Course) -> list[str]:
        """Refuse a device that is not there."""
        from fscore.builtin.executors.cohort import device_problems

        return list(device_problems(self.device))

    def resolve(self, course: Course) -> Executor:
        """Return what was chosen."""
        from fscore.builtin.executors.counting import cost

        found = cost(course)
        why_not = self._why_not(course, found)
        many = CohortExecutor(
            chunk=self.chunk, memory=self.memory, device=self.device, fallback=True
        )
        made: Executor = SerialExecutor(chunk=self.chunk) if why_not else many
        cores = usable_cores()
        work = found.operations * found.steps * course.book.wanted
        told = f"a version counts {_short(work)} operations, parallel from {_short(PARALLEL)}"
        if work >= PARALLEL and self.device == "cpu":
            made = self._parallel(course, made, cores) if cores > 1 else made
            told += "" if cores > 1 else " if there were several cores"
        chosen = made.resolve(course)
        place = " on the CPU" if why_not and self.device != "cpu" else ""
        chosen.reason = f"{_described(chosen)}{place}: {why_not or _why(found)}; {told}"
        return chosen

    def _why_not(self, course: Course, found: Cost) -> str:
        """Return why clients are computed one at a time; empty: many at once."""
        from fscore.builtin.executors.lifting import obstacle

        if self.device == "cpu" and found.operations > OPERATIONS:
            return (
                f"a step counts {_short(found.operations)} operations, one client at a time is faster "
                f"from {_short(OPERATIONS)}"
            )
        if self.device == "cpu" and found.bytes > self.memory * MEGABYTE / 2:
            return f"one client needs about {_short(found.bytes / MEGABYTE)} MB, more than half of executor.memory"
        return obstacle(course, self.device)

    def _parallel(self, course: Course, made: Executor, cores: int) -> Executor:
        if isinstance(made, CohortExecutor):
            return ProcessExecutor(
                workers=cores, inside="cohort", chunk=self.chunk, memory=self.memory, fallback=True
            )
        if course.space.size >= LARGE and not course.site.random_layers:
            return ThreadExecutor(workers=cores, chunk=self.chunk)
        return ProcessExecutor(workers=cores, chunk=self.chunk)


def usable_cores() -> int:
    """Return how many cores this process may use: one where it may start no others."""
    if multiprocessing.current_process().daemon:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _why(found: Cost) -> str:
    return (
        f"a step counts {_short(found.operations)} operations, many clients at once are faster "
        f"up to {_short(OPERATIONS)}"
    )


def _described(executor: Executor) -> str:
    inside = f" with {executor.inside}" if isinstance(executor, ProcessExecutor) else ""
    workers = getattr(executor, "workers", None)
    counted = f" x {workers}" if workers else ""
    clients = "1 client" if executor.chunk == 1 else f"{executor.chunk} clients"
    return f"{executor.name}{counted}{inside}, {clients} a batch"


def _short(number: float) -> str:
    return f"{number:.2g}"
