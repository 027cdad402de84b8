"""What a trainer reads and sends in odd places: alike one client at a time and many at once, and each client's own."""

import math

import pytest
import torch
from attrs import define

from fscore.builtin.evaluation import _sum
from fscore.builtin.executors.cohort_lane import CohortLane
from fscore.builtin.executors.lane import Lane
from fscore.builtin.executors.many import NotLifted
from fscore.builtin.executors.total import _stacked
from fscore.builtin.given import GivenModel
from fscore.builtin.trainers import SGD
from fscore.component import Component
from fscore.hookspecs import hookimpl
from fscore.params import Group
from fscore.tasks import Batch, Task
from fscore.testing import tiny_course

CPU = torch.device("cpu")


@define(eq=False, slots=False)
class PulledBySize(SGD):
    """Pulls more where a client has few samples."""

    name = "pulled_by_size"

    def adjust(self, gradient, variables, context):
        pull = (variables["model"] - context.sent["model"]) * 10.0 / context.samples
        return {"model": gradient["model"] + pull}


@define(eq=False, slots=False)
class SendsGradient(SGD):
    """Sends the gradient of what it trained as well."""

    name = "sends_gradient"

    def groups(self, space):
        return {**super().groups(space), "slope": Group((space.size,))}

    def summary(self, variables, samples, context):
        return {"slope": context.differentiate(self.loss, variables, samples, context)["model"]}

    def finish(self, variables, context):
        groups, rows = super().finish(variables, context)
        return {**groups, "slope": context.measured["slope"]}, rows


@define(eq=False, slots=False)
class JudgesTwice(SGD):
    """Sums up its losses before and after it is judged on another part."""

    name = "judges_twice"

    def groups(self, space):
        one = Group((), "float64", "sum")
        return {**super().groups(space), "before": one, "after": one}

    def summary(self, variables, samples, context):
        before = context.losses(variables["model"], samples).sum().double()
        context.judge(variables, "val")
        after = context.losses(variables["model"], samples).sum().double()
        return {"before": before, "after": after}

    def finish(self, variables, context):
        groups, rows = super().finish(variables, context)
        return {**groups, **{n: context.measured[n] for n in ("before", "after")}}, rows


@define(eq=False, slots=False)
class ReadsWhereItPredicts(SGD):
    """Reads a value when it is judged."""

    name = "reads_where_it_predicts"

    def predict(self, variables, samples, context):
        outputs = context.outputs(variables["model"], samples)
        return outputs if float(outputs.sum()) == 0 else outputs * 2


@define(eq=False)
class Trainers(Component):
    name = "odd"

    @hookimpl
    def fscore_register_trainers(self):
        return [PulledBySize, SendsGradient, JudgesTwice, ReadsWhereItPredicts]


def course_of(trainer, options="", **more):
    toml = f'[plugins.odd]\n[trainer]\nuse = "{trainer}"\n{options}'
    changes = {"data.test": 0.3, "data.val": 0.3}
    return tiny_course(toml, changes=changes, plugins=[Trainers], **more)


def test_fine_tuning_counts_the_samples_that_it_trains_on():
    course = course_of("pulled_by_size", "lr = 1.0\nfinetune = 5.0\n")
    jobs = tuple(course.opener.job(Task(-1, c, 0, "evaluate"), "test") for c in range(8))
    jobs = tuple(job for job in jobs if len(course.site.data(job.task.client, "test").y))
    alone = Lane(course.site).batch(Batch(jobs, sum=False)).outputs
    many = CohortLane(course.site, CPU, 1 << 24).batch(Batch(jobs, sum=False)).outputs
    for one, other in zip(many, alone, strict=True):
        torch.testing.assert_close(one.values["sums"], other.values["sums"], rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_sent_is_the_clients_own():
    course = course_of("sends_gradient", "lr = 0.3\n")
    jobs = tuple(course.opener.job(Task(-1 - c, c, 0)) for c in range(3))
    together = Lane(course.site).batch(Batch(jobs, sum=False)).outputs
    for job, output in zip(jobs, together, strict=True):
        assert torch.equal(output.values["slope"], Lane(course.site).job(job).values["slope"])


def test_judging_inside_of_a_summary_leaves_the_mode_as_it_is():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3)
    )
    course = course_of("judges_twice", "batch_size = 0\n", given={"model": GivenModel.of(module)})
    output = Lane(course.site).job(course.opener.job(Task(-1, 1, 0)))
    assert torch.equal(output.values["before"], output.values["after"])


def test_a_trainer_that_is_judged_client_by_client_is_told_of_once(capsys):
    changes = {"executor.use": "cohort", "evaluation.every": 1}
    course = tiny_course(
        '[plugins.odd]\n[trainer]\nuse = "reads_where_it_predicts"\n',
        changes=changes,
        plugins=[Trainers],
    )
    assert course.run().status == "complete"
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "is judged client by client" in line]) == 1


def test_rows_that_some_clients_change_are_not_taken_for_all():
    with pytest.raises(NotLifted, match="some clients only"):
        _stacked([{}, {"q/n": torch.ones(1)}])


class Replacing(torch.nn.Module):
    """Puts another tensor in the place of its buffer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x):
        if self.training:
            self.scale = self.scale * 0.9 + 0.1 * x.detach().abs().mean()
        return self.layer(x) * self.scale


@pytest.mark.parametrize("executor", ["serial", "process", "thread", "auto"])
def test_a_model_that_replaces_a_buffer_ends_the_course(executor):
    course = tiny_course(
        changes={"executor.use": executor}, given={"model": GivenModel.of(Replacing())}
    )
    result = course.run()
    assert result.status == "failed"
    assert result.reason.startswith("model: buffer 'scale' is replaced while the model computes")


def test_sums_of_extreme_values_are_infinite_or_no_number():
    assert _sum([0.1] * 10) == 1.0
    assert _sum([1.5e308, 1.5e308]) == math.inf
    assert math.isnan(_sum([math.inf, -math.inf]))
