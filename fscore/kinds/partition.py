"""Partitions: how a pool of samples becomes clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@define(eq=False, slots=False)
class Partition(Component):
    """Splits a pool of samples into clients; `partition = { use = "..." }` of a pooled data set."""

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Sequence[NDArray[np.int64]]:
        """Return the sample numbers of each client; no sample twice.

        Args:
            y: (samples, ...) targets.
            natural: (samples,) the client that each sample belongs to by nature, if the data have any.

        Raises:
            ConfigError: such a split is impossible.
        """
        raise NotImplementedError
