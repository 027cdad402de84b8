"""Evaluation as an instrument: outside virtual time, with its own streams, never perturbing the course."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define, field

from fscore.component import between, ge, option
from fscore.errors import CourseError
from fscore.kinds.attack import Attack
from fscore.kinds.evaluator import Evaluator, PerClient
from fscore.kinds.metric import Metric
from fscore.tasks import SERVER, Batch, Task

if TYPE_CHECKING:
    import torch

    from fscore.course import Course


@define(eq=False, slots=False)
class Instrument(Evaluator):
    """Evaluates on clients, seen and unseen, and on what the server owns, outside virtual time; it changes nothing."""

    name = "instrument"

    parts: list[Literal["train", "val", "test"]] = option(
        factory=lambda: ["val", "test"], doc="Parts of the clients' data: train, val, test."
    )
    metrics: list[Metric] = option(
        factory=list, doc="Names or tables of metrics; none: the objective's own."
    )
    clients: int | None = option(
        None,
        doc="Evaluate random samples of that many seen and unseen clients; default: all.",
        validator=ge(1),
    )
    final_clients: int | None = option(
        None,
        doc="The same for the last version; default: all.",
        validator=ge(1),
    )
    worst: float = option(
        0.1, doc="Share of the clients in the worst tail.", validator=between(0, 1)
    )
    _judges: tuple[Metric, ...] = field(default=(), init=False)

    def bind(self, course: Course) -> None:
        """Take the objective's metrics where none are named."""
        default = (course.config.make(Metric, m, "objective") for m in course.objective.metrics)
        self._judges = tuple(self.metrics or default)
        for metric in self._judges:
            metric.bind(course)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse metrics that cannot judge what the model puts out."""
        import torch

        y = course.example.y
        with torch.no_grad(), course.streams.torch("fit"):
            outputs = copy.deepcopy(course.module).train(mode=False)(course.example.x)
        for place, metric in enumerate(self._judges):
            key = f"evaluation.metrics.{place}" if self.metrics else "objective.use"
            if problem := metric.fits(outputs, y) or _misfit(metric, outputs, y):
                yield f"{key}: metric '{metric.name}' does not fit the data: {problem}"

    @property
    def whole(self) -> bool:
        return self.clients == self.final_clients

    def judges(self) -> Sequence[Metric]:
        return self._judges

    def evaluate(
        self, course: Course, *, everybody: bool = False
    ) -> tuple[dict[str, float], PerClient]:
        """Return metrics of the current version, and each client's own.

        For a metric `accuracy` and a part `test`: `test_accuracy` is pooled over the samples of the seen clients,
        `test_accuracy_mean` the mean over clients, `test_accuracy_worst` the mean over the worst tail (at least one
        client), `test_accuracy_spread` the standard deviation over clients; the same with `unseen_` before them for the
        clients that never take part; `server_accuracy` is of the server's own test data.
        """
        course.opener.settle()
        wanted = self.final_clients if everybody else self.clients
        groups = {
            "": drawn(course, wanted, unseen=False),
            "unseen_": drawn(course, wanted, unseen=True),
        }
        metrics: dict[str, float] = {}
        per_client: PerClient = {}
        for part in self.parts:
            for prefix, clients in groups.items():
                sums = self._sums(course, clients, part)
                metrics.update(self._summary(f"{prefix}{part}_", sums))
                found = per_client.setdefault(part, {})
                found.update({c: self._values(own) for c, own in sums.items()})
        metrics |= self._probed(course, groups[""])
        if course.site.dataset.server("test") is not None:
            own = self._sums(course, [SERVER], "test")[SERVER]
            metrics |= {f"server_{n}": v for n, v in self._values(own).items()}
        return metrics, per_client

    def _probed(self, course: Course, clients: Sequence[int]) -> dict[str, float]:
        """Return the metrics on what attackers would show the model (a backdoor's trigger), under their names."""
        metrics: dict[str, float] = {}
        for place, (attack, _) in enumerate(course.site.attacks):
            if type(attack).probe is not Attack.probe:
                sums = self._sums(course, clients, f"probe.{place}")
                pooled = [math.fsum(column) for column in zip(*sums.values(), strict=True)]
                found = self._values(pooled) if pooled else {}
                metrics |= {f"{attack.name}_{name}": value for name, value in found.items()}
        return metrics

    def _sums(
        self, course: Course, clients: Iterable[int], part: str
    ) -> dict[int, Sequence[float]]:
        """Return, for each client with samples in that part, the count and the metrics' sums."""
        version = course.book.version
        jobs = [
            course.opener.job(Task(-1 - version, client, version, "evaluate"), part)
            for client in clients
            if len(course.site.data(client, part).y)
        ]
        size = course.executor.chunk
        batches = [Batch(tuple(jobs[i : i + size]), sum=False) for i in range(0, len(jobs), size)]
        outputs = [o for done in course.executor.compute(batches) for o in done.outputs]
        for job, output in zip(jobs, outputs, strict=True):
            if output.error:
                raise CourseError(f"evaluation of client {job.task.client}: {output.error}")
        return {
            job.task.client: output.values["sums"].tolist()
            for job, output in zip(jobs, outputs, strict=True)
        }

    def _values(self, sums: Sequence[float]) -> dict[str, float]:
        values, start = {}, 1
        for metric in self._judges:
            values[metric.name] = metric.value(sums[start : start + metric.width])
            start += metric.width
        return values

    def _summary(self, prefix: str, sums: Mapping[int, Sequence[float]]) -> dict[str, float]:
        if not sums:
            return {}
        pooled = self._values([_sum(column) for column in zip(*sums.values(), strict=True)])
        own = [self._values(row) for row in sums.values()]
        summary = {}
        for metric in self._judges:
            name = metric.name
            values = [row[name] for row in own]
            summary[f"{prefix}{name}"] = pooled[name]
            summary[f"{prefix}{name}_mean"] = mean = _sum(values) / len(values)
            summary[f"{prefix}{name}_worst"] = self._worst(
                values, best_is_high=metric.higher_is_better
            )
            spread = _sum([(v - mean) * (v - mean) for v in values]) / len(values)
            summary[f"{prefix}{name}_spread"] = math.sqrt(spread)
        return summary

    def _worst(self, values: Sequence[float], *, best_is_high: bool) -> float:
        count = max(1, math.floor(self.worst * len(values)))
        tail = sorted(values, reverse=not best_is_high)[:count]
        return _sum(tail) / count


def _sum(values: Sequence[float]) -> float:
    """Return the sum, correctly rounded; infinite or NaN where it is."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def _misfit(metric: Metric, outputs: torch.Tensor, y: torch.Tensor) -> str:
    """Return what a metric raises on an example; empty: nothing."""
    try:
        sums = metric.sums(outputs, y)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    wrong = sums.shape != (metric.width,)
    return f"sums() gave shape {tuple(sums.shape)}, expected ({metric.width},)" if wrong else ""


def drawn(course: Course, wanted: int | None, *, unseen: bool) -> list[int]:
    """Return up to `wanted` clients, seen or unseen, ascending; None: all of them.

    A few of many are drawn without listing the others.
    """
    population = course.population
    count = len(population.unseen) if unseen else population.participants
    if wanted is None or wanted >= count:
        return (
            [c for c in range(population.size) if (c in population.unseen) is unseen]
            if count
            else []
        )
    rng = course.streams.generator("evaluation", course.book.version, int(unseen))
    if unseen:
        held = sorted(population.unseen)
        return sorted(held[i] for i in rng.permutation(count)[:wanted])
    chosen: dict[int, None] = {}
    while len(chosen) < wanted:
        ids = rng.integers(population.size, size=2 * wanted).tolist()
        chosen.update(dict.fromkeys(c for c in ids if c not in population.unseen))
    return sorted(list(chosen)[:wanted])
