"""Closed cohorts inside a course in rounds: who is summed with whom, and what ends a session without a sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define

from fs_secagg.summing import Key, RingSum
from fscore.book import Book
from fscore.builtin.rounds import CohortFailed, CohortReady, PoolChanged
from fscore.participant import Participant, handles
from fscore.tasks import Cohort, Task

VECTORS, OPENED, OVER = "vectors", "opened", "over"


@define(eq=False)
class SessionPool:
    """What a trigger sees of one session: the pool of the course, restricted to its tasks."""

    book: Book
    tasks: frozenset[int]

    @property
    def arrived(self) -> Sequence[tuple[Task, float]]:
        """Unclaimed results of the session and their arrival times."""
        return [(task, at) for task, at in self.book.arrived if task.id in self.tasks]

    @property
    def waiting(self) -> int:
        """How many results of the session arrived and are unclaimed."""
        return len(self.arrived)

    def flying(self) -> Iterator[Task]:
        """Yield the session's tasks under way."""
        return (task for task in self.book.flying() if task.id in self.tasks)

    @property
    def in_flight(self) -> int:
        """How many of them there are."""
        return sum(1 for _ in self.flying())

    @property
    def lost(self) -> int:
        """How many of the session's tasks will give no result."""
        return len(self.tasks) - self.waiting - self.in_flight

    @property
    def version(self) -> int:
        """The current version."""
        return self.book.version

    @property
    def since(self) -> float:
        """When the current version was made."""
        return self.book.since

    @property
    def wanted(self) -> int:
        """How many results a version is made of."""
        return self.book.wanted


@define(eq=False, slots=False)
class SessionServer(Participant):
    """Groups tasks into sessions, asks the trigger session by session, and gives late tasks up.

    Subclasses begin a session, and open its cohort.
    """

    mechanism: RingSum

    # ------------------------------------------------------------------------ beginning

    def begin_all(self) -> None:
        """Group all tasks that were issued since, wave by wave."""
        self._prune()
        known = {t.id for s in self.mechanism.sessions.values() for t in s["tasks"].values()}
        waves: dict[int, list[Task]] = defaultdict(list)
        for task in self.course.book.flying():
            if task.id not in known:
                waves[task.wave].append(task)
        for wave, tasks in waves.items():
            self._begin_wave(wave, tasks)

    def _begin_wave(self, wave: int, tasks: list[Task]) -> None:
        parts, rest = self.mechanism.split(tasks)
        for place, part in enumerate(parts):
            key = (wave, place)
            members = {t.client: t for t in sorted(part, key=lambda t: t.client)}
            self.mechanism.sessions[key] = {
                "step": VECTORS,
                "tasks": members,
                "cohort": None,
                "gone": [],
            }
            self.begin_session(key)
        for task in rest:
            self.course.resolve(task, "aborted")
        if not parts:
            self.emit(CohortFailed(_cohort(tasks), 0))

    def begin_session(self, key: Key) -> None:
        """Begin what a session needs before its clients work."""

    def _prune(self) -> None:
        """Forget sessions none of whose tasks can still be computed or summed."""
        course, sessions = self.course, self.mechanism.sessions
        used = {task.id for task in course.book.unresolved()} | set(course.opener.ended)
        for key, session in list(sessions.items()):
            if not used & {task.id for task in session["tasks"].values()}:
                del sessions[key]
                self.mechanism.forget(key, session["tasks"])

    # ------------------------------------------------------------------------ asking the trigger

    @handles(PoolChanged, emits=(CohortReady, CohortFailed, PoolChanged), replaces="rounds.ask")
    def ask(self, event: PoolChanged) -> None:
        """Ask the trigger, session by session, whether a cohort is ready; the first that is makes the next version.

        One cohort is opened at a time, so that its staleness is what it was when it was claimed.
        """
        going = [
            (k, s) for k, s in self.mechanism.sessions.items() if s["step"] not in (OPENED, OVER)
        ]
        if all(session["cohort"] is None for _, session in going):
            next((key for key, session in going if self._ask(key, session)), None)

    def _ask(self, key: Key, session: dict[str, Any]) -> bool:
        """Ask the trigger of one session; True: its cohort is claimed."""
        course, now = self.course, self.course.loop.now
        pool = SessionPool(course.book, frozenset(t.id for t in session["tasks"].values()))
        for task in course.trigger.given_up(pool, now):
            course.resolve(task, "aborted")
        tasks = course.trigger.ready(pool, now) if session["step"] == VECTORS else ()
        if tasks:
            self._claim(key, session, tasks)
            return True
        wake = course.trigger.wake(pool, now)
        if wake is not None:
            self.emit(PoolChanged(), after=max(0.0, wake - now))
        elif not pool.in_flight:
            self.abort(
                key, f"its session ended with {pool.waiting} vectors, too few for the trigger"
            )
        return False

    def _claim(self, key: Key, session: dict[str, Any], tasks: Sequence[Task]) -> None:
        """Claim a cohort; who is late for it is given up, for no other cohort can use its vector."""
        book = self.course.book
        session["cohort"] = cohort = book.claim(tasks)
        chosen = {task.id for task in tasks}
        for task in self._unresolved(session):
            if task.id not in chosen:
                self.course.resolve(task, "aborted" if book.flies(task.id) else "unused")
        self.emit(CohortReady(cohort))

    def _unresolved(self, session: dict[str, Any]) -> list[Task]:
        own = {task.id for task in session["tasks"].values()}
        return [task for task in self.course.book.unresolved() if task.id in own]

    # ------------------------------------------------------------------------ opening and aborting

    def whole(self, cohort: Cohort) -> Cohort | None:
        """Open a cohort, and name who failed; None: its session ended, because too few are whole."""
        course = self.course
        key = self.mechanism.key_of(cohort.tasks[0])
        if key is None:
            return None
        opened = course.opener.open(cohort)
        for task, reason in opened.failed:
            course.fail(task, reason)
            self.note(task, reason)
        whole, needed = len(opened.cohort.tasks), self.needed(key)
        if whole < needed:
            self.abort(key, f"its session ended with {whole} vectors, {needed} needed")
            return None
        self.mechanism.sessions[key]["cohort"] = opened.cohort
        return opened.cohort

    def needed(self, key: Key) -> int:
        """Return how many whole vectors a session must have."""
        own = len(self.mechanism.sessions[key]["tasks"])
        least: int = self.course.protocol.least(self.course)
        return max(least, own if self.mechanism.every else self.mechanism.least)

    def abort(self, key: Key, reason: str) -> None:
        """End a session without a sum: nothing of it is used, not even in part."""
        course, session = self.course, self.mechanism.sessions[key]
        left = self._unresolved(session)
        whole = sum(1 for task in left if not course.book.flies(task.id))
        session["step"] = OVER
        for task in left:
            self.note(task, reason)
            course.fail(task, reason)
        if session["cohort"] is not None:
            course.opener.opened.pop(session["cohort"].id, None)
        self.emit(CohortFailed(_cohort(list(session["tasks"].values())), whole))

    def note(self, task: Task, reason: str) -> None:
        """Note a failure where the round would, whose handler this one replaces: the first stands in the course's reason."""
        rounds: Any = self.course.protocol
        rounds.note_cause(task, reason)

    def live(self, task: Task) -> tuple[Key, dict[str, Any]] | None:
        """Return the session of a task, while it goes on."""
        key = self.mechanism.key_of(task)
        if key is None or self.mechanism.sessions[key]["step"] == OVER:
            return None
        return key, self.mechanism.sessions[key]


def _cohort(tasks: Sequence[Task]) -> Cohort:
    return Cohort(0, tuple(tasks), (0,) * len(tasks))
