"""The serial lane: its ways to take a gradient give one model, and its options do what they say."""

import pytest
import torch
from attrs import define, evolve

from fscore.builtin.executors import lane
from fscore.builtin.executors.lane import Lane, convolves
from fscore.builtin.trainers import SGD
from fscore.component import Component
from fscore.errors import ConfigError, PluginError
from fscore.hookspecs import hookimpl
from fscore.params import digest
from fscore.tasks import Batch, Task
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

MLP = '[model]\nuse = "mlp"\nhidden = [6]\n[trainer]\nuse = "sgd"\nlr = 0.2\n'
COURSES = {
    "plain": MLP,
    "momentum": MLP + "momentum = 0.9\nweight_decay = 0.01\nepochs = 2",
    "nesterov": MLP + "momentum = 0.5\nnesterov = true",
    "bounded": MLP + "max_grad_norm = 0.1",
    "private": MLP + 'private = ["linear"]',
    "frozen": MLP + 'frozen = ["hidden0"]',
}


@define(eq=False, slots=False)
class Pulled(SGD):
    """Its loss depends on the flat vector itself, beside what the model makes of it."""

    name = "pulled"

    def loss(self, variables, batch, context):
        return super().loss(variables, batch, context) + 0.1 * variables["model"].square().sum()


@define(eq=False, slots=False)
class Adjusted(SGD):
    name = "adjusted"

    def adjust(self, gradient, variables, context):
        return {"model": gradient["model"] * 0.5}


class Trainers(Component):
    name = "trainers"

    @hookimpl
    def fscore_register_trainers(self):
        return [Pulled, Adjusted]


def model(toml, monkeypatch, large):
    monkeypatch.setattr(lane, "LARGE", large)
    run = fs_course(toml, changes={"executor.use": "serial"}, plugins=[Trainers])
    return last(run)


def last(run):
    return next(iter(run.course.bank.values()))["model"]


@pytest.mark.parametrize("toml", COURSES.values(), ids=COURSES)
def test_a_large_model_is_stepped_as_a_small_one(toml, monkeypatch):
    expected = model(toml, monkeypatch, 1 << 18)
    torch.testing.assert_close(model(toml, monkeypatch, 0), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["pulled", "adjusted"])
def test_a_trainer_with_pieces_of_its_own_gives_the_same_in_both_ways(name, monkeypatch):
    toml = f'[trainer]\nuse = "{name}"\nlr = 0.2'
    expected = model(toml, monkeypatch, 1 << 18)
    torch.testing.assert_close(model(toml, monkeypatch, 0), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [("plain", True), ("momentum", True), ("private", True), ("bounded", False)],
)
def test_tensors_are_stepped_apart_where_each_value_is_stepped_by_itself(
    toml, expected, monkeypatch
):
    called = []
    monkeypatch.setattr(lane, "LARGE", 0)
    apart = Lane._step_tensorwise
    monkeypatch.setattr(Lane, "_step_tensorwise", lambda *a: called.append(1) or apart(*a))
    fs_course(COURSES[toml], changes={"executor.use": "serial"})
    assert bool(called) == expected


def test_a_pieced_trainer_is_not_stepped_apart():
    course = tiny_course('[trainer]\nuse = "adjusted"', plugins=[Trainers])
    assert not course.trainer.separable(None)


# ---------------------------------------------------------------------------- sums


UNWEIGHTED = MLP + '[aggregator]\nuse = "mean"\nweighting = "uniform"'


def summed(course, *, single):
    """Return the output of a batch that is summed; `single`: each difference is taken by itself."""
    computing = Lane(course.site)
    assert computing._difference is not None
    if single:
        computing._difference = None
    jobs = [course.opener.job(Task(i, i, 0), factor=1.0 + i) for i in range(5)]
    return computing.batch(Batch(tuple(jobs), sum=True))


@pytest.mark.parametrize("toml", [MLP, UNWEIGHTED, COURSES["momentum"]])
def test_a_difference_that_is_never_kept_gives_the_same_bits(toml, monkeypatch):
    monkeypatch.setattr(lane, "LARGE", 0)
    plain = tiny_course(toml)
    expected, found = (summed(plain, single=single) for single in (True, False))
    assert torch.equal(found.sums["model"], expected.sums["model"])
    assert found.sums["model"].abs().max() > 0
    for one, other in zip(found.outputs, expected.outputs, strict=True):
        assert digest(one.values) == digest(other.values)


@define(eq=False, slots=False)
class Failing(SGD):
    """Clients 1 and 3 fail: one raises, the other diverges."""

    name = "failing"

    def finish(self, variables, context):
        if context.task.client == 1:
            raise ValueError("client 1 has no power")
        if context.task.client == 3:
            variables["model"].fill_(float("inf"))
        return super().finish(variables, context)


class FailingTrainer(Component):
    name = "failing_trainer"

    @hookimpl
    def fscore_register_trainers(self):
        return [Failing]


def test_failures_stay_out_of_a_sum_of_differences(monkeypatch):
    monkeypatch.setattr(lane, "LARGE", 0)
    toml = '[model]\nuse = "mlp"\nhidden = [6]\n[trainer]\nlr = 0.2\n'
    failing = tiny_course(toml + 'use = "failing"', plugins=[FailingTrainer])
    done = summed(failing, single=False)
    assert [o.error for o in done.outputs] == [
        "", "ValueError: client 1 has no power", "", "the update is not finite", "",
    ]  # fmt: skip
    sound = tiny_course(toml + 'use = "sgd"')
    jobs = [sound.opener.job(Task(i, i, 0), factor=1.0 + i) for i in (0, 2, 4)]
    expected = Lane(sound.site).batch(Batch(tuple(jobs), sum=True))
    assert torch.equal(done.sums["model"], expected.sums["model"])


@pytest.mark.parametrize("name", ["private", "frozen", "small"])
def test_other_paths_and_small_models_take_the_difference_by_itself(name, monkeypatch):
    monkeypatch.setattr(lane, "LARGE", 1 << 18 if name == "small" else 0)
    course = tiny_course(MLP if name == "small" else COURSES[name])
    assert Lane(course.site)._difference is None


# ---------------------------------------------------------------------------- precision


def test_bfloat16_is_near_float32_and_another_number():
    exact = last(fs_course(MLP))
    changes = {"executor.use": "serial", "executor.precision": "bfloat16"}
    coarse = last(fs_course(MLP, changes=changes))
    assert not torch.equal(coarse, exact)
    torch.testing.assert_close(coarse, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("use", ["process", "thread"])
def test_bfloat16_gives_the_same_bits_on_all_executors(use):
    changes = {"executor.precision": "bfloat16", "executor.chunk": 2}
    expected = fs_course(MLP, changes={**changes, "executor.use": "serial"}).result.digest
    assert fs_course(MLP, changes={**changes, "executor.use": use}).result.digest == expected


@pytest.mark.parametrize("use", ["serial", "process", "thread"])
@pytest.mark.parametrize("supported", [True, False])
def test_a_processor_without_bfloat16_is_told_of(use, supported, monkeypatch, capsys):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    tiny_course(MLP, changes={"executor.use": use, "executor.precision": "bfloat16"})
    assert ("in software" in capsys.readouterr().err) is not supported
    tiny_course(MLP, changes={"executor.use": use})
    assert not capsys.readouterr().err


def test_bfloat16_inside_of_cohorts_is_refused():
    changes = {
        "executor.use": "process", "executor.inside": "cohort", "executor.precision": "bfloat16",
    }  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        fs_course(MLP, changes=changes)
    text = "executor.precision: 'cohort' computes in float32. Remedy: inside = \"serial\"."
    assert raised.value.problems == (text,)


# ---------------------------------------------------------------------------- images


def test_images_are_laid_out_for_models_that_convolve():
    site = tiny_course().site
    images = torch.zeros(2, 3, 5, 5)
    assert Lane(site)._laid(images).is_contiguous()
    convolving = Lane(evolve(site, initial=torch.zeros(1)))
    convolving._convolves = convolves(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)))
    laid = convolving._laid(images)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    assert not convolves(torch.nn.Linear(4, 3))


# ---------------------------------------------------------------------------- one loss per sample


@define(eq=False, slots=False)
class MeanLoss(SGD):
    """Wrong: the mean of a batch in place of one loss per sample."""

    name = "mean_loss"

    def loss(self, variables, batch, context):
        return super().loss(variables, batch, context).mean()


class Wrong(Component):
    name = "wrong"

    @hookimpl
    def fscore_register_trainers(self):
        return [MeanLoss]


def test_a_mean_in_place_of_single_losses_is_refused():
    with pytest.raises(PluginError) as raised:
        fs_course('[trainer]\nuse = "mean_loss"', plugins=[Wrong])
    start = "trainer 'mean_loss': loss() gave shape (), expected one loss per sample ("
    assert str(raised.value).startswith(start)
