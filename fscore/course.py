"""The course: assembled from a configuration, run event by event, snapshotted and restored."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from fscore.book import Book
from fscore.component import Component, Scalar, states_of
from fscore.errors import CourseError, WriteError
from fscore.events import Bundle, CourseStarted, Ending, Message, TaskLost, names_of
from fscore.folding import finite
from fscore.loop import Loop
from fscore.opening import Opened, Opener
from fscore.params import Tensors
from fscore.reporting import Reporting
from fscore.result import Recorder, Result
from fscore.rng import LazyGenerator, Streams
from fscore.tasks import SERVER, Cohort, Deferred, Resolution, Task

if TYPE_CHECKING:
    import torch

    from fscore.config import Config
    from fscore.context import Samples
    from fscore.graph import Graph
    from fscore.kinds.evaluator import Evaluator
    from fscore.kinds.population import Population
    from fscore.kinds.store import Store
    from fscore.params import ParamSpace
    from fscore.participant import Handlers
    from fscore.site import Site


GC_THRESHOLDS = (20_000, 10, 10)
"""Thresholds of the garbage collector while a course runs: with Python's, each wave of tasks is searched many times."""


@frozen
class ServerView:
    """What a download stage may see: the task that is sent, and nothing of the client."""

    task: Task

    def enter_stage(self, index: int, owner: str) -> None:
        """Download stages keep no state."""


@define(eq=False, slots=False)
class Course:
    """One federated course. `run` takes it to its end; `fscore.assembly` fills it."""

    config: Config
    record: Recorder | None = None
    components: dict[str, Component] = field(factory=dict, init=False)
    loop: Loop = field(init=False)
    book: Book = field(init=False)
    streams: Streams = field(init=False)
    opener: Opener = field(init=False)
    bank: dict[int, Tensors] = field(factory=dict, init=False)
    """Versions in use: slots by version."""
    bytes_up: int = 0
    bytes_down: int = 0
    failed_cohorts: int = 0
    """Failed cohorts in all."""
    barren: int = 0
    """Failed cohorts or starved attempts since the last version."""
    ending: Ending | None = field(default=None, init=False)
    messages: int = 0
    reporting: Reporting = field(init=False)
    _announced: dict[int, dict[str, Scalar]] = field(factory=dict, init=False)
    _sent: dict[int, Tensors] = field(factory=dict, init=False)
    _unrecorded: bool = field(default=False, init=False)
    _pace: tuple[Any, float] = field(default=(None, 0.0), init=False)
    """The last work that was asked for and when, and the seconds that it takes."""

    # filled by fscore.assembly
    dataset: Any = field(init=False)
    model: Any = field(init=False)
    objective: Any = field(init=False)
    trainer: Any = field(init=False)
    sampler: Any = field(init=False)
    trigger: Any = field(init=False)
    protocol: Any = field(init=False)
    aggregator: Any = field(init=False)
    server_optimizer: Any = field(init=False)
    devices: Any = field(init=False)
    executor: Any = field(init=False)
    privacy: list[Any] = field(factory=list, init=False)
    attacks: list[Any] = field(factory=list, init=False)
    faults: list[Any] = field(factory=list, init=False)
    policies: list[Any] = field(factory=list, init=False)
    reporters: list[Any] = field(factory=list, init=False)
    evaluator: Evaluator = field(init=False)
    population: Population = field(init=False)
    module: Any = field(init=False)
    space: ParamSpace = field(init=False)
    initial: torch.Tensor = field(init=False)
    example: Samples = field(init=False)
    """Two samples of a client, for shapes."""
    random_layers: bool = field(default=False, init=False)
    """Whether the model draws random numbers in training."""
    removed: frozenset[str] = field(default=frozenset(), init=False)
    """Flags that do not hold in this course."""
    advice: tuple[str, ...] = field(default=(), init=False)
    """What components say of what is legal and surely not wanted."""
    site: Site = field(init=False)
    store: Store = field(init=False)
    handlers: Handlers = field(init=False)
    graph: Graph = field(init=False)
    participants: list[Any] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        from fscore.assembly import assemble

        self.host = self.config.host
        self.streams = Streams(self.config.course.seed)
        self.book = Book()
        self.opener = Opener(self)
        self.reporting = Reporting(self)
        assemble(self)
        self.loop = Loop(self.handlers.deliver, self.handlers.bundled)
        self.book.wanted = self.sampler.wanted(self.population)
        self.bank[0] = self.trainer.first_slots(self.initial)
        self._announced[0] = self._announce()
        self.executor = self.executor.resolve(self)
        self.components["executor"] = self.config.components["executor"] = self.executor
        self.host.call("fscore_course_configured", course=self)

    # ------------------------------------------------------------------------ what stays fixed

    @property
    def single_updates(self) -> bool:
        """Whether updates are needed one by one."""
        return bool(self.aggregator.individual or self.site.rows or self.reporting.watched)

    @property
    def everything(self) -> dict[str, Component]:
        """Every component by its table, and the plugins that are switched on."""
        return {**self.components, **{f"plugins.{p.name}": p for p in self.host.plugins}}

    @property
    def durable(self) -> bool:
        """Whether some component wants each version on disk before anybody reads it."""
        return any(c.durable for c in self.everything.values())

    def admits(self, cohort: Cohort) -> str:
        """Return why a privacy mechanism refuses that a cohort is opened; empty: none does."""
        return next(filter(None, (m.admits(cohort) for m in self.privacy)), "")

    @property
    def settled(self) -> bool:
        """Whether the current version is reported, so that a trial may pause here."""
        lines = self.reporting.history[-1:]
        return bool(lines) and lines[0]["version"] == self.book.version

    # ------------------------------------------------------------------------ events

    def dispatch(self, message: Message | Bundle, after: float | Deferred = 0.0) -> None:
        """Put a message on its way, or a bundle; devices say when it arrives, or that it is lost."""
        first: Any = message
        count = 1
        if isinstance(message, Bundle):
            if not (message and self.devices.alike and self._even(message)):
                for one in message:
                    self.dispatch(one, after)  # type: ignore[arg-type]
                return
            first, count = next(iter(message)), len(message)
        nbytes = self.nbytes(first)
        if first.receiver == SERVER:
            self.bytes_up += count * nbytes
        else:
            self.bytes_down += count * nbytes
        leaves = self.loop.now + (after.seconds if isinstance(after, Deferred) else after)
        self.messages += count
        rng = LazyGenerator(self.streams, "delivery", self.messages)
        arrivals = self.devices.deliver(first, nbytes, leaves, rng)
        for at in arrivals:
            self.loop.schedule(message, at)
        if not arrivals:
            self._lost(first, leaves)

    def _lost(self, message: Message, at: float) -> None:
        for value in (getattr(message, name, None) for name in ("task", "result")):
            ids = {getattr(value, "id", None), getattr(value, "task", None)}
            for task in self.book.flying():
                if task.id in ids:
                    self.loop.schedule(TaskLost(task, "its message was lost"), at)

    def nbytes(self, message: Message) -> int:
        """Return the bytes of a message: of what is sent down with a task, of a result, of tensors."""
        names = names_of(type(message))  # type: ignore[arg-type]
        return sum(self._size(getattr(message, name)) for name in names)

    def _size(self, value: Any) -> int:
        if type(value) is Task:
            return self.site.download.nbytes
        return len(value) if type(value) is bytes else int(getattr(value, "nbytes", 0))

    def _even(self, bundle: Bundle) -> bool:
        """Whether the messages of a bundle are equally large."""
        ends = ("sender", "receiver")
        mail = [column for name, column in bundle.columns.items() if name not in ends]
        return all(len(set(map(self._size, column))) == 1 for column in mail)

    # ------------------------------------------------------------------------ tasks, for protocols

    def free(self, clients: Sequence[int], now: float) -> list[bool]:
        """Return which clients take part, have no task, and are online."""
        unseen, busy = self.population.unseen, self.book.busy
        online = self.devices.online(clients, now)
        return [
            up and client not in busy and client not in unseen
            for client, up in zip(clients, online, strict=True)
        ]

    def sample(self, count: int) -> Sequence[int]:
        """Ask the sampler for up to `count` clients."""
        rng = self.streams.generator("sampling", self.book.waves)
        return self.sampler.select(count, self.population, self.loop.now, rng)  # type: ignore[no-any-return]

    def issue(
        self,
        clients: Sequence[int],
        *,
        kind: str = "train",
        timeout: float | None = None,
        inputs: tuple[Deferred, ...] = (),
    ) -> list[Task]:
        """Enter one task per client into the book, as one wave on the current version.

        Args:
            timeout: virtual seconds after which a task is lost, if its result did not arrive.
            inputs: results of other tasks that these start from.
        """
        book, now = self.book, self.loop.now
        book.waves += 1
        version, wave, tasks = book.version, book.waves, []
        plain = not (self.policies or self.config.overrides)
        for client in clients:
            hparams, memo = ({}, {}) if plain else self._hparams(client)
            task = Task(book.issued, client, version, kind, wave, hparams, inputs, memo, now)
            book.issue(task)
            tasks.append(task)
            if timeout is not None:
                self.loop.schedule(TaskLost(task, "its deadline passed"), now + timeout)
        if self.host.implements("fscore_version_started"):
            self.host.call(
                "fscore_version_started", course=self, version=book.version, tasks=tuple(tasks)
            )
        return tasks

    def _hparams(self, client: int) -> tuple[Mapping[str, Scalar], Mapping[str, Any]]:
        hparams: dict[str, Scalar] = {}
        memo: dict[str, Any] = {}
        for i, policy in enumerate(self.policies):
            rng = self.streams.generator("policy", i, self.book.issued)
            chosen, remembered = policy.choose(client, self.book.version, rng)
            hparams.update(chosen)
            memo.update(remembered)
        for override in self.config.overrides:
            if client in override.clients:
                hparams.update(override.values)
        return hparams, memo

    def work(self, task: Task) -> Deferred:
        """Begin a task at its client; this computes nothing and says how long it takes and how large it is."""
        asked = self.site.seconds_of_work(task), self.loop.now
        if self._pace[0] != asked or not self.devices.alike:
            rng = LazyGenerator(self.streams, "compute", task.client, task.id)
            self._pace = asked, float(self.devices.seconds(task.client, *asked, rng))
        seconds = self._pace[1]
        if self.site.rows:
            self.opener.ended.setdefault(task.id, (self.loop.now + seconds, task))
        return Deferred(task.id, self.site.upload.nbytes, seconds)

    def fail(self, task: Task, reason: str) -> None:
        """Resolve a task as failed and name its client."""
        self.resolve(task, "failed")
        self.book.lost += 1
        self.host.call("fscore_task_failed", course=self, task=task, reason=reason)

    def resolve(self, task: Task, how: Resolution) -> None:
        """End a task; each ends exactly once."""
        if how in ("unused", "expired", "aborted") and not self.opener.must_compute(task):
            self.book.saved += 1
        self.book.resolve(task, how)
        self.opener.forget(task.id)

    # ------------------------------------------------------------------------ versions, for protocols

    def sent(self, task: Task) -> Tensors:
        """Return what a task's client receives."""
        if task.version in self._sent:
            return self._sent[task.version]
        per_client = self.trainer.per_client_download or self.site.download.per_client
        slots = self.trainer.download(self.bank[task.version], task.client)
        values, _ = self.site.download.apply(dict(slots), ServerView(task))  # type: ignore[arg-type]
        if not per_client:
            self._sent[task.version] = values
        return values

    def announced(self, version: int) -> Mapping[str, Scalar]:
        """Return what the components published with a version."""
        return self._announced[version]

    def _announce(self) -> dict[str, Scalar]:
        return {k: v for c in self.everything.values() for k, v in c.announce().items()}

    def advance(self, opened: Opened) -> None:
        """Make the next version of what a cohort's updates amount to.

        Raises:
            CourseError: the version is not finite.
        """
        cohort, slots = opened.cohort, self.bank[self.book.version]
        reduced = self.opener.mean(opened, self.streams.generator("privacy", cohort.id))
        directions = self.trainer.directions(slots, reduced, cohort)
        slots = {**slots, **self._moved(slots, directions)}
        self.reporting.note(opened, reduced, slots)
        self._commit(slots, opened)

    def _moved(self, slots: Tensors, directions: Tensors) -> Tensors:
        plain = {n for n, g in self.trainer.slots(self.space).items() if g.reduce == "sum"}
        optimised = {n: d for n, d in directions.items() if n not in plain}
        moved = dict(self.server_optimizer.step(slots, optimised))
        moved.update({n: slots[n] + directions[n] for n in plain & set(directions)})
        return moved

    def _commit(self, slots: Tensors, opened: Opened) -> None:
        cohort = opened.cohort
        for learner in (self.sampler, *self.policies):
            learner.learn(opened.outputs, cohort)
        for task in cohort.tasks:
            self.resolve(task, "used")
        self.publish(slots, cohort)
        for mechanism in self.privacy:
            for released in mechanism.releases(cohort):
                self.loop.schedule(released, self.loop.now)

    def publish(self, slots: Tensors, cohort: Cohort) -> None:
        """Make `slots` the next version.

        Raises:
            CourseError: the version is not finite.
        """
        book = self.book
        if not finite(slots.values()):
            raise CourseError(f"version {book.version + 1} is not finite: training diverged")
        book.advance(self.loop.now)
        self.barren = 0
        self.bank[book.version] = slots
        self._announced[book.version] = self._announce()
        self._prune()
        self._unrecorded = True
        self.host.call("fscore_version_ended", course=self, version=book.version, cohort=cohort)

    def _prune(self) -> None:
        """Forget versions that no task refers to."""
        used = {task.version for task in self.book.unresolved()} | {self.book.version}
        used |= {task.version for _, task in self.opener.ended.values()}
        for kept in (self.bank, self._announced, self._sent):
            for version in [v for v in kept if v not in used]:
                del kept[version]

    def report(self) -> None:
        """Evaluate the current version if that is due, and write its line of metrics."""
        self.reporting.line()

    # ------------------------------------------------------------------------ running

    def run(self, until: Callable[[Course], bool] | None = None) -> Result | None:
        """Run to the end of the course, or until `until` holds between two events (then None is returned)."""
        self.reporting.began = time.monotonic()
        thresholds = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        try:
            self.executor.start(self.site)
            for reporter in self.reporters:
                reporter.started(self)
            if not self.loop.delivered:
                self.host.call("fscore_course_started", course=self)
                self.loop.schedule(CourseStarted(), 0.0)
            stopped = self._events(until)
            return None if stopped else self._end()
        except WriteError:  # the run stays as it is on disk, and can be resumed
            raise
        except CourseError as error:
            return self._end(str(error))
        finally:
            self.executor.stop()
            gc.set_threshold(*thresholds)

    def _events(self, until: Callable[[Course], bool] | None) -> bool:
        """Deliver events to the end of the course; True: stopped by `until` before."""
        while self.ending is None:
            if until is not None and until(self):
                return True
            event = self.loop.step()
            if event is None:
                raise CourseError("nothing can happen any more: no event is scheduled")
            if isinstance(event, Ending):
                self.ending = event
            elif self.record and self._unrecorded:
                self._unrecorded = not self.record.changed(self)
        return False

    def _end(self, error: str = "") -> Result:
        for task in list(self.book.unresolved()):
            self.resolve(task, "aborted" if self.book.flies(task.id) else "unused")
        reason = error or (self.ending.reason if self.ending else "")
        failed = bool(error) or bool(self.ending and self.ending.failed)
        result = self.reporting.result(reason, failed=failed)
        if self.record:
            self.record.finish(result)
        self.store.close()
        for reporter in self.reporters:
            reporter.ended(result)
        hook = "fscore_course_failed" if failed else "fscore_course_ended"
        self.host.call(hook, course=self, result=result)
        return result

    # ------------------------------------------------------------------------ snapshots

    _PLAIN = ("bytes_up", "bytes_down", "failed_cohorts", "barren", "messages")

    def dump(self) -> dict[str, Any]:
        """Return the whole course as plain data, between two events; keep it through a codec, or use it before the next one."""
        components = {
            table: {name: getattr(c, name) for name in states_of(c)}
            for table, c in self._stateful()
        }
        return {
            "loop": self.loop.dump(),
            "book": self.book.dump(),
            "bank": dict(self.bank),
            "announced": dict(self._announced),
            "opener": self.opener.dump(),
            "store": self.store.mark(),
            "components": components,
            "last": self.reporting.last,
            "history": list(self.reporting.history) if self.record is None else [],
            "offset": self.record.offset() if self.record else 0,
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `dump` returned."""
        self.loop.load(data["loop"])
        self.book.load(data["book"])
        self.bank, self._announced = dict(data["bank"]), dict(data["announced"])
        self._sent.clear()
        self.opener.load(data["opener"])
        self.store.restore(data["store"])
        self.reporting.last = dict(data["last"])
        stateful = dict(self._stateful())
        for table, states in data["components"].items():
            for name, value in states.items():
                setattr(stateful[table], name, value)
        for name in self._PLAIN:
            setattr(self, name, data[name])
        if self.record:
            self.record.cut(data["offset"])
            self.reporting.history = list(self.record.lines())
        else:
            self.reporting.history = list(data["history"])

    def _stateful(self) -> list[tuple[str, Component]]:
        return [(table, c) for table, c in self.everything.items() if states_of(c)]
