"""Objectives and metrics: values, shapes, empty batches, and lifting over clients."""

import math

import pytest
import torch
from builtin_helpers import bound

import fscore
from fscore.builtin.metrics import MAE, MSE, Accuracy, Loss, TopK
from fscore.builtin.objectives import Classification, NextToken, Regression
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.testing import fs_course

K, N, T, C = 3, 5, 4, 6


def batch(objective, samples=N, clients=()):
    generator = torch.Generator().manual_seed(0)

    def real(*shape):
        return torch.randn(*clients, samples, *shape, generator=generator)

    def whole(*shape):
        return torch.randint(C, (*clients, samples, *shape), generator=generator)

    return {
        "classification": lambda: (real(C), whole()),
        "regression": lambda: (real(2), real(2)),
        "next_token": lambda: (real(T, C), whole(T)),
    }[objective.name]()


OBJECTIVES = [Classification(), Regression(), NextToken()]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("samples", [0, 1, N])
def test_one_loss_per_sample(objective, samples):
    assert objective.losses(*batch(objective, samples)).shape == (samples,)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_lifting_over_clients_gives_each_clients_own_losses(objective):
    outputs, y = batch(objective, clients=(K,))
    lifted = torch.func.vmap(objective.losses)(outputs, y)
    single = torch.stack([objective.losses(outputs[k], y[k]) for k in range(K)])
    torch.testing.assert_close(lifted, single)


def test_classification_is_the_negative_log_probability():
    outputs, y = batch(Classification())
    expected = [-math.log(outputs[i].softmax(0)[y[i]].item()) for i in range(N)]
    assert Classification().losses(outputs, y).tolist() == pytest.approx(expected, rel=1e-5)


def test_regression_averages_over_the_targets_of_a_sample():
    losses = Regression().losses(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]]))
    assert losses.tolist() == [5.0]


def test_regression_of_a_single_target_needs_no_axis_for_it():
    losses = Regression().losses(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]))
    assert losses.tolist() == [1.0, 9.0]


def test_regression_never_broadcasts():
    with pytest.raises(RuntimeError):
        Regression().losses(torch.zeros(3, 2), torch.zeros(3, 1))


def test_next_token_averages_over_time():
    outputs, y = batch(NextToken())
    steps = [Classification().losses(outputs[:, t], y[:, t]) for t in range(T)]
    torch.testing.assert_close(NextToken().losses(outputs, y), torch.stack(steps).mean(0))


OUTPUTS = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
Y = torch.tensor([1, 2, 2])


@pytest.mark.parametrize(
    ("metric", "outputs", "y", "sums"),
    [
        (Accuracy(), OUTPUTS, Y, [2.0, 3.0]),
        (TopK(k=2), OUTPUTS, Y, [2.0, 3.0]),
        (TopK(k=9), OUTPUTS, Y, [3.0, 3.0]),
        (Accuracy(), OUTPUTS[None], Y[None], [2.0, 3.0]),
        (MSE(), torch.tensor([[1.0], [3.0]]), torch.zeros(2), [10.0, 2.0]),
        (MAE(), torch.tensor([[1.0], [-3.0]]), torch.zeros(2), [4.0, 2.0]),
    ],
)
def test_sums(metric, outputs, y, sums):
    found = metric.sums(outputs, y)
    assert (found.dtype, found.tolist()) == (torch.float64, sums)


def test_the_value_is_the_mean():
    assert Accuracy().value([2.0, 4.0]) == 0.5


def test_no_samples_are_nan():
    assert math.isnan(Accuracy().value(Accuracy().sums(OUTPUTS[:0], Y[:0]).tolist()))


def test_sums_of_parts_add_up_to_the_sums_of_all():
    whole = TopK(k=2).sums(OUTPUTS, Y)
    parts = TopK(k=2).sums(OUTPUTS[:1], Y[:1]) + TopK(k=2).sums(OUTPUTS[1:], Y[1:])
    assert parts.tolist() == whole.tolist()


def test_loss_is_that_of_the_objective():
    loss = bound(Loss(), objective=Regression())
    assert loss.sums(torch.tensor([[2.0]]), torch.tensor([0.0])).tolist() == [4.0, 1.0]


def test_worse_is_higher_for_losses_only():
    low = [m.name for m in (Loss, Accuracy, TopK, MSE, MAE) if not m.higher_is_better]
    assert low == ["loss", "mse", "mae"]


# ---------------------------------------------------------------------------- metrics that do not fit


@pytest.mark.parametrize(
    ("metric", "key", "problem"),
    [
        (
            '"mae"',
            "mae",
            "it compares numbers with as many numbers, got outputs (2, 3) and targets (2,) of int64",
        ),
        ('{ use = "top_k", k = 4 }', "top_k", "k = 4, but there are 3 classes"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_the_course(metric, key, problem):
    with pytest.raises(ConfigError) as raised:
        fs_course(f"[evaluation]\nmetrics = [{metric}]")
    expected = f"evaluation.metrics.0: metric '{key}' does not fit the data: {problem}"
    assert raised.value.problems == (expected,)


def test_accuracy_of_numbers_is_refused():
    data = [
        (
            Samples(torch.randn(6, 4), torch.randn(6, 1)),
            Samples(torch.randn(3, 4), torch.randn(3, 1)),
        )
    ] * 4
    tables = {
        "course": {"until": {"versions": 1}},
        "trainer": {"use": "sgd"},
        "objective": {"use": "regression"},
        "sampler": {"use": "uniform", "clients": 2},
        "evaluation": {"metrics": ["accuracy"]},
    }
    with pytest.raises(ConfigError) as raised:
        fscore.load(tables, data=data, model=torch.nn.Linear(4, 1)).course()
    assert raised.value.problems == (
        "evaluation.metrics.0: metric 'accuracy' does not fit the data: it judges outputs (..., classes) by class "
        "numbers (...), got outputs (2, 1) and targets (2, 1) of float32",
    )
