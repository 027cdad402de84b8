"""Pre-aggregation: what is done to the updates before a rule sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fs_robust.gram import squared_distances

if TYPE_CHECKING:
    import torch


def nearest_neighbour_mixing(rows: torch.Tensor, byzantine: int) -> torch.Tensor:
    """Return each row averaged with its n - f - 1 nearest ones: (clients, values) -> (clients, values).

    Allouah et al., Fixing by Mixing, AISTATS 2023 (NNM).
    """
    import torch

    near = np.argsort(squared_distances(rows), axis=1, kind="stable")[:, : len(rows) - byzantine]
    mixing = np.zeros((len(rows), len(rows)), dtype=np.float32)
    np.put_along_axis(mixing, near, np.float32(1 / near.shape[1]), axis=1)
    return torch.from_numpy(mixing).to(rows.dtype) @ rows


def bucketing(rows: torch.Tensor, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Return the means of random buckets of `size` rows: (clients, values) -> (ceil(clients / size), values).

    Karimireddy et al., Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing, ICLR 2022, algorithm 1. The
    last bucket is smaller where `size` does not divide the number of rows.
    """
    import torch

    order = rng.permutation(len(rows))
    buckets = [order[start : start + size] for start in range(0, len(rows), size)]
    mixing = np.zeros((len(buckets), len(rows)), dtype=np.float32)
    for place, bucket in enumerate(buckets):
        mixing[place, bucket] = np.float32(1 / len(bucket))
    return torch.from_numpy(mixing).to(rows.dtype) @ rows


Before = Callable[["torch.Tensor", int, int, np.random.Generator], "torch.Tensor"]
"""(rows, byzantine, bucket size, rng) -> rows."""

BEFORE: dict[str, Before] = {
    "nnm": lambda rows, byzantine, size, rng: nearest_neighbour_mixing(rows, byzantine),
    "bucketing": lambda rows, byzantine, size, rng: bucketing(rows, size, rng),
}


def rows_before(before: list[str], left: int, size: int) -> int:
    """Return how many rows are needed so that at least `left` (1 or more) are left behind these steps."""
    for name in before:
        left = size * (left - 1) + 1 if name == "bucketing" else left
    return left
