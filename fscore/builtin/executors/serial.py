"""The reference executor: one job after another, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.executors.base import OneByOne

if TYPE_CHECKING:
    from fscore.site import Site
    from fscore.tasks import Batch, BatchOutput


@define(eq=False, slots=False)
class SerialExecutor(OneByOne):
    """Computes one job after another on one thread."""

    name = "serial"

    def start(self, site: Site) -> None:
        self.lane = self.lane_of(site)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        return map(self.lane.batch, batches)
