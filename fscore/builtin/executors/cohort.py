"""The executor that trains many clients at once over a client axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.executors.base import ChunkedExecutor
from fscore.component import gt, option
from fscore.errors import ConfigError
from fscore.kinds.executor import Executor

if TYPE_CHECKING:
    from fscore.builtin.executors.cohort_lane import CohortLane
    from fscore.course import Course
    from fscore.site import Site
    from fscore.tasks import Batch, BatchOutput

MEGABYTE = 1 << 20
CACHE = 12 * MEGABYTE
"""Bytes of a batch's clients up to which more clients at once are faster."""
WORTH = 1e7
"""Operations of a version from which its clients are cut in two, so that two workers have one batch each."""
FEWEST, MOST = 8, 1000
"""Bounds of the chosen chunk."""


@define(eq=False, slots=False)
class CohortExecutor(ChunkedExecutor):
    """Trains the clients of a batch at once with `torch.func`; equal to `serial` up to rounding, and repeatable.

    A trainer that cannot be computed for many clients at once is refused.
    """

    name = "cohort"
    memory: float = option(
        1024.0,
        doc="Megabytes: half for samples that are kept, half for a batch's clients.",
        validator=gt(0),
    )
    device: str = option("cpu", doc="Where it computes: 'cpu', 'cuda' or 'cuda:1'.")
    fallback: bool = option(
        False,
        doc="Compute a batch client by client, and say so, where computing its clients at once fails.",
    )

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a device that is not there."""
        yield from device_problems(self.device)

    def resolve(self, course: Course) -> Executor:
        """Refuse a chunk that is too large, and a trainer or model that cannot be computed for many clients at once."""
        from fscore.builtin.executors.counting import cost
        from fscore.builtin.executors.lifting import obstacle

        problem = obstacle(course, self.device)
        if problem:
            raise ConfigError(
                f"executor.use: 'cohort' cannot compute this course: {problem}. Remedy: use 'auto' or 'serial'."
            )
        each = cost(course).bytes
        most = int(self.memory * MEGABYTE / 2 / each)
        if not most:
            raise ConfigError(
                f"executor.memory: one client needs about {each / MEGABYTE:,.3g} MB, half of {self.memory:g} MB is less. "
                f"Remedy: memory = {math.ceil(2 * each / MEGABYTE)} or more, or executor.use = 'serial'."
            )
        if self.chunk is not None and self.chunk > most:
            raise ConfigError(
                f"executor.chunk: {self.chunk} clients at once need about {self.chunk * each / MEGABYTE:,.0f} MB, "
                f"half of executor.memory is {self.memory / 2:,.0f} MB. "
                f"Remedy: chunk = {most}, or raise executor.memory."
            )
        return super().resolve(course)

    def chunk_of(self, course: Course) -> int:
        """Return as many clients as fill a processor's cache, in equal batches; half a cohort, if half is worth a worker.

        On a GPU: a whole cohort, as far as the memory goes.
        """
        from fscore.builtin.executors.counting import cost

        found, wanted = cost(course), max(course.book.wanted, 1)
        each = found.bytes
        most = min(MOST, int(self.memory * MEGABYTE / 2 / each))
        if self.device != "cpu":
            return min(most, wanted)
        worth = found.operations * found.steps * wanted >= WORTH
        share = -(-wanted // 2) if worth else wanted
        fitting = min(most, max(min(int(CACHE / each), share), FEWEST))
        batches = -(-wanted // fitting)
        return max(-(-wanted // batches), min(fitting, FEWEST))

    def start(self, site: Site) -> None:
        self.lane = self.lane_of(site)

    def lane_of(self, site: Site) -> CohortLane:
        """Return what computes the batches of a site."""
        import torch

        from fscore.builtin.executors.cohort_lane import CohortLane

        cache = int(self.memory * MEGABYTE / 2)
        return CohortLane(site, torch.device(self.device), cache, strict=not self.fallback)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        return map(self.lane.batch, batches)


def device_problems(device: str) -> Iterable[str]:
    """Return what is wrong with the option `device`."""
    import torch

    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = torch.device("meta")
    there = torch.cuda.device_count() if asked.type == "cuda" and torch.cuda.is_available() else 0
    if device != "cpu" and asked.type != "cuda":
        yield f"executor.device: expected 'cpu', 'cuda' or 'cuda:N', got '{device}'"
    elif asked.type == "cuda" and not there:
        yield "executor.device: no CUDA device is there. Remedy: device = 'cpu'."
    elif (asked.index or 0) >= max(there, 1):
        yield f"executor.device: there are {there} CUDA devices, 'cuda:0' to 'cuda:{there - 1}', got '{device}'"
