"""The executor for large models: one Python thread per core, since kernels and autograd release the interpreter lock."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

from attrs import define, evolve

from fscore.builtin.executors.base import OneByOne
from fscore.component import ge, option
from fscore.errors import ConfigError
from fscore.kinds.executor import Executor

if TYPE_CHECKING:
    from fscore.builtin.executors.lane import Lane
    from fscore.course import Course
    from fscore.site import Site
    from fscore.tasks import Batch, BatchOutput

AHEAD = 2
"""Batches per worker that may be computed before the next one in the plan is taken."""


@define(eq=False, slots=False)
class ThreadExecutor(OneByOne):
    """Computes batches on several threads, each bit as `serial` does; for models of a million parameters and more."""

    name = "thread"
    workers: int = option(2, doc="Threads that compute.", validator=ge(1))

    def resolve(self, course: Course) -> Executor:
        """Refuse models that draw random numbers: layers take them from one generator for all threads."""
        if course.site.random_layers:
            raise ConfigError(
                "executor.use: 'thread' cannot compute a model that draws random numbers in its layers (dropout). "
                "Remedy: use 'process' or 'serial'."
            )
        return super().resolve(course)

    def start(self, site: Site) -> None:
        self.site, self.made, self.ending = site, 0, Event()
        self.lanes: SimpleQueue[Lane] = SimpleQueue()
        self.threads = ThreadPoolExecutor(self.workers, thread_name_prefix="fscore")

    def lane_of(self, site: Site) -> Lane:
        from fscore.builtin.executors.ending import EndingLane

        return EndingLane(site, precision=self.precision, ending=self.ending)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        while self.made < min(self.workers, len(batches)):
            module = copy.deepcopy(self.site.module)
            self.lanes.put(self.lane_of(evolve(self.site, module=module)))
            self.made += 1
        waiting: deque[Future[BatchOutput]] = deque()
        todo = iter(batches)
        try:
            for batch in todo:
                waiting.append(self.threads.submit(self._batch, batch))
                if len(waiting) > AHEAD * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _batch(self, batch: Batch) -> BatchOutput:
        lane = self.lanes.get()
        try:
            return lane.batch(batch)
        finally:
            self.lanes.put(lane)

    def stop(self) -> None:
        """End what is under way, before its next step, and wait for that."""
        if hasattr(self, "threads"):  # a start that was interrupted made none
            self.ending.set()
            self.threads.shutdown(cancel_futures=True)
