"""Inner products and distances of updates, in float64 and centred, and points written as combinations of rows.

Every rule that compares updates does so here. Rules that iterate (Weiszfeld, centred clipping) never touch the updates
again after one pass: a point v = c + sum_i a_i (x_i - c) is its coefficients a, and its distances follow from the Gram
matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.blas import dsyrk

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

BLOCK = 2048
"""Columns per product: (clients, BLOCK) float64 stays in the processor's cache."""


def gram(rows: torch.Tensor, centre: torch.Tensor | None = None) -> NDArray[np.float64]:
    """Return the inner products (clients, clients), float64, of rows (clients, values) less a centre (values,).

    Args:
        centre: None: one that is near most rows; see `middle`. It is the same for all rows.
    """
    import torch

    clients, values = rows.shape
    total = np.zeros((clients, clients))
    memory = torch.empty(clients, min(BLOCK, values), dtype=torch.float64)
    for start in range(0, values, BLOCK):
        part = rows[:, start : start + BLOCK]  # (clients, width)
        width = part.shape[1]
        block = memory if width == memory.shape[1] else memory.new_empty(clients, width)
        near = middle(part) if centre is None else centre[start : start + width]
        block.copy_(part).sub_(near.double())
        total += dsyrk(1.0, block.numpy().T, trans=1)
    upper: Any = np.triu(total)
    return upper + np.triu(total, 1).T  # type: ignore[no-any-return]


def middle(part: torch.Tensor) -> torch.Tensor:
    """Return the row (width,) with the middle norm in some columns of the updates (clients, width).

    Distances do not depend on the centre, so that each block of columns may have its own. While fewer than half of the rows
    are Byzantine it is no longer than the longest honest one: distances of honest rows keep their digits beside a row of
    1e30.
    """
    import torch

    return part[torch.linalg.vector_norm(part, dim=1).median(dim=0).indices]


def squared_distances(rows: torch.Tensor) -> NDArray[np.float64]:
    """Return the squared distances (clients, clients) between rows (clients, values); 0 on the diagonal, symmetric."""
    products = gram(rows)
    lengths = np.diagonal(products)
    squared: Any = np.maximum(lengths[:, None] + lengths[None, :] - 2 * products, 0.0)
    np.fill_diagonal(squared, 0.0)
    return squared  # type: ignore[no-any-return]


def distances_to(
    coefficients: NDArray[np.float64], products: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of each row to a point.

    Args:
        coefficients: (clients,) of the point, relative to the centre of the products.
        products: (clients, clients) from `gram`.
    """
    offsets = np.eye(len(products)) - coefficients  # (clients, clients): row i is e_i - a
    squared = np.einsum("ij,jk,ik->i", offsets, products, offsets, optimize=True)
    return np.sqrt(np.maximum(squared, 0.0))  # type: ignore[no-any-return]


def norms(rows: torch.Tensor) -> NDArray[np.float64]:
    """Return the length (clients,), float64, of each row (clients, values)."""
    import torch

    total = np.zeros(len(rows))
    for start in range(0, rows.shape[1], BLOCK):
        block = rows[:, start : start + BLOCK].double()
        total += torch.linalg.vector_norm(block, dim=1).square().numpy()
    return np.sqrt(total)


def against(rows: torch.Tensor, vector: torch.Tensor) -> NDArray[np.float64]:
    """Return the inner product (clients,), float64, of each row (clients, values) with a vector (values,)."""
    total = np.zeros(len(rows))
    for start in range(0, rows.shape[1], BLOCK):
        inside = slice(start, start + BLOCK)
        total += (rows[:, inside].double() @ vector[inside].double()).numpy()
    return total


def combination(rows: torch.Tensor, coefficients: NDArray[np.float64]) -> torch.Tensor:
    """Return the sum of rows (clients, values) times coefficients (clients,): shape (values,)."""
    import torch

    return torch.from_numpy(coefficients).to(rows.dtype) @ rows


def mean_of(rows: torch.Tensor, chosen: NDArray[np.intp]) -> torch.Tensor:
    """Return the mean (values,) of some rows of (clients, values), without a copy of them."""
    shares = np.zeros(len(rows))
    shares[chosen] = 1 / len(chosen)
    return combination(rows, shares)
