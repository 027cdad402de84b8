"""The task book: every issued task, until it resolves exactly once."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from fscore.errors import PluginError
from fscore.tasks import RESOLUTIONS, ClientId, Cohort, Resolution, Task


@define(eq=False)
class Book:
    """Where each task stands: flying, arrived, claimed by a cohort, or resolved.

    It is the `Pool` that triggers read.
    """

    wanted: int = 0
    """How many results a version is made of."""
    version: int = 0
    since: float = 0.0
    """When the current version was made."""
    lost: int = 0
    """Tasks lost or failed since then."""
    issued: int = 0
    computed: int = 0
    """Tasks whose output was computed."""
    saved: int = 0
    """Tasks whose update nobody used, and that were never computed."""
    waves: int = 0
    cohorts: int = 0
    counts: dict[str, int] = field(factory=lambda: dict.fromkeys(RESOLUTIONS, 0))
    busy: dict[ClientId, int] = field(factory=dict)
    """The task that a client has in flight."""
    _flying: dict[int, Task] = field(factory=dict)
    _arrived: list[tuple[float, int, Task]] = field(factory=list)
    _claimed: dict[int, Task] = field(factory=dict)

    # ------------------------------------------------------------------------ what triggers read

    @property
    def arrived(self) -> Sequence[tuple[Task, float]]:
        """Unclaimed results and their arrival times, ordered by (time, task)."""
        return [(task, at) for at, _, task in self._arrived]

    @property
    def waiting(self) -> int:
        """How many results arrived and are unclaimed."""
        return len(self._arrived)

    @property
    def in_flight(self) -> int:
        """How many tasks are under way."""
        return len(self._flying)

    def flying(self) -> Iterator[Task]:
        """Yield the tasks under way, in order of issue."""
        yield from self._flying.values()

    def unresolved(self) -> Iterator[Task]:
        """Yield every task that is not resolved."""
        yield from self._flying.values()
        yield from (task for _, _, task in self._arrived)
        yield from self._claimed.values()

    # ------------------------------------------------------------------------ what changes it

    def issue(self, task: Task) -> None:
        """Enter a task; its client has no other in flight."""
        if task.client in self.busy:
            raise PluginError(
                f"sampler: client {task.client} was sampled, but has task {self.busy[task.client]} in flight"
            )
        self.busy[task.client] = task.id
        self._flying[task.id] = task
        self.issued += 1

    def arrive(self, task: int, at: float) -> Task | None:
        """Note a result and return its task; None: it is no longer expected (a duplicate, or given up)."""
        known = self._flying.pop(task, None)
        if known is not None:
            del self.busy[known.client]
            entry = (at, task, known)
            if self._arrived and self._arrived[-1] > entry:
                insort(self._arrived, entry)
            else:
                self._arrived.append(entry)
        return known

    def flies(self, task: int) -> bool:
        """Whether a task is under way."""
        return task in self._flying

    def claim(self, tasks: Sequence[Task], key: str = "") -> Cohort:
        """Take arrived tasks out of the pool as a cohort; this fixes their staleness."""
        wanted = {task.id for task in tasks}
        there = {task.id: task for _, _, task in self._arrived if task.id in wanted}
        if len(there) != len(tasks):
            raise PluginError(
                "trigger: it returned tasks that did not arrive, or one of them twice"
            )
        self._arrived = [entry for entry in self._arrived if entry[1] not in wanted]
        self._claimed.update(there)
        ordered = tuple(sorted(there.values(), key=lambda task: (task.client, task.version)))
        self.cohorts += 1
        staleness = tuple(self.version - task.version for task in ordered)
        return Cohort(self.cohorts, ordered, staleness, key)

    def release(self, tasks: Sequence[Task], at: float) -> None:
        """Put claimed tasks back into the pool."""
        for task in tasks:
            insort(self._arrived, (at, task.id, self._claimed.pop(task.id)))

    def resolve(self, task: Task, how: Resolution) -> None:
        """End a task, wherever it stands.

        Raises:
            PluginError: it is resolved already.
        """
        if self._flying.pop(task.id, None):
            del self.busy[task.client]
        elif not self._claimed.pop(task.id, None):
            before = len(self._arrived)
            self._arrived = [entry for entry in self._arrived if entry[1] != task.id]
            if len(self._arrived) == before:
                raise PluginError(f"protocol: task {task.id} was resolved twice")
        self.counts[how] += 1

    def advance(self, at: float) -> None:
        """Begin the next version."""
        self.version += 1
        self.since, self.lost = at, 0

    def summary(self) -> dict[str, int]:
        """Return the counts of `result.json`."""
        return {
            "issued": self.issued,
            **self.counts,
            "computed": self.computed,
            "saved": self.saved,
        }

    # ------------------------------------------------------------------------ snapshots

    _PLAIN = ("version", "since", "lost", "issued", "computed", "saved", "waves", "cohorts")

    def dump(self) -> dict[str, Any]:
        """Return the book as plain data."""
        return {
            **{name: getattr(self, name) for name in self._PLAIN},
            "counts": dict(self.counts),
            "flying": list(self._flying.values()),
            "arrived": list(self._arrived),
            "claimed": list(self._claimed.values()),
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `dump` returned."""
        for name in self._PLAIN:
            setattr(self, name, data[name])
        self.counts = dict(data["counts"])
        self._flying = {task.id: task for task in data["flying"]}
        self.busy = {task.client: task.id for task in data["flying"]}
        self._arrived = list(data["arrived"])
        self._claimed = {task.id: task for task in data["claimed"]}
