"""What device models have in common: transfers, and what becomes of a task whose client goes offline.

Response time = download + 3 x samples x epochs x ms per sample + upload (Xie et al., FederatedScope, VLDB 2023; Lai et
al., FedScale, ICML 2022, whose factor 3 stands for the forward and the backward pass). Bytes are those on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define

from fscore.builtin.bounds import NOT_NEGATIVE
from fscore.component import option
from fscore.errors import CourseError
from fscore.kinds.availability import Availability
from fscore.kinds.devices import Devices
from fscore.tasks import SERVER

if TYPE_CHECKING:
    import numpy as np

    from fscore.course import Course
    from fscore.events import Message
    from fscore.tasks import Task

PASSES = 3.0
"""Forward passes that a sample gradient costs."""
MOST_SESSIONS = 100_000
"""Sessions of one client that are looked through; who needs more is taken to need them for ever."""


@define(eq=False, slots=False)
class Timed(Devices):
    """Devices whose computing and transfers take time, and which may be offline. A model overrides two methods.

    A client that goes offline before its work or a transfer is done loses its task (`fail`), or goes on when it is back
    (`pause`).
    """

    latency: float = option(
        0.0, doc="Seconds that a message takes beside its bytes.", validator=NOT_NEGATIVE
    )
    availability: Availability | None = option(
        None, doc='When clients are online: { use = "sessions" }; default: always.'
    )
    if_offline: Literal["fail", "pause"] = option(
        "fail", doc="What becomes of a task whose client goes offline."
    )

    def milliseconds(self, client: int, rng: np.random.Generator) -> float:
        """Return the milliseconds of a forward pass on one sample; `rng` is the task's own."""
        raise NotImplementedError

    def kbits(self, client: int) -> float | None:
        """Return the bandwidth in kbit/s; None: transfers take no time."""
        raise NotImplementedError

    def bind(self, course: Course) -> None:
        """Bind the availability too, and remember who takes part."""
        self.streams, self.population = course.streams, course.population
        if self.availability is not None:
            self.availability.bind(course)

    def seconds(self, client: int, work: float, now: float, rng: np.random.Generator) -> float:
        taken = PASSES * work * self.milliseconds(client, rng) / 1000
        return self._there(client, now, taken) - now if self.if_offline == "pause" else taken

    def leaves(
        self, task: Task, start: float, end: float, rng: np.random.Generator
    ) -> tuple[float, str] | None:
        if self.availability is None or (self.if_offline == "pause" and end < math.inf):
            return None
        since = (
            start if self.if_offline == "pause" else task.issued_at
        )  # the download is part of it
        begin, gone = self.availability.session(task.client, since)
        if begin <= since and gone >= end:
            return None
        return max(start, gone if begin <= since else start), "its client went offline"

    def deliver(
        self, message: Message, nbytes: int, now: float, rng: np.random.Generator
    ) -> Sequence[float]:
        client = max(message.sender, message.receiver)
        kbits = self.kbits(client)
        taken = self.latency + (0.0 if kbits is None else nbytes * 8 / 1000 / kbits)
        there = self._there(client, now, taken)
        if there < math.inf:
            return (there,)
        return () if message.receiver == SERVER else (now + taken,)  # `leaves` finds it out

    def _there(self, client: int, now: float, seconds: float) -> float:
        """Return when something that takes so many seconds online is done; infinity: never."""
        if self.availability is None:
            return now + seconds
        for _ in range(MOST_SESSIONS):
            begin, end = self.availability.session(client, now)
            if begin == math.inf or (begin > now and self.if_offline == "fail"):
                return math.inf
            now = max(now, begin)
            if now + seconds <= end:
                return now + seconds
            if self.if_offline == "fail":
                return math.inf
            seconds -= end - now
            now = end
        raise CourseError(
            f"devices.availability: client {client} would need more than {MOST_SESSIONS} sessions for one task, "
            f"until {now:g} s of virtual time. Remedy: longer sessions, or if_offline = 'fail'."
        )

    def online(self, clients: Sequence[int], now: float) -> Sequence[bool]:
        if self.availability is None:
            return [True] * len(clients)
        session = self.availability.session
        return [session(client, now)[0] <= now for client in clients]

    def next_change(self, now: float) -> float | None:
        """Return when the next client that takes part comes online; linear in the population."""
        if self.availability is None:
            return None
        unseen = self.population.unseen
        begins = (
            self.availability.session(client, now)[0]
            for client in range(self.population.size)
            if client not in unseen
        )
        return min((begin for begin in begins if now < begin < math.inf), default=None)
