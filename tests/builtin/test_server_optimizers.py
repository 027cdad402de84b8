"""Server optimizers against slow loops written from the paper (Reddi et al., ICLR 2021, algorithm 2)."""

import math

import numpy as np
import pytest
import torch

from fscore.builtin.server_optimizers import SGD, Adagrad, Adam, Yogi
from fscore.component import states_of

STEPS, SIZE = 5, 4
DIRECTIONS = np.random.default_rng(0).normal(size=(STEPS, SIZE)).astype(np.float32)
START = np.linspace(-1, 1, SIZE, dtype=np.float32)
ALL = [SGD(lr=0.5), SGD(lr=0.5, momentum=0.9), Adagrad(), Adam(), Yogi()]


def run(optimizer, directions=DIRECTIONS):
    slots = {"model": torch.from_numpy(START.copy())}
    for direction in directions:
        slots = optimizer.step(slots, {"model": torch.from_numpy(direction.copy())})
    return slots["model"].numpy()


def slow_sgd(lr, momentum):
    x, v = START.astype(float), np.zeros(SIZE)
    for d in DIRECTIONS:
        for i in range(SIZE):
            v[i] = momentum * v[i] + d[i]
            x[i] += lr * v[i]
    return x


def slow_fedopt(rule, lr, beta1, beta2, tau):
    x, m, v = START.astype(float), np.zeros(SIZE), np.full(SIZE, tau**2)
    for d in DIRECTIONS.astype(float):
        for i in range(SIZE):
            square = d[i] ** 2
            m[i] = beta1 * m[i] + (1 - beta1) * d[i]
            if rule == "adagrad":
                v[i] = v[i] + square
            elif rule == "adam":
                v[i] = beta2 * v[i] + (1 - beta2) * square
            else:
                v[i] = v[i] - (1 - beta2) * square * math.copysign(v[i] != square, v[i] - square)
            x[i] += lr * m[i] / (math.sqrt(v[i]) + tau)
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum):
    assert run(SGD(lr=0.5, momentum=momentum)) == pytest.approx(slow_sgd(0.5, momentum), rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "beta2"),
    [
        (Adagrad(lr=0.1, beta1=0.3, tau=0.01), 0.0),
        (Adam(lr=0.1, beta1=0.8, beta2=0.95, tau=0.01), 0.95),
        (Yogi(lr=0.1, beta1=0.8, beta2=0.95, tau=0.01), 0.95),
    ],
)
def test_fedopt(optimizer, beta2):
    expected = slow_fedopt(optimizer.name, 0.1, optimizer.beta1, beta2, 0.01)
    assert run(optimizer) == pytest.approx(expected, rel=1e-4)


def test_sgd_at_lr_1_is_fedavg_bit_for_bit():
    slots = {"model": torch.from_numpy(START)}
    moved = SGD().step(slots, {"model": torch.from_numpy(DIRECTIONS[0])})
    assert torch.equal(moved["model"], torch.from_numpy(START) + torch.from_numpy(DIRECTIONS[0]))


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_nothing_given_is_changed_in_place(optimizer):
    for _ in range(2):
        slots, directions = {"model": torch.ones(3)}, {"model": torch.full((3,), 0.5)}
        moved = optimizer.step(slots, directions)
        moved["model"].zero_()
        assert (slots["model"].tolist(), directions["model"].tolist()) == ([1.0] * 3, [0.5] * 3)


@pytest.mark.parametrize("optimizer", ALL, ids=lambda o: o.name)
def test_slots_are_moved_independently_and_only_with_a_direction(optimizer):
    slots = {"a": torch.ones(2), "b": torch.ones(3), "still": torch.ones(1)}
    moved = optimizer.step(slots, {"a": torch.ones(2), "b": -torch.ones(3)})
    assert sorted(moved) == ["a", "b"]
    assert (moved["a"] > 1).all()
    assert (moved["b"] < 1).all()


@pytest.mark.parametrize("make", [lambda: SGD(lr=0.5, momentum=0.9), Adagrad, Adam, Yogi])
def test_state_goes_on_where_it_was_saved(make):
    first, second = make(), make()
    half = run(first, DIRECTIONS[:3])
    for name in states_of(first):
        setattr(
            second, name, {slot: tensor.clone() for slot, tensor in getattr(first, name).items()}
        )
    slots = {"model": torch.from_numpy(half.copy())}
    for direction in DIRECTIONS[3:]:
        slots = second.step(slots, {"model": torch.from_numpy(direction.copy())})
    assert slots["model"].numpy().tolist() == run(make()).tolist()
