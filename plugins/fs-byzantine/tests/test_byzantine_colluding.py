"""Crafted updates against closed forms, byzfl 0.0.11's numbers, and the constraints that define them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from byzantine_helpers import assembled, cohort, course, crafted, some
from fs_byzantine.colluding import ALIE, IPM, MinMax, MinSum, z_max
from fs_byzantine.free_rider import FreeRider
from fs_byzantine.mimic import Mimic

from fscore.errors import ConfigError

THREE = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


def beside_three(attack):
    """What a fourth client sends beside three honest ones."""
    return crafted(attack, torch.cat([THREE, torch.zeros(1, 3)]), [3])


def honest_of_ten():
    rows = np.random.default_rng(0).standard_normal((10, 4))
    rows[:2] += 10
    return torch.from_numpy(rows).float()


# ------------------------------------------------------------------------ known numbers


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (IPM(clients=1, epsilon=1.0), [-4.0, -5.0, -6.0]),
        (IPM(clients=1, epsilon=2.0), [-8.0, -10.0, -12.0]),
        (ALIE(clients=1, z=1.5), [8.5, 9.5, 10.5]),
        (Mimic(clients=1, target=0), [1.0, 2.0, 3.0]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_beside_three_rows_it_sends_the_known_numbers(attack, expected):
    assert beside_three(attack).tolist() == [expected]


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (ALIE(clients=2, z=1.5), [0.835773, 1.166406, 0.738336, 1.412718]),
        (IPM(clients=2, epsilon=3.0), [1.525826, -0.109271, 1.078962, -0.532869]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_beside_eight_rows_both_send_the_known_numbers(attack, expected):
    sent = crafted(attack, honest_of_ten(), [0, 1])

    torch.testing.assert_close(sent, torch.tensor([expected, expected]), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("clients", "attackers", "expected"),
    [
        (50, 24, 1.4261),
        (20, 8, 0.6745),
        (10, 4, 0.4307),
        (50, 12, 0.3360),
        (25, 5, 0.2533),
        (10, 2, 0.0),
    ],
)
def test_z_max_is_the_published_one(clients, attackers, expected):
    assert z_max(clients, attackers) == pytest.approx(expected, abs=6e-5)


def test_z_max_of_a_majority_is_unbounded():
    assert z_max(10, 6) == math.inf


def test_alie_takes_z_of_the_cohort():
    rows = some(20, 5)
    known = rows[8:]

    sent = crafted(ALIE(clients=8), rows, list(range(8)))

    expected = known.mean(0) + z_max(20, 8) * known.std(0)
    torch.testing.assert_close(sent, expected.expand(8, -1))


# ------------------------------------------------------------------------ the constraints of min-max and min-sum


def distances(row, others):
    return (others.double() - row.double()).square().sum(1)


directions = pytest.mark.parametrize("direction", ["std", "unit", "sign"])


@directions
@pytest.mark.parametrize("seed", range(5))
def test_min_max_is_no_farther_than_honest_ones_are_and_nearly_as_far(direction, seed):
    rows = some(12, 200, seed)
    honest = rows[3:]
    bound = max(float(distances(row, honest).max()) for row in honest)

    sent = crafted(MinMax(clients=3, direction=direction), rows, [0, 1, 2])[0]

    assert float(distances(sent, honest).max()) == pytest.approx(bound, rel=1e-5)


@directions
@pytest.mark.parametrize("seed", range(5))
def test_min_sum_is_no_farther_in_all_than_an_honest_one_and_as_far(direction, seed):
    rows = some(12, 200, seed)
    honest = rows[3:]
    bound = max(float(distances(row, honest).sum()) for row in honest)

    sent = crafted(MinSum(clients=3, direction=direction), rows, [0, 1, 2])[0]

    assert float(distances(sent, honest).sum()) == pytest.approx(bound, rel=1e-5)


def test_min_max_finds_what_bisection_finds():
    """The search of the paper (algorithm 1), with the last feasible length."""
    rows = some(9, 30)
    honest = rows[2:].double()
    mean, way = honest.mean(0), -honest.std(0)
    bound = max(float(distances(row, honest).max()) for row in honest)
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        inside = float(distances(mean + middle * way, honest).max()) <= bound
        low, high = (middle, high) if inside else (low, middle)

    sent = crafted(MinMax(clients=2), rows, [0, 1])[0]

    torch.testing.assert_close(sent, (mean + low * way).float(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("attack", [MinMax(clients=1), MinSum(clients=1), ALIE(clients=1)])
def test_of_one_known_update_it_sends_that(attack):
    rows = some(2, 5)

    assert torch.equal(crafted(attack, rows, [0])[0], rows[1])


# ------------------------------------------------------------------------ who knows what, and when


def test_with_knowledge_of_its_own_clients_it_sees_no_more():
    attack = IPM(clients=2, epsilon=1.0, knowledge="controlled")
    attack.controlled = frozenset({1, 4})
    own = some(2, 5)

    sent = attack.craft(own.clone(), [0, 1], cohort(6), np.random.default_rng(0))

    torch.testing.assert_close(sent, -own.mean(0).expand(2, -1))


@pytest.mark.parametrize("knowledge", ["all", "controlled"])
def test_the_kernel_shows_it_what_it_may_know(knowledge):
    assert IPM(clients=2, knowledge=knowledge).colludes == knowledge


@pytest.mark.parametrize(
    ("version", "acts"), [(1, False), (2, True), (3, False), (4, True), (6, False)]
)
def test_it_acts_by_its_schedule(version, acts):
    attack = IPM(clients=1, start=2, stop=6, every=2)
    rows = some(4, 5)

    sent = crafted(attack, rows, [0], version)[0]

    assert torch.equal(sent, rows[0]) is not acts


def test_the_same_course_gives_the_same_bits_and_honest_epsilon_changes_them():
    toml = '[[attack]]\nuse = "ipm"\nclients = 2\n'

    assert course(toml).result.digest == course(toml).result.digest
    assert course(toml + "epsilon = 0.7").result.digest != course(toml).result.digest


def test_an_attack_that_controls_nobody_changes_nothing():
    assert course('[[attack]]\nuse = "alie"\nclients = 0').result.digest == course("").result.digest


def test_ipm_of_everybody_who_takes_part_is_a_step_backwards():
    """All six clients send minus the mean of what they would send, so that the model moves back as far."""
    toml = 'course = { until = { versions = 1 } }\nsampler = { use = "all" }\ntrainer = { epochs = 1 }\n'
    toml += 'aggregator = { use = "mean", weighting = "uniform" }\n'
    attacked = toml + '[[attack]]\nuse = "ipm"\nclients = 1.0\nepsilon = 1.0'
    start = assembled(toml).initial

    forward = course(toml).result.model["model"] - start
    backward = course(attacked).result.model["model"] - start

    torch.testing.assert_close(backward, -forward, atol=1e-6, rtol=1e-5)


# ------------------------------------------------------------------------ mimic


def test_mimic_finds_the_client_that_differs_most():
    """Clients differ along the first axis alone, client 5 by most."""
    attack = Mimic(clients=1, warmup=20)
    base = some(8, 30) / 100
    base[:, 0] += torch.tensor([0.0, -1, -1, -1, -1, 6, -1, -1])

    for version in range(20):
        rows = base + some(8, 30, seed=version) / 100
        sent = crafted(attack, rows, [0], version)[0]

    assert torch.equal(sent.abs(), rows[5].abs())


def test_mimic_learns_the_direction_of_largest_variance():
    attack = Mimic(clients=1, warmup=200)
    stretched = torch.tensor([5.0] + [1.0] * 9)
    for version in range(200):
        crafted(attack, some(9, 10, seed=version) * stretched, [0], version)

    assert abs(float(attack.learned["direction"][0])) > 0.95


UNSEEN = min(assembled("").population.unseen)
ONE, TWO = sorted(set(range(8)) - set(assembled("").population.unseen))[:2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("clients = 1\ntarget = 8", "there is no client 8, ids are 0 to 7"),
        (
            f"clients = 1\ntarget = {UNSEEN}",
            f"client {UNSEEN} never takes part in training. Remedy: choose another, or lower data.unseen_clients.",
        ),
        (
            f"clients = [{ONE}]\ntarget = {ONE}",
            f"with knowledge = 'all' it copies a client of the others, which client {ONE} is not. Remedy: choose another.",
        ),
        (
            f"clients = [{ONE}]\ntarget = {TWO}\nknowledge = 'controlled'",
            f"with knowledge = 'controlled' it copies one of its own clients, which client {TWO} is not. "
            "Remedy: choose another.",
        ),
    ],
)
def test_mimic_of_a_client_that_it_cannot_copy_is_refused(options, expected):
    with pytest.raises(ConfigError) as error:
        assembled(f'[[attack]]\nuse = "mimic"\n{options}')

    assert str(error.value) == f"attack.0.target: {expected}"


# ------------------------------------------------------------------------ free riders


def test_a_free_rider_sends_nothing():
    rider = FreeRider(clients=1, sends="nothing")

    assert crafted(rider, some(3, 4), [1]).tolist() == [[0.0] * 4]


def test_a_free_rider_sends_how_the_model_changed_last():
    rider = FreeRider(clients=1)
    rider.first = torch.zeros(4)
    changes = []
    for version in (1.0, 3.0, 7.0):
        rider.observe({"released": {"model": torch.full((4,), version)}})
        changes.append(float(crafted(rider, some(3, 4), [1])[0, 0]))

    assert changes == [1.0, 2.0, 4.0]


def test_a_free_rider_adds_noise():
    rider = FreeRider(clients=1, sends="nothing", noise=0.1)

    sent = crafted(rider, some(3, 10_000), [1])

    assert float(sent.std()) == pytest.approx(0.1, rel=0.05)


def test_with_free_riders_alone_nothing_moves():
    toml = '[[attack]]\nuse = "free_rider"\nclients = 1.0\nsends = "nothing"'
    start = assembled(toml).initial

    assert torch.equal(course(toml).result.model["model"], start)


def test_mimic_of_a_target_that_is_away_copies_the_first():
    attack = Mimic(clients=1, target=7)
    rows = some(4, 5)

    assert torch.equal(crafted(attack, rows, [0])[0], rows[1])
