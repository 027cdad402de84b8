"""Metrics: how a model's outputs are judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    import torch


@define(eq=False, slots=False)
class Metric(Component):
    """A number that is a function of sums over samples; named in `[evaluation] metrics`.

    Sums add up over batches and clients, so that the pooled value and each client's value come from the same numbers.
    """

    higher_is_better: ClassVar[bool] = True
    """Which end of the clients is the worst."""
    width: ClassVar[int] = 2
    """Number of sums."""

    def fits(self, outputs: torch.Tensor, y: torch.Tensor) -> str:
        """Return why such outputs and targets cannot be judged, seen before the course begins; empty: they can."""
        return ""

    def sums(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the sums over samples: shape (width,), float64."""
        raise NotImplementedError

    def value(self, sums: Sequence[float]) -> float:
        """Return the metric of such sums; NaN where there are no samples."""
        raise NotImplementedError
