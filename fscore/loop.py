"""The event loop: a heap of (time, priority, sequence), and one clock.

The loop knows no feature: it delivers the next event to whoever handles it. Virtual time jumps from event to event; a
loop for real time is a subclass that waits.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field

from fscore.events import Bundle, Condition, Event, class_of


@define(eq=False)
class Loop:
    """Events in the order of their time, then priority, then scheduling."""

    deliver: Callable[[Event | Bundle], None]
    whole: Callable[[type[Event]], bool] = lambda kind: False
    """Whether bundles of a class are delivered whole; others are taken apart."""
    now: float = 0.0
    """Virtual seconds since the course began."""
    delivered: int = 0
    _heap: list[tuple[float, int, int, Event | Bundle]] = field(factory=list)
    _sequence: int = 0
    _once: set[tuple[float, Event]] = field(factory=set)

    def schedule(self, event: Event | Bundle, at: float) -> None:
        """Deliver `event` at time `at`.

        Raises:
            ValueError: `at` lies before now or is no number.
        """
        count = 1
        if isinstance(event, Bundle):
            if not (event and self.whole(event.kind)):
                for one in event:
                    self.schedule(one, at)
                return
            count = len(event)
        if not self.now <= at < math.inf:
            raise ValueError(f"{class_of(event).__name__} cannot happen at {at}: now is {self.now}")
        if isinstance(event, Condition) and event.once:
            if (at, event) in self._once:
                return
            self._once.add((at, event))
        heapq.heappush(self._heap, (at, event.priority, self._sequence, event))
        self._sequence += count

    def step(self) -> Event | Bundle | None:
        """Deliver the next event; None: nothing can happen any more."""
        if not self._heap:
            return None
        at, _, _, event = heapq.heappop(self._heap)
        self.now = at
        if isinstance(event, Condition) and event.once:
            self._once.discard((at, event))
        self.delivered += len(event) if isinstance(event, Bundle) else 1
        self.deliver(event)
        return event

    def dump(self) -> dict[str, Any]:
        """Return the loop as plain data."""
        return {
            "now": self.now,
            "delivered": self.delivered,
            "sequence": self._sequence,
            "heap": sorted(self._singly()),
        }

    def _singly(self) -> Iterator[tuple[float, int, int, Event]]:
        for at, priority, sequence, event in self._heap:
            for i, one in enumerate(event if isinstance(event, Bundle) else (event,)):
                yield at, priority, sequence + i, one

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `dump` returned."""
        self.now, self.delivered = data["now"], data["delivered"]
        self._sequence, self._heap = data["sequence"], list(data["heap"])
        self._once = {
            (at, event)
            for at, _, _, event in self._heap
            if isinstance(event, Condition) and event.once
        }
