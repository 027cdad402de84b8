"""Small courses for the tests of this package, and a slow reference for softmax regression."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from attrs import define
from fs_personalization.plugin import PersonalizationPlugin

from fscore import Component, hookimpl, option
from fscore.builtin.executors.lane import Lane
from fscore.kinds.model import Model
from fscore.tasks import Task
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

UNIFORM = {"aggregator": {"use": "mean", "weighting": "uniform"}}
EVERYBODY = {"sampler": {"use": "all"}, "data": {"use": "synthetic", "clients": 5, "features": 4,
             "num_classes": 3, "min_samples": 6, "max_samples": 20, "unseen_clients": 0}}  # fmt: skip
FULL = {"batch_size": 0}
NAMES = (
    "local", "fedprox", "ditto", "pfedme", "scaffold", "feddyn", "fednova", "fedbn", "fedper", "lg_fedavg",
    "fedrep", "fedbabu", "per_fedavg", "apfl", "fedala", "fedamp", "ifca", "fedem", "fedproto", "heterofl",
)  # fmt: skip


def tables(trainer: str, more: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """A course of an MLP with a trainer; `more` replaces whole tables."""
    model = {"use": "mlp_bn"} if trainer == "fedbn" else {"use": "mlp", "hidden": [5]}
    course = {"model": model, "trainer": {"use": trainer, **options}, **(more or {})}
    if trainer in ("scaffold", "feddyn"):
        course = {**UNIFORM, **course}
    return course


def run(trainer: str, more: dict[str, Any] | None = None, plugins: Any = (), **options: Any) -> Any:
    """Run a small course and return it."""
    every = [PersonalizationPlugin, TestPlugin, *plugins]
    return fs_course(tables(trainer, more, **options), plugins=every)


def course(trainer: str, more: dict[str, Any] | None = None, **options: Any) -> Any:
    """Return a small course that has not run."""
    every = [PersonalizationPlugin, TestPlugin]
    return tiny_course(tables(trainer, more, **options), plugins=every)


def model(run: Any, slot: str = "model") -> torch.Tensor:
    """Return a slot of the last version."""
    return run.result.model[slot]


def rows(run: Any, name: str) -> torch.Tensor:
    """Return one row of all clients: (clients, ...)."""
    store = run.course.store
    return torch.stack([store.get(client)[name] for client in range(run.course.population.size)])


def begun(made: Any, client: int = 0, phase: int = 0, row: Any = None) -> tuple[Any, Any, Any]:
    """Return (lane, context, variables) of a client's task at the beginning of one of its phases."""
    lane = Lane(made.site)
    job = made.opener.job(Task(0, client, made.book.version))
    job.row.update(row or {})
    with torch.no_grad():
        context = lane._context(job)
        lane._survey(context, context.data)
        variables = lane._load(made.trainer.start(context))
        lane._enter(made.trainer.phases(context)[phase], context)
    return lane, context, variables


def softmax_loss(flat: torch.Tensor, data: Any, classes: int = 3) -> torch.Tensor:
    """Mean cross entropy of softmax regression with parameters (classes * (features + 1),)."""
    features = data.x.shape[1]
    weight = flat[: classes * features].view(classes, features)
    outputs = data.x @ weight.T + flat[classes * features :]
    return torch.nn.functional.cross_entropy(outputs, data.y)


def slope(flat: torch.Tensor, data: Any) -> torch.Tensor:
    """Return the gradient of `softmax_loss`."""
    leaf = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(softmax_loss(leaf, data), leaf)
    return gradient


@define(eq=False)
class NormMLP(Model):
    """A linear layer, a batch norm that is called `downsample.1`, and a linear head."""

    name = "mlp_bn"
    head: str = option("", doc="Dotted name of the module whose input are the features.")

    def build(self, example: Any, classes: int | None) -> torch.nn.Module:
        inputs = example.x[0].numel()
        block = torch.nn.Sequential(torch.nn.Linear(inputs, 5), torch.nn.BatchNorm1d(5))
        parts = {"downsample": block, "linear": torch.nn.Linear(5, classes or 1)}
        return torch.nn.Sequential(OrderedDict(parts))


@define(eq=False)
class TestPlugin(Component):
    """Registers the model of these tests."""

    __test__ = False
    name = "personalization_tests"

    @hookimpl
    def fscore_register_models(self) -> list[Any]:
        return [NormMLP]


__all__ = ["EVERYBODY", "FULL", "NAMES", "UNIFORM", "begun", "course", "model", "rows", "run", "slope",
           "softmax_loss", "tables"]  # fmt: skip
