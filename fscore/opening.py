"""Opening results: tasks are computed here, in batches, at the moment somebody needs their values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from fscore.errors import PluginError
from fscore.folding import checked, empty_sums, fold, joined, weight_of
from fscore.params import Group, Layout, Tensors
from fscore.paths import CLIP_RANK
from fscore.tasks import Batch, Cohort, Job, Output, Task

if TYPE_CHECKING:
    import torch

    from fscore.course import Course


CRAFT_RANK = 35
"""Attackers see and craft updates as they are before the stages of this rank."""


@define(eq=False)
class Opened:
    """What opening a cohort gave: the tasks that are whole, and what their updates amount to."""

    cohort: Cohort
    """The tasks whose updates are whole."""
    outputs: tuple[Output, ...]
    """Their outputs, in the cohort's order; public groups only where updates were summed."""
    failed: tuple[tuple[Task, str], ...]
    factors: tuple[float, ...]
    sums: Tensors = field(factory=dict)
    """Sums of the updates, on the path's layout for sums."""


@define(eq=False)
class Opener:
    """Turns tasks into jobs, jobs into batches, batches into outputs; commits client rows in order."""

    course: Course
    outputs: dict[int, Output] = field(factory=dict)
    """Opened outputs of tasks that are not resolved yet."""
    ended: dict[int, tuple[float, Task]] = field(factory=dict)
    """Tasks of stateful clients that are not computed yet: when their computing ends."""

    opened: dict[int, Opened] = field(factory=dict)
    """Opened cohorts whose version is not made yet."""

    # ------------------------------------------------------------------------ cohorts

    def open(self, cohort: Cohort) -> Opened:
        """Compute what is missing of a cohort and sum it.

        Updates are summed where they are computed, unless somebody needs single ones: a reducing aggregator, who
        watches the wire, or client rows, which are computed in the order of their commits.
        """
        course = self.course
        factors = [float(f) for f in course.aggregator.factors(cohort)]
        if len(factors) != len(cohort.tasks):
            raise PluginError(
                f"aggregator '{course.aggregator.name}': factors() gave {len(factors)} values for "
                f"{len(cohort.tasks)} tasks"
            )
        self._craft(cohort)
        known = any(task.id in self.outputs or task.inputs for task in cohort.tasks)
        opened = (
            self._one_by_one(cohort, factors)
            if known or course.single_updates
            else self._summed(cohort, factors)
        )
        self.opened[cohort.id] = opened
        for attack in course.attacks:
            attack.crafted.clear()
        return opened

    def _craft(self, cohort: Cohort) -> None:
        """Let colluding attackers see honest updates, and craft what their clients send instead."""
        for i, (attack, clients) in enumerate(self.course.site.attacks):
            seen = [t for t in cohort.tasks if attack.colludes == "all" or t.client in clients]
            if not attack.colludes or not any(t.client in clients for t in seen):
                continue
            outputs = self.honest(seen, CRAFT_RANK)
            good = [(t, o) for t, o in zip(seen, outputs, strict=True) if not o.error]
            layout = self.means(self.course.site.upload.before(CRAFT_RANK))
            mine = [place for place, (t, _) in enumerate(good) if t.client in clients]
            if not mine:
                continue
            honest = matrix([o for _, o in good], layout)
            rng = self.course.streams.generator("craft", i, cohort.id)
            lost = {task.id for task in seen} - {task.id for task, _ in good}
            rows = attack.craft(honest, mine, without(cohort, lost), rng)
            if rows.shape != (len(mine), honest.shape[1]):
                raise PluginError(
                    f"attack '{attack.name}': craft() gave shape {tuple(rows.shape)}, "
                    f"expected {(len(mine), honest.shape[1])}"
                )
            for place, row in zip(mine, rows, strict=True):
                attack.crafted[good[place][0].id] = _parts(row, layout)

    def honest(self, tasks: Sequence[Task], rank: float, part: str = "train") -> list[Output]:
        """Compute updates as they are before the stages of a rank; nothing is kept or counted."""
        jobs = [evolve(self.job(task, part), upto=rank) for task in tasks]
        batches = [Batch(chunk, sum=False) for chunk in self._chunks(jobs)]
        return [checked(o) for done in self.course.executor.compute(batches) for o in done.outputs]

    def means(self, layout: Layout) -> Layout:
        return {n: g for n, g in layout.items() if g.reduce == "mean" and not g.public}

    def _summed(self, cohort: Cohort, factors: Sequence[float]) -> Opened:
        jobs = [self.job(t, factor=f) for t, f in zip(cohort.tasks, factors, strict=True)]
        batches = [Batch(chunk, sum=True) for chunk in self._chunks(jobs)]
        outputs: list[Output] = []
        sums: Tensors = {} if jobs else empty_sums(self.course.site.upload.single)
        for done in self.course.executor.compute(batches):
            outputs += done.outputs
            _add(sums, done.sums or {})
        self.course.book.computed += len(jobs)
        return _opened(cohort, outputs, factors, sums)

    def _one_by_one(self, cohort: Cohort, factors: Sequence[float]) -> Opened:
        self.compute(cohort.tasks)
        outputs = [self.outputs[task.id] for task in cohort.tasks]
        if self.course.reporting.watched:
            self.course.reporting.show(cohort, outputs)
        sums = {} if outputs else empty_sums(self.course.site.upload.single)
        opened = _opened(cohort, outputs, factors, sums)
        if self.course.aggregator.individual:
            opened.sums = self._reduced(opened)
        else:
            layout = self.course.site.upload.single
            pairs = list(zip(outputs, factors, strict=True))
            for chunk in self._chunks(pairs):
                done = fold([o for o, _ in chunk], [f for _, f in chunk], layout)
                _add(opened.sums, done.sums or {})
        return opened

    def _reduced(self, opened: Opened) -> Tensors:
        """Reduce the matrix (clients, values) of all mean groups joined; sum the other groups."""
        import torch

        layout = {n: g for n, g in self.course.site.upload.single.items() if not g.public}
        means = self.means(layout)
        if len(opened.outputs) < self.course.aggregator.least:
            return empty_sums(layout)
        rows = matrix(opened.outputs, means)
        found = [f * weight_of(o) for f, o in zip(opened.factors, opened.outputs, strict=True)]
        weights = torch.tensor(found, dtype=torch.float64)
        joined = self.course.aggregator.combine(rows, weights, opened.cohort)
        if joined.shape != rows.shape[1:]:
            raise PluginError(
                f"aggregator '{self.course.aggregator.name}': reduce() gave shape {tuple(joined.shape)}, "
                f"expected {tuple(rows.shape[1:])}"
            )
        others = [n for n in layout if n not in means]
        summed = fold(opened.outputs, [1.0] * len(opened.outputs), {n: layout[n] for n in others})
        return _parts(joined, means) | (summed.sums or {})

    # ------------------------------------------------------------------------ single tasks

    def compute(self, tasks: Iterable[Task]) -> None:
        """Compute and keep the outputs of tasks; before them, every stateful task that ended by now."""
        now = self.course.loop.now
        due = {task.id: (end, task) for task in tasks if (end := self._end(task)) is not None}
        due |= {i: entry for i, entry in self.ended.items() if entry[0] <= now}
        ordered = [task for _, task in sorted(due.values(), key=lambda e: (e[0], e[1].id))]
        while ordered:
            layer, rest = _first_of_each_client(ordered)
            self._compute_layer(layer)
            ordered = rest

    def _end(self, task: Task) -> float | None:
        """When the computing of a task ended; None: its output is known."""
        if task.id in self.outputs:
            return None
        return self.ended[task.id][0] if task.id in self.ended else self.course.loop.now

    def _compute_layer(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.inputs:
                self.compute(self._inputs(task))
        jobs = [self.job(task) for task in tasks]
        wire = self.course.reporting.watched
        batches = [Batch(chunk, sum=False, wire=wire) for chunk in self._chunks(jobs)]
        done = [o for b in self.course.executor.compute(batches) for o in b.outputs]
        for task, output in zip(tasks, done, strict=True):
            good = checked(output)
            self.ended.pop(task.id, None)
            self.course.book.computed += 1
            self.outputs[task.id] = good
            if good.row:
                self.course.store.put(task.client, good.row)

    def _inputs(self, task: Task) -> list[Task]:
        wanted = {given.task for given in task.inputs} - set(self.outputs)
        return [t for t in self.course.book.unresolved() if t.id in wanted]

    def settle(self) -> None:
        """Compute every stateful task that ended by now, and commit its row."""
        self.compute(())

    def must_compute(self, task: Task) -> bool:
        """Whether a task is computed whatever becomes of its update: it is already, or its client's row needs it."""
        entry = self.ended.get(task.id)
        return task.id in self.outputs or (entry is not None and entry[0] <= self.course.loop.now)

    def forget(self, task: int) -> None:
        """Drop what is kept of a resolved task; its computing goes on if it had ended."""
        self.outputs.pop(task, None)
        entry = self.ended.get(task)
        if entry and entry[0] > self.course.loop.now:
            del self.ended[task]

    # ------------------------------------------------------------------------ jobs

    def job(self, task: Task, part: str = "train", factor: float = 1.0) -> Job:
        """Make a task ready for an executor."""
        course = self.course
        site = course.site
        return Job(  # by position: by keyword it takes twice as long
            evolve(task, memo={}) if task.memo else task,
            course.sent(task),
            course.announced(task.version),
            course.store.get(task.client) if site.rows else {},
            tuple([self.outputs[i.task].values for i in task.inputs]) if task.inputs else (),
            {} if task.kind == "evaluate" else site.upload.prepare(task),
            factor,
            part,
        )

    def dump(self) -> dict[str, Any]:
        """Return everything that is opened and not resolved, as plain data."""
        return {"outputs": self.outputs, "ended": self.ended, "opened": self.opened}

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `dump` returned."""
        self.outputs, self.ended = dict(data["outputs"]), dict(data["ended"])
        self.opened = dict(data["opened"])

    def _chunks(self, items: Sequence[Any]) -> list[tuple[Any, ...]]:
        size = self.course.executor.chunk
        return [tuple(items[i : i + size]) for i in range(0, len(items), size)]

    # ------------------------------------------------------------------------ from sums to directions

    def mean(self, opened: Opened, rng: Any) -> Tensors:
        """Return the groups of the next direction: undo the path on the sum, add noise, divide.

        Noise meets the sum in the form that it had behind the joint clip, where its sensitivity is known.
        """
        course, cohort = self.course, opened.cohort
        path = course.site.upload
        values = path.undo_sum(opened.sums, cohort, above=CLIP_RANK)
        for mechanism in course.privacy:
            values = mechanism.privatise(values, cohort, rng)
        if not course.aggregator.individual:
            values = self._divided(values, opened)
        values = path.undo_sum(values, cohort, upto=CLIP_RANK)
        return dict(course.aggregator.finish(values, cohort))

    def total(self, opened: Opened, hidden: torch.Tensor | None = None) -> float:
        """Return what the server divides the sum by.

        Args:
            hidden: the sum of the weights, where a mechanism shows no more of them; then all factors are equal.
        """
        factors, stated = list(opened.factors), joined(opened.outputs, "weight")
        weights = [1.0] * len(factors) if stated is None else stated.tolist()
        if hidden is not None:
            factors, weights = factors[:1], [float(hidden)][: len(factors)]
        found = self.course.aggregator.denominator(factors, weights)
        return float(found or not opened.outputs)  # of nobody: 0 / 1

    def _divided(self, values: Tensors, opened: Opened) -> Tensors:
        layout = self.course.site.upload.clipped
        mean = {n: v for n, v in values.items() if n != "weight"}
        total = self.total(opened, values.get("weight"))
        for name, group in layout.items():
            if name not in mean or group.public or group.reduce != "mean":
                continue
            if group.at:
                mean[name] = values[name] / _rowwise(opened, group).view(
                    -1, *[1] * len(group.shape)
                )
            elif group.count:
                mean[name] = values[name] / values[group.count].clamp(min=1e-12)
            else:
                mean[name] = values[name] / total
        counts = {g.count for g in layout.values() if g.count}
        return {n: v for n, v in mean.items() if n not in counts}


def _rowwise(opened: Opened, group: Group) -> torch.Tensor:
    """Return the weights of those who moved each row: (rows,); 1 for a row that nobody moved."""
    import torch

    weights = torch.zeros(group.rows, dtype=torch.float64)
    for factor, output in zip(opened.factors, opened.outputs, strict=True):
        weights[int(output.values[group.at])] += factor * weight_of(output)
    return torch.where(weights > 0, weights, 1.0).float()


def matrix(outputs: Sequence[Output], layout: Layout) -> torch.Tensor:
    """Return the groups of a layout joined, one row per output: (outputs, values)."""
    import torch

    pieces = [o.values[n].reshape(-1) for o in outputs for n in layout]
    return torch.cat(pieces).view(len(outputs), -1)


def _parts(row: torch.Tensor, layout: Layout) -> Tensors:
    """Return the groups of a layout of a joined row (values,)."""
    pieces = row.split([group.numel for group in layout.values()])  # type: ignore[no-untyped-call]
    return {n: p.reshape(g.shape) for (n, g), p in zip(layout.items(), pieces, strict=True)}


def _add(sums: Tensors, more: Tensors) -> None:
    for name, value in more.items():
        if name in sums:
            sums[name].add_(value)
        else:
            sums[name] = value.clone()


def _opened(
    cohort: Cohort, outputs: Sequence[Output], factors: Sequence[float], sums: Tensors
) -> Opened:
    pairs = zip(cohort.tasks, outputs, strict=True)
    failed = tuple((task, output.error) for task, output in pairs if output.error)
    if failed:
        whole = [i for i, output in enumerate(outputs) if not output.error]
        outputs, factors = [outputs[i] for i in whole], [factors[i] for i in whole]
        cohort = without(cohort, {task.id for task, _ in failed})
    return Opened(cohort, tuple(outputs), failed, tuple(factors), sums)


def without(cohort: Cohort, lost: Collection[int]) -> Cohort:
    """Return a cohort without some tasks."""
    pairs = zip(cohort.tasks, cohort.staleness, strict=True)
    kept = [(task, staleness) for task, staleness in pairs if task.id not in lost]
    return evolve(cohort, tasks=tuple(t for t, _ in kept), staleness=tuple(s for _, s in kept))


def _first_of_each_client(tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """Split tasks into those that are the first of their client, and the rest."""
    seen: set[int] = set()
    first: list[Task] = []
    rest: list[Task] = []
    for task in tasks:
        (rest if task.client in seen else first).append(task)
        seen.add(task.client)
    return first, rest
