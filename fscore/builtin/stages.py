"""The stages that courses have by default: a local algorithm's (the shared part, the difference), what attackers craft, the weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from fscore.params import Group, Layout, Ranges, Tensors, length, place, take
from fscore.paths import Stage

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.kinds.attack import Attack
    from fscore.tasks import Cohort, Task


class Select(Stage):
    """Sends only the shared ranges of every group that is as long as the model; the rest of the sum is zero."""

    name = "select"
    rank = 10
    on_sum = True
    lifts = True

    def __init__(self, shared: Ranges, size: int) -> None:
        self.shared, self.size = shared, size

    def _concerns(self, layout: Layout) -> list[str]:
        return [n for n, g in layout.items() if g.shape == (self.size,)]

    def layout(self, before: Layout) -> Layout:
        self.names = self._concerns(before)
        shape = (length(self.shared),)
        return {n: evolve(g, shape=shape) if n in self.names else g for n, g in before.items()}

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        return {n: take(v, self.shared) if n in self.names else v for n, v in values.items()}, {}

    def undo(self, values: Tensors, context: Context | Cohort) -> Tensors:
        return {
            n: place(v.new_zeros((*v.shape[:-1], self.size)), self.shared, v)
            if n in self.names
            else v
            for n, v in values.items()
        }


class SelectDown(Select):
    """Sends only the shared ranges to the client, which knows the initial model and its own private part."""

    down = True
    on_sum = False

    def undo(self, values: Tensors, context: Context | Cohort) -> Tensors:
        return values


class Difference(Stage):
    """Sends what changed: the trained values less the values received of the same slot."""

    name = "difference"
    rank = 20
    lifts = True

    def layout(self, before: Layout) -> Layout:
        self.slots = {n: g.slot for n, g in before.items() if g.slot and not g.at}
        return before

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        sent = context.sent
        changed = {n: v - sent[self.slots[n]] if n in self.slots else v for n, v in values.items()}
        return changed, {}


class Craft(Stage):
    """Replaces what a controlled client sends by what its attack crafted for the cohort; later stages hold as for all."""

    name = "craft"
    rank = 35

    def __init__(self, attack: Attack) -> None:
        self.attack = attack

    def prepare(self, task: Task) -> Any:
        return self.attack.crafted.get(task.id)

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        return {**values, **(context.prepared or {})}, {}


class Weight(Stage):
    """States the client's weight in the mean: its number of samples. The server multiplies when it sums."""

    name = "weight"
    rank = 60
    lifts = True

    def layout(self, before: Layout) -> Layout:
        return {**before, "weight": Group((), "float64", "sum", public=True)}

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        return {**values, "weight": torch.as_tensor(context.samples, dtype=torch.float64)}, {}
