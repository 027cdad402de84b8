"""Participants: sets of event -> handler pairs, for the server or for all clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import define, field, frozen

from fscore.errors import PluginError, nearest
from fscore.events import Bundle, Condition, Event, Message, Role, class_of

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.tasks import Deferred

Method = TypeVar("Method", bound=Callable[..., None])


@frozen
class Mark:
    """What `@handles` says of a method."""

    event: type[Event]
    emits: tuple[type[Event], ...]
    rank: int
    replaces: str
    bundled: bool


def handles(
    event: type[Event],
    *,
    emits: tuple[type[Event], ...] = (),
    rank: int = 50,
    replaces: str = "",
    bundled: bool = False,
) -> Callable[[Method], Method]:
    """Mark a method as a handler.

    Args:
        event: the class of events; its subclasses are handled too.
        emits: every class of event that the method may send or emit; another one is refused.
        rank: handlers of one event run by (rank, place in the course file).
        replaces: `"participant.method"`, whose place this handler takes.
        bundled: the method takes a `Bundle`: all events of the class that were sent together and happen together.
    """

    def mark(method: Method) -> Method:
        method._fscore_handles = Mark(event, emits, rank, replaces, bundled)  # type: ignore[attr-defined] # noqa: SLF001
        return method

    return mark


@define(eq=False, slots=False)
class Participant:
    """Handlers of the server, or one set for the whole population; who a client is stands in the event."""

    role: ClassVar[Role] = "server"
    name: ClassVar[str] = ""
    """Used by `replaces` and in the graph; empty: the class's name in lower case."""
    course: Course = field(init=False, repr=False)
    _running: Handler | None = field(init=False, default=None, repr=False)

    def send(self, message: Message | Bundle, *, after: float | Deferred = 0.0) -> None:
        """Send a message; it leaves after some seconds, or when a deferred result exists."""
        self._declared(message)
        self.course.dispatch(message, after)

    def emit(self, condition: Condition | Bundle, *, after: float = 0.0) -> None:
        """Raise a condition now, or set a timer."""
        self._declared(condition)
        loop = self.course.loop
        loop.schedule(condition, loop.now + after)

    def _declared(self, event: Event | Bundle) -> None:
        handler, kind = self._running, class_of(event)
        if handler is not None and kind not in handler.mark.emits:
            raise PluginError(
                f"{handler.name} emits {kind.__name__}, which it does not declare. "
                f"Remedy: add it to emits=(...) of @handles."
            )


@frozen(eq=False)
class Handler:
    """A marked method of one participant."""

    name: str
    role: Role
    mark: Mark
    owner: Participant
    method: Callable[[Any], None]

    def __call__(self, event: Event | Bundle) -> None:
        """Handle one event, or a bundle of them."""
        owner = self.owner
        if self.mark.bundled and isinstance(event, Event):
            event = Bundle.of(event)
        before, owner._running = owner._running, self  # noqa: SLF001
        try:
            self.method(event)
        finally:
            owner._running = before  # noqa: SLF001


def handlers_of(participant: Participant) -> Iterator[Handler]:
    """Yield the handlers of a participant, in the order of its class body, base classes first."""
    cls = type(participant)
    label = participant.name or cls.__name__.lower()
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    for name in names:
        mark = getattr(getattr(cls, name, None), "_fscore_handles", None)
        if mark is not None:
            yield Handler(
                f"{label}.{name}", participant.role, mark, participant, getattr(participant, name)
            )


@define(eq=False)
class Handlers:
    """All handlers of a course, by event."""

    every: tuple[Handler, ...]
    _table: dict[type[Event], tuple[Handler, ...]] = field(factory=dict, init=False)

    @classmethod
    def of(cls, participants: Iterable[Participant]) -> Handlers:
        """Collect, let replacers take their places, and sort by (rank, place).

        Raises:
            PluginError: two handlers replace the same one, or one replaces what is not there.
        """
        found = [handler for participant in participants for handler in handlers_of(participant)]
        by_name = {handler.name: i for i, handler in enumerate(found)}
        taken: dict[str, str] = {}
        for handler in [h for h in found if h.mark.replaces]:
            target = handler.mark.replaces
            if target not in by_name:
                raise PluginError(
                    f"{handler.name} replaces '{target}', which is not a handler of this course"
                    f"{nearest(target, by_name)}"
                )
            if target in taken:
                raise PluginError(f"{handler.name} and {taken[target]} both replace {target}")
            taken[target] = handler.name
            found[by_name[target]] = handler
        moved = {by_name[name] for name in taken.values()}
        kept = [handler for i, handler in enumerate(found) if i not in moved]
        return cls(tuple(sorted(kept, key=lambda handler: handler.mark.rank)))

    def deliver(self, event: Event | Bundle) -> None:
        """Call the handlers of an event, or of a bundle, at its receiver."""
        for handler in self.of_class(class_of(event)):
            handler(event)

    def bundled(self, cls: type[Event]) -> bool:
        """Whether bundles of a class are handled whole: by one handler, which takes them."""
        once = getattr(cls, "once", False)
        return not once and [h.mark.bundled for h in self.of_class(cls)] == [True]

    def of_class(self, cls: type[Event]) -> tuple[Handler, ...]:
        """Return the handlers of a class of events, at the role that it goes to."""
        if cls not in self._table:
            role = role_of(cls)
            here = (h for h in self.every if role in (h.role, "any"))
            self._table[cls] = tuple(h for h in here if issubclass(cls, h.mark.event))
        return self._table[cls]


def role_of(cls: type[Event]) -> str:
    """Return the role that handles a class of events: that of the receiver, or of where it holds."""
    if issubclass(cls, Message):
        return cls.to
    return cls.where if issubclass(cls, Condition) else "any"
