"""Faults of clients: their tasks are lost."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.bounds import MOST, POSITIVE
from fscore.builtin.devices.online import Process
from fscore.builtin.faults.base import ClientFault, Departure, RandomFault
from fscore.component import option

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.tasks import Task


@define(eq=False, slots=False)
class Drop(RandomFault):
    """The client works, but its result never leaves; the server finds out when it would have."""

    name = "drop"

    def leaves(self, found: Departure, task: Task, start: float, end: float) -> Departure:
        if found is not None or not self.strikes_task(task, start):
            return found
        return end, "its client dropped out"


@define(eq=False, slots=False)
class Crash(ClientFault):
    """Clients crash, lose what they compute, and come back after a while.

    Times between crashes are exponential, or all clients that it can strike crash at given times.
    """

    name = "crash"
    uptime: float | None = option(
        None, doc="Mean seconds from a start to the next crash.", validator=POSITIVE
    )
    at: list[float] = option(factory=list, doc="Virtual seconds of crashes, instead of uptime.")
    downtime: float = option(60.0, doc="Seconds until a client is back.", validator=POSITIVE)

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.times = sorted(self.at)
        self.key = f"faults.{course.faults.index(self)}"
        self.spans = joined(self.during) or [(0.0, math.inf)]
        self.processes: dict[tuple[int, int], Process] = {}

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a crash without a time, or with two."""
        yield from super().check(course)
        key = self.key
        if (self.uptime is None) == (not self.at):
            yield f"{key}: 'crash' needs either uptime or at. Remedy: write one of them."
        if any(not 0 <= time <= MOST for time in self.at):
            yield f"{key}.at: expected virtual seconds, got {self.at!r}"

    def crash(self, client: int, now: float) -> float:
        """Return the first crash whose downtime ends after `now`; infinity: none."""
        if not self.prone(client):
            return math.inf
        if self.uptime is None:
            later = (
                time for time in self.times if time + self.downtime > now and self.active(time)
            )
            return next(later, math.inf)
        for place, (_, end) in enumerate(self.spans):
            if now < end + self.downtime and (found := self._next(client, place, now)) < end:
                return found
        return math.inf

    def _next(self, client: int, place: int, now: float) -> float:
        """Return the first crash of a span whose downtime ends after `now`; it may lie beyond the span.

        Every span begins with a client that is up, whose first crash is exponential as if it had just started.
        """
        process = self._process(client, place)
        while not process.ends or process.at <= now:
            begin = process.at + float(self.uptime or 0.0) * process.rng.exponential()
            process.add(begin, begin + self.downtime, f"{self.key}: crashes")
        return process.begins[bisect_right(process.ends, now)]

    def _process(self, client: int, place: int) -> Process:
        key = (client, place)
        if key not in self.processes:
            rng = self.streams.generator(f"{self.purpose} crashes", *key)
            self.processes[key] = Process(rng, 0.0, self.spans[place][0])
        return self.processes[key]

    def leaves(self, found: Departure, task: Task, start: float, end: float) -> Departure:
        crash = max(start, self.crash(task.client, start))
        if crash > end or (found is not None and found[0] <= crash):
            return found
        return crash, "its client crashed"

    def online(self, found: Sequence[bool], clients: Sequence[int], now: float) -> Sequence[bool]:
        return [
            up and self.crash(client, now) > now for client, up in zip(clients, found, strict=True)
        ]

    def next_change(self, found: float | None, now: float) -> float | None:
        down = (
            self.crash(client, now)
            for client in range(self.population.size)
            if client not in self.population.unseen
        )
        back = [crash + self.downtime for crash in down if crash <= now]
        return min([*back, *([] if found is None else [found])], default=None)


def joined(spans: Iterable[Sequence[float]]) -> list[tuple[float, float]]:
    """Return spans [start, end] in order, those that overlap or touch as one; what is no span is left out."""
    found: list[tuple[float, float]] = []
    for start, end in sorted((span[0], span[1]) for span in spans if len(span) == 2):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
