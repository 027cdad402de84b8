"""What the methods share: arithmetic of parts, anchors, and models that a client keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.draws import shuffled
from fscore.builtin.trainers import SGD, applies
from fscore.context import Order, Passes, Phase
from fscore.errors import ConfigError
from fscore.params import Group, Layout, Ranges, Tensors, intersect, place

if TYPE_CHECKING:
    import torch

    from fscore.context import Context, Samples
    from fscore.course import Course
    from fscore.params import ParamSpace


def union(space: ParamSpace, one: Ranges, other: Ranges) -> Ranges:
    """Return what lies in either of two parts."""
    return space.complement(intersect(space.complement(one), space.complement(other)))


def keep(space: ParamSpace, parts: Mapping[str, Ranges], kept: Ranges) -> dict[str, Ranges]:
    """Return `parts` with `kept` at the client: it becomes private, except where it is frozen."""
    frozen = parts["frozen"]
    private = union(space, parts["private"], intersect(kept, space.complement(frozen)))
    shared = space.complement(union(space, private, frozen))
    return {**parts, "private": private, "shared": shared}


def spread(values: torch.Tensor, context: Context) -> torch.Tensor:
    """Return a whole vector (..., P) of the shared values (..., shared) that were sent; 0 elsewhere."""
    shared, space = context.parts["shared"], context.space
    if shared == space.whole:
        return values
    return place(values.new_zeros(*values.shape[:-1], space.size), shared, values)


def anchored(variables: Tensors, context: Context) -> Tensors:
    """Add a copy of the received model, unless it is what was sent as it stands."""
    if context.parts["shared"] == context.space.whole:
        return variables
    return {**variables, "anchor": variables["model"]}


def anchor(variables: Tensors, context: Context) -> torch.Tensor:
    """Return the received model (..., P) that `anchored` remembers."""
    return variables["anchor"] if "anchor" in variables else context.sent["model"]


def pulled(
    gradient: torch.Tensor, weight: Any, values: torch.Tensor, to: torch.Tensor
) -> torch.Tensor:
    """Add the gradient of `weight / 2 * ||values - to||^2`; all (..., P), weight a number or a column."""
    return gradient + weight * (values - to) if applies(weight) else gradient


def copy_buffers(space: ParamSpace, source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy what gradients do not train (running statistics) from one model (..., P) to another, in place."""
    for start, stop in space.complement(space.trainable):
        target[..., start:stop] = source[..., start:stop]


def drawn(batches: Order | Passes, context: Context) -> Order:
    """Return the samples of each step, of one client; passes are drawn."""
    if isinstance(batches, Passes):
        return shuffled(context, batches.epochs, batches.batch_size)
    return batches


def matched(course: Course, key: str, patterns: Sequence[str]) -> Iterable[str]:
    """Refuse patterns that match nothing, or the whole model, each alone or all of them together."""
    space = course.space
    problems: list[str] = []
    for pattern in patterns:
        try:
            space.require(key, pattern, space.part(kinds=[pattern], names=[pattern]))
        except ConfigError as error:
            problems += error.problems
    yield from problems
    if not problems and space.part(kinds=patterns, names=patterns) == space.whole:
        yield f"{key}: {', '.join(map(repr, patterns))} together match the whole model"


def trains(trainer: SGD, course: Course, part: str) -> Iterable[str]:
    """Refuse a course in which nothing of a part is trained, though a phase is about it."""
    space = course.space
    parts = trainer.parts(space)
    trained = intersect(space.trainable, space.complement(parts["frozen"]))
    if parts[part] and not intersect(trained, parts[part]):
        yield (
            f"trainer.frozen: '{trainer.name}' trains the {part} by itself, but all of it is frozen. "
            "Remedy: freeze less."
        )


def unclipped(course: Course, name: str, what: str) -> Iterable[str]:
    """Refuse a joint clip for a method that sends, beside its update, numbers that must not shrink with it."""
    for mechanism in course.privacy:
        if "bounded_norm" in mechanism.flags()[1]:
            yield (
                f"trainer.use: '{name}' sends {what}, which [[privacy]] '{mechanism.name}' would clip together with "
                "the update. Remedy: switch one of them off."
            )


@define(eq=False, slots=False)
class Personal(SGD):
    """A second, whole model at the client, beside the global one.

    A client that never trained has the received model in its place: that is how unseen clients are evaluated, and where
    a client begins.
    """

    def row(self, space: ParamSpace) -> Layout:
        return {**super().row(space), "personal": Group((space.size,)), "trained": Group((1,))}

    def first_row(self, initial: torch.Tensor) -> Tensors:
        return {**super().first_row(initial), "personal": initial.clone()}

    def start(self, context: Context) -> Tensors:
        started = super().start(context)
        return {**started, "personal": self.own(context, started["model"])}

    def own(self, context: Context, received: torch.Tensor) -> torch.Tensor:
        """Return the personal model (..., P), or the received one where the client never trained."""
        import torch

        return torch.where(context.row["trained"] > 0, context.row["personal"], received)

    def loss(self, variables: Tensors, batch: Samples, context: Context) -> torch.Tensor:
        return context.losses(variables[context.phase.train[0]], batch)

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        groups, rows = super().finish(variables, context)
        trained = context.row["trained"].new_ones(context.row["trained"].shape)
        return groups, {**rows, "personal": variables["personal"], "trained": trained}

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(("personal",), self.finetune),) if self.finetune else ()

    def predictor(self, variables: Tensors, context: Context) -> torch.Tensor:
        return variables["personal"]
