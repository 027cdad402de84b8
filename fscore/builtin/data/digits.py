"""Handwritten digits by writer, from scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import define

from fscore.builtin.data.pooled import Arrays, PooledDataset
from fscore.component import option
from fscore.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CUTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
"""Where one writer's samples end and the next one's begin: everybody copied the same form of 130 digits."""


@define(eq=False)
class Digits(PooledDataset):
    """1,797 images of 8x8 in 10 classes by 14 writers (Alpaydin and Kaynak, UCI 1998; scikit-learn's `load_digits`)."""

    name = "digits"
    image: bool = option(
        False, doc="Samples of shape (1, 8, 8) for convolutions, rather than (64,)."
    )

    def arrays(self) -> Arrays:
        """Return pixels in [0, 1], classes and writers."""
        table = np.loadtxt(_file(), delimiter=",")
        x: NDArray[np.float32] = (table[:, :-1] / 16).astype(np.float32)
        y = table[:, -1].astype(np.int64)
        writers = np.repeat(np.arange(len(CUTS) - 1), np.diff(CUTS))
        return x.reshape(-1, 1, 8, 8) if self.image else x, y, writers

    def classes(self) -> int:
        """Return 10."""
        return 10


def _file() -> Path:
    """Return scikit-learn's file, found without importing the package, which takes as long as importing torch."""
    found = find_spec("sklearn")
    path = Path((found and found.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(
            "data: scikit-learn's digits are not here. Remedy: pip install scikit-learn"
        )
    return path
