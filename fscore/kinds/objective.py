"""Objectives: what training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    import torch


@define(eq=False, slots=False)
class Objective(Component):
    """One loss per sample; `[objective] use = "..."`. The mean over a batch is what is minimised."""

    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """Metrics that are reported where `[evaluation] metrics` is silent."""

    def losses(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss of each sample: (samples, ...), (samples, ...) -> (samples,)."""
        raise NotImplementedError
