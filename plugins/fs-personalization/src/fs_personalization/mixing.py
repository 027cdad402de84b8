"""Mixtures of the global and a personal model, learned at the client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fs_personalization.common import Personal, copy_buffers
from fscore.component import between, ge, option
from fscore.context import Phase
from fscore.errors import ConfigError
from fscore.params import Group, Layout, Ranges, Tensors, intersect, length, place, take

if TYPE_CHECKING:
    import torch

    from fscore.context import Context, Samples
    from fscore.course import Course
    from fscore.params import ParamSpace


@define(eq=False, slots=False)
class APFL(Personal):
    """APFL (Deng et al., Adaptive Personalized Federated Learning, 2020, algorithm 1).

    Clients deploy v_bar = alpha v + (1 - alpha) w. On each batch w moves along its own gradient and v along that of
    f(v_bar), which is alpha grad f(v_bar). On the first batch of a task, alpha -= lr <grad f(v_bar), v - w>, kept in [0, 1].
    """

    name = "apfl"
    alpha: float = option(
        0.5, doc="Weight of the personal model at the start.", validator=between(0, 1)
    )
    adaptive: bool = option(True, doc="Learn each client's alpha.")

    def row(self, space: ParamSpace) -> Layout:
        return {**super().row(space), "alpha": Group((1,))}

    def start(self, context: Context) -> Tensors:
        import torch

        started, trained = super().start(context), context.row["trained"] > 0
        first = torch.zeros_like(context.row["alpha"])
        if context.task.kind != "evaluate":
            started["personal"] = context.row["personal"]
            first = first + self.alpha
        alpha = torch.where(trained, context.row["alpha"], first)
        mixed = alpha * started["personal"] + (1 - alpha) * started["model"]
        return {**started, "mixed": mixed, "alpha": alpha}

    def phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(("model", "mixed")),)

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(("model", "mixed"), self.finetune),) if self.finetune else ()

    def loss(self, variables: Tensors, batch: Samples, context: Context) -> torch.Tensor:
        return context.losses(variables["model"], batch) + context.losses(variables["mixed"], batch)

    def step(
        self, variables: Tensors, gradient: Tensors, memory: Tensors, context: Context
    ) -> None:
        w, v, alpha = variables["model"], variables["personal"], variables["alpha"]
        slope = gradient["mixed"]
        if self.adaptive and context.step == 0:
            product = take(slope * (v - w), context.ranges).sum(dim=-1, keepdim=True)
            moved = (alpha - context.options["lr"] * product).clamp(0, 1)
        else:
            moved = alpha.clone()
        both = {"model": gradient["model"], "personal": alpha * slope}
        super().step(variables, both, memory, context)
        alpha.copy_(moved)
        for start, stop in context.ranges:
            mixed = alpha * v[..., start:stop] + (1 - alpha) * w[..., start:stop]
            variables["mixed"][..., start:stop] = mixed

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        copy_buffers(context.space, variables["mixed"], variables["personal"])
        groups, rows = super().finish(variables, context)
        return groups, {**rows, "alpha": variables["alpha"]}

    def predictor(self, variables: Tensors, context: Context) -> torch.Tensor:
        return variables["mixed"]

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        return 2 * super().work(samples, options)


@define(eq=False, slots=False)
class FedALA(Personal):
    """FedALA (Zhang et al., FedALA: Adaptive Local Aggregation for Personalized FL, AAAI 2023, algorithm 1).

    A client begins from theta + (w - theta) * W: its last model and the received one, mixed by weights in [0, 1] that it
    learns on the last `layers`; below them it takes the received model.
    """

    name = "fedala"
    layers: list[str] = option(
        factory=list,
        doc="Modules that are mixed: names or classes, as patterns; default: the model's head.",
    )
    weight_lr: float = option(1.0, doc="Learning rate of the weights.", validator=ge(0))
    weight_epochs: float = option(
        0.8, doc="Passes over the samples that learn the weights, in each task.", validator=ge(0)
    )

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.mixed = tuple(self.layers) or (course.model.head,)

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        if self.mixed == ("",):
            yield (
                "trainer.layers: the model does not say which module is its head. "
                'Remedy: set trainer.layers = ["name"].'
            )
            return
        space = course.space
        for pattern in self.mixed:
            if not space.part(kinds=[pattern], names=[pattern]):
                try:
                    space.require("trainer.layers", pattern, ())
                except ConfigError as error:
                    yield from error.problems
        named = space.part(kinds=self.mixed, names=self.mixed)
        if named and not self.parts(space)["mixed"]:
            yield (
                "trainer.layers: all of them are private or frozen, so that nothing is mixed. "
                "Remedy: name layers that are shared."
            )

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        """Return `shared`, `private`, `frozen`, and the part that is `mixed`."""
        parts = super().parts(space)
        layers = intersect(space.part(kinds=self.mixed, names=self.mixed), space.trainable)
        return {**parts, "mixed": intersect(layers, parts["shared"])}

    def row(self, space: ParamSpace) -> Layout:
        return {**super().row(space), "weights": Group((length(self.parts(space)["mixed"]),))}

    def first_row(self, initial: torch.Tensor) -> Tensors:
        first = super().first_row(initial)
        return {**first, "weights": first["weights"] + 1.0}

    def start(self, context: Context) -> Tensors:
        part, started = context.parts["mixed"], super().start(context)
        own, sent = take(started.pop("personal"), part), take(started["model"], part)
        weights = context.row["weights"]
        model = place(started["model"].clone(), part, sent + (own - sent) * (1 - weights))
        return {**started, "model": model, "own": own, "sent": sent, "weights": weights}

    def phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(epochs=self.weight_epochs, part="mixed"), Phase())

    def loss(self, variables: Tensors, batch: Samples, context: Context) -> torch.Tensor:
        return context.losses(variables["model"], batch)

    def step(
        self, variables: Tensors, gradient: Tensors, memory: Tensors, context: Context
    ) -> None:
        if context.phase.part != "mixed":
            return super().step(variables, gradient, memory, context)
        part, apart = context.parts["mixed"], variables["sent"] - variables["own"]
        weights = variables["weights"]
        weights.sub_(self.weight_lr * take(gradient["model"], part) * apart).clamp_(0, 1)
        place(variables["model"], part, variables["sent"] - apart * (1 - weights))
        return None

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        variables = {**variables, "personal": variables["model"]}
        groups, rows = super().finish(variables, context)
        return groups, {**rows, "weights": variables["weights"]}

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(epochs=self.finetune),) if self.finetune else ()

    def predictor(self, variables: Tensors, context: Context) -> torch.Tensor:
        return variables["model"]

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        return float(options["epochs"] + self.weight_epochs) * samples
