"""Memory does not grow with the cohort where updates are summed, and the store of samples is bounded."""

import subprocess
import sys

import pytest
import torch
from attrs import define

from fscore.builtin.executors.arena import Arena, InPlace
from fscore.builtin.executors.cohort_lane import CohortLane
from fscore.builtin.executors.feed import whole
from fscore.builtin.executors.many import NotLifted
from fscore.builtin.given import GivenData
from fscore.builtin.trainers import SGD
from fscore.component import Component, option
from fscore.context import Order, Samples
from fscore.hookspecs import hookimpl
from fscore.tasks import Batch, Task
from fscore.testing.course import tiny_course

MODEL_MB = 12
SCRIPT = """
import resource, sys
import torch
import fscore
from fscore.context import Samples

torch.set_num_threads(1)
executor, cohort = sys.argv[1], int(sys.argv[2])
x, y = torch.randn(4, 1000), torch.tensor([0, 1, 2, 3])
data = [(Samples(x, y), Samples(x[:0], y[:0]))] * 64
tables = {
    "course": {"name": "memory", "seed": 1, "until": {"versions": 2}},
    "model": {"use": "mlp", "hidden": [1500, 1000]},
    "trainer": {"use": "sgd", "lr": 0.1},
    "sampler": {"use": "uniform", "clients": cohort},
    "evaluation": {"every": 0, "parts": []},
    "executor": {"use": executor, "chunk": 4},
}
result = fscore.load(tables, data=data).run()
assert result.status == "complete", result.reason
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(executor, cohort):
    """Return the peak memory of a course in megabytes."""
    words = [sys.executable, "-c", SCRIPT, executor, str(cohort)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("executor", ["serial", "cohort"])
def test_ten_times_the_cohort_takes_no_more_memory(executor):
    few, many = peak(executor, 4), peak(executor, 40)
    assert many - few < 4 * MODEL_MB


def nine_clients():
    """Return a course whose client i has ten samples of which each value is i, and the bytes of one client."""
    x, y = torch.zeros(10, 100), torch.arange(10) % 2
    clients = [(Samples(x + i, y), Samples(x[:0], y[:0])) for i in range(9)]
    tables = {"sampler": {"use": "uniform", "clients": 1}}
    course = tiny_course(tables, given={"data": GivenData.of(clients)})
    return course, x.nbytes + y.nbytes


TURNS = ([0, 1, 2], [3], [1, 8, 0], [4, 5, 6, 7])


def values(data):
    """Return the values that each client's samples have."""
    samples = whole(data, torch.device("cpu"))
    assert torch.equal(samples.y, (torch.arange(10) % 2).expand_as(samples.y))
    return [part.unique().tolist() for part in samples.x]


def test_the_store_of_a_device_begins_anew_when_it_is_full():
    course, each = nine_clients()
    arena = Arena(course.site, torch.device("cpu"), 3 * each)
    for clients in TURNS:
        data = arena.data([(client, "train") for client in clients])
        assert values(data) == [[float(client)] for client in clients]
        assert arena.x.nbytes + arena.y.nbytes <= max(3, len(clients)) * each


def test_samples_in_place_are_let_go_when_there_are_too_many():
    course, each = nine_clients()
    here = InPlace(course.site, 3 * each)
    for clients in TURNS:
        data = here.data([(client, "train") for client in clients])
        assert values(data) == [[float(client)] for client in clients]
        assert len(here._kept) <= 3 + len(clients)


def test_samples_that_were_let_go_last_as_long_as_somebody_looks_at_them():
    course, _ = nine_clients()
    given = course.dataset.clients
    given[1] = (Samples(given[1][0].x.double(), given[1][0].y.int()), given[1][1])
    course.site._cache.clear()
    here = InPlace(course.site, 1)
    data = here.data([(1, "train")])
    here.data([(2, "train"), (3, "train")])
    assert len(here._kept) == 2
    assert values(data) == [[1.0]]


def test_samples_are_read_where_they_lie():
    course, _ = nine_clients()
    data = InPlace(course.site, 1 << 20).data([(4, "train"), (7, "train")])
    course.site.data(7, "train").x.fill_(-1.0)
    assert values(data) == [[4.0], [-1.0]]


def test_strided_samples_and_labels_of_other_integers_are_laid_out():
    course, _ = nine_clients()
    course.site._cache.clear()
    given = course.dataset.clients
    given[1] = (Samples(given[1][0].x.t().contiguous().t(), given[1][0].y), given[1][1])
    given[2] = (Samples(given[2][0].x, given[2][0].y.int()), given[2][1])
    data = InPlace(course.site, 1 << 20).data([(i, "train") for i in range(3)])
    assert values(data) == [[0.0], [1.0], [2.0]]


def test_samples_of_different_types_are_refused():
    """One client at a time, a model of float32 refuses them too."""
    course, _ = nine_clients()
    course.site._cache.clear()
    given = course.dataset.clients
    given[1] = (Samples(given[1][0].x.double(), given[1][0].y), given[1][1])
    with pytest.raises(NotLifted, match="clients have samples of different types"):
        InPlace(course.site, 1 << 20).data([(0, "train"), (1, "train")])


def test_samples_of_different_shapes_are_refused():
    course, _ = nine_clients()
    course.site._cache.clear()
    given = course.dataset.clients
    given[1] = (Samples(given[1][0].x[:, :50], given[1][0].y), given[1][1])
    with pytest.raises(NotLifted, match="clients have samples of different shapes"):
        InPlace(course.site, 1 << 20).data([(0, "train"), (1, "train")])


@define(eq=False, slots=False)
class Beyond(SGD):
    """Asks client 2 for a sample that it does not have, or for the one before its first."""

    name = "beyond"
    first: int = option(0, doc="Sample that client 2 begins with.")

    def batches(self, context):
        index = torch.arange(context.samples)
        if context.task.client == 2:
            index += self.first
        return Order(index, (len(index),))


@define(eq=False)
class BeyondPlugin(Component):
    name = "beyond_plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Beyond]


@pytest.mark.parametrize("first", [1, -1, 10**9])
def test_no_client_reads_beyond_its_own_samples(first):
    course = tiny_course({"trainer": {"use": "beyond", "first": first}}, plugins=[BeyondPlugin])
    jobs = tuple(course.opener.job(Task(i, i, 0)) for i in range(4))
    lane = CohortLane(course.site, torch.device("cpu"), 1 << 24)
    done = lane.batch(Batch(jobs, sum=True))
    assert [bool(output.error) for output in done.outputs] == [i == 2 for i in range(4)]
    assert done.outputs[2].error.startswith("IndexError: ")
