"""Trainers that read values in Python, and losses of another shape: found before a course computes many clients at once."""

import inspect

import pytest
import torch
from attrs import define

from fscore import Component, hookimpl
from fscore.builtin.trainers import SGD
from fscore.errors import ConfigError, PluginError
from fscore.testing import fs_course, tiny_course

FAR = 1e9
"""What no norm of the first tasks reaches, so that both ways give the same numbers there."""


@define(eq=False)
class InAdjust(SGD):
    name = "in_adjust"

    def adjust(self, gradient, variables, context):
        if torch.linalg.vector_norm(gradient["model"]) > FAR:  # reads
            return {"model": 0 * gradient["model"]}
        return gradient


@define(eq=False)
class InFinish(SGD):
    name = "in_finish"

    def finish(self, variables, context):
        moved = variables["model"] - context.sent["model"]
        far = largest(moved) > FAR  # reads
        return {"model": context.sent["model"] if far else variables["model"]}, {}


def largest(moved):
    return moved.abs().max().item()


def halved(self, variables, gradient, memory, context):
    if far(gradient["model"]):
        gradient = {"model": gradient["model"] / 2}
    return SGD.step(self, variables, gradient, memory, context)


def far(values):
    return values.abs().max() > FAR and values.sum() > FAR


@define(eq=False)
class InStep(SGD):
    """Its step is a function of another name."""

    name = "in_step"
    step = halved


@define(eq=False)
class InHelper(SGD):
    """Reads in a method of its own, which a piece calls."""

    name = "in_helper"

    def adjust(self, gradient, variables, context):
        return gradient if self._near(gradient["model"]) else {"model": 0 * gradient["model"]}

    def _near(self, values):
        return float(values.abs().max()) < FAR


@define(eq=False)
class InLoss(SGD):
    name = "in_loss"

    def loss(self, variables, batch, context):
        losses = super().loss(variables, batch, context)
        return 2 * losses if losses.sum() > FAR else losses  # reads


@define(eq=False)
class InBatches(SGD):
    """Chooses samples client by client, where a value is one client's."""

    name = "in_batches"

    def batches(self, context):
        import numpy as np

        torch.zeros(()).item()
        return [np.arange(context.samples)]


@define(eq=False)
class Clamped(SGD):
    name = "clamped"

    def adjust(self, gradient, variables, context):
        length = torch.linalg.vector_norm(gradient["model"], dim=-1, keepdim=True)
        return {"model": gradient["model"] * torch.clamp(0.1 / length, max=1.0)}


@define(eq=False)
class Mean(SGD):
    name = "meaned"

    def loss(self, variables, batch, context):
        return super().loss(variables, batch, context).mean()


@define(eq=False)
class TrainerPlugin(Component):
    name = "trainers"

    @hookimpl
    def fscore_register_trainers(self):
        return [InAdjust, InFinish, InStep, InHelper, InLoss, InBatches, Clamped, Mean]


def course(trainer, executor):
    return tiny_course(
        f'[trainer]\nuse = "{trainer}"',
        plugins=[TrainerPlugin],
        changes={"executor.use": executor},
    )


def read_by(trainer):
    """Return how a trainer is told of: its piece, and the line that reads."""
    lines, first = inspect.getsourcelines(trainer)
    (line,) = [first + i for i, text in enumerate(lines) if text.endswith("# reads\n")]
    piece = trainer.name.removeprefix("in_")
    return (
        f"trainer '{trainer.name}' reads a tensor's value in {piece}() (test_executors_reads.py, line {line}), "
        "one value for all clients that are computed at once "
        "(torch.where and torch.clamp take each client's own)"
    )


@pytest.mark.parametrize("trainer", [InAdjust, InFinish, InLoss])
def test_a_piece_that_reads_a_value_is_named_with_its_line(trainer):
    with pytest.raises(ConfigError) as caught:
        course(trainer.name, "cohort")
    assert str(caught.value) == (
        f"executor.use: 'cohort' cannot compute this course: {read_by(trainer)}. Remedy: use 'auto' or 'serial'."
    )


@pytest.mark.parametrize(("trainer", "place"), [("in_step", "halved"), ("in_helper", "_near")])
def test_a_value_is_found_that_is_read_under_another_name(trainer, place):
    executor = course(trainer, "auto").executor
    assert executor.name == "serial"
    assert f"trainer '{trainer}' reads a tensor's value in {place}() (test_exec" in executor.reason


@pytest.mark.parametrize("trainer", [InAdjust, InFinish, InLoss])
def test_auto_computes_such_a_trainer_client_by_client(trainer):
    executor = course(trainer.name, "auto").executor
    assert executor.name == "serial"
    assert f": {read_by(trainer)}; " in executor.reason


@pytest.mark.parametrize("trainer", ["sgd", "in_batches", "clamped"])
def test_trainers_that_read_no_value_of_all_clients_are_computed_at_once(trainer):
    assert course(trainer, "auto").executor.name == "cohort"


@pytest.mark.parametrize("executor", ["serial", "cohort", "auto"])
def test_a_loss_that_is_a_mean_is_refused_by_every_executor(executor):
    with pytest.raises(PluginError) as caught:
        fs_course(
            '[trainer]\nuse = "meaned"\nbatch_size = 3',
            plugins=[TrainerPlugin],
            changes={"executor.use": executor},
        )
    assert str(caught.value) == (
        "trainer 'meaned': loss() gave shape (), expected one loss per sample (3,)"
    )
