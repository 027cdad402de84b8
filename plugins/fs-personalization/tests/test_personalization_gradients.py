"""Every term that a method adds to a gradient is the derivative of the term of its paper, taken by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from personalization_helpers import EVERYBODY, FULL, begun, course

from fscore.builtin.executors.lane import expanded

SOFTMAX = {**EVERYBODY, "model": {"use": "softmax"}}


def derivative(term: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    leaf = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term(leaf), leaf)
    return gradient


def added(trainer: str, variable: str, phase: int = 0, row: Any = None, **options: Any) -> Any:
    """What `adjust` adds at a random point: (the addition, the point, the variables, the context)."""
    made = course(trainer, EVERYBODY, **options)
    _, context, variables = begun(made, phase=phase, row=row)
    with torch.no_grad():
        for seed, values in enumerate(variables.values()):
            noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
            if values.is_floating_point():
                values.add_(noise)
    before = torch.randn(made.space.size, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        after = made.trainer.adjust({variable: before.clone()}, variables, context)[variable]
    return after - before, variables[variable], variables, context


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_fedprox():
    addition, w, _, context = added("fedprox", "model", mu=0.3)
    received = context.sent["model"]
    close(addition, derivative(lambda x: 0.3 / 2 * (x - received).square().sum(), w))


def test_a_bound_on_the_norm_leaves_running_statistics_out():
    norm = {**EVERYBODY, "model": {"use": "mlp_bn"}}
    made = course("fedprox", norm, max_grad_norm=0.5, lr=1.0)
    _, context, variables = begun(made)
    before = variables["model"].detach().clone()
    gradient = torch.ones(made.space.size)
    gradient[35:45] = 1e3  # the pull on the running mean and variance
    with torch.no_grad():
        made.trainer.step(variables, {"model": gradient}, {}, context)
    moved = variables["model"].detach() - before
    close(moved.norm(), torch.tensor(0.5))
    assert not moved[35:45].any()


def test_ditto():
    addition, v, _, context = added("ditto", "personal", phase=1, lamda=0.7)
    received = context.sent["model"]
    close(addition, derivative(lambda x: 0.7 / 2 * (x - received).square().sum(), v))


def test_ditto_leaves_the_global_model_alone():
    addition, _, _, _ = added("ditto", "model", lamda=0.7)
    assert not addition.any()


def test_pfedme():
    addition, theta, variables, _ = added("pfedme", "personal", lamda=3.0)
    w = variables["model"].detach()
    close(addition, derivative(lambda x: 3.0 / 2 * (x - w).square().sum(), theta))


def test_feddyn():
    size = course("feddyn", EVERYBODY).space.size
    slope = torch.randn(size, generator=torch.Generator().manual_seed(5))
    addition, w, _, context = added("feddyn", "model", row={"slope": slope}, alpha=0.2)
    received = context.sent["model"]

    def term(x: torch.Tensor) -> torch.Tensor:
        return -(slope * x).sum() + 0.2 / 2 * (x - received).square().sum()

    close(addition, derivative(term, w))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_scaffold(momentum):
    made = course("scaffold", EVERYBODY, lr=0.5, momentum=momentum)
    own, common, first, second = torch.randn(
        4, made.space.size, generator=torch.Generator().manual_seed(5)
    )
    made.bank[0]["control"] = common
    _, context, variables = begun(made, row={"control": own})
    before, memory = variables["model"].detach().clone(), {}
    with torch.no_grad():
        made.trainer.step(variables, {"model": first.clone()}, memory, context)
        made.trainer.step(variables, {"model": second.clone()}, memory, context)
    term = derivative(lambda x: ((common - own) * x).sum(), before)
    plain = first + (momentum * first + second)
    close(variables["model"].detach(), before - 0.5 * (plain + 2 * term))


def test_fedamp():
    addition, w, variables, _ = added("fedamp", "model", lamda=0.4)
    cloud = variables["cloud"].detach()
    close(addition, derivative(lambda x: 0.4 / 2 * (x - cloud).square().sum(), w))


def test_terms_pull_a_private_part_to_where_it_began():
    made = course("fedprox", EVERYBODY, mu=1.0, private=["linear"])
    _, context, variables = begun(made)
    with torch.no_grad():
        zero = torch.zeros(made.space.size)
        addition = made.trainer.adjust({"model": zero}, variables, context)["model"]
    assert not addition.any()


# ------------------------------------------------------------------------------------------ losses


def network(flat: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and outputs of the MLP 4-5-3, by hand."""
    w1, b1, w2, b2 = flat.split([20, 5, 15, 3])
    features = torch.relu(x @ w1.view(5, 4).T + b1)
    return features, features @ w2.view(3, 5).T + b2


def cross_entropy(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs, y, reduction="none")


def trained(made: Any, lane: Any, variables: Any, context: Any) -> Any:
    with torch.no_grad():
        return made.trainer.gradient(made.trainer.loss, variables, context.data, context)


def test_fedproto():
    made = course("fedproto", EVERYBODY, lamda=2.0)
    prototypes = torch.randn(3, 5, generator=torch.Generator().manual_seed(5))
    made.bank[0] = {"prototypes": prototypes, "known": torch.tensor([[1.0], [0.0], [1.0]])}
    lane, context, variables = begun(made)
    x, y = context.data.x, context.data.y

    def loss(flat: torch.Tensor) -> torch.Tensor:
        features, outputs = network(flat, x)
        apart = (features - prototypes[y]).square().mean(dim=1)
        return (cross_entropy(outputs, y) + 2.0 * apart * (y != 1)).mean()

    actual = trained(made, lane, variables, context)["model"]
    close(actual, derivative(loss, variables["model"]))


def test_fedem_follows_the_likelihood_of_the_mixture():
    made = course("fedem", EVERYBODY, models=2, **FULL)
    mixture = torch.tensor([0.3, 0.7])
    lane, context, variables = begun(made, row={"mixture": mixture})
    x, y = context.data.x, context.data.y

    def loss(both: torch.Tensor) -> torch.Tensor:
        losses = torch.stack([cross_entropy(network(flat, x)[1], y) for flat in both])
        return -torch.logsumexp(mixture.log()[:, None] - losses, dim=0).mean()

    both = torch.stack([variables["model"].detach(), variables["model1"].detach()])
    actual = trained(made, lane, variables, context)
    close(torch.stack([actual["model"], actual["model1"]]), derivative(loss, both))


def test_fedem_looks_up_each_sample_of_a_batch():
    made = course("fedem", EVERYBODY, models=2, batch_size=3)
    lane, context, variables = begun(made, row={"mixture": torch.tensor([0.3, 0.7])})
    with torch.no_grad():
        order = expanded(made.trainer.batches(context), context)
        batch = list(lane._split(order, context.data))[1]
        actual = made.trainer.loss(variables, batch, context)
        whole = made.trainer.loss(variables, context.data, context)
    close(actual, whole[order.index[3:6]])


def test_apfl_personal_model():
    made = course("apfl", EVERYBODY, alpha=0.3, adaptive=False, lr=0.5, **FULL)
    v, w = torch.randn(2, made.space.size, generator=torch.Generator().manual_seed(5))
    row = {"personal": v, "trained": torch.ones(1), "alpha": torch.tensor([0.3])}
    made.bank[0]["model"] = w
    lane, context, variables = begun(made, row=row)
    x, y = context.data.x, context.data.y

    def loss(own: torch.Tensor) -> torch.Tensor:
        return cross_entropy(network(0.3 * own + 0.7 * w, x)[1], y).mean()

    with torch.no_grad():
        gradient = trained(made, lane, variables, context)
        made.trainer.step(variables, gradient, {}, context)
    close(variables["personal"], v - 0.5 * derivative(loss, v))


def test_apfl_alpha():
    made = course("apfl", EVERYBODY, alpha=0.3, lr=0.05, **FULL)
    v, w = torch.randn(2, made.space.size, generator=torch.Generator().manual_seed(5))
    row = {"personal": v, "trained": torch.ones(1), "alpha": torch.tensor([0.3])}
    made.bank[0]["model"] = w
    lane, context, variables = begun(made, row=row)
    x, y = context.data.x, context.data.y

    def loss(alpha: torch.Tensor) -> torch.Tensor:
        return cross_entropy(network(alpha * v + (1 - alpha) * w, x)[1], y).mean()

    with torch.no_grad():
        gradient = trained(made, lane, variables, context)
        made.trainer.step(variables, gradient, {}, context)
    at = torch.tensor([0.3])
    expected = at - 0.05 * derivative(loss, at)
    assert 0 < expected.item() < 1
    close(variables["alpha"], expected)
    mixed = expected * variables["personal"] + (1 - expected) * variables["model"]
    close(variables["mixed"], mixed)


def test_fedala_weights():
    made = course("fedala", EVERYBODY, weight_lr=0.05, **FULL)
    own, w = torch.randn(2, made.space.size, generator=torch.Generator().manual_seed(5))
    weights = torch.full((18,), 0.5)
    row = {"personal": own, "trained": torch.ones(1), "weights": weights}
    made.bank[0]["model"] = w
    lane, context, variables = begun(made, row=row)
    x, y = context.data.x, context.data.y

    def begin(mix: torch.Tensor) -> torch.Tensor:
        return torch.cat([w[:25], own[25:] + (w - own)[25:] * mix])

    def loss(mix: torch.Tensor) -> torch.Tensor:
        return cross_entropy(network(begin(mix), x)[1], y).mean()

    close(variables["model"], begin(weights))
    with torch.no_grad():
        gradient = trained(made, lane, variables, context)
        made.trainer.step(variables, gradient, {}, context)
    expected = (weights - 0.05 * derivative(loss, weights)).clamp(0, 1)
    close(variables["weights"], expected)
    close(variables["model"], begin(expected))


@pytest.mark.parametrize("slope", [1e6, -1e6])
def test_fedala_weights_stay_between_0_and_1(slope):
    made = course("fedala", EVERYBODY)
    own = torch.ones(made.space.size)
    row = {"personal": own, "trained": torch.ones(1)}
    _, context, variables = begun(made, row=row)
    with torch.no_grad():
        gradient = {"model": torch.full((made.space.size,), slope)}
        made.trainer.step(variables, gradient, {}, context)
    assert set(variables["weights"].tolist()) <= {0.0, 1.0}


def test_per_fedavg_steps_along_the_gradient_of_the_adapted_model():
    made = course("per_fedavg", SOFTMAX, alpha=0.2, lr=0.5)
    _, context, variables = begun(made)
    w = variables["model"].detach().clone()
    first, second = torch.randn(2, made.space.size, generator=torch.Generator().manual_seed(5))
    memory: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        made.trainer.step(variables, {"model": first}, memory, context)
        adapted = variables["model"].detach().clone()
        context.step += 1
        made.trainer.step(variables, {"model": second}, memory, context)
    close(adapted, w - 0.2 * first)
    close(variables["model"].detach(), w - 0.5 * second)
