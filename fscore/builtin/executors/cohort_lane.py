"""A lane that computes many clients at once: flat space on (K, P), model space through `Lift`.

Clients are sorted by their number of steps, so that those still active at a step are a prefix, a view. Only batches that are
shorter than the step's width are masked.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import define, field

from fscore.builtin.executors.arena import Arena, InPlace, store
from fscore.builtin.executors.base import brief, memory_ran_out
from fscore.builtin.executors.feed import Buffers, Data, Feed, Rows, whole
from fscore.builtin.executors.lane import Lane, expanded
from fscore.builtin.executors.lift import Lift
from fscore.builtin.executors.many import Many, many, shared
from fscore.builtin.executors.orders import Steps, alike, joined, passes, within
from fscore.builtin.executors.tensorwise import Tensorwise, pieces_of
from fscore.builtin.executors.total import Sender, Total, Trained
from fscore.context import Passes, Phase
from fscore.errors import CourseError, FscoreError
from fscore.folding import checked
from fscore.kinds.attack import Attack
from fscore.params import Tensors
from fscore.tasks import Batch, BatchOutput, Job, Output

LARGE = 1 << 10
"""Mean number of parameters in a tensor of the model, from which each tensor is stepped by itself."""


@define(eq=False)
class CohortLane(Lane):
    """Computes batches of jobs at once; jobs that it cannot take go to a `Lane`, one by one."""

    device: torch.device
    cache: int
    """Bytes of samples that are kept on the device."""
    strict: bool = True
    """Refuse a trainer that cannot be computed at once, rather than computing it client by client."""
    lift: Lift = field(init=False)
    store: InPlace | Arena = field(init=False)
    _first: torch.Tensor = field(init=False)
    _buffers: Tensors = field(factory=dict, init=False)
    _batches: Buffers = field(factory=Buffers, init=False)
    _said: bool = field(default=False, init=False)
    _draws_alone: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.lift = Lift(self.site, self.device)
        self.store = store(self.site, self.device, self.cache)
        self._first = self.site.initial.to(self.device)

    # ------------------------------------------------------------------------ batches

    def batch(self, batch: Batch) -> BatchOutput:
        """Compute a batch.

        Raises:
            CourseError: the trainer cannot be computed for many clients at once, and nothing else was asked for.
        """
        if not batch.jobs:
            return super().batch(batch)
        try:
            return self.attempt(batch)
        except FscoreError:
            raise
        except Exception as error:
            if memory_ran_out(error):
                raise CourseError(
                    f"executor.chunk: memory ran out for {len(batch.jobs)} clients at once. "
                    "Remedy: a smaller chunk, or fewer workers."
                ) from error
            return self._one_by_one(batch, error)

    def attempt(self, batch: Batch) -> BatchOutput:
        """Compute a batch at once; whatever a piece raises is raised."""
        judging = batch.jobs[0].task.kind == "evaluate"
        with torch.no_grad(), exact(self.device):
            return self._evaluate_many(batch) if judging else self._together(batch)

    def _one_by_one(self, batch: Batch, error: Exception) -> BatchOutput:
        """Find out whose fault an error is: a client's, or that of computing many at once."""
        done = super().batch(batch)
        judging = batch.jobs[0].task.kind == "evaluate"
        if any(output.error for output in done.outputs):
            return done
        why = brief(error)
        name = self.site.trainer.name
        if self.strict and not judging:
            raise CourseError(
                f"executor.use: 'cohort' cannot compute trainer '{name}' for many clients at once ({why}). "
                "Remedy: use 'auto' or 'serial'."
            )
        if not self._said:
            self._said = True
            sys.stderr.write(
                f"executor: trainer '{name}' is {'judged' if judging else 'computed'} client by client "
                f"where many at once fail ({why})\n"
            )
        return done

    def _together(self, batch: Batch) -> BatchOutput:
        total = Total(self.site.upload, batch)
        jobs = batch.jobs
        places: Sequence[int] = range(len(jobs))
        alone = self._confined(jobs)
        for place in alone:
            total.add_one(place, checked(self.job(jobs[place], wire=batch.wire)))
        if alone:
            places = [place for place in places if place not in alone]
            jobs = tuple(jobs[place] for place in places)
        if not jobs:
            return total.output()
        data = self._data(jobs)
        groups = alike(self._widths(jobs, data.count))
        if len(groups) == 1:
            total.add(self._train_many(jobs, places, data, wire=batch.wire))
            return total.output()
        for group in groups:
            some, there = [jobs[i] for i in group], [places[i] for i in group]
            total.add(self._train_many(some, there, data.of(group), wire=batch.wire))
        return total.output()

    def _confined(self, jobs: Sequence[Job]) -> list[int]:
        """Return the places of clients whose variables an attack moves while they train."""
        confined: set[int] = set()
        for attack, controlled in self.site.attacks:
            if type(attack).confine is not Attack.confine:
                confined |= controlled
        return [i for i, job in enumerate(jobs) if job.task.client in confined] if confined else []

    def _data(self, jobs: Sequence[Job]) -> Data:
        """Return what jobs are about: poisoned where an attack does that."""
        clients = [job.task.client for job in jobs]
        if any(not controlled.isdisjoint(clients) for _, controlled in self.site.attacks):
            own = [self._context(job).data for job in jobs]
            counts = np.array([len(part.y) for part in own], dtype=np.int64)
            x, y = (torch.cat([p[i] for p in own]).to(self.device) for i in (0, 1))  # type: ignore[misc]
            first = np.cumsum(counts) - counts
            return Data(Rows.of(x, first), Rows.of(y, first), counts)
        return self.store.data([(job.task.client, job.part) for job in jobs])

    def _honest(self, jobs: Sequence[Job]) -> Data:
        """Return what evaluations train on: the clients' own samples, whoever attacks."""
        return self.store.data([(job.task.client, "train") for job in jobs])

    def _widths(self, jobs: Sequence[Job], counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return how many samples a client's steps have at most, as far as options say it."""
        if any(job.task.hparams for job in jobs):
            sizes = np.array([int(self._options(job).get("batch_size") or 0) for job in jobs])
        else:
            sizes = np.array(int(self._options(jobs[0]).get("batch_size") or 0))
        return np.where(sizes > 0, np.minimum(sizes, counts), counts)

    def _options(self, job: Job) -> Mapping[str, Any]:
        return self.site.options(job.task)

    # ------------------------------------------------------------------------ training

    def _train_many(
        self, jobs: Sequence[Job], places: Sequence[int], data: Data, *, wire: bool
    ) -> Trained:
        work = self._begin(jobs, places, data)
        work.variables = self.site.trainer.start(work.context)
        self._train_phases(self.site.trainer.phases(work.context), work)
        context = work.context
        if self._sums_up:
            more = self.lift.measure(
                self.site.trainer.summary, work.variables, whole(work.data, self.device), context
            )
            context.measured = {**context.measured, **more}
        groups, rows = self.site.trainer.finish(work.variables, context)
        metrics = torch.stack([context.loss_sum, context.seen], dim=1)  # type: ignore[list-item]
        sender = Sender(self.site, self._context, context)
        values, single, rows, wired = sender.send({**groups, "metrics": metrics}, rows, wire=wire)
        return Trained(work.places, values if single is None else single, rows, wired)

    def _begin(self, jobs: Sequence[Job], places: Sequence[int], data: Data) -> Work:
        counts = data.count.tolist()
        context = many(self.site, jobs, counts, self._first, **self.lift.callables())
        if self._surveys:
            trained = data
            if jobs[0].task.kind == "evaluate":
                trained = self._honest(jobs)
            survey = self.site.trainer.survey
            context.measured = self.lift.measure(
                lambda _, samples, one: survey(samples, one),
                {},
                whole(trained, self.device),
                context,
            )
        none = np.zeros(len(jobs), dtype=np.int64)
        return Work(places, data, context, {}, none, none)

    def _train_phases(self, phases: Sequence[Phase], work: Work) -> None:
        """Train the phases; clients are sorted anew where their numbers of steps ask for it."""
        for phase in phases:
            context = work.context
            context.phase, context.step = phase, 0
            context.ranges = self.trained(phase.part)
            steps = self._steps(context, work.data, work.drawn)
            order = np.argsort(-steps.taken, kind="stable")
            if (np.diff(order) != 1).any():
                work.reorder(order)
                steps = steps.reordered(order)
            work.context.steps = number(work.taken, self.device)
            self._phase(steps, work)
            work.taken, work.drawn = work.taken + steps.taken, work.drawn + steps.drawn
        self._own(work)
        taken = torch.tensor(work.taken, dtype=torch.float32, device=self.device)
        work.context.steps = taken[:, None]

    def _steps(self, context: Many, data: Data, drawn: np.ndarray[Any, Any]) -> Steps:
        chosen = self._chosen(context)
        if chosen is None:
            return self._drawn_alone(context, data.count, drawn)
        tasks = [job.task for job in context.jobs]
        clients, ids = (np.array([getattr(t, n) for t in tasks]) for n in ("client", "id"))
        sizes = context.exactly(chosen.batch_size).astype(np.int64)
        epochs = context.exactly(chosen.epochs)
        return passes(self.site.streams, (clients, ids, drawn), data.count, epochs, sizes)

    def _chosen(self, context: Many) -> Passes | None:
        """Return the passes that a trainer chooses for all clients at once; None: it draws each client's samples."""
        if not self._draws_alone:
            try:
                chosen = self.site.trainer.batches(context)
            except Exception:
                chosen = None
            if isinstance(chosen, Passes):
                return chosen
            self._draws_alone = True
        return None

    def _drawn_alone(
        self, context: Many, samples: np.ndarray[Any, Any], drawn: np.ndarray[Any, Any]
    ) -> Steps:
        orders, after = [], drawn.copy()
        for k, job in enumerate(context.jobs):
            one = self._context(job)
            if job.task.kind == "evaluate":
                one.data = self.site.data(job.task.client, "train")
            one.phase, one.passes = context.phase, int(drawn[k])
            orders.append(expanded(self.site.trainer.batches(one), one))
            within(orders[-1], int(samples[k]))
            after[k] = one.passes
        return joined(orders, after - drawn)

    def _phase(self, steps: Steps, work: Work) -> None:
        trainer = self.site.trainer
        memory: Tensors = {}
        tensorwise = self._tensorwise(work)
        now, variables, clients = work.context, work.variables, len(work.places)
        feed = Feed(steps, work.data, self.device, self._batches)
        for step, active in enumerate(feed.active):
            if active != clients:
                now, clients = now.first(active), active
                variables = {n: v[:active] for n, v in variables.items()}
                memory = {n: m[:active] for n, m in memory.items()}
            batch = feed.batch(step)
            if tensorwise:
                tensorwise.step(batch, now)
            else:
                gradient = trainer.gradient(trainer.loss, variables, batch, now)
                gradient = trainer.adjust(gradient, variables, now)
                trainer.step(variables, gradient, memory, now)
            now.step += 1
            now.steps = now.steps + 1
        if tensorwise:
            tensorwise.join()

    def _tensorwise(self, work: Work) -> Tensorwise | None:
        """Take variables tensor by tensor, where a trainer may step each tensor by itself and that is worth the calls."""
        space, context = self.site.space, work.context
        if (
            space.size < LARGE * len(space.entries)
            or len(space.entries) == 1
            or context.ranges != space.whole
            or self.lift.norms
            or not self.site.trainer.separable(context)
        ):
            self._own(work)
            return None
        train, start = context.phase.train, work.variables
        pieces = {name: pieces_of(start[name], space, name, self._batches) for name in train}
        work.variables = {n: self._into(n, v, copy=n not in train) for n, v in start.items()}
        work.own = True
        return Tensorwise(self.site, self.lift, work.variables, pieces)

    # ------------------------------------------------------------------------ evaluation

    def _evaluate_many(self, batch: Batch) -> BatchOutput:
        jobs = batch.jobs
        trainer = self.site.trainer
        data = self._data(jobs)
        work = self._begin(jobs, list(range(len(jobs))), data)
        work.variables = trainer.start(work.context)
        if phases := trainer.finetune_phases(work.context):
            self._turn_to(self._honest(jobs), work)
            self._train_phases(phases, work)
            self._turn_to(data.of(work.places), work)
        samples = whole(work.data, self.device)
        outputs = self.lift.measure(trainer.predict, work.variables, samples, work.context)
        done: list[Output | None] = [None] * len(jobs)
        for k, place in enumerate(work.places):
            n = int(work.data.count[k])
            sums = [m.sums(outputs[k, :n], samples.y[k, :n]).cpu() for m in self.site.metrics]
            count = torch.tensor([float(n)], dtype=torch.float64)
            done[place] = Output(jobs[place].task.id, {"sums": torch.cat([count, *sums])})
        return BatchOutput(tuple(output for output in done if output is not None))

    def _turn_to(self, data: Data, work: Work) -> None:
        """Let clients go on with other samples, and count those."""
        work.data = data
        counts = torch.tensor(data.count, dtype=torch.float64, device=self.device)
        work.context.counts = counts[:, None]

    # ------------------------------------------------------------------------ buffers

    def _own(self, work: Work) -> None:
        """Copy variables into buffers that are used again for the next clients, unless they are there."""
        if not work.own:
            work.variables = {name: self._into(name, v) for name, v in work.variables.items()}
            work.own = True

    def _into(self, name: str, value: torch.Tensor, *, copy: bool = True) -> torch.Tensor:
        clients, shape = len(value), value.shape[1:]
        there = self._buffers.get(name)
        if there is None or len(there) < clients or there.shape[1:] != shape:
            there = torch.empty(clients, *shape, dtype=value.dtype, device=self.device)
            self._buffers[name] = there
        return there[:clients].copy_(value) if copy else there[:clients]


@define(eq=False)
class Work:
    """Some clients of a batch under way, in the order in which they are computed."""

    places: Sequence[int]
    """Their places in the batch."""
    data: Data
    context: Many
    variables: Tensors
    taken: np.ndarray[Any, np.dtype[np.int64]]
    drawn: np.ndarray[Any, np.dtype[np.int64]]
    own: bool = False
    """Whether the variables lie in buffers that may be written."""

    def reorder(self, order: np.ndarray[Any, Any]) -> None:
        """Put the clients in another order."""
        self.context = self.context.reordered(order)
        for name, value in self.variables.items():
            if self.own:
                value.copy_(value[torch.from_numpy(order).to(value.device)])
            elif not shared(value):
                self.variables[name] = value[torch.from_numpy(order).to(value.device)]
        self.places = [self.places[i] for i in order]
        self.data = self.data.of(order)
        self.taken, self.drawn = self.taken[order], self.drawn[order]


def exact(device: torch.device) -> Any:
    """Keep a GPU's convolutions in float32, and the same from run to run."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def number(values: np.ndarray[Any, Any], device: torch.device) -> Any:
    """Return an int where all are equal, else a column (K, 1)."""
    if (values == values[0]).all():
        return int(values[0])
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None]
