"""Client-side code judges models on another part of its data as an evaluation would, in every executor."""

import pytest
import torch
from attrs import define

from fscore.builtin.given import GivenModel
from fscore.builtin.trainers import SGD
from fscore.component import Component
from fscore.errors import ConfigError
from fscore.hookspecs import hookimpl
from fscore.params import Group
from fscore.paths import Stage
from fscore.tasks import Batch, Task
from fscore.testing import fs_course, tiny_course

WIDTH = 1 + 2 + 2  # number of samples; sums of accuracy and loss


class Judging(Stage):
    """Sends what the client's evaluation of its trained model gave."""

    name = "judging"
    rank = 5

    def layout(self, before):
        return {**before, "judged": Group((WIDTH,), "float64", "sum", public=True)}

    def apply(self, values, context):
        return {**values, "judged": context.judge({"model": values["model"]}, "val")}, {}


@define(eq=False)
class Inside(SGD):
    """Judges in a piece, which serves many clients in a cohort."""

    name = "inside"

    def finish(self, variables, context):
        context.judge(variables, "val")
        return super().finish(variables, context)


@define(eq=False)
class JudgingPlugin(Component):
    name = "judging"

    @hookimpl
    def fscore_register_trainers(self):
        return [Inside]

    def stages(self):
        return [Judging()]


def course_of(executor, *layers, val=0.3):
    module = torch.nn.Sequential(*layers, torch.nn.Linear(4, 3))
    return tiny_course(
        plugins=[JudgingPlugin],
        changes={"executor.use": executor, "data.val": val, "trainer.batch_size": 0},
        given={"model": GivenModel.of(module)},
    )


def judged(course, client):
    """Return what a client reports, and the model that it trained."""
    course.executor.start(course.site)
    job = course.opener.job(Task(0, client, 0), "train")
    try:
        (done,) = course.executor.compute([Batch((job,), sum=False)])
    finally:
        course.executor.stop()
    output = done.outputs[0]
    assert output.error == ""
    return output.values["judged"], output.values["model"] + course.bank[0]["model"]


def by_hand(course, client, model):
    """Number of samples, hits, count, sum of losses, count: in evaluation mode."""
    x, y, *_ = course.site.data(client, "val")
    module = course.site.module.eval()
    outputs = torch.func.functional_call(module, course.space.views(model), (x,))
    hits = float((outputs.argmax(-1) == y).sum())
    losses = torch.nn.functional.cross_entropy(outputs, y, reduction="none").double()
    return [len(y), hits, len(y), float(losses.sum()), len(y)]


@pytest.mark.parametrize("executor", ["serial", "cohort", "thread", "process"])
def test_what_was_trained_is_judged_in_every_executor(executor):
    course = course_of(executor)
    found, model = judged(course, 1)
    assert found.tolist() == pytest.approx(by_hand(course, 1, model), rel=1e-5)


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(4)], ids=repr)
def test_layers_are_in_evaluation_mode(layer):
    course = course_of("serial", layer)
    found, model = judged(course, 1)
    assert found.tolist() == pytest.approx(by_hand(course, 1, model), rel=1e-5)


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(4)], ids=repr)
def test_judging_changes_nothing_of_the_course(layer):
    model = GivenModel.of(torch.nn.Sequential(layer, torch.nn.Linear(4, 3)))
    changes = {"data.val": 0.3, "trainer.batch_size": 0}
    plain, judging = (
        fs_course(changes=changes, given={"model": model}, plugins=plugins).result.digest
        for plugins in ([], [JudgingPlugin])
    )
    assert plain == judging


def test_without_samples_there_is_nothing_to_judge():
    found, _ = judged(course_of("serial", val=0.0), 1)
    assert found.tolist() == [0.0] * WIDTH


def test_a_piece_that_judges_is_for_one_client_at_a_time():
    run = '[trainer]\nuse = "inside"\n[data]\nval = 0.3'
    assert fs_course(run, plugins=[JudgingPlugin]).result.status == "complete"
    with pytest.raises(ConfigError) as caught:
        fs_course(f'{run}\n[executor]\nuse = "cohort"', plugins=[JudgingPlugin])
    assert caught.value.problems == (
        "executor.use: 'cohort' cannot compute this course: trainer 'inside' fails for many clients at once "
        "(NotLifted: it judges a model of one client). Remedy: use 'auto' or 'serial'.",
    )
