"""What the built-in executors have in common: a chunk that is chosen where the file is silent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from attrs import define, evolve

from fscore.component import option
from fscore.kinds.executor import Executor

if TYPE_CHECKING:
    from fscore.builtin.executors.lane import Lane
    from fscore.course import Course
    from fscore.site import Site


PARALLEL = 1e9
"""Counted operations per version from which several cores are worth their messages."""
MOST, SHARES = 8, 4
"""Clients of a batch that are computed one at a time; batches that a version is cut into at least, if cores may share it."""


@define(eq=False, slots=False)
class ChunkedExecutor(Executor):
    """An executor whose chunk follows from the course."""

    def resolve(self, course: Course) -> Executor:
        """Return the executor with its chunk filled in; from here on torch computes on one thread, since bits follow it."""
        import torch

        torch.set_num_threads(1)
        return evolve(self, chunk=self.chunk or self.chunk_of(course))

    def chunk_of(self, course: Course) -> int:
        """Return how many tasks form a batch where the file does not say it: a function of the course alone.

        A quarter of a version that is worth several cores, so that they have equal shares of a small cohort too.
        """
        from fscore.builtin.executors.counting import cost

        found, wanted = cost(course), course.book.wanted
        worth = found.operations * found.steps * wanted >= PARALLEL
        return max(1, min(MOST, wanted // SHARES)) if worth else MOST


@define(eq=False, slots=False)
class OneByOne(ChunkedExecutor):
    """An executor whose lanes compute one client at a time."""

    precision: Literal["float32", "bfloat16"] = option(
        "float32",
        doc="Of the model's products and convolutions; bfloat16 (autocast, parameters stay float32) gives other numbers, "
        "and is faster on some processors only: measure.",
    )

    def resolve(self, course: Course) -> Executor:
        """Return the executor with its chunk filled in; says so where the processor computes bfloat16 in software."""
        import torch

        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported  # noqa: SLF001
        if self.precision == "bfloat16" and not supported():
            sys.stderr.write(
                "executor.precision: this processor computes bfloat16 in software, several times slower than float32\n"
            )
        return super().resolve(course)

    def lane_of(self, site: Site) -> Lane:
        """Return what computes batches, one client at a time."""
        from fscore.builtin.executors.lane import Lane

        return Lane(site, precision=self.precision)


def brief(error: BaseException) -> str:
    """Return an exception in one line that can be written anywhere."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return text.encode("utf-8", "backslashreplace").decode()


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that there is no more memory: the machine's fault, and no client's."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "allocate memory" in str(error)
