"""Rules that choose updates by their distances to one another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from attrs import define

from fs_robust.base import BYZANTINE, Robust
from fs_robust.coordinates import by_value
from fs_robust.gram import mean_of, squared_distances
from fscore.component import ge, option

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from fscore.course import Course


def scores(squared: NDArray[np.float64], byzantine: int) -> NDArray[np.float64]:
    """Return Krum's score of each update: the sum of its squared distances to the n - f - 2 nearest others.

    Args:
        squared: (clients, clients) squared distances.
    """
    clients = len(squared)
    others = squared[~np.eye(clients, dtype=bool)].reshape(clients, clients - 1)
    near = np.sort(others, axis=1)[:, : max(clients - byzantine - 2, 0)]
    return near.sum(axis=1)  # type: ignore[no-any-return]


def best_first(squared: NDArray[np.float64], byzantine: int) -> NDArray[np.intp]:
    """Return the updates by ascending score: (clients,).

    Two that are each other's nearest have the same score where one neighbour counts. The sum of all their distances
    decides between them, so that the order of clients does not.
    """
    every = np.sort(squared, axis=1).sum(axis=1)
    return np.lexsort((every, scores(squared, byzantine)))


@define(eq=False, slots=False)
class Krum(Robust):
    """Krum (Blanchard et al., NeurIPS 2017, section 4): the update with the lowest score."""

    name = "krum"
    byzantine: int | float = option(doc=BYZANTINE, validator=ge(0))

    def needed(self, byzantine: int) -> int:
        return 2 * byzantine + 3 if byzantine else 1

    def kept(self, clients: int, byzantine: int) -> int:
        """Return how many updates are averaged."""
        return 1

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        order = best_first(squared_distances(rows), byzantine)
        kept = order[: self.kept(len(rows), byzantine)]
        return rows[int(kept[0])].clone() if len(kept) == 1 else mean_of(rows, kept)


@define(eq=False, slots=False)
class MultiKrum(Krum):
    """Multi-Krum (Blanchard et al., NeurIPS 2017, section 4): the mean of the m updates with the lowest scores."""

    name = "multi_krum"
    keep: int | None = option(
        None, doc="m: how many updates are averaged; default: n - f.", validator=ge(1)
    )

    def kept(self, clients: int, byzantine: int) -> int:
        return min(self.keep or clients - byzantine, clients)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse to average more updates than can be honest."""
        yield from super().check(course)
        clients = self.expected
        if self.keep and self.keep > clients - self.faults(clients):
            yield (
                f"aggregator.keep: the mean of {self.keep} updates would hold Byzantine ones, at most "
                f"{clients - self.faults(clients)} of {clients} are honest for sure. Remedy: lower it."
            )


@define(eq=False, slots=False)
class Bulyan(Krum):
    """Bulyan (El Mhamdi et al., ICML 2018, section 4).

    Krum chooses one update after another, n - 2 f in all, each among those that are left; then each coordinate is the mean of
    the n - 4 f values that are closest to their median.
    """

    name = "bulyan"

    def needed(self, byzantine: int) -> int:
        return 4 * byzantine + 3 if byzantine else 1

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        chosen = chosen_by_krum(squared_distances(rows), byzantine)
        return mean_around_median(rows[chosen], len(rows) - 4 * byzantine)


def chosen_by_krum(squared: NDArray[np.float64], byzantine: int) -> list[int]:
    """Return n - 2 f different updates, each the one that Krum chooses of those that are left."""
    left = list(range(len(squared)))
    chosen = []
    for _ in range(len(squared) - 2 * byzantine):
        best = int(best_first(squared[np.ix_(left, left)], byzantine)[0])
        chosen.append(left.pop(best))
    return chosen


def mean_around_median(rows: torch.Tensor, keep: int) -> torch.Tensor:
    """Return the mean of the `keep` values of each column that are closest to its median: (n, values) -> (values,).

    In a sorted column they are neighbours: whichever end is farther from the median leaves, until `keep` are left.
    """
    import torch

    ordered = by_value(rows)
    last = len(ordered) - 1
    median = (ordered[last // 2] + ordered[last - last // 2]) / 2
    low = torch.zeros(1, ordered.shape[1], dtype=torch.int64)
    high = torch.full_like(low, last)
    for _ in range(len(ordered) - keep):
        below = median - ordered.gather(0, low)
        above = ordered.gather(0, high) - median
        drop = below > above
        low += drop.long()
        high -= (~drop).long()
    total = torch.zeros_like(median)
    for place, values in enumerate(ordered):
        inside = (low[0] <= place) & (place <= high[0])
        total += torch.where(inside, values, 0.0)
    return total / keep
