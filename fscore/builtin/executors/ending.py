"""A lane whose thread can be ended, as a process can."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import TYPE_CHECKING

from attrs import define, field

from fscore.builtin.executors.lane import Lane

if TYPE_CHECKING:
    from fscore.context import Order, Samples
    from fscore.tasks import Job, Output


class Ended(BaseException):
    """Nobody waits for the batch any more; no failure of a client."""


@define(eq=False)
class EndingLane(Lane):
    """Computes jobs until `ending` is set, then ends before the next step."""

    ending: Event = field(kw_only=True)

    def job(self, job: Job, *, wire: bool = False, raw: bool = False) -> Output:
        """Compute one job.

        Raises:
            Ended: it is to end.
        """
        self._go_on()
        return super().job(job, wire=wire, raw=raw)

    def _split(self, order: Order, data: Samples) -> Iterator[Samples]:
        for batch in super()._split(order, data):
            self._go_on()
            yield batch

    def _go_on(self) -> None:
        if self.ending.is_set():
            raise Ended
