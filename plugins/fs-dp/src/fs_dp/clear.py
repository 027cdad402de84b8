"""What a course tells of private data without noise: named and counted in the ledger, or withheld at the client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fscore.paths import Stage

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import Tensors

METRICS = "metrics"
"""Group of every update: the sum of training losses and the number of samples."""
MEANINGS: Mapping[str, str] = {
    "train_loss": "of the clients of a version",
    "participation": "how many clients made a version (updates, bytes)",
    "evaluation": "of a model on clients' data",
}
"""What a line of metrics may hold, by the name under which it is counted."""


class Withheld(Stage):
    """A client says nothing of its training: sum of losses and number of samples are zero when they leave it."""

    name = "withhold metrics"
    rank = 30
    lifts = True

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        hidden = {n: v.new_zeros(v.shape) for n, v in values.items() if n == METRICS}
        return {**values, **hidden}, {}


def with_each_version(course: Course, *, withheld: bool) -> Iterator[str]:
    """Yield what every line of metrics tells of the clients of its version, evaluations aside."""
    if not withheld and METRICS in course.site.upload.layouts[0]:
        yield "train_loss"
    yield "participation"


def on_clients(metrics: Mapping[str, float]) -> bool:
    """Whether an evaluation is of clients' data, rather than of the server's own."""
    return any(not name.startswith("server_") for name in metrics)


def foreseen(course: Course, versions: int, *, withheld: bool) -> dict[str, int]:
    """Return how often a course of so many versions tells each of `MEANINGS`, at most."""
    found = dict.fromkeys(with_each_version(course, withheld=withheld), versions)
    every = course.evaluator.every
    at_the_end = not (every and versions % every == 0 and course.evaluator.whole)
    return {**found, "evaluation": (versions // every if every else 0) + at_the_end}
