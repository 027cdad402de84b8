"""The executor for several cores: forked workers, tensors in shared memory, small descriptions through pipes."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field, frozen

from fscore.component import ge, option
from fscore.errors import CourseError, FscoreError
from fscore.kinds.executor import Executor
from fscore.tasks import Batch, BatchOutput, Job, Output

if TYPE_CHECKING:
    import torch

    from fscore.site import Site

ALIGNMENT = 64
DEATHS = 3
"""Workers that one batch may cost."""
AHEAD = 4
"""Batches per worker that may be computed before the next one in the plan is done."""


@define(eq=False, slots=False)
class ProcessExecutor(Executor):
    """Computes batches on several cores, each bit as `serial` does; start with `fork` is needed (Linux, macOS)."""

    name = "process"
    workers: int = option(2, doc="Processes that compute, one thread each.", validator=ge(1))

    def start(self, site: Site) -> None:
        self.pool = Pool(site, self.workers)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        return self.pool.compute(batches)

    def stop(self) -> None:
        self.pool.stop()


# ---------------------------------------------------------------------------- shared memory


@frozen
class Ref:
    """Where a tensor lies in a region; it stands for the tensor in what goes through a pipe."""

    region: int
    start: int
    dtype: str
    shape: tuple[int, ...]


@define(eq=False)
class Region:
    """Memory that parent and workers share; whoever writes enlarges it, whoever reads maps it anew."""

    number: int
    _file: int = field(init=False)
    _memory: mmap.mmap | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("fscore")
        else:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())

    def tensor(self, ref: Ref) -> torch.Tensor:
        """Return the tensor at `ref`, as a view of the shared memory."""
        import torch

        dtype = getattr(torch, ref.dtype)
        blank = torch.empty(ref.shape, dtype=dtype, device="meta")
        if not blank.numel():
            return torch.empty(ref.shape, dtype=dtype)
        memory = self._mapped(ref.start + blank.nbytes)
        flat = torch.frombuffer(memory, dtype=dtype, count=blank.numel(), offset=ref.start)
        return flat.view(ref.shape)

    def _mapped(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            there = os.fstat(self._file).st_size
            if there < size:
                there = max(size, 2 * there)
                os.ftruncate(self._file, there)
            self._memory = mmap.mmap(self._file, there)
        return self._memory

    def close(self) -> None:
        """Release it; tensors that still look at it keep their mapping."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._memory = None


@define(eq=False)
class Writer:
    """Writes tensors into a region from its beginning, each once."""

    region: Region
    known: dict[int, Ref] = field(factory=dict)
    _end: int = field(default=0, init=False)

    def __call__(self, tensor: torch.Tensor) -> Ref:
        """Write a tensor, which the caller keeps alive, and return where it lies."""
        if id(tensor) not in self.known:
            dtype = str(tensor.dtype).removeprefix("torch.")
            ref = Ref(self.region.number, self._end, dtype, tuple(tensor.shape))
            self.region.tensor(ref).copy_(tensor.detach())
            self._end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
            self.known[id(tensor)] = ref
        return self.known[id(tensor)]


def replaced(value: Any, leaf: type, change: Callable[[Any], Any]) -> Any:
    """Return `value` with every instance of `leaf` inside dicts, lists, tuples, jobs and outputs changed."""
    if isinstance(value, leaf):
        return change(value)
    if isinstance(value, dict):
        return {key: replaced(entry, leaf, change) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(replaced(entry, leaf, change) for entry in value)
    if isinstance(value, Batch | BatchOutput | Job | Output):
        names = [a.name for a in attrs.fields(type(value))]
        return type(value)(**{n: replaced(getattr(value, n), leaf, change) for n in names})
    return value


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
    site: Site,
    pipe: Connection,
    regions: Sequence[Region],
    others: Iterable[Connection],
    parent: int,
) -> None:
    """Compute batches until the parent says stop or is gone.

    Args:
        regions: what all workers read, what this one reads, what it writes.
        others: the parent's ends of pipes, which only the parent may hold open.
    """
    import torch

    from fscore.builtin.executors.lane import Lane

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    torch.set_num_threads(1)
    lane = Lane(site)
    with contextlib.suppress(EOFError, OSError):
        while (batch := _next(pipe, parent)) is not None:
            pipe.send(answer(lane, batch, regions))


def _next(pipe: Connection, parent: int) -> Batch | None:
    while not pipe.poll(1.0):
        if os.getppid() != parent:
            return None
    batch: Batch | None = pipe.recv()
    return batch


def answer(lane: Any, batch: Batch, regions: Sequence[Region]) -> Any:
    """Return the output of a batch with its tensors in shared memory, or its failure."""
    import torch

    try:
        done = lane.batch(replaced(batch, Ref, lambda ref: regions[ref.region].tensor(ref)))
        return replaced(done, torch.Tensor, Writer(regions[-1]))
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
        described = replaced(batch, torch.Tensor, Writer(self.inbox, dict(known)))
        with contextlib.suppress(OSError):  # it is dead, which its sentinel tells
            self.pipe.send(described)

    def answer(self) -> Any:
        """Return its answer with tensors copied out of the shared memory; None: it died."""
        try:
            found = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None
        return replaced(found, Ref, lambda ref: self.outbox.tensor(ref).clone())

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
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        inbox, outbox = Region(1), Region(2)
        regions = (self._shared, inbox, outbox)
        others = [ours, *(worker.pipe for worker in self.workers if not worker.pipe.closed)]
        arguments = (self.site, theirs, regions, others, os.getpid())
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
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
    _todo: deque[int] = field(init=False)
    _done: dict[int, Any] = field(factory=dict, init=False)
    _deaths: Counter[int] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self._todo = deque(range(len(self.batches)))

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
        limit = wanted + AHEAD * self.pool.count
        for worker in self.pool.workers:
            if worker.batch is None and self._todo and self._todo[0] < limit:
                number = self._todo.popleft()
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
        self._todo.appendleft(number)
