"""The context of many clients at once: what flat-space pieces, stages and losses see in the cohort executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import numpy as np
import torch
from attrs import define, field

from fscore.context import Context, Samples

if TYPE_CHECKING:
    from fscore.params import Tensors
    from fscore.site import Site
    from fscore.tasks import Job


class NotLifted(Exception):  # noqa: N818
    """A piece asks for what only one client at a time has."""


class Guard:
    """Stands where one client's job would: whoever asks it for something serves one client only."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotLifted(f"it reads `{name}` of one client's task")


@define(eq=False)
class ManyTasks(Guard):
    """The tasks of many clients; only what they share can be read."""

    kind: str


@define(eq=False)
class ManyRandom(Guard):
    """The generators of many clients: each call goes to all of them, and results are stacked: (K, ...)."""

    generators: list[np.random.Generator]

    def __getattr__(self, name: str) -> Any:
        draws = [getattr(generator, name) for generator in self.generators]

        def draw(*args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
            return np.stack([one(*args, **kwargs) for one in draws])

        return draw


@define(slots=True)
class Many(Context):
    """A context of K clients: `sent`, `row` (K, ...); `options`, `samples`, `steps` numbers or columns (K, 1)."""

    jobs: tuple[Job, ...] = ()
    received: Tensors = field(factory=dict)
    own: Tensors = field(factory=dict)
    told: Mapping[str, Any] = field(factory=dict)
    counts: Any = None
    """(K, 1) float64: samples of each client."""
    exact: dict[int, np.ndarray[Any, Any]] = field(factory=dict)
    """Values of columns as float64, by id of the column."""

    @property
    def task(self) -> Any:
        return ManyTasks(self.jobs[0].task.kind)

    @property
    def sent(self) -> Tensors:
        return self.received

    @property
    def row(self) -> Tensors:
        return self.own

    @property
    def announced(self) -> Mapping[str, Any]:
        return self.told

    @property
    def prepared(self) -> Any:
        if any(job.prepared for job in self.jobs):
            raise NotLifted("a stage prepared something for each client")
        return None

    @property
    def samples(self) -> Any:
        return self.counts

    def stage_row(self, name: str) -> torch.Tensor:
        """Return the rows of the running stage (K, ...)."""
        return self.own[f"{self.owner}/{name}"]

    def rng(self, purpose: str, *key: int) -> Any:
        """Return the clients' generators; each draw gives (K, ...)."""
        tasks = [job.task for job in self.jobs]
        return ManyRandom([self.streams.generator(purpose, t.client, t.id, *key) for t in tasks])

    def numbers(self, purpose: str, *key: int, count: int) -> np.ndarray[Any, Any]:
        """Return uniform 64-bit numbers keyed by client and task: (K, count)."""
        tasks = [job.task for job in self.jobs]
        return np.stack(
            [self.streams.numbers(purpose, t.client, t.id, *key, count=count) for t in tasks]
        )

    def exactly(self, value: Any) -> np.ndarray[Any, Any]:
        """Return a number or a column as float64 (K,), not rounded to the column's type."""
        if isinstance(value, torch.Tensor):
            known = self.exact.get(id(value))
            return value.reshape(-1).double().cpu().numpy() if known is None else known
        return np.full(len(self.jobs), float(value))

    def first(self, clients: int) -> Many:
        """Return the context of the first clients, with views of the same memory."""
        return self._changed(lambda v: v[:clients], self.jobs[:clients])

    def reordered(self, order: np.ndarray[Any, Any]) -> Many:
        """Return the context with the clients in another order."""
        places = torch.from_numpy(order).to(self.first_model.device)
        jobs = tuple(self.jobs[i] for i in order)
        return self._changed(lambda v: v.index_select(0, places), jobs, order)

    def _changed(
        self,
        change: Callable[[torch.Tensor], torch.Tensor],
        jobs: tuple[Job, ...],
        order: Any = None,
    ) -> Many:
        exact: dict[int, np.ndarray[Any, Any]] = {}

        def column(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            new = change(value)
            if id(value) in self.exact:
                known = self.exact[id(value)]
                exact[id(new)] = known[: len(jobs)] if order is None else known[order]
            return new

        return attrs.evolve(
            self,
            jobs=jobs,
            received={n: change(v) for n, v in self.received.items()},
            own={n: change(v) for n, v in self.own.items()},
            measured={n: change(v) for n, v in self.measured.items()},
            told={n: column(v) for n, v in self.told.items()},
            options={n: column(v) for n, v in self.options.items()},
            counts=change(self.counts),
            steps=column(self.steps),
            loss_sum=column(self.loss_sum),
            seen=column(self.seen),
            exact=exact,
        )


@define(slots=True)
class One(Many):
    """What a loss sees inside `vmap`: one client's context, of lifted tensors. It notes what changes from step to step."""

    read: set[str] = field(factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in ("step", "steps", "seen", "loss_sum", "passes"):
            super().__getattribute__("read").add(name)
        return super().__getattribute__(name)

    @classmethod
    def of(cls, context: Many, read: set[str], **changes: Any) -> One:
        """Return one client's context; `read` collects the names of what was read and does not last."""
        fields = {a.name: getattr(context, a.name) for a in attrs.fields(Many)}
        return cls(**{**fields, **changes}, read=read)


def many(
    site: Site, jobs: Sequence[Job], counts: Sequence[int], first: torch.Tensor, **callables: Any
) -> Many:
    """Return the context of jobs.

    Args:
        counts: samples of each job's client.
        first: (P,) the initial model, on the device that computes.

    Raises:
        NotLifted: options or announcements differ in what no column can hold.
    """
    exact: dict[int, np.ndarray[Any, Any]] = {}
    device = first.device
    tasks = [job.task for job in jobs]
    options: Mapping[str, Any] = site.options(tasks[0])
    if any(task.hparams for task in tasks):
        options = _merged([site.options(task) for task in tasks], exact, device)
    told: Mapping[str, Any] = jobs[0].announced
    if any(job.announced is not told for job in jobs):
        told = _merged([job.announced for job in jobs], exact, device)
    return Many(
        job=Guard(),  # type: ignore[arg-type]
        space=site.space,
        parts=site.parts,
        options=options,
        data=Guard(),  # type: ignore[arg-type]
        streams=site.streams,
        first_model=first,
        judge=_judge_one,
        jobs=tuple(jobs),
        received=stacked([job.sent for job in jobs], device),
        own=stacked([job.row for job in jobs], device),
        told=told,
        counts=torch.tensor(counts, dtype=torch.float64, device=device)[:, None],
        loss_sum=torch.zeros(len(jobs), dtype=torch.float64, device=device),  # type: ignore[arg-type]
        seen=torch.zeros(len(jobs), dtype=torch.float64, device=device),  # type: ignore[arg-type]
        exact=exact,
        **callables,
    )


def _judge_one(variables: Tensors, part: str) -> NoReturn:
    raise NotLifted("it judges a model of one client")


def stacked(values: Sequence[Tensors], device: torch.device) -> Tensors:
    """Return tensors with a leading axis of clients; a view where all clients have the same ones."""
    first, count = values[0], len(values)
    if all(one is first for one in values):
        return {n: v.to(device).expand(count, *v.shape) for n, v in first.items()}
    return {n: torch.stack([one[n] for one in values]).to(device) for n in first}


def shared(tensor: torch.Tensor) -> bool:
    """Whether all clients have the same values, by the memory they lie in."""
    return tensor.stride(0) == 0 and len(tensor) > 1


def _same(values: Sequence[Any]) -> bool:
    first = values[0]
    return all(type(value) is type(first) and value == first for value in values)


def _merged(
    tables: Sequence[Mapping[str, Any]], exact: dict[int, Any], device: torch.device
) -> dict[str, Any]:
    merged = {}
    for name in tables[0]:
        values = [table[name] for table in tables]
        if _same(values):
            merged[name] = values[0]
        else:
            merged[name] = column = _column(values, device, name)
            exact[id(column)] = np.array(values, dtype=np.float64)
    return merged


def _column(values: Sequence[Any], device: torch.device, name: str = "an option") -> torch.Tensor:
    if any(type(value) not in (int, float) for value in values):
        raise NotLifted(f"'{name}' differs between clients and is not a number for all of them")
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None]


__all__ = ["Guard", "Many", "NotLifted", "One", "Samples", "many", "shared", "stacked"]
