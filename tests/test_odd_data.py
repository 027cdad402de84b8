"""Data and models that look odd: the same numbers on every executor, or one line that says what is wrong."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fscore
from fscore.builtin.executors.lane import Lane
from fscore.builtin.given import GivenData, GivenModel
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.params import digest
from fscore.tasks import Task
from fscore.testing import tiny_course

SIZES = (7, 3, 5, 9, 4, 6)
EXECUTORS = {
    "serial": {"use": "serial"},
    "thread": {"use": "thread", "workers": 2},
    "process": {"use": "process", "workers": 2},
    "cohort": {"use": "cohort"},
    "auto": {"use": "auto"},
}


def clients():
    numbers = torch.Generator().manual_seed(5)
    found = []
    for size in SIZES:
        x = torch.randn(size, 4, generator=numbers)
        y = torch.arange(size) % 3
        found.append((Samples(x, y), Samples(x[:2], y[:2])))
    return found


def linear():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def result(executor, data, model=None):
    tables = {
        "course": {"name": "odd", "seed": 3, "until": {"versions": 2}},
        "trainer": {"use": "sgd", "batch_size": 2, "lr": 0.1, "epochs": 2},
        "sampler": {"use": "all"},
        "executor": {"chunk": 2, **EXECUTORS[executor]},
    }
    return fscore.load(tables, data=data, model=model or linear()).run()


# ---------------------------------------------------------------------------- tensors of any layout


def laid_out(data):
    """The same values, as others may hand them over: columns first, every second row, and views of one tensor."""
    base = torch.cat([train.x for train, _ in data])
    found, start = [], 0
    for train, test in data:
        stop = start + len(train.y)
        view = base[start:stop]
        spread = torch.empty(len(train.y), 8)
        spread[:, ::2] = train.x
        ways = (view, view.t().contiguous().t(), spread[:, ::2])
        y = train.y.repeat_interleave(3)[::3]
        found.append((Samples(ways[len(found) % 3], y), test))
        start = stop
    return found


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_view_that_says_minus_is_read_with_its_sign(executor):
    """Such views come of complex numbers; their memory holds the positive values."""
    plain = clients()
    views = [(Samples(torch._neg_view(-train.x), train.y), test) for train, test in plain]
    assert result(executor, views).digest == result(executor, plain).digest


@pytest.mark.parametrize("executor", EXECUTORS)
def test_layouts_of_tensors_change_no_bit(executor):
    assert result(executor, laid_out(clients())).digest == result(executor, clients()).digest


def test_the_bytes_of_a_single_strided_value_are_read():
    one = torch.arange(9)[4::9]  # contiguous, as torch sees it, with a stride of 9
    assert digest({"y": one}) == digest({"y": torch.tensor([4])})


# ---------------------------------------------------------------------------- types that differ between clients


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_client_of_another_type_fails_on_every_executor(executor, kind):
    data = clients()
    data[4] = (Samples(data[4][0].x.to(kind), data[4][0].y), data[4][1])
    done = result(executor, data)
    assert (done.status, done.tasks["failed"], done.tasks["used"]) == ("complete", 2, 10)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_classes_in_shorter_integers_are_the_same_classes(executor):
    data = clients()
    data[4] = (Samples(data[4][0].x, data[4][0].y.int()), data[4][1])
    done = result(executor, data)
    assert done.digest == result(executor, clients()).digest
    assert done.tasks["failed"] == 0


# ---------------------------------------------------------------------------- samples that are none


def refused(data):
    with pytest.raises(ConfigError) as caught:
        result("serial", data)
    return str(caught.value)


WANTED = "data: client 4: expected tensors x (samples, ...) and y (samples, ...), got "


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (
            Samples(torch.ones(7, 4), torch.arange(6) % 3),
            "data: client 4: x has 7 samples, y has 6",
        ),
        (
            Samples(torch.ones(6, 4), torch.arange(7) % 3),
            "data: client 4: x has 6 samples, y has 7",
        ),
        (Samples(np.ones((6, 4)), torch.arange(6) % 3), f"{WANTED}ndarray (6, 4) and Tensor (6,)"),
        (Samples([[1.0]], None), f"{WANTED}list and NoneType"),
        (Samples(torch.ones(6, 4), torch.tensor(1)), f"{WANTED}Tensor (6, 4) and Tensor ()"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(samples, text):
    data = clients()
    data[4] = (samples, samples)
    assert refused(data) == text


def test_no_client_at_all_is_refused():
    assert refused([]) == "data: expected at least one client"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_data_set_whose_x_and_y_differ_in_length_fails_the_course(executor):
    """Else rows behind a client's last one would be read, wherever they lie."""
    loaded = GivenData.of(clients())
    train, test = loaded.clients[4]
    loaded.clients[4] = (Samples(train.x[:-1], train.y), test)
    done = result(executor, loaded)
    assert (done.status, done.reason) == ("failed", "data: client 4: x has 3 samples, y has 4")


def test_a_model_that_cannot_be_copied_is_refused():
    model = linear()
    model.cached = model[0].weight * 2
    with pytest.raises(ConfigError) as caught:
        result("serial", clients(), model)
    text = str(caught.value)
    assert text.startswith("model: the module cannot be copied: RuntimeError: Only Tensors created")
    assert "\n" not in text


class Blank(GivenData):
    """A plugin's data set that does not look at its values, and has NaN in what one client is judged by."""

    def client(self, client, part):
        train, test = self.clients[client]
        x = test.x * float("nan") if client == 4 else test.x
        return {"train": train, "test": Samples(x, test.y)}.get(part, Samples(x[:0], test.y[:0]))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_metrics_that_are_not_finite_are_reported_by_every_executor(executor):
    """Leaving client 4 out would make the mean of the others look like that of all."""
    data = Blank()
    data.clients = clients()
    done = result(executor, data)
    assert done.status == "complete"
    assert math.isnan(done.metrics["test_loss"])
    assert math.isfinite(done.metrics["test_accuracy"])


# ---------------------------------------------------------------------------- state beside the parameters


class Counting(nn.Module):
    """Counts its batches in a buffer of whole numbers, and computes with the count."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(4, 3)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.batches += 1
        return self.linear(x) / (1 + self.batches)


def averaging():
    """Batch norm whose running statistics are the average over the batches that it counted."""
    torch.manual_seed(1)
    return nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 3))


@pytest.mark.parametrize("model", [Counting, averaging])
def test_a_client_starts_without_the_counts_of_the_one_before(model):
    data = [(Samples(t.x[: len(t.y) // 2 * 2], t.y[: len(t.y) // 2 * 2]), e) for t, e in clients()]
    digests = {
        use: result(use, data, model()).digest for use in ("serial", "thread", "process", "auto")
    }
    assert len(set(digests.values())) == 1


@pytest.mark.parametrize("model", [Counting, averaging])
def test_a_task_gives_the_same_when_it_is_computed_again(model):
    course = tiny_course(changes={"trainer.batch_size": 0}, given={"model": GivenModel.of(model())})
    job = course.opener.job(Task(0, 0, 0))
    lane = Lane(course.site)
    first, second = (lane.job(job).values["model"] for _ in range(2))
    assert torch.equal(first, second)


def test_many_clients_at_once_refuse_a_model_that_counts():
    with pytest.raises(ConfigError) as caught:
        result("cohort", clients(), Counting())
    assert "it changes a tensor that stays from call to call (aten.add_.Tensor)" in str(
        caught.value
    )


class Mixing(nn.Module):
    """Takes the mean of its batch away from each sample, so that padding is in it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x - x.mean(0))


@pytest.mark.parametrize("ragged", [4, 20])
def test_padding_is_looked_at_before_the_course_where_only_later_clients_have_it(ragged):
    """Steps of two samples: the first clients have whole ones, as many other ones have."""
    train, test = clients()[3]
    even = (Samples(train.x[:8], train.y[:8]), test)
    data = [even] * ragged + [(train, test)]
    with pytest.raises(ConfigError) as caught:
        result("cohort", data, Mixing())
    assert "trainer 'sgd' gives something else for many clients than for one" in str(caught.value)
