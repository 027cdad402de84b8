"""The reporter `timeline`: when each client downloaded, computed and uploaded, and what became of its task.

It writes `trace.jsonl` into the run directory, which `fscore timeline` and `fscore compare` draw: one line per task, when
the task is resolved, with virtual seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.rounds import (
    CohortClosed,
    CohortReady,
    Computed,
    ResultUp,
    Rounds,
    TaskDown,
    TasksDue,
    VersionMade,
)
from fscore.component import state
from fscore.errors import CourseError, SnapshotError
from fscore.events import TaskLost
from fscore.kinds.reporter import Reporter
from fscore.participant import Participant, handles

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.result import Result

FILE = "trace.jsonl"


@define(eq=False, slots=False)
class Timeline(Reporter):
    """Writes `trace.jsonl` for `fscore timeline`; a course without a run directory has none."""

    name = "timeline"
    spans: dict[int, dict[str, Any]] = state(dict)
    """What is known of each task that is not resolved."""
    offset: int = state(int)
    """Bytes written."""

    def bind(self, course: Course) -> None:
        self.course = course
        self.path: Path | None = None

    def check(self, course: Course) -> Iterable[str]:
        """Refuse protocols whose tasks it does not know."""
        if not isinstance(course.protocol, Rounds):
            yield f"reporter: 'timeline' draws courses of the protocol 'rounds', not '{course.protocol.name}'"

    def participants(self) -> Iterable[Participant]:
        if isinstance(self.course.protocol, Rounds):
            yield AtServer(self)
            yield AtClients(self)

    def started(self, course: Course) -> None:
        """Cut the file back to where a snapshot found it."""
        if course.record is None:
            return
        self.path = course.record.path / FILE
        try:
            with self.path.open("ab") as stream:
                if stream.tell() < self.offset:
                    raise SnapshotError(
                        f"{self.path}: has {stream.tell()} bytes, the snapshot expects {self.offset}"
                    )
                stream.truncate(self.offset)
        except OSError as error:
            raise CourseError(f"{self.path}: {error.strerror}") from error

    def note(self, task: int, **facts: Any) -> None:
        """Note facts of a task that is not resolved; the first of a name holds."""
        if task in self.spans:
            self.spans[task] = {**facts, **self.spans[task]}

    def settle(self, unresolved: Iterable[int]) -> None:
        """Write the lines of all tasks but those that are unresolved."""
        kept = set(unresolved)
        done = [task for task in self.spans if task not in kept]
        lines = [
            {"task": task, **_ended(self.spans.pop(task), self.course.loop.now)} for task in done
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.offset += len(text)
        if self.path is None or not text:
            return
        try:
            with self.path.open("ab") as stream:
                stream.write(text)
        except OSError as error:
            raise CourseError(f"{self.path}: {error.strerror}") from error

    def ended(self, result: Result) -> None:
        self.settle(())


def _ended(span: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return a span with how and when the task ended."""
    if "end" in span:
        return dict(span)
    return {**span, "end": "wasted" if "arrived" in span else "aborted", "at": now}


@define(eq=False, slots=False)
class AtServer(Participant):
    """What the server sees of tasks."""

    name = "timeline"
    reporter: Timeline

    @handles(TasksDue, rank=90)
    def issue(self, event: TasksDue) -> None:
        """Note whom the handlers before it issued; some tasks are given up before their model is there."""
        for task in self.course.book.flying():
            known = {"client": task.client, "version": task.version, "issued": task.issued_at}
            self.reporter.spans.setdefault(task.id, known)

    @handles(ResultUp, rank=0)
    def arrive(self, event: ResultUp) -> None:
        """Note an arrival."""
        if self.course.book.flies(event.result.task):
            self.reporter.note(event.result.task, arrived=self.course.loop.now)

    @handles(TaskLost, rank=0)
    def lose(self, event: TaskLost) -> None:
        """Note a loss."""
        if self.course.book.flies(event.task.id):
            self.reporter.note(
                event.task.id, end="failed", at=self.course.loop.now, why=event.reason
            )

    @handles(CohortReady, rank=90)
    def open(self, event: CohortReady) -> None:
        """Note whose update was of no use when it was opened."""
        left = {task.id for task in self.course.book.unresolved()}
        for task in event.cohort.tasks:
            if task.id not in left:
                self.reporter.note(
                    task.id, end="failed", at=self.course.loop.now, why="its update failed"
                )

    @handles(CohortClosed, rank=0)
    def use(self, event: CohortClosed) -> None:
        """Note who is used."""
        for task in event.cohort.tasks:
            self.reporter.note(task.id, end="used", at=self.course.loop.now)

    @handles(VersionMade, rank=0)
    def settle(self, event: VersionMade) -> None:
        """Write what is resolved."""
        self.reporter.settle(task.id for task in self.course.book.unresolved())


@define(eq=False, slots=False)
class AtClients(Participant):
    """What clients do."""

    name = "timeline_clients"
    role = "client"
    reporter: Timeline

    @handles(TaskDown, rank=0)
    def begin(self, event: TaskDown) -> None:
        """Note when the model is there."""
        if self.course.book.flies(event.task.id):
            self.reporter.note(event.task.id, received=self.course.loop.now)

    @handles(Computed, rank=0)
    def end(self, event: Computed) -> None:
        """Note when the work is done."""
        self.reporter.note(event.result.task, computed=self.course.loop.now)
