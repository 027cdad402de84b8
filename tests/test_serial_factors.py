"""Gradients of linear layers that are kept as factors give the steps that the gradients themselves give."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fscore.builtin.executors import factors, lane
from fscore.builtin.executors.factors import Factors
from fscore.builtin.executors.lane import Lane
from fscore.builtin.given import GivenData, GivenModel
from fscore.context import Samples
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

FEATURES, CLASSES = 6, 3


class Twice(nn.Module):
    """A layer that is used twice, over a sequence."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.last = nn.Linear(FEATURES, CLASSES, bias=False)

    def forward(self, x):
        pairs = x.view(len(x), 2, 3)
        return self.last(self.inner(torch.tanh(self.inner(pairs))).flatten(1))


class Tied(nn.Module):
    """A weight that a product of matrices uses, too."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.inner(x)) @ self.inner.weight)


class Penal(nn.Module):
    """Differentiates inside of its forward pass, and is differentiated through that."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(FEATURES, 4)
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = torch.tanh(self.inner(x)).square().sum()
            (slope,) = torch.autograd.grad(energy, x, create_graph=True)
        return self.last(x - slope)


class Probed(nn.Module):
    """Differentiates inside of its forward pass without being differentiated through that."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        with torch.enable_grad():
            probe = x.detach().requires_grad_()
            energy = self.inner(probe).square().sum()
            slope, scale = torch.autograd.grad(energy, (probe, self.inner.weight))
        return self.last(torch.tanh(self.inner(x - slope.detach() - scale.mean())))


class Read(nn.Module):
    """A layer reads another one's weight as its samples: a factor that is stepped before it would be used."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.inner(x))) + self.last(self.inner.weight).mean(0)


class Again(nn.Module):
    """Computes a layer again in the backward pass, which adds to the gradient of its weight by itself."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.last = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        x = x.detach().requires_grad_()
        inner = checkpoint(lambda v: torch.tanh(self.inner(v)), x, use_reentrant=True)
        return self.last(inner + 0.1 * self.inner(x))


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(2 * x)


def mlp():
    return nn.Sequential(nn.Linear(FEATURES, 5), nn.ReLU(), nn.Linear(5, CLASSES))


def normed():
    inner = nn.utils.parametrizations.weight_norm(nn.Linear(FEATURES, 5))
    return nn.Sequential(inner, nn.ReLU(), nn.Linear(5, CLASSES))


def owned():
    return nn.Sequential(Own(FEATURES, 5), nn.ReLU(), nn.Linear(5, CLASSES))


MODELS = {
    "mlp": mlp, "twice": Twice, "tied": Tied, "read": Read, "penal": Penal, "probed": Probed, "normed": normed,
    "owned": owned,
}  # fmt: skip
SGD = '[trainer]\nuse = "sgd"\nlr = 0.2\nepochs = 2\nbatch_size = 4\n'
TRAINERS = {
    "plain": SGD,
    "momentum": SGD + "momentum = 0.9\nweight_decay = 0.01",
    "nesterov": SGD + "momentum = 0.5\nnesterov = true",
}


def given(model):
    generator = torch.Generator().manual_seed(1)
    data = []
    for samples in (5, 8, 11, 4):
        x = torch.randn(samples, FEATURES, generator=generator)
        y = torch.arange(samples) % CLASSES
        data.append((Samples(x, y), Samples(x[:0], y[:0])))
    torch.manual_seed(2)
    return {"data": GivenData.of(data), "model": GivenModel.of({**MODELS, "again": Again}[model]())}


def trained(toml, model, **changes):
    changes = {"executor.use": "serial", "sampler.clients": 4, "evaluation.every": 0, **changes}
    course = tiny_course(toml, given=given(model), changes=changes)
    result = course.run()
    assert result.status == "complete", result.reason
    return result.model["model"], result.digest


@pytest.fixture
def taken(monkeypatch):
    """Let every model be large and every layer wide; return the names of what was left as factors."""
    found = []
    leave = Factors.leave
    monkeypatch.setattr(lane, "LARGE", 0)
    monkeypatch.setattr(factors, "WIDE", 0)
    monkeypatch.setattr(
        Factors, "leave", lambda self, weight, *rest: (found.append(tuple(weight.shape)), leave(self, weight, *rest))
    )  # fmt: skip
    return found


def small(toml, model):
    """Return the model as the lane trains it that joins gradients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "LARGE", 1 << 18)
        return trained(toml, model)[0]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_factors_give_the_model_of_gradients(trainer, model, taken):
    toml = TRAINERS[trainer]
    torch.testing.assert_close(trained(toml, model)[0], small(toml, model), rtol=2e-6, atol=1e-6)
    assert taken


@pytest.mark.parametrize("trainer", [*TRAINERS, "bounded"])
def test_backward_passes_of_a_model_s_own_add_to_its_gradients(trainer, taken):
    """What they add is in no gradient that is asked for."""
    toml = {**TRAINERS, "bounded": SGD + "max_grad_norm = 0.1"}[trainer]
    many, expected = trained(toml, "again")[0], small(toml, "again")
    torch.testing.assert_close(many, expected, rtol=2e-6, atol=1e-6)


def test_each_plain_layer_leaves_factors_and_no_other_one(taken):
    for model, expected in {
        "mlp": {(5, FEATURES), (CLASSES, 5)},
        "normed": {(CLASSES, 5)},
        "owned": {(CLASSES, 5)},
        "probed": {(FEATURES, FEATURES), (CLASSES, FEATURES)},
    }.items():
        taken.clear()
        trained(SGD, model)
        assert set(taken) == expected, model


@pytest.mark.parametrize("more", ['frozen = ["0"]', 'private = ["2"]'])
def test_frozen_and_private_layers(more, taken):
    toml = SGD + more
    torch.testing.assert_close(trained(toml, "mlp")[0], small(toml, "mlp"), rtol=2e-6, atol=1e-6)
    assert ((5, FEATURES) in taken) == ("private" in more)


@pytest.mark.parametrize("use", ["process", "thread"])
def test_factors_give_the_same_bits_on_all_executors(use, taken):
    expected = trained(SGD, "mlp", **{"executor.chunk": 2})[1]
    assert trained(SGD, "mlp", **{"executor.chunk": 2, "executor.use": use})[1] == expected


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ('[trainer]\nuse = "sgd"\nmax_grad_norm = 0.1', "a norm is of the whole gradient"),
        ('[trainer]\nuse = "sgd"\n[executor]\nprecision = "bfloat16"', "autocast has its own products"),
    ],
)  # fmt: skip
def test_no_factors_where_a_gradient_is_looked_at(toml, why, taken):
    fs_course(toml, changes={"executor.use": "serial"})
    assert taken == [], why


def test_narrow_layers_compute_as_ever(monkeypatch):
    monkeypatch.setattr(lane, "LARGE", 0)
    course = tiny_course('[model]\nuse = "mlp"\nhidden = [6]')
    replica = Lane(course.site)._replicas["model"]
    assert not any("forward" in vars(part) for part in replica.module.modules())
