"""What faults have in common that strike clients and their messages."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import between, option
from fscore.kinds.devices import Devices
from fscore.kinds.fault import Fault
from fscore.tasks import SERVER

if TYPE_CHECKING:
    import numpy as np

    from fscore.course import Course
    from fscore.events import Message
    from fscore.tasks import Task

Departure = tuple[float, str] | None


@define(eq=False, slots=False)
class Struck(Devices):
    """Devices with a fault around them, which changes their answers."""

    inner: Devices
    fault: ClientFault

    def seconds(self, client: int, work: float, now: float, rng: np.random.Generator) -> float:
        return self.inner.seconds(client, work, now, rng)

    def leaves(self, task: Task, start: float, end: float, rng: np.random.Generator) -> Departure:
        return self.fault.leaves(self.inner.leaves(task, start, end, rng), task, start, end)

    def deliver(
        self, message: Message, nbytes: int, now: float, rng: np.random.Generator
    ) -> Sequence[float]:
        return self.fault.deliver(self.inner.deliver(message, nbytes, now, rng), message, now)

    def online(self, clients: Sequence[int], now: float) -> Sequence[bool]:
        return self.fault.online(self.inner.online(clients, now), clients, now)

    def next_change(self, now: float) -> float | None:
        return self.fault.next_change(self.inner.next_change(now), now)


@define(eq=False, slots=False)
class ClientFault(Fault):
    """What faults have in common that strike clients: whom, when, and how often. A fault overrides one method."""

    clients: float | list[int] = option(
        1.0, doc="Whom it can strike: a share of the clients, drawn once, or their ids."
    )
    during: list[list[float]] = option(
        factory=list, doc="Spans of virtual seconds, [[start, end], ...]; default: always."
    )

    def bind(self, course: Course) -> None:
        self.streams, self.population = course.streams, course.population
        self.purpose = f"fault {self.name} {course.faults.index(self)}"
        self.ids = frozenset(self.clients) if isinstance(self.clients, list) else None

    def check(self, course: Course) -> Iterable[str]:
        """Refuse clients and spans that are none."""
        key = f"faults.{course.faults.index(self)}"
        size = self.population.size
        if not isinstance(self.clients, list):
            if not 0 <= self.clients <= 1:
                yield f"{key}.clients: a share must be between 0 and 1, got {self.clients!r}"
        elif unknown := [client for client in self.clients if not 0 <= client < size]:
            yield f"{key}.clients: there is no client {unknown[0]}, ids are 0 to {size - 1}"
        for span in self.during:
            if len(span) != 2 or not 0 <= span[0] < span[1]:
                yield f"{key}.during: expected spans [start, end] of virtual seconds, got {span!r}"

    def around(self, devices: Devices) -> Devices:
        return Struck(devices, self)

    def prone(self, client: int) -> bool:
        """Whether a fault can strike a client at all."""
        if self.ids is not None:
            return client in self.ids
        return self.clients == 1.0 or self._number("prone", client) < float(self.clients)  # type: ignore[arg-type]

    def active(self, now: float) -> bool:
        """Whether `now` lies in a span in which the fault strikes."""
        return not self.during or any(start <= now < end for start, end in self.during)

    def _number(self, what: str, *key: int) -> float:
        return float(self.streams.uniform(f"{self.purpose} {what}", *key, count=1)[0])

    def leaves(self, found: Departure, task: Task, start: float, end: float) -> Departure:
        """Return when and why a client goes away, given what the devices say."""
        return found

    def deliver(self, arrivals: Sequence[float], message: Message, now: float) -> Sequence[float]:
        """Return when a message arrives, given what the devices say."""
        return arrivals

    def online(self, found: Sequence[bool], clients: Sequence[int], now: float) -> Sequence[bool]:
        """Return who is online, given what the devices say."""
        return found

    def next_change(self, found: float | None, now: float) -> float | None:
        """Return when somebody comes online, given what the devices say."""
        return found


@define(eq=False, slots=False)
class RandomFault(ClientFault):
    """A fault that strikes each task, or each message, with a probability."""

    rate: float = option(doc="Probability of each task or message.", validator=between(0, 1))

    def strikes_task(self, task: Task, now: float) -> bool:
        """Whether it strikes a task."""
        if not self.active(now) or not self.prone(task.client):
            return False
        return self._number("task", task.client, task.id) < self.rate

    def strikes_message(self, message: Message, now: float) -> bool:
        """Whether it strikes a message that leaves at `now`."""
        client = max(message.sender, message.receiver)
        if not self.active(now) or not self.prone(client):
            return False
        (moment,) = struct.unpack("<q", struct.pack("<d", now))
        return self._number("message", client, int(message.receiver == SERVER), moment) < self.rate
