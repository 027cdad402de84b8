"""Aggregators: many updates become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define

from fscore.component import Component, option

if TYPE_CHECKING:
    import torch

    from fscore.params import Tensors
    from fscore.paths import Stage
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Aggregator(Component):
    """Makes one update of a cohort's updates; `[aggregator] use = "..."`.

    A linear aggregator overrides `factors` and `denominator`, and the kernel streams the sum. An aggregator that must see
    single updates overrides `reduce`, which needs the flag `individual_updates`.
    """

    weighting: Literal["samples", "uniform"] = option(
        "samples", doc="Weight of a client: its number of training samples, or 1."
    )

    def stages(self) -> Iterable[Stage]:
        """Put the weight stage on the upload path, unless weights are uniform."""
        from fscore.builtin.stages import Weight

        return () if self.weighting == "uniform" else (Weight(),)

    def factors(self, cohort: Cohort) -> Sequence[float]:
        """Return a public factor per task, before any value is seen (staleness); default 1."""
        return [1.0] * len(cohort.tasks)

    def denominator(self, factors: Sequence[float], weights: Sequence[float]) -> float:
        """Return what the weighted sum is divided by.

        Args:
            factors, weights: of the updates that arrived whole, in the cohort's order.
        """
        return sum(f * w for f, w in zip(factors, weights, strict=True))

    def reduce(self, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return one update (values,) of single ones.

        Args:
            rows: (clients, values) float32, all `mean` groups joined; may be overwritten.
            weights: (clients,) float64, factor times weight.
        """
        raise NotImplementedError(f"aggregator '{self.name}' does not reduce single updates")

    def combine(self, rows: torch.Tensor, weights: torch.Tensor, cohort: Cohort) -> torch.Tensor:
        """As `reduce`, for an aggregator that must know whose row is whose."""
        return self.reduce(rows, weights)

    def flags(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """An aggregate of single updates is no weighted sum."""
        needs, provides, removes = super().flags()
        own = (type(self).reduce, type(self).combine) != (Aggregator.reduce, Aggregator.combine)
        if own or "individual_updates" in needs:
            needs, removes = needs | {"individual_updates"}, removes | {"linear_reduce"}
        return needs, provides, removes

    @property
    def least(self) -> int:
        """Fewest whole updates that it can work on; a cohort with fewer fails."""
        return 1

    def finish(self, mean: Tensors, cohort: Cohort) -> Tensors:
        """Return the groups after the division; override it to correct by what the server knows."""
        return mean

    @property
    def individual(self) -> bool:
        """Whether single updates are needed."""
        return "individual_updates" in self.flags()[0]
