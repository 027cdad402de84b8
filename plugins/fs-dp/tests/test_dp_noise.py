"""Noise: exact, on a grid, of the right size, never the same twice."""

import math

import numpy as np
import pytest
import torch
from fs_dp.noise import SCALE, Secure, Seeded, deviation, noised
from scipy import stats

from fscore.errors import CourseError


def repeatable(seed):
    return Secure(np.random.default_rng(seed).bytes)


SOURCES = [
    pytest.param(lambda: repeatable(1), id="secure"),
    pytest.param(lambda: Seeded(np.random.default_rng(1)), id="seeded"),
]


@pytest.mark.parametrize("make", SOURCES)
def test_the_noise_is_gaussian_by_chi_square(make):
    drawn = make().gaussian(200_000) / SCALE
    edges = stats.norm.ppf(np.arange(1, 100) / 100)
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=100)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("make", SOURCES)
def test_the_variance_is_right_by_chi_square(make):
    drawn = make().gaussian(200_000) / SCALE
    square = float((drawn**2).sum())
    assert 1e-3 < stats.chi2.cdf(square, len(drawn)) < 1 - 1e-3


@pytest.mark.parametrize("make", SOURCES)
def test_two_draws_are_independent(make):
    source = make()
    one, other = source.gaussian(100_000) / SCALE, source.gaussian(100_000) / SCALE
    assert abs(float(one @ other)) / math.sqrt(100_000) < 4


@pytest.mark.parametrize(("numerator", "bits"), [(1, 2), (3, 2), (1, 0), (5, 2), (9, 2)])
def test_bernoulli_of_an_exponential_has_its_probability(numerator, bits):
    count, p = 100_000, math.exp(-numerator / 2**bits)
    hits = int(repeatable(2)._survives(np.full(count, numerator), bits).sum())
    assert stats.binomtest(hits, count, p).pvalue > 1e-3


def test_the_geometric_numbers_have_their_probabilities():
    drawn = repeatable(3)._geometric(100_000)
    observed = np.bincount(np.minimum(drawn, 5), minlength=6)
    p = [(1 - math.exp(-1)) * math.exp(-k) for k in range(5)] + [math.exp(-5)]
    assert stats.chisquare(observed, np.array(p) * 100_000).pvalue > 1e-3


def test_integers_below_a_bound_are_uniform():
    counts = np.bincount(repeatable(4)._below(70_000, 7), minlength=7)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_every_draw_from_the_system_is_another():
    assert not np.array_equal(Secure().gaussian(20), Secure().gaussian(20))


def test_seeded_noise_repeats():
    draws = [Seeded(np.random.default_rng(7)).gaussian(20) for _ in range(2)]
    assert np.array_equal(*draws)


def test_outputs_lie_on_a_grid_that_does_not_depend_on_the_data():
    step = deviation(1.0, 1.0, 1000) / SCALE
    for value in (0.0, 1 / 3):
        (made,) = noised([torch.full((1000,), value, dtype=torch.float64)], 1.0, 1.0, repeatable(5))
        places = made / step
        assert float((places - places.round()).abs().max()) < 1e-6


def test_no_output_of_one_input_is_impossible_for_its_neighbour():
    """Mironov's attack on floating point noise (CCS 2012): with it, a quarter of float32 outputs betray their input."""
    step = deviation(1.0, 1.0, 1) / SCALE

    def lies_on_the_grid(outputs):
        return np.float32(np.rint(np.float64(outputs) / step) * step) == outputs

    ours = [noised([torch.tensor([1 / 3])], 1.0, 1.0, repeatable(s))[0].item() for s in range(300)]
    naive = np.float32(1 / 3) + np.random.default_rng(0).standard_normal(300).astype(np.float32)
    assert lies_on_the_grid(np.float32(ours)).all()
    assert not lies_on_the_grid(naive).all()


def test_the_deviation_covers_rounding_to_the_grid():
    sigma, size = deviation(1.5, 2.0, 10**6), 10**6
    step = sigma / SCALE
    assert sigma / (2.0 * (1 + 2**-20) + step * math.sqrt(size)) == pytest.approx(1.5, rel=1e-12)


def test_rounding_moves_neighbours_apart_by_no_more_than_that():
    rng = np.random.default_rng(0)
    step, size = deviation(1.0, 1.0, 10_000) / SCALE, 10_000
    one, change = rng.standard_normal(size), rng.standard_normal(size)
    other = one + change / np.linalg.norm(change)
    apart = np.linalg.norm(np.rint(one / step) - np.rint(other / step)) * step
    assert apart <= 1 + step * math.sqrt(size)


def test_too_many_numbers_for_the_grid_are_refused():
    with pytest.raises(CourseError) as caught:
        deviation(1e6, 1.0, 10**6)
    text = f"1000000 numbers are too many for a grid of {SCALE} steps a deviation"
    assert str(caught.value) == text


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38])
def test_values_that_nobody_clipped_keep_their_sign(value):
    (made,) = noised([torch.tensor([value])], 1.0, 1.0, Seeded(np.random.default_rng(0)))
    assert math.copysign(1.0, float(made)) == math.copysign(1.0, value)
    assert abs(float(made)) > 1e11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types_stay(dtype):
    made = noised([torch.zeros(2, 3, dtype=dtype), torch.zeros((), dtype=dtype)], 1, 1, Secure())
    assert [(v.shape, v.dtype) for v in made] == [((2, 3), dtype), ((), dtype)]


def test_noise_of_many_clients_is_that_of_each_alone():
    class Stacked:
        def standard_normal(self, count):
            return np.stack([np.random.default_rng(s).standard_normal(count) for s in (1, 2)])

    values = torch.arange(6.0).reshape(2, 3)
    (together,) = noised([values], 1.0, 1.0, Seeded(Stacked()), clients=2)
    for k, seed in enumerate((1, 2)):
        (alone,) = noised([values[k]], 1.0, 1.0, Seeded(np.random.default_rng(seed)))
        assert torch.equal(together[k], alone)
