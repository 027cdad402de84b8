"""Rules that work coordinate by coordinate, on sorted columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from fs_robust.base import BYZANTINE, Robust
from fscore.component import ge, option

if TYPE_CHECKING:
    import torch


def by_value(rows: torch.Tensor) -> torch.Tensor:
    """Sort each column of (clients, values) in ascending order, in place, and return it."""
    rows.numpy().sort(axis=0)  # several times as fast as torch.sort
    return rows


@define(eq=False, slots=False)
class TrimmedMean(Robust):
    """The coordinate-wise trimmed mean (Yin et al., ICML 2018, definition 2).

    Of each coordinate the f largest and the f smallest values are left out. A share is the paper's beta. With the largest f
    that it stands, (n - 1) / 2 rounded down, it is the coordinate-wise median.
    """

    name = "trimmed_mean"
    byzantine: int | float = option(doc=BYZANTINE, validator=ge(0))

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        return by_value(rows)[byzantine : len(rows) - byzantine].mean(dim=0)
