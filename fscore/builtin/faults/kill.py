"""The server's process dies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import option
from fscore.errors import CourseError
from fscore.events import Event
from fscore.kinds.fault import Fault
from fscore.participant import Participant, handles

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class Kill(Fault):
    """The server's process dies at given events, as by `kill -9`; `fscore resume` goes on, and does not die there again.

    A file `killed-N` in the run directory, which is no part of a snapshot, remembers that it happened. A course without a
    run directory fails instead.
    """

    name = "kill"
    events: list[int] = option(doc="Numbers of the events at which it dies; the first event is 1.")

    def check(self, course: Course) -> Iterable[str]:
        """Refuse numbers of events that there are not."""
        key = f"faults.{course.faults.index(self)}.events"
        if not self.events:
            yield f"{key}: an empty list. Remedy: write the number of an event, or remove the fault."
        elif (least := min(self.events)) < 1:
            yield f"{key}: the first event is 1, got {least}"

    def participants(self) -> Iterable[Participant]:
        return (KillServer(self), KillClients(self))

    def meet(self, course: Course) -> None:
        """Die, if it is time."""
        number = course.loop.delivered
        if number not in self.events:
            return
        if course.record is None:
            raise CourseError(f"killed at event {number}")
        marker = course.record.path / f"killed-{number}"
        if marker.exists():
            return
        descriptor = os.open(marker, os.O_CREAT | os.O_WRONLY)
        os.fsync(descriptor)
        os._exit(137)


@define(eq=False, slots=False)
class KillServer(Participant):
    """Looks at every event of the server."""

    name = "kill"
    fault: Kill

    @handles(Event, rank=-1000)
    def look(self, event: Event) -> None:
        """Die, if it is time."""
        self.fault.meet(self.course)


@define(eq=False, slots=False)
class KillClients(Participant):
    """Looks at every event of the clients."""

    name = "kill_clients"
    role = "client"
    fault: Kill

    @handles(Event, rank=-1000)
    def look(self, event: Event) -> None:
        """Die, if it is time."""
        self.fault.meet(self.course)
