"""Trainers: local algorithms, written for one client in pieces.

The executor calls the pieces and no piece calls another, so that wrappers of one piece compose. The order for a task is

    start -> for each of phases: batches -> for each step: loss, gradient, adjust, step -> finish -> the upload path

Only `loss` (and what `gradient` makes of it) touches samples. Every other piece works in *flat space*: on vectors whose
last axis is the parameters, in place, so that the same lines serve one client `(P,)` and many `(K, P)`; per-client options
then are columns `(K, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

from fscore.component import Component, ge, gt, option
from fscore.context import Order, Phase
from fscore.params import Group, Layout, Ranges, Tensors, length, merge, place, take

if TYPE_CHECKING:
    import torch

    from fscore.context import Context, Samples
    from fscore.course import Course
    from fscore.params import ParamSpace
    from fscore.paths import Stage
    from fscore.tasks import Cohort

Loss = Callable[[Tensors, "Samples", "Context"], "torch.Tensor"]


@define(eq=False, slots=False)
class Trainer(Component):
    """A local algorithm for one client; `[trainer] use = "..."`.

    A new algorithm derives from a trainer that exists (`fscore.builtin.trainers.SGD`) and overrides one or two pieces.
    """

    lr: float = option(0.1, doc="Learning rate of the clients.", validator=ge(0), per_client=True)
    epochs: float = option(
        1.0, doc="Passes over a client's samples.", validator=ge(0), per_client=True
    )
    batch_size: int = option(
        10,
        doc="Samples per step; 0: all of the client's samples.",
        validator=ge(0),
        per_client=True,
    )
    private: list[str] = option(
        factory=list,
        doc="Parts that stay at the client: names or classes of modules, as patterns ('head', 'BatchNorm*').",
    )
    frozen: list[str] = option(
        factory=list, doc="Parts that are neither trained nor sent: names or classes of modules."
    )
    finetune: float = option(
        0.0, doc="Epochs of local training before a client's evaluation.", validator=ge(0)
    )
    max_grad_norm: float | None = option(
        None, doc="Bound on the norm of a batch's gradient.", validator=gt(0), per_client=True
    )

    # -------------------------------------------------------------------------------- what the model is divided into

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        """Return named parts of the model; `shared`, `private`, `frozen` are always there."""
        private, frozen = (space.part(kinds=p, names=p) for p in (self.private, self.frozen))
        held = merge(sorted({*private, *frozen}))
        return {"private": private, "frozen": frozen, "shared": space.complement(held)}

    def check(self, course: Course) -> Iterable[str]:
        """Refuse patterns of `private` and `frozen` that match nothing or everything."""
        from fscore.errors import ConfigError

        for key in ("private", "frozen"):
            for pattern in getattr(self, key):
                found = course.space.part(kinds=[pattern], names=[pattern])
                try:
                    course.space.require(f"trainer.{key}", pattern, found)
                except ConfigError as error:
                    yield from error.problems

    def stages(self) -> Iterable[Stage]:
        """Put the difference, and the selection of the shared part, on the path."""
        from fscore.stages import Difference, Select, SelectDown

        yield Difference()
        if self.private or self.frozen:
            shared = self.parts(self.space)["shared"]
            yield Select(shared, self.space.size)
            yield SelectDown(shared, self.space.size)

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
        private = self.parts(space)["private"]
        return {"private": Group((length(private),))} if private else {}

    def first_row(self, initial: torch.Tensor) -> Tensors:
        """Return the state of a client that has none yet, of the initial model (P,)."""
        row = {n: initial.new_zeros(g.shape) for n, g in self.row(self.space).items()}
        if "private" in row:
            row["private"] = take(initial, self.parts(self.space)["private"]).clone()
        return row

    def start(self, context: Context) -> Tensors:
        """Return the variables that the phases work on; the executor copies them."""
        return {"model": self.received(context)}

    def received(self, context: Context, slot: str = "model") -> torch.Tensor:
        """Return a whole parameter vector: what was sent, and the client's private part. A helper, not a piece."""
        sent = context.sent[slot]
        if not (self.private or self.frozen):
            return sent
        whole = place(context.initial(sent), context.parts["shared"], sent)
        return (
            place(whole, context.parts["private"], context.row["private"])
            if self.private
            else whole
        )

    def phases(self, context: Context) -> Sequence[Phase]:
        """Return what is trained, in order."""
        return (Phase(),)

    def batches(self, context: Context) -> Order:
        """Return which samples each step of the phase uses: shuffled epochs, the last batch of each short."""
        epochs = context.phase.epochs
        epochs = context.options["epochs"] if epochs is None else epochs
        return shuffled(context, epochs, context.options["batch_size"])

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
            memory: the optimizer's own vectors; empty when a phase begins.
        """
        raise NotImplementedError

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        """Return the groups and the changed rows."""
        rows = {}
        if self.private:
            rows["private"] = take(variables["model"], context.parts["private"])
        return {"model": variables["model"]}, rows

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        """Return what is trained before an evaluation, where `finetune` is set."""
        return (Phase(epochs=self.finetune),)

    def predictor(self, variables: Tensors, context: Context) -> torch.Tensor:
        """Return the parameters (P,) that are evaluated, of the variables after `start` and fine-tuning.

        An unseen client has its first row.
        """
        return variables["model"]

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        """Return the sample gradients of a task, known before it is computed."""
        return float(options["epochs"]) * samples


def shuffled(context: Context, epochs: float, batch_size: int) -> Order:
    """Return `epochs` passes over a client's samples in random order, keyed by client, task and epoch.

    A fraction of an epoch takes that share of a pass, rounded up to whole steps.
    """
    import numpy as np
    import torch

    samples = context.samples
    size = min(batch_size or samples, samples)
    if size == samples:  # every step takes all samples: their order is that of the data
        return Order(None, (size,) * math.ceil(epochs))
    index, sizes = [], []
    for epoch in range(math.ceil(epochs)):
        numbers = context.numbers("order", context.passes, count=samples)
        context.passes += 1
        share = min(1.0, epochs - epoch)
        steps = math.ceil(share * samples / size - 1e-9)
        taken = min(steps * size, samples)
        index.append(np.argsort(numbers, kind="stable")[:taken])
        sizes += [size] * (taken // size) + ([taken % size] if taken % size else [])
    joined = np.concatenate(index) if index else np.empty(0, dtype=np.int64)
    return Order(torch.from_numpy(joined), tuple(sizes))


__all__ = ["Loss", "Order", "Phase", "Trainer", "shuffled"]
