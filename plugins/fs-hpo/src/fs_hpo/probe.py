"""What a client reports of the model that it trained: the metric on its own validation data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.errors import PluginError
from fscore.params import Group
from fscore.paths import Stage

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.kinds.trainer import Trainer
    from fscore.params import Layout, Tensors

GROUP = "fedex"
"""Group of the report: number of samples, the metric's sums after training, and before it where asked for."""


class Probe(Stage):
    """Adds a public group of sums; the model is not touched."""

    name = "fedex"
    rank = 5

    def __init__(self, trainer: Trainer, sums: slice, *, before: bool) -> None:
        self.trainer, self.before = trainer, before
        self.sums = sums
        """Where the metric's sums are among those of all metrics."""

    def layout(self, before: Layout) -> Layout:
        width = 1 + (self.sums.stop - self.sums.start) * (1 + self.before)
        return {**before, GROUP: Group((width,), "float64", "sum", public=True)}

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        after = self._judged({"model": values["model"]}, context)
        parts = [after[:1], after[self.sums]]
        if self.before:
            parts.append(self._judged(self.trainer.start(context), context)[self.sums])
        return {**values, GROUP: torch.cat(parts)}, {}

    def _judged(self, variables: Tensors, context: Context) -> torch.Tensor:
        """Return the number of samples and the sums of all metrics, as in an evaluation."""
        if context.judge is None:
            raise PluginError("executor: its contexts judge no models, which 'fedex' needs")
        return context.judge(variables, "val")
