"""Rules that look for a centre of the updates, point by point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import define

from fs_robust.base import Robust
from fs_robust.gram import combination, distances_to, gram
from fscore.component import ge, gt, option, state

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def weiszfeld(
    products: NDArray[np.float64],
    start: NDArray[np.float64],
    smoothing: float,
    iterations: int,
    tolerance: float = 0.0,
) -> NDArray[np.float64]:
    """Return the coefficients (clients,) of the geometric median, by the smoothed Weiszfeld algorithm.

    Args:
        products: (clients, clients) from `gram`.
        start: (clients,) coefficients of the first point.
        smoothing: distances below it count as it.
        tolerance: stop when the point moves by less than this share of the middle distance.
    """
    point = start
    for _ in range(iterations):
        distances = distances_to(point, products)
        pull = 1.0 / np.maximum(distances, smoothing)
        before, point = point, pull / pull.sum()
        change = point - before
        moved = np.sqrt(max(float(change @ products @ change), 0.0))
        if moved <= tolerance * np.median(distances):
            break
    return point


def nearer_half(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coefficients (clients,) of the mean of those rows that are not farther from the centre than most.

    From there Weiszfeld is not far, whatever a minority of the rows is; from the mean of all it would be, and each
    iteration would bring it closer only by their ratio to the others.
    """
    lengths = np.diagonal(products)
    near = lengths <= np.median(lengths)
    return near / near.sum()  # type: ignore[no-any-return]


@define(eq=False, slots=False)
class GeometricMedian(Robust):
    """The geometric median by the smoothed Weiszfeld algorithm: RFA (Pillutla et al., IEEE TSP 2022, algorithm 2).

    It needs no f. An iteration costs the same for a million values as for ten, so there are many.
    """

    name = "geometric_median"
    smoothing: float = option(1e-6, doc="nu: distances below it count as it.", validator=gt(0))
    iterations: int = option(300, doc="Iterations at most.", validator=ge(1))
    tolerance: float = option(
        1e-7,
        doc="Stop when the median moves by less than this share of the updates' middle distance.",
        validator=ge(0),
    )

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        products = gram(rows)
        start = nearer_half(products)
        point = weiszfeld(products, start, self.smoothing, self.iterations, self.tolerance)
        return combination(rows, point)


@define(eq=False, slots=False)
class CentredClipping(Robust):
    """Centred clipping (Karimireddy et al., ICML 2021, centered clipping): v <- v + mean_i (x_i - v) min(1, tau / |x_i - v|).

    It begins at the update of the version before (zero in the first), or at zero. It needs no f.
    """

    name = "centred_clipping"
    clip_norm: float = option(doc="tau: how far one update can pull.", validator=gt(0))
    iterations: int = option(1, doc="Iterations.", validator=ge(1))
    begin: Literal["previous", "zero"] = option(
        "previous", doc="Where it begins: at the update of the version before, or at zero."
    )
    centre: dict[str, Any] = state(dict)

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        centre: torch.Tensor = self.centre.get("update", rows.new_zeros(rows.shape[1]))
        point = clipped(gram(rows, centre), self.clip_norm, self.iterations)
        moved = centre * (1 - float(point.sum())) + combination(rows, point)
        if self.begin == "previous":
            self.centre = {"update": moved}
        return moved


def clipped(products: NDArray[np.float64], norm: float, iterations: int) -> NDArray[np.float64]:
    """Return the coefficients (clients,) of what centred clipping reaches from the centre of the products."""
    point = np.zeros(len(products))
    for _ in range(iterations):
        distances = distances_to(point, products)
        shares = np.minimum(1.0, norm / np.maximum(distances, np.finfo(np.float64).tiny))
        point = point + (shares - shares.sum() * point) / len(products)
    return point
