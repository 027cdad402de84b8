"""The round, as a protocol: synchronous and asynchronous courses are configurations of the same handlers.

CourseStarted -> TasksDue -> TaskDown -> Computed -> ResultUp -> PoolChanged -> CohortReady -> CohortClosed | CohortFailed
                                                                             -> VersionMade -> TasksDue | Ending
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from attrs import define

from fscore.builtin.round_events import (
    CohortClosed,
    CohortFailed,
    CohortReady,
    Computed,
    PoolChanged,
    ResultUp,
    TaskDown,
    TasksDue,
    VersionMade,
)
from fscore.component import ge, gt, option, state
from fscore.course import Course
from fscore.errors import CourseError, PluginError
from fscore.events import Bundle, CourseStarted, Ending, TaskLost
from fscore.kinds.protocol import Protocol
from fscore.participant import Participant, handles
from fscore.rng import LazyGenerator
from fscore.tasks import SERVER, Deferred, Task

__all__ = [
    "CohortClosed",
    "CohortFailed",
    "CohortReady",
    "Computed",
    "PoolChanged",
    "ResultUp",
    "Rounds",
    "TaskDown",
    "TasksDue",
    "VersionMade",
]


@define(eq=False, slots=False)
class Rounds(Protocol):
    """The server samples, clients train, the server aggregates: FedAvg, FedBuff and what lies between.

    The server collects results, the trigger says which of them make a version, and tasks in flight are refilled after
    aggregating or on each arrival (Xie et al., FederatedScope, VLDB 2023, section 3.3).
    """

    name = "rounds"
    tables = frozenset({"sampler", "trigger", "aggregator", "server_optimizer"})

    broadcast: Literal["after_aggregating", "after_receiving"] = option(
        "after_aggregating", doc="When tasks are refilled: with each version, or on each arrival."
    )
    concurrency: int | None = option(
        None, doc="Tasks in flight at most; default: what the sampler issues.", validator=ge(1)
    )
    staleness_limit: int | None = option(
        None, doc="Tasks older than that many versions are given up.", validator=ge(0)
    )
    min_results: int = option(1, doc="Whole updates that a version needs.", validator=ge(1))
    timeout: float | None = option(
        None, doc="Virtual seconds after which a task is lost.", validator=gt(0)
    )
    cause: str = state(str)
    """Client and reason of the first failure since the last version."""
    begun: dict[int, float] = state(dict)
    """When work on each task under way began, so that a task that arrives twice is done once."""
    lost: int = state(int)
    """Tasks that were lost since the last result came back."""
    waited: int = state(int)
    """Results that waited when nothing was in flight the last time."""
    idle: int = state(int)
    """Times in a row that somebody came online and nobody was sampled."""
    waves_now: int = state(int)
    """Waves issued at the same instant on the same version."""
    instant: tuple[float, int] = state(lambda: (0.0, -1))
    """When, and on which version, the last wave was issued."""

    WAVES = 1_000
    """Waves at one instant after which a course is taken to stand still."""
    WAITS = 1_000
    """Times in a row that somebody comes online in vain after which nobody is taken to be sampled any more."""

    @property
    def closes(self) -> bool:
        """Whether late tasks are given up with each version, so that a cohort lies in one wave."""
        return self.broadcast == "after_aggregating" and self.staleness_limit == 0

    def flags(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        needs, provides, removes = super().flags()
        if self.broadcast == "after_aggregating":
            return needs, provides, removes
        return needs | {"open_cohort"}, provides, removes | {"closed_cohort", "fresh_updates"}

    def check(self, course: Course) -> Iterable[str]:
        """Refuse bounds that no cohort can meet."""
        issued = self.tasks_at_once(course)
        if self.min_results > issued:
            yield (
                f"protocol.min_results: {self.min_results} results, but only {issued} tasks are in flight. "
                "Remedy: lower it, or raise sampler.clients."
            )
        elif (least := self.least(course)) > issued and not any(course.aggregator.check(course)):
            yield (
                f"aggregator.use: '{course.aggregator.name}' works on {least} updates at least, but only {issued} "
                "tasks are in flight. Remedy: raise sampler.clients."
            )
        if self.concurrency and issued > course.population.participants:
            yield (
                f"protocol.concurrency: {issued} tasks in flight, but only {course.population.participants} "
                "clients take part. Remedy: lower it."
            )

    def tasks_at_once(self, course: Course) -> int:
        """Return how many tasks are in flight at most."""
        issued: int = course.sampler.issued(course.population)
        return self.concurrency or issued

    def least(self, course: Course) -> int:
        """Return how many whole updates a version needs."""
        return max(self.min_results, int(course.aggregator.least))

    def note_cause(self, task: Task, reason: str) -> None:
        """Remember the first failure since the last version."""
        self.cause = self.cause or f"client {task.client}: {reason}"

    def participants(self) -> Iterable[Participant]:
        """Return the server and the clients."""
        return (RoundsServer(self), RoundsClients(self))


@define(eq=False, slots=False)
class RoundsServer(Participant):
    """The server of a course in rounds."""

    name = "rounds"
    options: Rounds

    @handles(CourseStarted, emits=(TasksDue, Ending))
    def begin(self, event: CourseStarted) -> None:
        """Begin with the first tasks, or end a course of no versions."""
        self._go_on()

    @handles(TasksDue, emits=(TaskDown, PoolChanged, CohortReady, TasksDue, Ending))
    def issue(self, event: TasksDue) -> None:
        """Refill what is in flight."""
        course, book = self.course, self.course.book
        waiting = book.waiting
        kept = 0 if event.starved or self.options.broadcast == "after_receiving" else waiting
        issued = self._send_out(self.options.tasks_at_once(course) - book.in_flight - kept)
        if issued or (waiting and not event.starved):
            self.emit(PoolChanged())
        elif course.sampler.scheme == "poisson" and self._everybody_online():
            course.issue(())
            self.emit(CohortReady(book.claim(())))
        elif not book.in_flight:
            self._nobody_free(event)

    def _everybody_online(self) -> bool:
        """Whether devices never go offline, so that a draw of nobody is a draw and no waiting."""
        course = self.course
        return not course.book.in_flight and course.devices.next_change(course.loop.now) is None

    def _send_out(self, room: int) -> int:
        """Issue tasks where there is room; return how many."""
        course, total = self.course, 0
        while total < room and (clients := course.sample(room - total)):
            tasks = course.issue(clients, timeout=self.options.timeout)
            names = {"sender": [SERVER] * len(tasks), "receiver": [t.client for t in tasks]}
            self.send(Bundle(TaskDown, {**names, "task": tasks}))
            total += len(clients)
            if not course.sampler.waves:
                break
        self._note_waves(total)
        return total

    def _note_waves(self, issued: int) -> None:
        """Note that somebody was sampled; end a course in which that goes on while time does not."""
        course, options = self.course, self.options
        if not issued:
            return
        options.idle = 0
        instant = (course.loop.now, course.book.version)
        options.waves_now = options.waves_now + 1 if instant == options.instant else 0
        options.instant = instant
        if options.waves_now > options.WAVES:
            self.emit(
                Ending(
                    f"time stands still at {course.loop.now} s: {options.WAVES} waves were issued, and trigger "
                    f"'{course.trigger.name}' does not fire. Remedy: devices.compute above 0, or another trigger",
                    failed=True,
                )
            )

    def _nobody_free(self, event: TasksDue) -> None:
        """Wait until somebody comes online, if that helps."""
        now, options = self.course.loop.now, self.options
        change = self.course.devices.next_change(now)
        options.idle += 1
        if change is None or change <= now:
            self.emit(
                Ending("nobody can be sampled: no client is free, and none will be", failed=True)
            )
        elif options.idle > options.WAITS:
            self.emit(
                Ending(
                    f"nobody can be sampled: somebody came online {options.WAITS} times in a row, but sampler "
                    f"'{self.course.sampler.name}' took nobody",
                    failed=True,
                )
            )
        else:
            self.emit(event, after=change - now)

    @handles(ResultUp, emits=(PoolChanged, TasksDue), bundled=True)
    def collect(self, events: Bundle) -> None:
        """Note arrivals; their values are opened later."""
        book, now = self.course.book, self.course.loop.now
        arrived = [task for r in events["result"] if (task := book.arrive(r.task, now))]
        for task in arrived:
            self.course.sampler.returned(task, now - task.issued_at)
        if arrived and self.options.lost:
            self.options.lost = 0
        if arrived:
            self._changed()

    @handles(TaskLost, emits=(PoolChanged, TasksDue, Ending))
    def lose(self, event: TaskLost) -> None:
        """Note that a task will give no result; end a course in which none ever does."""
        if not self.course.book.flies(event.task.id):
            return
        self.course.fail(event.task, event.reason)
        self.options.note_cause(event.task, event.reason)
        self.options.lost += 1
        rounds = 1 + self.course.config.course.patience
        if self.options.lost > rounds * self.options.tasks_at_once(self.course):
            self.emit(
                Ending(
                    f"{self.options.lost} tasks in a row were lost, the last one because {event.reason}",
                    failed=True,
                )
            )
        else:
            self._changed()

    def _changed(self) -> None:
        self.emit(PoolChanged())
        if self.options.broadcast == "after_receiving":
            self.emit(TasksDue())

    @handles(PoolChanged, emits=(CohortReady, PoolChanged, TasksDue, Ending))
    def ask(self, event: PoolChanged) -> None:
        """Ask the trigger whether a cohort is ready."""
        course, book, now = self.course, self.course.book, self.course.loop.now
        tasks = course.trigger.ready(book, now)
        if tasks:
            self.emit(CohortReady(book.claim(_checked(tasks, course.trigger.name))))
            return
        if given_up := course.trigger.given_up(book, now):
            self._give_up(given_up)
            return
        wake = course.trigger.wake(book, now)
        if wake is not None:
            self.emit(PoolChanged(), after=max(0.0, wake - now))
        elif not book.in_flight:
            self._starved()

    def _give_up(self, tasks: Sequence[Task]) -> None:
        """Wait for these tasks no longer: sample others, a few times."""
        course = self.course
        for task in tasks:
            course.resolve(task, "aborted")
        course.barren += 1
        if course.barren > course.config.course.patience:
            self.emit(
                Ending(
                    f"trigger '{course.trigger.name}' gave up {len(tasks)} tasks: {course.barren} times in a row "
                    "nobody came in time",
                    failed=True,
                )
            )
        else:
            self.emit(TasksDue())

    def _starved(self) -> None:
        """Nothing is in flight and the trigger waits for more than there is: sample again, a few times in vain."""
        course = self.course
        whole = self.options.tasks_at_once(course)
        if self.options.waited < course.book.waiting <= whole:
            course.barren = 0  # more came back, and a cohort may yet be whole
        self.options.waited = course.book.waiting
        course.barren += 1
        if course.barren > course.config.course.patience:
            waiting = course.book.waiting
            self.emit(
                Ending(
                    f"trigger '{course.trigger.name}' does not fire: {waiting} results wait and no task is in "
                    f"flight"
                    + (f"; the first failure: {self.options.cause}" if self.options.cause else ""),
                    failed=True,
                )
            )
        else:
            self.emit(TasksDue(starved=True))

    @handles(CohortReady, emits=(CohortClosed, CohortFailed))
    def open(self, event: CohortReady) -> None:
        """Open a cohort: compute what is missing, name who failed."""
        course = self.course
        opened = course.opener.open(event.cohort)
        for task, reason in opened.failed:
            course.fail(task, reason)
            self.options.note_cause(task, reason)
        whole = opened.cohort.tasks
        if len(whole) >= self.options.least(course) or not event.cohort.tasks:
            self.emit(CohortClosed(opened.cohort))
        else:
            del course.opener.opened[event.cohort.id]
            course.book.release(whole, course.loop.now)
            self.emit(CohortFailed(event.cohort, len(whole)))

    @handles(CohortFailed, emits=(TasksDue, Ending))
    def retry(self, event: CohortFailed) -> None:
        """Sample again, or give up after too many failures in a row."""
        course = self.course
        course.failed_cohorts += 1
        course.barren += 1
        if course.barren >= course.config.course.patience:
            self.emit(
                Ending(
                    f"{_cohorts(course.barren)} failed: {event.whole} whole updates of "
                    f"{len(event.cohort.tasks)}, at least {self.options.least(course)} needed"
                    + (f"; the first: {self.options.cause}" if self.options.cause else ""),
                    failed=True,
                )
            )
        else:
            self.emit(TasksDue())

    @handles(CohortClosed, emits=(VersionMade,))
    def aggregate(self, event: CohortClosed) -> None:
        """Make the next version."""
        course = self.course
        course.advance(course.opener.opened.pop(event.cohort.id))
        self.options.waited, self.options.cause = 0, ""
        self._give_up_stale()
        self._forget_begun()
        self.emit(VersionMade(course.book.version))

    def _give_up_stale(self) -> None:
        limit, book = self.options.staleness_limit, self.course.book
        if limit is None:
            return
        for task in list(book.unresolved()):
            if book.version - task.version > limit:
                self.course.resolve(task, "aborted" if book.flies(task.id) else "expired")

    def _forget_begun(self) -> None:
        begun, book = self.options.begun, self.course.book
        self.options.begun = {task: at for task, at in begun.items() if book.flies(task)}

    @handles(VersionMade, emits=(TasksDue, Ending))
    def publish(self, event: VersionMade) -> None:
        """Evaluate and report the version, then go on or end."""
        self.course.report()
        self._go_on()

    def _go_on(self) -> None:
        course, until = self.course, self.course.config.course.until
        if until.versions is not None and course.book.version >= until.versions:
            self.emit(Ending(f"made {course.book.version} versions"))
        elif (
            until.client_updates is not None and course.book.counts["used"] >= until.client_updates
        ):
            self.emit(Ending(f"used {course.book.counts['used']} client updates"))
        else:
            self.emit(TasksDue())
            if until.virtual_time is not None and not course.book.version:
                self.emit(Ending("virtual time is up"), after=until.virtual_time - course.loop.now)


def _checked(tasks: Sequence[Task], trigger: str) -> Sequence[Task]:
    """Return what a trigger's `ready` gave, if it is tasks."""
    if isinstance(tasks, list | tuple) and all(isinstance(task, Task) for task in tasks):
        return tasks
    raise PluginError(f"trigger '{trigger}': ready() gave {tasks!r:.80}, expected a list of tasks")


def _cohorts(count: int) -> str:
    return "a cohort" if count == 1 else f"{count} cohorts in a row"


def _possible(task: Task, seconds: float) -> None:
    """Refuse times that no client can take."""
    if not 0 <= seconds < math.inf:
        raise CourseError(f"devices: client {task.client} would compute for {seconds} s")


@define(eq=False, slots=False)
class RoundsClients(Participant):
    """All clients of a course in rounds."""

    name = "clients"
    role = "client"
    options: Rounds

    @handles(TaskDown, emits=(Computed, TaskLost), bundled=True)
    def train(self, events: Bundle) -> None:
        """Begin to work, and find out whether the clients stay until they are done."""
        course, begun, now = self.course, self.options.begun, self.course.loop.now
        flies, alike = course.book.flies, course.devices.alike
        staying: dict[float, tuple[list[Deferred], list[int]]] = {}
        for task in events["task"]:
            if not flies(task.id) or task.id in begun:
                continue
            result = course.work(task)
            begun[task.id] = now
            if result.seconds not in staying:
                _possible(task, result.seconds)
            if alike or self._stays(task, result.seconds):
                results, clients = staying.setdefault(result.seconds, ([], []))
                results.append(result)
                clients.append(task.client)
        for seconds, (results, clients) in staying.items():
            self.emit(Bundle(Computed, {"result": results, "at": clients}), after=seconds)

    def _stays(self, task: Task, seconds: float) -> bool:
        """Return whether a client computes to the end; if not, say when its task is lost."""
        course, now = self.course, self.course.loop.now
        rng = LazyGenerator(course.streams, "leaving", task.client, task.id)
        gone = course.devices.leaves(task, now, now + seconds, rng)
        if gone:
            self.emit(TaskLost(task, gone[1]), after=gone[0] - now)
        return gone is None

    @handles(Computed, emits=(ResultUp,), bundled=True)
    def report(self, events: Bundle) -> None:
        """Send the results, but for tasks that the server gave up."""
        flies = self.course.book.flies
        pairs = zip(events["at"], events["result"], strict=True)
        kept = [(client, result) for client, result in pairs if flies(result.task)]
        if kept:
            senders, results = zip(*kept, strict=True)
            names = {"sender": senders, "receiver": [SERVER] * len(kept)}
            self.send(Bundle(ResultUp, {**names, "result": results}))
