"""Trainers: local algorithms, written for one client in pieces.

The executor calls the pieces and no piece calls another, so that wrappers of one piece compose. The order for a task is

    start -> for each of phases: batches -> for each step: loss, gradient, adjust, step -> finish -> the upload path

Only `loss` (and what `gradient` makes of it) touches samples. Every other piece works in *flat space*: on vectors whose
last axis is the parameters, in place, so that the same lines serve one client `(P,)` and many `(K, P)`; per-client options
then are columns `(K, 1)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

from fscore.component import Component
from fscore.context import Order, Passes, Phase
from fscore.params import Group, Layout, Ranges, Tensors

if TYPE_CHECKING:
    import torch

    from fscore.context import Context, Samples
    from fscore.course import Course
    from fscore.params import ParamSpace
    from fscore.tasks import Cohort

Loss = Callable[[Tensors, "Samples", "Context"], "torch.Tensor"]


@define(eq=False, slots=False)
class Trainer(Component):
    """A local algorithm for one client; `[trainer] use = "..."`.

    A new algorithm derives from a trainer that exists (`fscore.builtin.trainers.SGD`) and overrides one or two pieces.
    """

    # -------------------------------------------------------------------------------- what the model is divided into

    lifts: ClassVar[bool] = True
    """False for a local algorithm whose Python branches on values: it is computed client by client."""

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        """Return named parts of the model; `shared` and `private` are always there."""
        return {"shared": space.whole, "private": ()}

    def bind(self, course: Course) -> None:
        """Remember the layout of the model."""
        self.space: ParamSpace = course.space

    # -------------------------------------------------------------------------------- at the server

    def slots(self, space: ParamSpace) -> Layout:
        """Return the model bank: what a version is made of, and what is sent down.

        A slot with reduce `mean` is moved by the server optimizer, one with `sum` by plain addition.
        """
        return {"model": Group((space.size,))}

    def first_slots(self, initial: torch.Tensor) -> Tensors:
        """Return version 0, of the initial model (P,)."""
        return {
            name: initial.clone() if group.shape == initial.shape and group.reduce == "mean"
            else initial.new_zeros(group.shape)
            for name, group in self.slots(self.space).items()
        }  # fmt: skip

    per_client_download: ClassVar[bool] = False
    """Whether `download` depends on the client; if not, it is made once per version."""

    def downloads(self, space: ParamSpace) -> Layout:
        """Return the layout of what `download` gives; by default the whole bank."""
        return self.slots(space)

    def download(self, slots: Tensors, client: int) -> Tensors:
        """Return what is sent to a client; made when its task is computed."""
        return slots

    def directions(self, slots: Tensors, reduced: Tensors, cohort: Cohort) -> Tensors:
        """Return one direction per slot that moves, from the reduced groups."""
        return {g.slot: reduced[n] for n, g in self.groups(self.space).items() if g.slot}

    # -------------------------------------------------------------------------------- at the client

    def groups(self, space: ParamSpace) -> Layout:
        """Return what `finish` gives and the client uploads; groups with a `slot` travel as differences."""
        return {"model": Group((space.size,), slot="model")}

    def row(self, space: ParamSpace) -> Layout:
        """Return the client's own state. If there is any, a task is computed even if its update is unwanted."""
        return {}

    def first_row(self, initial: torch.Tensor) -> Tensors:
        """Return the state of a client that has none yet, of the initial model (P,)."""
        return {n: initial.new_zeros(g.shape) for n, g in self.row(self.space).items()}

    def survey(self, samples: Samples, context: Context) -> Tensors:
        """Return what is measured on all training samples before `start`; it is found in `context.measured`."""
        return {}

    def start(self, context: Context) -> Tensors:
        """Return the variables that the phases work on; the executor copies them.

        Vectors (P,) that a phase trains get gradients; what has another shape, or is trained by no phase, is plain, and
        `step` may change it in place.
        """
        return {"model": context.sent["model"]}

    def phases(self, context: Context) -> Sequence[Phase]:
        """Return what is trained, in order."""
        return (Phase(),)

    def batches(self, context: Context) -> Order | Passes:
        """Return which samples each step of the phase uses."""
        raise NotImplementedError(f"trainer '{self.name}' does not say which samples it uses")

    def loss(self, variables: Tensors, batch: Samples, context: Context) -> torch.Tensor:
        """Return one loss per sample (samples,); the only piece that touches samples."""
        return context.losses(variables["model"], batch)

    def gradient(self, loss: Loss, variables: Tensors, batch: Samples, context: Context) -> Tensors:
        """Return the gradient by trained variable; sample-level privacy wraps this."""
        return context.differentiate(loss, variables, batch, context)

    def adjust(self, gradient: Tensors, variables: Tensors, context: Context) -> Tensors:
        """Return the gradient with what depends on no sample added: proximal terms, control variates."""
        return gradient

    def step(
        self, variables: Tensors, gradient: Tensors, memory: Tensors, context: Context
    ) -> None:
        """Move the variables in place, on `context.ranges` only.

        Args:
            gradient: valid during this call; what `memory` shall keep of it is cloned.
            memory: the optimizer's own vectors; empty when a phase begins.
        """
        raise NotImplementedError

    def separable(self, context: Context) -> bool:
        """Whether `gradient` and `adjust` are as here and `step` treats each value by itself: it may serve a tensor alone."""
        return False

    def summary(self, variables: Tensors, samples: Samples, context: Context) -> Tensors:
        """Return what is measured on all training samples after the phases; it joins `context.measured`."""
        return {}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        """Return the groups and the changed rows."""
        return {"model": variables["model"]}, {}

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        """Return what is trained before an evaluation."""
        return ()

    def predictor(self, variables: Tensors, context: Context) -> torch.Tensor:
        """Return the parameters (P,) that are evaluated, of the variables after `start` and fine-tuning.

        An unseen client has its first row.
        """
        return variables["model"]

    def predict(self, variables: Tensors, samples: Samples, context: Context) -> torch.Tensor:
        """Return what a client's model puts out in an evaluation: (samples, ...)."""
        return context.outputs(self.predictor(variables, context), samples)

    def flags(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """Need a store where there are rows, and a weighted sum where groups move rows of a slot."""
        needs, provides, removes = super().flags()
        if hasattr(self, "space"):
            needs |= {"stateful_clients"} if self.row(self.space) else set()
            groups = self.groups(self.space).values()
            needs |= {"linear_reduce"} if any(g.at or g.count for g in groups) else set()
        return needs, provides, removes

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        """Return the sample gradients of a task, known before it is computed."""
        return float(samples)


__all__ = ["Loss", "Order", "Passes", "Phase", "Trainer"]
