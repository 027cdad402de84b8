"""Aggregators against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.builtin.aggregators import Mean, Median, Staleness
from fscore.tasks import Cohort, Task


def cohort(*staleness):
    return Cohort(0, tuple(Task(i, i, 0) for i in range(len(staleness))), staleness)


def test_the_mean_counts_everybody_once():
    assert list(Mean().factors(cohort(0, 5))) == [1.0, 1.0]
    assert Mean().denominator([1.0, 1.0], [10.0, 30.0]) == 40.0


def test_the_mean_weighs_by_samples_unless_uniform():
    assert [stage.name for stage in Mean().stages()] == ["weight"]
    assert list(Mean(weighting="uniform").stages()) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"discount": "constant"}, [1.0, 1.0, 1.0, 1.0]),
        ({"discount": "polynomial", "a": 0.5}, [1.0, 2**-0.5, 5**-0.5, 7**-0.5]),
        ({"discount": "hinge", "a": 10.0, "b": 4.0}, [1.0, 1.0, 1.0, 1 / 21]),
    ],
)
def test_staleness_factors_of_fedasync(options, expected):
    assert list(Staleness(**options).factors(cohort(0, 1, 4, 6))) == pytest.approx(expected)


def test_the_hinge_has_no_jump():
    before, after = Staleness(discount="hinge", a=1e-9, b=2.0).factors(cohort(2, 3))
    assert before == pytest.approx(after)


@pytest.mark.parametrize(("renormalise", "denominator"), [(False, 40.0), (True, 25.0)])
def test_renormalising_divides_by_the_discounted_weights(renormalise, denominator):
    assert Staleness(renormalise=renormalise).denominator([1.0, 0.5], [10.0, 30.0]) == denominator


def test_fedbuff_divides_by_the_size_of_the_buffer():
    assert Staleness(weighting="uniform").denominator([1.0, 0.7, 0.5], [1.0, 1.0, 1.0]) == 3.0


@settings(max_examples=30, deadline=None)
@given(clients=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_median_is_numpys_and_does_not_depend_on_the_order(clients, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(clients, 7)).astype(np.float32)
    weights = torch.ones(clients, dtype=torch.float64)
    found = Median().reduce(torch.from_numpy(rows.copy()), weights)
    shuffled = Median().reduce(torch.from_numpy(rows[rng.permutation(clients)]), weights)
    assert found.numpy() == pytest.approx(np.median(rows, axis=0), rel=1e-6)
    assert found.tolist() == shuffled.tolist()


def test_a_minority_cannot_move_the_median_far():
    rows = torch.tensor([[1.0], [2.0], [3.0], [1e9], [-1e9]])
    assert Median().reduce(rows, torch.ones(5, dtype=torch.float64)).tolist() == [2.0]


def test_the_median_needs_single_updates():
    assert [a().individual for a in (Mean, Staleness, Median)] == [False, False, True]
