"""Batch norm in the cohort executor: each client's own statistics, as torch keeps them for one client."""

from __future__ import annotations

import pytest
import torch
from attrs import define
from torch import nn

from fscore import Component, hookimpl
from fscore.builtin.executors.norms import Norms, unliftable
from fscore.builtin.given import GivenModel
from fscore.builtin.trainers import SGD
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.params import ParamSpace
from fscore.testing import fs_course

DATA = '[data]\nuse = "synthetic"\nclients = 6\nfeatures = 4\nnum_classes = 3\nunseen_clients = 1\n'


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same weights each time: a norm of two or three samples enlarges rounding for some of them."""
    torch.manual_seed(3)


def flat() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=0.3), nn.ReLU(), nn.Linear(5, 3)
    )


def image() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.BatchNorm2d(3, affine=False),
        nn.ReLU(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 3),
    )  # fmt: skip


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 1, 2, 2)), nn.BatchNorm3d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def course(model: nn.Module, executor: str, toml: str = "", **changes: object):
    given = {"executor.use": executor, "executor.chunk": 3, "evaluation.every": 1, **changes}
    return fs_course(DATA + toml, changes=given, given={"model": GivenModel.of(model)})


def agree(one, other) -> None:
    torch.testing.assert_close(one.result.model, other.result.model, rtol=1e-4, atol=1e-5)
    for name in ("train_loss", "test_loss", "unseen_test_loss"):
        assert one.result.metrics[name] == pytest.approx(other.result.metrics[name], rel=1e-4)


@pytest.mark.parametrize("make", [flat, image, volume])
@pytest.mark.parametrize("samples", [(12, 12), (11, 29)], ids=["equal", "ragged"])
def test_many_clients_at_once_give_what_one_at_a_time_gives(make, samples):
    low, high = samples
    sizes = {"data.min_samples": low, "data.max_samples": high, "trainer.batch_size": 4}
    model = make()
    many, one = (course(model, executor, **sizes) for executor in ("cohort", "serial"))
    assert many.course.executor.name == "cohort"
    agree(many, one)


@pytest.mark.parametrize(
    "toml",
    [
        '[trainer]\nuse = "sgd"\nprivate = ["*BatchNorm*"]\nfinetune = 1.0\n',
        '[trainer]\nuse = "sgd"\nfrozen = ["0"]\nmomentum = 0.5\nbatch_size = 0\n',
        '[trainer]\nuse = "sgd"\n[[override]]\nclients = [0, 1]\ntrainer.batch_size = 3\n',
    ],
)
def test_options_of_the_trainer_hold_with_it(toml):
    model = flat()
    agree(course(model, "cohort", toml), course(model, "serial", toml))


def test_a_course_repeats_its_digest_in_processes():
    model = flat()
    alone = course(model, "cohort").result.digest
    inside = course(model, "process", **{"executor.workers": 2, "executor.inside": "cohort"}).result
    assert inside.digest == alone


def test_a_client_whose_batch_has_one_sample_fails_as_it_does_alone():
    sizes = {"data.min_samples": 11, "data.max_samples": 14, "trainer.batch_size": 5}
    model = flat()
    many, one = (course(model, executor, **sizes) for executor in ("cohort", "serial"))
    assert (many.result.tasks["failed"], many.result.tasks["used"]) == (7, 5)
    assert many.result.tasks == one.result.tasks
    agree(many, one)


# ---------------------------------------------------------------------------- one client, by hand


def moved(
    module: nn.Module, x: torch.Tensor, valid: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """Outputs, and running statistics after a training pass, as `Norms` computes them."""
    import copy

    space = ParamSpace.of(module)
    params = space.read(module)
    norms = Norms(copy.deepcopy(module), space)
    with norms.watching({"model": params}) as found:
        outputs = norms.outputs(params, Samples(x, torch.zeros(len(x)), valid))
    return outputs.detach(), found[0].detach()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 2)])
def test_values_and_statistics_are_those_of_torch(shape):
    layer = nn.BatchNorm1d(5, momentum=0.3)
    nn.init.normal_(layer.weight)
    x = torch.randn(shape)
    outputs, statistics = moved(layer, x, None)
    torch.testing.assert_close(outputs, layer(x).detach())
    torch.testing.assert_close(statistics, torch.cat([layer.running_mean, layer.running_var]))


def test_padding_enters_no_statistic():
    layer = nn.BatchNorm1d(5)
    x = torch.randn(6, 5)
    padded = torch.cat([x, 100 * torch.ones(3, 5)])
    valid = torch.tensor([1.0] * 6 + [0.0] * 3)
    outputs, statistics = moved(layer, padded, valid)
    torch.testing.assert_close(outputs[:6], layer(x).detach())
    torch.testing.assert_close(statistics, torch.cat([layer.running_mean, layer.running_var]))


def test_a_client_without_samples_keeps_its_statistics():
    layer = nn.BatchNorm2d(2)
    outputs, statistics = moved(layer, torch.randn(3, 2, 2, 2), torch.zeros(3))
    assert outputs.isfinite().all()
    assert statistics.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_second_pass_goes_on_from_the_first():
    layer = nn.BatchNorm1d(5)
    space, params = ParamSpace.of(layer), ParamSpace.of(layer).read(layer)
    norms, x = Norms(nn.Sequential(layer)[0], space), torch.randn(6, 5)
    batch = Samples(x, torch.zeros(6))
    with norms.watching({"model": params}) as found:
        norms.outputs(params, batch)
        norms.outputs(params, batch)
    own = nn.BatchNorm1d(5)
    own(x), own(x)
    torch.testing.assert_close(found[0], torch.cat([own.running_mean, own.running_var]))


# ---------------------------------------------------------------------------- parameters that are no variable


@define(eq=False, slots=False)
class Watching(SGD):
    """Looks, in each step, at what was sent; with no effect on the loss."""

    name = "watching"

    def loss(self, variables, batch, context):
        sent = context.losses(context.sent["model"], batch)
        return context.losses(variables["model"], batch) + 0 * sent


@define(eq=False)
class WatchingPlugin(Component):
    name = "watching"

    @hookimpl
    def fscore_register_trainers(self):
        return [Watching]


@pytest.mark.parametrize("executor", ["serial", "cohort"])
def test_a_pass_through_what_was_sent_does_not_change_it(executor):
    model = flat()
    given = {"model": GivenModel.of(model)}
    changes = {"executor.use": executor}
    watched = fs_course(
        DATA + '[trainer]\nuse = "watching"', plugins=[WatchingPlugin], changes=changes, given=given
    )
    plain = fs_course(DATA, changes=changes, given=given)
    torch.testing.assert_close(watched.result.model, plain.result.model, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.BatchNorm1d(4, momentum=None), "layer '0' (BatchNorm1d) counts its batches (momentum = None)"),
        (
            nn.BatchNorm1d(4, track_running_stats=False),
            "layer '0' (BatchNorm1d) judges by its batch (track_running_stats = False)",
        ),
        (
            nn.InstanceNorm1d(4, track_running_stats=True),
            "layer '0' (InstanceNorm1d) keeps statistics, which padded batches would change",
        ),
        (nn.BatchNorm1d(4), ""),
        (nn.LayerNorm(4), ""),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_lifted_are_named(layer, text):
    assert unliftable(nn.Sequential(layer)) == text


class Rows(nn.Module):
    """Norms pairs of features as if they were samples."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x.reshape(-1, 2)).reshape(len(x), 4))


def test_a_layer_that_sees_other_rows_than_samples_is_refused():
    with pytest.raises(ConfigError) as caught:
        course(Rows(), "cohort")
    assert str(caught.value).startswith(
        "executor.use: 'cohort' cannot compute this course: trainer 'sgd' fails for many clients at once "
        "(NotLifted: a batch norm sees "
    )
