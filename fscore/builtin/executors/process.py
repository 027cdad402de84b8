"""The executor for several cores: forked workers, tensors in shared memory, small descriptions through pipes."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, evolve, field, frozen

from fscore.builtin.executors.base import OneByOne
from fscore.builtin.executors.cohort import CohortExecutor
from fscore.builtin.executors.shared import Ref, Region, Writer, packed, replaced, unpacked
from fscore.component import ge, gt, option
from fscore.errors import CourseError, FscoreError
from fscore.kinds.executor import Executor
from fscore.tasks import Batch, BatchOutput

if TYPE_CHECKING:
    from fscore.builtin.executors.lane import Lane
    from fscore.course import Course
    from fscore.site import Site

DEATHS = 3
"""Workers that one batch may cost."""
AHEAD = 4
"""Batches per worker that may be computed before the next one in the plan is done."""


@define(eq=False, slots=False)
class ProcessExecutor(OneByOne):
    """Computes batches on several cores, each bit as one process does; start with `fork` is needed (Linux, macOS)."""

    name = "process"
    workers: int = option(2, doc="Processes that compute, one thread each.", validator=ge(1))
    inside: Literal["serial", "cohort"] = option(
        "serial", doc="How a worker computes a batch: client by client, or all clients at once."
    )
    memory: float = option(1024.0, doc="Megabytes of each worker, as of `cohort`.", validator=gt(0))

    fallback: bool = option(
        False,
        doc="Compute a batch client by client, and say so, where computing its clients at once fails.",
    )

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a precision that the executor inside does not have."""
        if self.inside == "cohort" and self.precision != "float32":
            yield "executor.precision: 'cohort' computes in float32. Remedy: inside = \"serial\"."

    def resolve(self, course: Course) -> Executor:
        """Choose the chunk as the executor inside does."""
        if self.inside == "serial":
            return super().resolve(course)
        chunk = CohortExecutor(chunk=self.chunk, memory=self.memory).resolve(course).chunk
        return evolve(self, chunk=chunk)

    def start(self, site: Site) -> None:
        gc.collect()  # courses that are over would be forked too, with all the memory that they reserved
        self.pool = Pool(site, self.workers, self.lane_of)

    def lane_of(self, site: Site) -> Lane:
        if self.inside == "cohort":
            return CohortExecutor(memory=self.memory, fallback=self.fallback).lane_of(site)
        return super().lane_of(site)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        return self.pool.compute(batches)

    def stop(self) -> None:
        """End the workers; a start that was interrupted made none."""
        if hasattr(self, "pool"):
            self.pool.stop()


# ---------------------------------------------------------------------------- in a worker


@frozen
class Failure:
    """An exception of a worker, to be raised again in the parent."""

    name: str
    text: str

    def error(self) -> Exception:
        """Return an exception of the same class and text; a defect becomes a RuntimeError with its traceback."""
        known = {cls.__name__: cls for cls in _derived(FscoreError)}
        return known.get(self.name, RuntimeError)(self.text)


def _derived(cls: type[FscoreError]) -> Iterator[type[FscoreError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _derived(child)


def serve(
    make: Callable[[Site], Lane],
    site: Site,
    pipe: Connection,
    regions: Sequence[Region],
    others: Iterable[Connection],
    parent: int,
) -> None:
    """Compute batches until the parent says stop or is gone.

    Args:
        make: makes the lane that computes.
        regions: what all workers read, what this one reads, what it writes.
        others: the parent's ends of pipes, which only the parent may hold open.
    """
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    lane = make(site)
    with contextlib.suppress(EOFError, OSError):
        while (described := pipe.recv()) is not None:
            pipe.send(answer(lane, described, regions))


def _end_with(parent: int) -> None:
    """End this process, whatever it computes, when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def answer(lane: Any, described: Any, regions: Sequence[Region]) -> Any:
    """Return the output of a batch, as `described` by its parent, or its failure; tensors lie in shared memory."""
    import torch

    try:
        jobs, *rest = replaced(described, Ref, lambda ref: regions[ref.region].tensor(ref))
        done = lane.batch(Batch(tuple(unpacked(jobs)), *rest))
        return replaced((packed(done.outputs), done.sums), torch.Tensor, Writer(regions[-1]))
    except FscoreError as error:
        return Failure(type(error).__name__, str(error))
    except Exception:
        return Failure("", traceback.format_exc())


# ---------------------------------------------------------------------------- in the parent


@define(eq=False)
class Worker:
    """A worker as its parent sees it."""

    process: Any
    pipe: Connection
    inbox: Region
    outbox: Region
    batch: int | None = None
    """The number of the batch that it computes."""

    def begin(self, number: int, batch: Batch, known: dict[int, Ref]) -> None:
        """Send a batch; `known` says which tensors lie in the region of all workers."""
        import torch

        self.batch = number
        columns = packed(batch.jobs), batch.sum, batch.wire
        described = replaced(columns, torch.Tensor, Writer(self.inbox, dict(known)))
        with contextlib.suppress(OSError):  # it is dead, which its sentinel tells
            self.pipe.send(described)

    def answer(self) -> Any:
        """Return its answer with tensors copied out of the shared memory; None: it died."""
        try:
            found = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None
        if found is None or isinstance(found, Failure):
            return found
        outputs, sums = replaced(found, Ref, lambda ref: self.outbox.tensor(ref).clone())
        return BatchOutput(tuple(unpacked(outputs)), sums)

    def end(self) -> str:
        """Make sure that it is gone and return what ended it."""
        self.pipe.close()
        self.process.join(0.0 if self.batch is not None else 2.0)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        for region in (self.inbox, self.outbox):
            region.close()
        return f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name


@define(eq=False)
class Pool:
    """Workers that are forked when they are first needed, and so inherit data and model."""

    site: Site
    count: int
    make: Callable[[Site], Lane]
    workers: list[Worker] = field(factory=list, init=False)
    _shared: Region = field(factory=lambda: Region(0), init=False)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        """Yield one output per batch, in order."""
        self._end_busy()
        while len(self.workers) < min(self.count, len(batches)):
            self.workers.append(self._fork())
        plan = Plan(self, batches, self._share(batches))
        try:
            yield from plan.outputs()
        finally:
            self._end_busy()

    def _end_busy(self) -> None:
        """End workers that compute for a caller who left."""
        for worker in [w for w in self.workers if w.batch is not None]:
            worker.end()
            self.workers.remove(worker)

    def _fork(self) -> Worker:
        if multiprocessing.current_process().daemon:
            raise CourseError(
                "executor.use: 'process' starts no workers inside of a daemonic process, as a worker of "
                "multiprocessing.Pool is. Remedy: use 'serial' or 'cohort'."
            )
        try:
            return self._forked()
        except OSError as error:
            raise CourseError(
                f"executor.workers: a worker cannot be started ({error.strerror}). "
                "Remedy: fewer workers, or a higher limit (ulimit -n, ulimit -u)."
            ) from error

    def _forked(self) -> Worker:
        context = multiprocessing.get_context("fork")
        with contextlib.ExitStack() as opened:  # closed again where a later one cannot be opened
            ours, theirs = map(opened.enter_context, context.Pipe())
            inbox, outbox = (opened.enter_context(contextlib.closing(Region(n))) for n in (1, 2))
            regions = (self._shared, inbox, outbox)
            others = [ours, *(worker.pipe for worker in self.workers if not worker.pipe.closed)]
            arguments = (self.make, self.site, theirs, regions, others, os.getpid())
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            opened.pop_all()
        theirs.close()
        return Worker(process, ours, inbox, outbox)

    def _share(self, batches: Sequence[Batch]) -> dict[int, Ref]:
        """Write what several batches send to their clients where all workers read it."""
        sent = {id(job.sent): job.sent for batch in batches for job in batch.jobs}
        used = Counter(key for batch in batches for key in {id(job.sent) for job in batch.jobs})
        write = Writer(self._shared)
        for key, values in sent.items():
            if used[key] > 1:
                for value in values.values():
                    write(value)
        return write.known

    def replace(self, worker: Worker) -> str:
        """Put a new worker in the place of a dead one and return a line about what happened."""
        worker.process.join(2.0)
        place = self.workers.index(worker)
        cause = worker.end()
        self.workers[place] = self._fork()
        return f"executor.process: worker {place} (pid {worker.process.pid}) died: {cause}"

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        self._shared.close()


@define(eq=False)
class Plan:
    """The batches of one call: computed in any order, given back in theirs."""

    pool: Pool
    batches: Sequence[Batch]
    known: dict[int, Ref]
    _todo: list[int] = field(init=False)
    _work: list[float] = field(init=False)
    _done: dict[int, Any] = field(factory=dict, init=False)
    _deaths: Counter[int] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self._todo = list(range(len(self.batches)))
        seconds = self.pool.site.seconds_of_work
        if len(self.batches) > len(self.pool.workers):
            self._work = [sum(seconds(job.task) for job in b.jobs) for b in self.batches]
        else:
            self._work = [0.0] * len(self.batches)

    def outputs(self) -> Iterator[BatchOutput]:
        """Yield one output per batch, in order.

        Raises:
            CourseError: a batch cost three workers.
        """
        for number in range(len(self.batches)):
            self._assign(number)
            while number not in self._done:
                self._collect()
                self._assign(number)
            output = self._done.pop(number)
            if isinstance(output, Failure):
                raise output.error()
            yield output

    def _assign(self, wanted: int) -> None:
        """Give idle workers the longest batches among the next ones of the plan."""
        limit = wanted + AHEAD * self.pool.count
        for worker in self.pool.workers:
            near = [number for number in self._todo if number < limit]
            if worker.batch is None and near:
                number = max(near, key=lambda n: (self._work[n], -n))
                self._todo.remove(number)
                worker.begin(number, self.batches[number], self.known)

    def _collect(self) -> None:
        """Wait for an answer or a death."""
        busy = [worker for worker in self.pool.workers if worker.batch is not None]
        ready = wait([end for w in busy for end in (w.pipe, w.process.sentinel)])
        for worker in busy:
            if worker.pipe in ready or worker.process.sentinel in ready:
                answer = worker.answer()
                if answer is None:
                    self._died(worker)
                else:
                    self._done[worker.batch or 0] = answer
                    worker.batch = None

    def _died(self, worker: Worker) -> None:
        number = worker.batch or 0
        line = self.pool.replace(worker)
        tasks = ", ".join(str(job.task.id) for job in self.batches[number].jobs)
        self._deaths[number] += 1
        if self._deaths[number] == DEATHS:
            raise CourseError(f"{line}; {DEATHS} workers died on the batch of tasks {tasks}")
        sys.stderr.write(f"{line}; the batch of tasks {tasks} is computed again\n")
        self._todo.append(number)
