"""From what many clients trained to the output of their batch: the upload path, failures, the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import define

from fscore.builtin.executors.many import NotLifted
from fscore.folding import NO_ROW, empty_sums, fold_into
from fscore.params import Group, Layout, Tensors
from fscore.tasks import Batch, BatchOutput, Job, Output, Slice

if TYPE_CHECKING:
    from fscore.builtin.executors.many import Many
    from fscore.context import Context
    from fscore.paths import Path, Placed
    from fscore.site import Site

NOT_FINITE = "the update is not finite"


@define(eq=False)
class Trained:
    """What training some clients of a batch gave; tensors (K, ...), in the order of `places`."""

    places: Sequence[int]
    """Places of the clients in the batch."""
    values: Tensors
    rows: Tensors
    wire: Tensors | None

    def only(self, good: np.ndarray[Any, np.dtype[np.bool_]]) -> Trained:
        """Return what the clients marked in `good` gave."""
        where = np.flatnonzero(good)

        def some(values: Tensors) -> Tensors:
            return {n: v[torch.from_numpy(where).to(v.device)] for n, v in values.items()}

        wire = None if self.wire is None else some(self.wire)
        places = [self.places[i] for i in where.tolist()]
        return Trained(places, some(self.values), some(self.rows), wire)


# ---------------------------------------------------------------------------- the upload path


@define(eq=False)
class Sender:
    """Sends the updates of many clients up the path: at once, or client by client where a stage serves one only."""

    site: Site
    single: Callable[[Job], Context]
    """Makes the context of one client."""
    context: Many

    def send(
        self, groups: Tensors, rows: Tensors, *, wire: bool
    ) -> tuple[Tensors, Tensors | None, Tensors, Tensors | None]:
        """Return values on the wire, values undone on single updates, changed rows, and the wire form if asked for.

        Of jobs that end before some rank, the values are what they are there, and nothing is undone.
        """
        path, jobs = self.site.upload, self.context.jobs
        upto = jobs[0].upto
        placed = [
            (i, p)
            for i, p in enumerate(path.placed)
            if (upto is None or p.stage.rank < upto)
            and (p.only is None or any(job.task.client in p.only for job in jobs))
        ]
        if all(p.stage.lifts and p.only is None for _, p in placed):
            values, single, changed = self._together(groups, placed, upto)
        else:
            values, single, changed = self._one_by_one(groups)
        layout = path.wire if upto is None else path.before(upto)
        rows = {n: self._shaped(v, self.site.rows[n]) for n, v in {**rows, **changed}.items()}
        values = {n: self._shaped(v, layout[n]) for n, v in values.items()}
        if single is not None:
            single = {n: self._shaped(v, path.single[n]) for n, v in single.items()}
        return values, single, rows, values if wire else None

    def _together(
        self, values: Tensors, placed: Sequence[tuple[int, Placed]], upto: float | None
    ) -> tuple[Tensors, Tensors | None, Tensors]:
        rows: Tensors = {}
        for index, place in placed:
            self.context.enter_stage(index, place.owner)
            values, changed = place.stage.apply(values, self.context)
            rows.update({f"{place.owner}/{name}": row for name, row in changed.items()})
        if upto is not None:
            return values, None, rows
        single = values
        last = max((i for i, p in enumerate(self.site.upload.placed) if p.stage.on_sum), default=-1)
        for index, place in reversed(placed):
            if index > last:
                self.context.enter_stage(index, place.owner)
                single = place.stage.undo(single, self.context)
        return values, single, rows

    def _one_by_one(self, groups: Tensors) -> tuple[Tensors, Tensors | None, Tensors]:
        path: Path = self.site.upload
        groups = {n: self._shaped(v, path.layouts[0][n]).cpu() for n, v in groups.items()}
        steps = self.context.steps.reshape(-1).tolist()
        found = []
        for k, job in enumerate(self.context.jobs):
            one = self.single(job)
            one.steps = int(steps[k])
            one.measured = {n: v[k].cpu() for n, v in self.context.measured.items()}
            mine = {n: v[k] for n, v in groups.items()}
            values, changed = path.apply(mine, one, job.upto)
            undone = None if job.upto is not None else path.undo_single(values, one)
            found.append((values, undone, changed))
        single = [one for _, one, _ in found if one is not None]
        values, changed = (_stacked([one[i] or {} for one in found]) for i in (0, 2))
        return values, _stacked(single) if single else None, changed

    def _shaped(self, values: torch.Tensor, group: Group) -> torch.Tensor:
        """Return values as (K, *shape); what has no axis of clients holds for all of them."""
        clients = len(self.context.jobs)
        if values.shape == group.shape:
            return values.expand(clients, *group.shape)
        return values.reshape(clients, *group.shape)


def _stacked(values: Sequence[Tensors]) -> Tensors:
    if any(one.keys() != values[0].keys() for one in values):
        raise NotLifted("a stage gives groups or rows of some clients only")
    return {n: torch.stack([one[n] for one in values]) for n in values[0]}


# ---------------------------------------------------------------------------- outputs and their sum


class Total:
    """The output of a batch, put together client by client and group of clients by group."""

    def __init__(self, path: Path, batch: Batch) -> None:
        self._layout: Layout = path.single
        self._batch = batch
        self._outputs: list[Output | None] = [None] * len(batch.jobs)
        self._sums = empty_sums(self._layout) if batch.sum else None
        self._public: Tensors = {}

    def add_one(self, place: int, output: Output) -> None:
        """Take the output of one client that was computed alone."""
        if self._sums is not None:
            output = fold_into(self._sums, output, self._batch.jobs[place].factor, self._layout)
        self._outputs[place] = output

    def add(self, trained: Trained) -> None:
        """Take what a group of clients gave."""
        for group in (g for g in self._layout.values() if g.at and self._sums is not None):
            at = trained.values[group.at].cpu().numpy()
            trained = self._without(
                trained, (at >= 0) & (at < group.rows), NO_ROW.format(group.at, group.rows)
            )
        more = None if self._sums is None else self._folded(trained)
        if not _all_finite(trained.values, more):
            trained = self._without(trained, _finite(trained.values), NOT_FINITE)
            more = None if self._sums is None else self._folded(trained)
        for name, value in (more or {}).items():
            self._sums[name] += value.cpu()  # type: ignore[index]
        self._give(trained)

    def _without(self, trained: Trained, good: np.ndarray[Any, Any], error: str) -> Trained:
        """Note an error for the clients that are not good, and return what the others gave."""
        if good.all():
            return trained
        for k in np.flatnonzero(~good):
            place = trained.places[int(k)]
            self._outputs[place] = Output(self._batch.jobs[place].task.id, error=error)
        return trained.only(good)

    def _folded(self, trained: Trained) -> Tensors:
        """Return the sums of a group of clients."""
        values = trained.values
        factors = [self._batch.jobs[place].factor for place in trained.places]
        weights = torch.tensor(
            factors, dtype=torch.float64, device=next(iter(values.values())).device
        )
        if "weight" in values:
            weights = weights * values["weight"]
        sums = {}
        for name, group in self._layout.items():
            if group.public:
                continue
            each = weights if group.reduce == "mean" else None
            if group.at:
                scaled = values[name] if each is None else _times(values[name], each)
                blank = scaled.new_zeros(group.summed)
                sums[name] = blank.index_add_(0, values[group.at], scaled)
            else:
                sums[name] = _weighted(values[name], each)
        return sums

    def _give(self, trained: Trained) -> None:
        ids = [self._batch.jobs[place].task.id for place in trained.places]
        rows = _by_place(trained.rows)
        if self._sums is not None:
            self._keep_public(trained)
            public: Any = map(Slice, repeat(self._public), trained.places)
            own = map(rows, range(len(ids))) if trained.rows else ({} for _ in ids)
            for place, output in zip(trained.places, map(Output, ids, public, own), strict=True):
                self._outputs[place] = output
            return
        values = _by_place(trained.values)
        wires = None if trained.wire is None else _by_place(trained.wire)
        for k, (place, task) in enumerate(zip(trained.places, ids, strict=True)):
            wire = None if wires is None else wires(k)
            self._outputs[place] = Output(task, values(k), rows(k), wire=wire)

    def _keep_public(self, trained: Trained) -> None:
        """Copy the public groups of some clients to their places among those of the batch."""
        places = torch.tensor(trained.places)
        for name, value in trained.values.items():
            if self._layout[name].public:
                if name not in self._public:
                    shape = (len(self._batch.jobs), *value.shape[1:])
                    self._public[name] = torch.zeros(shape, dtype=value.dtype)
                self._public[name][places] = value.cpu()

    def output(self) -> BatchOutput:
        """Return the batch's output."""
        return BatchOutput(tuple(o for o in self._outputs if o is not None), self._sums)


def _by_place(values: Tensors) -> Callable[[int], Tensors]:
    """Return a function that gives a client's tensors by its place, in memory of their own."""
    pieces = {n: v.cpu().unbind(0) for n, v in values.items()}
    return lambda k: {n: piece[k].clone() for n, piece in pieces.items()}


def _all_finite(values: Tensors, summed: Tensors | None) -> bool:
    """Whether everything is finite; what is summed is looked at as a sum, which no infinite part leaves finite."""
    names = [n for n, v in values.items() if v.is_floating_point()]
    looked = [(summed or {}).get(n, values[n]) for n in names]
    return all(bool(v.sum(dtype=torch.float64).isfinite()) for v in looked)


def _finite(values: Tensors) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which clients' values are all finite: (K,)."""
    floating = [v for v in values.values() if v.is_floating_point()]
    clients = len(next(iter(values.values())))
    if not floating:
        return np.ones(clients, dtype=np.bool_)
    each = [torch.isfinite(v.reshape(clients, -1)).all(1) for v in floating]
    return np.asarray(torch.stack(each).all(0).cpu())


def _times(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return values * weights.to(values.dtype).view(-1, *[1] * (values.ndim - 1))


def _weighted(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the sum over clients of weight times value: (K, ...), (K,) -> (...)."""
    if weights is None or not values.is_floating_point():
        return values.sum(0, dtype=values.dtype)
    flat = values.reshape(len(values), -1)
    return torch.mv(flat.t(), weights.to(values.dtype)).view(values.shape[1:])
