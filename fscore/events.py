"""Events: what handlers handle.

There are two kinds. A `Message` passes from one participant to another and takes time. A `Condition` is raised by a
participant, now or by a timer, when something holds (all received, goal achieved, time is up). Both are frozen attrs
classes of plain data: scalars, text, tuples, tensors, `Task`, `Deferred`, `Cohort`. Plugins define their own.

Within one instant events are delivered in the order arrival < timer < aggregate < evaluate < dispatch, so that every
arrival of an instant is consumed before any dispatch of that instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

from attrs import define, field, fields, frozen

from fscore.tasks import SERVER, ClientId, Task

ARRIVAL, TIMER, AGGREGATE, EVALUATE, DISPATCH = range(5)
Role = Literal["server", "client"]


@frozen
class Event:
    """Anything that a handler can handle."""

    priority: ClassVar[int] = TIMER
    """Order inside one instant; arrivals first, dispatches last."""
    raised_by_kernel: ClassVar[bool] = False
    """Whether the kernel itself raises it, so that no handler needs to declare it."""


@frozen
class Message(Event):
    """Something that one participant sends to another; it arrives after its transfer time."""

    priority: ClassVar[int] = ARRIVAL
    to: ClassVar[Role] = "server"
    """Role of the receiver."""
    sender: ClientId
    receiver: ClientId


@frozen
class Condition(Event):
    """Something that holds at a participant; a timer that became stale is known by its fields, never cancelled."""

    where: ClassVar[Role | Literal["any"]] = "server"
    """Role of the participant that it holds at; `any`: whoever handles it."""
    once: ClassVar[bool] = False
    """Equal ones that are pending for the same instant are delivered once."""
    at: ClientId = field(default=SERVER, kw_only=True)


@lru_cache
def names_of(kind: Any) -> tuple[str, ...]:
    """Return the names of a class's fields."""
    return tuple(f.name for f in fields(kind))


@define(eq=False)
class Bundle:
    """Events of one class that happen at one instant, as columns by field: the same as if each were scheduled by itself."""

    kind: type[Event]
    columns: Mapping[str, Sequence[Any]]

    @property
    def priority(self) -> int:
        """That of its events."""
        return self.kind.priority

    @classmethod
    def of(cls, event: Event) -> Bundle:
        """Return a bundle of one event."""
        names = names_of(type(event))  # type: ignore[arg-type]
        return cls(type(event), {name: (getattr(event, name),) for name in names})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self.columns[name]

    def __iter__(self) -> Iterator[Event]:
        if issubclass(self.kind, Message):  # without fields by keyword alone: five times as fast
            ordered = [self.columns[n] for n in names_of(self.kind)]  # type: ignore[arg-type]
            return (self.kind(*row) for row in zip(*ordered, strict=True))
        rows = zip(*self.columns.values(), strict=True)
        return (self.kind(**dict(zip(self.columns, row, strict=True))) for row in rows)


def class_of(event: Event | Bundle) -> type[Event]:
    """Return the class of an event, or of the events of a bundle."""
    return event.kind if isinstance(event, Bundle) else type(event)


@frozen
class CourseStarted(Condition):
    """The course begins; raised by the kernel once, at time 0."""

    where: ClassVar[Role | Literal["any"]] = "any"
    once: ClassVar[bool] = True
    raised_by_kernel: ClassVar[bool] = True


@frozen
class TaskLost(Condition):
    """A task will give no result: lost on the way, its client left, or its deadline passed."""

    priority: ClassVar[int] = ARRIVAL
    raised_by_kernel: ClassVar[bool] = True
    task: Task
    reason: str


@frozen
class Released(Condition):
    """Something computed from private data became visible (a model, a metric); ledgers handle it.

    `facts` are (name, value) pairs: sensitivity, noise multiplier, sampling scheme, rate, unit.
    """

    priority: ClassVar[int] = AGGREGATE
    raised_by_kernel: ClassVar[bool] = True
    what: str
    facts: tuple[tuple[str, bool | int | float | str], ...] = ()


@frozen
class Ending(Condition):
    """The course shall end, for `reason`; `failed` when it could not reach its end."""

    priority: ClassVar[int] = EVALUATE
    reason: str
    failed: bool = False
