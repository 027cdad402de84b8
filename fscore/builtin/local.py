"""What every local algorithm shares: epochs of shuffled batches, private and frozen parts, fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.stages import Difference, Select, SelectDown
from fscore.component import ge, gt, option
from fscore.context import Order, Passes, Phase
from fscore.kinds.trainer import Trainer
from fscore.params import Group, Layout, Ranges, Tensors, intersect, length, merge, place, take

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import ParamSpace
    from fscore.paths import Stage


@define(eq=False, slots=False)
class LocalTrainer(Trainer):
    """A local algorithm that passes over the client's samples; parts of the model may stay at the client."""

    lr: float = option(0.1, doc="Learning rate of the clients.", validator=ge(0), per_client=True)
    epochs: float = option(
        1.0, doc="Passes over a client's samples.", validator=gt(0), per_client=True
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

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        """Return named parts of the model; `shared`, `private`, `frozen`."""
        private, frozen = (space.part(kinds=p, names=p) for p in (self.private, self.frozen))
        held = merge(sorted({*private, *frozen}))
        return {"private": private, "frozen": frozen, "shared": space.complement(held)}

    def check(self, course: Course) -> Iterable[str]:
        """Refuse patterns of `private` and `frozen` that match nothing or everything, or leave nothing to train or share."""
        from fscore.errors import ConfigError

        problems: list[str] = []
        for key in ("private", "frozen"):
            for pattern in getattr(self, key):
                found = course.space.part(kinds=[pattern], names=[pattern])
                try:
                    course.space.require(f"trainer.{key}", pattern, found)
                except ConfigError as error:
                    problems += error.problems
        yield from problems or self.left(course.space)

    def left(self, space: ParamSpace) -> Iterable[str]:
        """Refuse parts that are each right and together leave nothing to train, or nothing trained to share."""
        parts = self.parts(space)
        trained = intersect(space.trainable, space.complement(parts["frozen"]))
        shares = any(group.slot for group in self.groups(space).values())
        if not trained:
            yield "trainer.frozen: all of the model is frozen, so that nothing is trained. Remedy: freeze less."
        elif shares and not intersect(trained, parts["shared"]):
            yield (
                f"trainer.use: '{self.name}' shares nothing that it trains: all of it is private or frozen. "
                "Remedy: less of trainer.private and trainer.frozen."
            )

    def stages(self) -> Iterable[Stage]:
        """Put the difference, and the selection of the shared part, on the path."""
        yield Difference()
        shared = self.parts(self.space)["shared"]
        if shared != self.space.whole:
            yield Select(shared, self.space.size)
            yield SelectDown(shared, self.space.size)

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
        shared, private = context.parts["shared"], context.parts["private"]
        if shared == context.space.whole:
            return sent
        whole = place(context.initial(sent), shared, sent)
        return place(whole, private, context.row["private"]) if private else whole

    def batches(self, context: Context) -> Order | Passes:
        """Return which samples each step of the phase uses: shuffled epochs, the last batch of each short."""
        epochs = context.phase.epochs
        epochs = context.options["epochs"] if epochs is None else epochs
        return Passes(epochs, context.options["batch_size"])

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        """Return the groups and the changed rows."""
        rows = {}
        if context.parts["private"]:
            rows["private"] = take(variables["model"], context.parts["private"])
        return {"model": variables["model"]}, rows

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        """Return what is trained before an evaluation, where `finetune` is set."""
        return (Phase(epochs=self.finetune),) if self.finetune else ()

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        """Return the sample gradients of a task, known before it is computed."""
        return float(options["epochs"]) * samples
