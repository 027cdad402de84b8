"""Samplers: who is chosen, how often, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from builtin_helpers import TinyCourse, bound, everybody

from fscore.builtin.samplers import All, RoundRobin, Uniform, Weighted

SAMPLES = SimpleNamespace(samples=lambda client: [10, 20, 30, 40][client])


def select(sampler, count, population, seed=0):
    return list(sampler.select(count, population, 0.0, np.random.default_rng(seed)))


@pytest.mark.parametrize(
    "make", [Uniform, lambda: bound(Weighted(), dataset=SAMPLES), RoundRobin, All]
)
def test_busy_and_unseen_clients_are_never_chosen_and_nobody_twice(make):
    population = everybody(4, unseen=[1], busy=[2])
    assert sorted(select(make(), 4, population)) == [0, 3]


def test_uniform_chooses_everybody_equally_often():
    counts = np.bincount(
        [client for seed in range(3000) for client in select(Uniform(), 3, everybody(10), seed)]
    )
    assert counts / 3000 == pytest.approx(np.full(10, 0.3), abs=0.04)


def test_weighted_chooses_in_proportion_to_samples():
    sampler = bound(Weighted(), dataset=SAMPLES)
    counts = np.bincount([select(sampler, 1, everybody(4), seed)[0] for seed in range(5000)])
    assert counts / 5000 == pytest.approx(np.array([0.1, 0.2, 0.3, 0.4]), abs=0.03)


def test_weighted_without_replacement_follows_successive_draws():
    # the first two of successive draws: P({2, 3}) = 0.4 * 0.3 / 0.6 + 0.3 * 0.4 / 0.7
    sampler = bound(Weighted(), dataset=SAMPLES)
    hits = sum(select(sampler, 2, everybody(4), seed) == [2, 3] for seed in range(5000))
    assert hits / 5000 == pytest.approx(0.4 * 0.3 / 0.6 + 0.3 * 0.4 / 0.7, abs=0.03)


def test_round_robin_goes_on_where_it_ended():
    sampler = RoundRobin()
    assert [select(sampler, 2, everybody(5)) for _ in range(3)] == [[0, 1], [2, 3], [4, 0]]


def test_round_robin_passes_over_the_busy():
    sampler = RoundRobin()
    select(sampler, 1, everybody(5))
    assert select(sampler, 2, everybody(5, busy=[1, 2])) == [3, 4]


def test_round_robin_stays_where_it_is_when_nobody_is_free():
    sampler = RoundRobin()
    select(sampler, 2, everybody(3))
    assert select(sampler, 2, everybody(3, busy=[0, 1, 2])) == []
    assert sampler.cursor == 2


def test_all_chooses_everybody():
    assert select(All(), 5, everybody(6, unseen=[2])) == [0, 1, 3, 4, 5]


def test_all_wants_every_participant():
    assert All().wanted(everybody(6, unseen=[2])) == 5


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        (
            All(clients=2),
            "sampler.clients: 'all' samples every client, got 2. Remedy: remove the line.",
        ),
        (
            All(over_selection=1.5),
            "sampler.over_selection: 'all' samples every client, got 1.5. Remedy: remove the line.",
        ),
        (
            Uniform(clients=7),
            "sampler.clients: 7 clients per version (over-selection included), but only 6 take part. "
            "Remedy: lower sampler.clients or sampler.over_selection.",
        ),
    ],
)
def test_counts_that_cannot_be_met_are_refused(sampler, text):
    assert list(sampler.check(TinyCourse(population=everybody(6)))) == [text]


@pytest.mark.parametrize("sampler", [All(), Uniform(clients=6), Uniform(clients=0.5)])
def test_counts_that_can_be_met_pass(sampler):
    assert list(sampler.check(TinyCourse(population=everybody(6)))) == []


def test_schemes_are_what_a_ledger_may_rely_on():
    assert [s.scheme for s in (Uniform, Weighted, RoundRobin, All)] == [
        "fixed",
        "other",
        "other",
        "all",
    ]
