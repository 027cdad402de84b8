"""Inner products: the centre of each block of columns, and what a rule may overwrite."""

from __future__ import annotations

import numpy as np
import torch
from fs_robust import gram as module
from fs_robust.coordinates import TrimmedMean
from fs_robust.gram import gram, middle, squared_distances
from fs_robust.krum import Krum


def some(clients, values, seed=0):
    return torch.randn(clients, values, generator=torch.Generator().manual_seed(seed))


def test_the_middle_is_the_row_with_the_middle_norm():
    rows = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1e30], [2.0, 0.0], [0.0, 0.0]])

    assert middle(rows).tolist() == [2.0, 0.0]


def test_of_an_even_number_it_is_the_lower_one():
    assert middle(torch.tensor([[4.0], [1.0], [2.0], [3.0]])).tolist() == [2.0]


def test_inner_products_are_those_of_differences_from_one_point(monkeypatch):
    """The point is made of the middle rows of each block of columns."""
    monkeypatch.setattr(module, "BLOCK", 4)
    rows = some(5, 10)
    point = torch.cat([middle(rows[:, i : i + 4]) for i in (0, 4, 8)])
    apart = (rows.double() - point.double()).numpy()

    np.testing.assert_allclose(gram(rows), apart @ apart.T, rtol=1e-12, atol=1e-12)


def test_distances_do_not_depend_on_where_blocks_end(monkeypatch):
    rows = some(6, 50)
    whole = squared_distances(rows)

    monkeypatch.setattr(module, "BLOCK", 7)

    np.testing.assert_allclose(squared_distances(rows), whole, rtol=1e-12)


def test_what_krum_chooses_is_a_copy():
    rows = some(7, 5)
    found = Krum(byzantine=2).rule(rows, 2)
    before = found.clone()

    rows.zero_()

    assert torch.equal(found, before)


def test_trimming_sorts_the_matrix_that_it_is_given():
    """`reduce` may overwrite its rows, so that a second matrix of that size is never made."""
    rows = some(7, 5)
    ordered = rows.sort(dim=0).values

    TrimmedMean(byzantine=1).rule(rows, 1)

    assert torch.equal(rows, ordered)
