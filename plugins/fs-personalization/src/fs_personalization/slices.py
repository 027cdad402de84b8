"""Models of different widths in one course: clients hold the first units of each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define, validators

from fs_personalization.common import unclipped
from fscore.builtin.trainers import SGD
from fscore.component import between, gt, option
from fscore.errors import ConfigError
from fscore.params import Group, Layout, Tensors, intersect

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import Entry, ParamSpace


@define(eq=False, slots=False)
class HeteroFL(SGD):
    """HeteroFL (Diao et al., Computation and Communication Efficient FL for Heterogeneous Clients, ICLR 2021, section 3).

    A client of width r holds the first r of the hidden units of each layer, and trains and deploys that model. Each
    coordinate becomes the mean of the clients that hold it. Give the widths by `[[override]]`, `trainer.width = 0.5`. The
    paper's scaler and its static batch norm are not part of this trainer.
    """

    name = "heterofl"
    needs = frozenset({"linear_reduce"})
    width: float = option(
        1.0, doc="Share of the hidden units that a client holds.",
        validator=validators.and_(gt(0), between(0, 1)), per_client=True,
    )  # fmt: skip

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.problem = ""
        try:
            self.levels = levels(course.space)
        except ConfigError as error:
            self.problem = str(error)

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from unclipped(course, self.name, "which coordinates a client holds")
        if self.problem:
            yield self.problem
        space = course.space
        if intersect(self.parts(space)["shared"], space.complement(space.trainable)):
            yield (
                "trainer.use: 'heterofl' has no mean of running statistics of different widths. "
                'Remedy: trainer.private = ["*BatchNorm*"], or a model without them.'
            )

    def groups(self, space: ParamSpace) -> Layout:
        size = (space.size,)
        return {"model": Group(size, slot="model", count="held"), "held": Group(size)}

    def start(self, context: Context) -> Tensors:
        started = super().start(context)
        model = started["model"]
        inside: torch.Tensor = self.levels.to(model.device) < context.options["width"]
        held = inside.to(model.dtype).expand(model.shape)  # (..., P) of 0 and 1
        return {**started, "model": model * held, "held": held}

    def adjust(self, gradient: Tensors, variables: Tensors, context: Context) -> Tensors:
        return {"model": gradient["model"] * variables["held"]}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        _, rows = super().finish(variables, context)
        held = variables["held"]
        model = torch.where(held > 0, variables["model"], self.received(context))
        return {"model": model, "held": held}, rows


def levels(space: ParamSpace) -> torch.Tensor:
    """Return for each coordinate (P,) the width that a client must exceed to hold it.

    Unit i of n has level i / n; a weight has the larger level of its output and its input; the inputs of the first layer
    and the outputs of the last are always held.

    Raises:
        ConfigError: the layers do not follow one another.
    """
    import torch

    layers = [e for e in space.entries if len(e.shape) > 1]
    found = torch.zeros(space.size)
    before: torch.Tensor | None = None
    for entry in space.entries:
        if len(entry.shape) > 1:
            before = _inputs(entry, before)
            after = torch.zeros(entry.shape[0])
            if entry is not layers[-1]:
                after = torch.arange(entry.shape[0]) / entry.shape[0]
            grid = torch.maximum(after[:, None], before[None, :])  # (out, in)
            shape = (*grid.shape, *[1] * (len(entry.shape) - 2))
            own = grid.view(shape).expand(entry.shape)
            before = after
        elif before is None or entry.shape != before.shape:
            raise _unclear(entry)
        else:
            own = before
        found[entry.start : entry.stop] = own.reshape(-1)
    return found


def _inputs(entry: Entry, before: torch.Tensor | None) -> torch.Tensor:
    """Return the level of each input of a layer (in,), of the levels of the units before it."""
    import torch

    wide = entry.shape[1]
    if before is None:
        return torch.zeros(wide)
    if wide % len(before):
        raise _unclear(entry)
    return before.repeat_interleave(
        wide // len(before)
    )  # flattened images: one channel after another


def _unclear(entry: Entry) -> ConfigError:
    return ConfigError(
        f"trainer.use: 'heterofl' cannot cut the model, because '{entry.name}' of shape {entry.shape} does not "
        "follow the layer before it"
    )
