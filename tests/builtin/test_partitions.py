"""Partitions use every sample exactly once, and skew what they say they skew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.builtin.data.partitions import Dirichlet, Iid, Natural, Quantity, Shards
from fscore.errors import ConfigError

seeds = st.integers(0, 2**32 - 1)


def labels(samples=500, classes=10, seed=0):
    return np.random.default_rng(seed).integers(classes, size=samples)


def split(partition, y, natural=None, seed=0):
    return partition.split(y, natural, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    samples=st.integers(60, 300),
    clients=st.integers(1, 12),
    alpha=st.floats(0.05, 100),
    make=st.sampled_from(
        [
            lambda c, _: Iid(clients=c),
            lambda c, a: Dirichlet(clients=c, alpha=a, min_samples=0),
            lambda c, a: Quantity(clients=c, alpha=a, min_samples=0),
            lambda c, _: Shards(clients=c, labels_per_client=2),
        ]
    ),
)
def test_every_sample_is_used_exactly_once(seed, samples, clients, alpha, make):
    parts = split(make(clients, alpha), labels(samples, seed=seed), seed=seed)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, minimum=st.integers(0, 8))
def test_dirichlet_gives_every_client_its_minimum(seed, minimum):
    parts = split(
        Dirichlet(clients=10, alpha=1.0, min_samples=minimum), labels(seed=seed), seed=seed
    )
    assert min(map(len, parts)) >= minimum


def test_natural_has_one_client_per_number_in_the_order_of_the_samples():
    parts = split(Natural(), np.zeros(5), natural=np.array([4, 1, 4, 9, 1]))
    assert [part.tolist() for part in parts] == [[1, 4], [0, 2], [3]]


def test_iid_deals_equal_numbers():
    parts = split(Iid(clients=3), labels(10))
    assert sorted(map(len, parts)) == [3, 3, 4]


def test_small_alpha_leaves_few_classes_per_client():
    def classes_of(alpha):
        y = labels(5000)
        parts = split(Dirichlet(clients=20, alpha=alpha, min_samples=0), y)
        held = [len(np.unique(y[part])) for part in parts if len(part)]
        return sum(held) / len(held)

    assert classes_of(0.05) < 4
    assert classes_of(100.0) > 9


def test_dirichlet_shares_have_the_variance_of_the_distribution():
    # a coordinate of Dirichlet(a, ..., a) of n has variance (n - 1) / (n^2 (n a + 1))
    # 5,000 draws: the standard error of the estimate is about 1%
    y, rng = np.zeros(2_000, dtype=np.int64), np.random.default_rng(0)
    partition = Dirichlet(clients=5, alpha=2.0, min_samples=0)
    sizes = [len(part) for _ in range(5_000) for part in partition.split(y, None, rng)]
    assert np.var(np.array(sizes) / len(y)) == pytest.approx(4 / (25 * 11), rel=0.05)


def test_shards_give_two_labels_where_the_cuts_meet_the_classes():
    y = np.repeat(np.arange(10), 40)  # 20 shards of 20: two per class
    parts = split(Shards(clients=10), y)
    assert [len(part) for part in parts] == [40] * 10
    assert max(len(np.unique(y[part])) for part in parts) <= 2


def test_quantity_skews_sizes_and_not_classes():
    y = labels(5000)
    sizes = sorted(map(len, split(Quantity(clients=10, alpha=0.5), y)))
    assert sizes[-1] > 4 * sizes[0]
    largest = max(split(Quantity(clients=10, alpha=0.5), y), key=len)
    assert np.bincount(y[largest]).min() > 0.05 * len(largest)


@pytest.mark.parametrize(
    "partition", [Iid(clients=9), Dirichlet(clients=9), Quantity(clients=9), Shards(clients=9)]
)
def test_the_generator_decides_the_split(partition):
    once, again, other = (split(partition, labels(), seed=seed) for seed in (1, 1, 2))
    assert [part.tolist() for part in once] == [part.tolist() for part in again]
    assert [part.tolist() for part in once] != [part.tolist() for part in other]


def test_natural_without_natural_clients_is_refused():
    with pytest.raises(ConfigError) as error:
        split(Natural(), labels())
    assert str(error.value) == (
        "data.partition.use: 'natural' needs data that say whose each sample is. "
        'Remedy: choose another partition, such as { use = "iid", clients = 10 }.'
    )


def test_more_clients_than_samples_are_refused():
    with pytest.raises(ConfigError) as error:
        split(Iid(clients=11), labels(10))
    assert str(error.value) == (
        "data.partition.clients: 11 clients with at least 1 of 10 samples each are impossible. "
        "Remedy: lower data.partition.clients."
    )


def test_label_skew_of_targets_that_are_no_classes_is_refused():
    with pytest.raises(ConfigError) as error:
        split(Dirichlet(clients=2), np.zeros((10, 3), dtype=np.float32))
    assert str(error.value) == (
        "data.partition.use: 'dirichlet' needs one class per sample, but the targets are float32 of shape (3,). "
        "Remedy: use 'iid', 'quantity' or 'natural'."
    )


def test_a_minimum_that_no_draw_meets_is_refused():
    with pytest.raises(ConfigError) as error:
        split(Dirichlet(clients=10, alpha=0.01, min_samples=9), labels(100))
    assert str(error.value) == (
        "data.partition.min_samples: no draw of 1000 with alpha 0.01 gave every client 9 samples. "
        "Remedy: raise data.partition.alpha, or lower data.partition.min_samples or data.partition.clients."
    )
