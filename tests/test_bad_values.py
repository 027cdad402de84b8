"""Values that make no sense are refused before the first version, each with one line."""

import pytest
import torch
from attrs import define

from fscore.builtin.given import GivenModel
from fscore.builtin.trainers import SGD
from fscore.component import Component
from fscore.errors import ConfigError, PluginError
from fscore.hookspecs import hookimpl
from fscore.kinds.objective import Objective
from fscore.testing import fs_course, tiny_course


def refused(toml, **how):
    with pytest.raises(ConfigError) as caught:
        tiny_course(toml, **how)
    return str(caught.value)


@pytest.mark.parametrize("value", ["0", "0.0", "-1"])
def test_no_passes_over_the_data(value):
    assert refused(f"trainer = {{ epochs = {value} }}") == (
        f"trainer.epochs: must be greater than 0, got {float(value)}"
    )


def test_no_passes_over_the_data_of_one_client():
    override = "[[override]]\nclients = [1]\ntrainer.epochs = 0.0"
    assert refused(override) == "override.0.trainer.epochs: must be greater than 0, got 0.0"


def test_a_head_that_is_no_module():
    assert refused('[model]\nuse = "mlp"\nhidden = [3]\nhead = "liner"') == (
        "model.head: 'mlp' has no module 'liner', did you mean 'linear'? (modules: flatten, hidden0, "
        "activation0, linear)"
    )


def test_a_head_of_an_own_model():
    given = {"model": GivenModel.of(torch.nn.Sequential(torch.nn.Linear(4, 3)))}
    given["model"].head = "1"
    assert refused("", given=given) == "model.head: 'given' has no module '1' (modules: 0)"


# ------------------------------------------------------------------------ one loss per sample


@define(eq=False)
class Averaged(Objective):
    """Gives the mean of a batch."""

    name = "averaged"

    def losses(self, outputs, y):
        return torch.nn.functional.cross_entropy(outputs, y)


@define(eq=False)
class Kept(Objective):
    """Gives the mean of a batch as a vector of one."""

    name = "kept"

    def losses(self, outputs, y):
        return torch.nn.functional.cross_entropy(outputs, y).view(1)


@define(eq=False)
class AveragedTrainer(SGD):
    """Gives the mean of a batch."""

    name = "averaged"

    def loss(self, variables, batch, context):
        return super().loss(variables, batch, context).mean()


@define(eq=False)
class Objectives(Component):
    name = "objectives"

    @hookimpl
    def fscore_register_objectives(self):
        return [Averaged, Kept]

    @hookimpl
    def fscore_register_trainers(self):
        return [AveragedTrainer]


@pytest.mark.parametrize("executor", ["serial", "cohort"])
def test_an_objective_that_gives_a_mean(executor):
    toml = f'[objective]\nuse = "averaged"\n[executor]\nuse = "{executor}"'
    assert refused(toml, plugins=[Objectives]) == (
        "objective.use: 'averaged' gave losses of shape () for 2 samples, expected one per sample"
    )


ONE_SAMPLE = "data = { min_samples = 1, max_samples = 1 }\n"


@pytest.mark.parametrize("executor", ["serial", "cohort"])
def test_an_objective_that_gives_a_mean_where_clients_have_one_sample(executor):
    toml = f'{ONE_SAMPLE}[objective]\nuse = "averaged"\n[executor]\nuse = "{executor}"'
    assert refused(toml, plugins=[Objectives]) == (
        "objective.use: 'averaged' gave losses of shape () for 1 samples, expected one per sample"
    )


def clients():
    from fscore.context import Samples

    numbers = torch.Generator().manual_seed(1)
    for size in (1, 6, 6, 6, 6, 6):
        x = torch.randn(size, 4, generator=numbers)
        y = torch.arange(size) % 3
        yield Samples(x, y), Samples(x, y)


def test_an_objective_that_gives_a_mean_where_only_later_clients_show_it():
    """The first client has one sample, of which the mean is its loss."""
    from fscore.builtin.given import GivenData

    with pytest.raises(PluginError) as caught:
        fs_course(
            '[objective]\nuse = "kept"\n[sampler]\nuse = "all"\n[evaluation]\nevery = 0\nmetrics = ["accuracy"]',
            plugins=[Objectives],
            given={"data": GivenData.of(list(clients()))},
        )
    assert (
        str(caught.value)
        == "objective 'kept': losses() gave shape (1,), expected one loss per sample (6,)"
    )


def test_a_trainer_that_gives_a_mean():
    with pytest.raises(PluginError) as caught:
        fs_course('[trainer]\nuse = "averaged"', plugins=[Objectives])
    text = str(caught.value)
    assert text.startswith(
        "trainer 'averaged': loss() gave shape (), expected one loss per sample ("
    )
