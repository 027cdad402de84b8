"""FLTrust: trust bootstrapped from data of the server's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from attrs import define

from fs_robust.base import Robust
from fs_robust.gram import against, combination, norms
from fscore.builtin.reference import reference
from fscore.kinds.trainer import Trainer

if TYPE_CHECKING:
    import torch

    from fscore.course import Course


@define(eq=False, slots=False)
class FLTrust(Robust):
    """FLTrust (Cao et al., NDSS 2021, algorithm 2).

    The server trains on a small root data set of its own, as clients train. An update counts by its cosine with the
    server's, if that is positive, and is scaled to the length of the server's. It needs no f.
    """

    name = "fltrust"

    def bind(self, course: Course) -> None:
        """Remember the course, which trains on the root data."""
        super().bind(course)
        self.course = course

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a data set that gives the server no root data."""
        yield from super().check(course)
        if course.dataset.server("root") is None:
            yield (
                f"aggregator.use: 'fltrust' needs root data of the server's own, but '{course.dataset.name}' gives "
                "none. Remedy: set data.root, or use a data set that has some."
            )

        if type(course.trainer).survey is not Trainer.survey:
            yield (
                f"aggregator.use: 'fltrust' trains on root data as a client does, but trainer '{course.trainer.name}' first "
                "looks at all of a client's samples. Remedy: choose another aggregator, or another trainer."
            )

    def rule(self, rows: torch.Tensor, byzantine: int) -> torch.Tensor:
        return trusted(rows, reference(self.course, "root"))


def trusted(rows: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Return the mean of rows (clients, values), scaled to the root update's norm and weighted by their trust.

    Args:
        root: (values,) the server's own update. Where nobody is trusted the result is zero.
    """
    import torch

    lengths, length = norms(rows), float(norms(root[None])[0])
    along = np.maximum(against(rows, root), 0.0)
    trust = np.divide(along, lengths * length, out=np.zeros_like(along), where=along > 0)
    if not trust.sum():
        return torch.zeros_like(root)
    scaled = np.divide(trust * length, lengths, out=np.zeros_like(along), where=along > 0)
    return combination(rows, scaled / trust.sum())
