"""Corrections of client drift: the result is one global model, as FedAvg's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import define

from fs_personalization.common import (
    anchor,
    anchored,
    pulled,
    spread,
    unclipped,
)
from fscore.builtin.trainers import SGD, descend
from fscore.component import between, gt, option
from fscore.params import Group, Layout, Tensors
from fscore.paths import Stage

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import ParamSpace
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Corrected(SGD):
    """A method whose server state corrects the drift from the plain mean of the clients, of updates of one version."""

    needs = frozenset({"fresh_updates"})

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.clients = course.population.participants

    def check(self, course: Course) -> Iterable[str]:
        """Refuse weights by samples."""
        yield from super().check(course)
        if course.aggregator.weighting != "uniform":
            yield (
                f"aggregator.weighting: '{self.name}' corrects the drift from the plain mean of the clients. "
                'Remedy: set aggregator.weighting = "uniform".'
            )


@define(eq=False, slots=False)
class Scaffold(Corrected):
    """SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1, option II of line 12).

    Steps go along g - c_i + c. Then c_i+ = c_i - c + (x - y_i) / (K lr), for the K steps taken, and
    c += sum of (c_i+ - c_i) over the cohort / N, for the N clients that take part in the course. With momentum, c_i is the
    mean of the client's steps in units of lr, so that c - c_i is added to the step and not to the gradient that momentum
    repeats.
    """

    name = "scaffold"

    def slots(self, space: ParamSpace) -> Layout:
        return {**super().slots(space), "control": Group((space.size,), reduce="sum")}

    def groups(self, space: ParamSpace) -> Layout:
        return {**super().groups(space), "control": Group((space.size,), reduce="sum")}

    def row(self, space: ParamSpace) -> Layout:
        return {**super().row(space), "control": Group((space.size,))}

    def start(self, context: Context) -> Tensors:
        started = anchored(super().start(context), context)
        correction = spread(context.sent["control"], context) - context.row["control"]
        return {**started, "correction": correction}

    def step(
        self, variables: Tensors, gradient: Tensors, memory: Tensors, context: Context
    ) -> None:
        super().step(variables, gradient, memory, context)
        for start, stop in context.ranges:
            values, shift = (variables[n][..., start:stop] for n in ("model", "correction"))
            descend(values, shift, context.options["lr"])

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        groups, rows = super().finish(variables, context)
        moved = anchor(variables, context) - variables["model"]
        length = torch.as_tensor(context.steps * context.options["lr"])
        slope = moved / length.clamp(min=1e-30) - variables["correction"] - context.row["control"]
        change = torch.where(length > 0, slope, torch.zeros_like(slope))
        return {**groups, "control": change}, {**rows, "control": context.row["control"] + change}

    def directions(self, slots: Tensors, reduced: Tensors, cohort: Cohort) -> Tensors:
        return {"model": reduced["model"], "control": reduced["control"] / self.clients}


@define(eq=False, slots=False)
class FedDyn(Corrected):
    """FedDyn (Acar et al., Federated Learning Based on Dynamic Regularization, ICLR 2021, algorithm 1).

    Clients minimise f_i(w) - <g_i, w> + alpha / 2 ||w - w^t||^2, then g_i -= alpha (w_i - w^t). The server keeps
    h -= alpha / N sum of (w_i - w^t) over the cohort and sends the mean of the w_i less h / alpha.
    """

    name = "feddyn"
    alpha: float = option(0.1, doc="Weight of the dynamic regulariser.", validator=gt(0))

    def slots(self, space: ParamSpace) -> Layout:
        return {**super().slots(space), "h": Group((space.size,), reduce="sum")}

    def downloads(self, space: ParamSpace) -> Layout:
        return super().slots(space)

    def download(self, slots: Tensors, client: int) -> Tensors:
        return {"model": slots["model"]}

    def row(self, space: ParamSpace) -> Layout:
        return {**super().row(space), "slope": Group((space.size,))}

    def start(self, context: Context) -> Tensors:
        return anchored(super().start(context), context)

    def adjust(self, gradient: Tensors, variables: Tensors, context: Context) -> Tensors:
        linear = gradient["model"] - context.row["slope"]
        to = anchor(variables, context)
        return {"model": pulled(linear, self.alpha, variables["model"], to)}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        groups, rows = super().finish(variables, context)
        moved = variables["model"] - anchor(variables, context)
        return groups, {**rows, "slope": context.row["slope"] - self.alpha * moved}

    def directions(self, slots: Tensors, reduced: Tensors, cohort: Cohort) -> Tensors:
        mean = reduced["model"]
        h = -self.alpha * len(cohort.tasks) / self.clients * mean
        return {"model": mean - self.trained((slots["h"] + h) / self.alpha), "h": h}

    def trained(self, values: torch.Tensor) -> torch.Tensor:
        """Return values (P,) with 0 for running statistics, which have no gradient to correct."""
        import torch

        kept = torch.zeros_like(values)
        for start, stop in self.space.trainable:
            kept[start:stop] = values[start:stop]
        return kept


class Normalise(Stage):
    """Divides a client's change by the length of its local work."""

    name = "normalise"
    rank = 30
    lifts = True

    def __init__(self, trainer: FedNova) -> None:
        self.trainer = trainer

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        length = torch.as_tensor(self.trainer.length(context)).clamp(min=1.0)
        return {**values, "model": values["model"] / length}, {}


@define(eq=False, slots=False)
class FedNova(SGD):
    """FedNova (Wang et al., Tackling the Objective Inconsistency Problem, NeurIPS 2020, section 4).

    Clients send their change divided by ||a_i||_1, the length of their local work, and that length; the server moves by
    the mean length times the mean normalised change. a_i = 1 for every step of plain SGD; with momentum each gradient
    counts as often as the steps after it repeat it.
    """

    name = "fednova"
    momentum: float = option(
        0.0, doc="Momentum of the clients, from zero in each task.", validator=between(0, 0.999),
        per_client=True,
    )  # fmt: skip

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from unclipped(course, self.name, "the length of its local work")

    def stages(self) -> Iterable[Stage]:
        yield from super().stages()
        yield Normalise(self)

    def groups(self, space: ParamSpace) -> Layout:
        return {**super().groups(space), "length": Group((1,))}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        groups, rows = super().finish(variables, context)
        length = torch.as_tensor(self.length(context), dtype=torch.float32)
        return {**groups, "length": length.reshape(*variables["model"].shape[:-1], 1)}, rows

    def length(self, context: Context) -> Any:
        """Return ||a_i||_1 of the steps taken, a number or a column."""
        steps, momentum = context.steps, context.options["momentum"]
        echo = momentum * momentum if self.nesterov else momentum
        return (steps - echo * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)

    def directions(self, slots: Tensors, reduced: Tensors, cohort: Cohort) -> Tensors:
        return {"model": reduced["length"] * reduced["model"]}
