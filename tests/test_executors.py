"""Which executor is chosen, what is refused before the course, and equality of all executors in whole courses."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import define

from fscore.builtin.draws import shuffled
from fscore.builtin.executors.counting import Counter, cost
from fscore.builtin.executors.orders import alike, padded, passes
from fscore.builtin.given import GivenData, GivenModel
from fscore.builtin.record.directory import comparable
from fscore.builtin.trainers import SGD
from fscore.component import Component, option
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.hookspecs import hookimpl
from fscore.rng import Streams
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

COURSES = {
    "plain": "",
    "median": '[aggregator]\nuse = "median"',
    "private": '[model]\nuse = "mlp"\nhidden = [4]\n[trainer]\nuse = "sgd"\nprivate = ["*hidden*"]',
    "asynchronous": (
        '[devices]\nuse = "lognormal"\n[trigger]\nuse = "goal_achieved"\ngoal = 2\n'
        '[protocol]\nuse = "rounds"\nbroadcast = "after_receiving"'
    ),
    "clipped": '[[privacy]]\nuse = "clip"\nclip_norm = 0.05',
}


def outcome(run):
    return run.result.digest, [comparable(line) for line in run.result.history]


def run_with(toml, use, **options):
    changes = {"executor.use": use, **{f"executor.{k}": v for k, v in options.items()}}
    return fs_course(toml, changes=changes)


# ---------------------------------------------------------------------------- whole courses


@pytest.mark.parametrize("toml", COURSES.values(), ids=COURSES)
def test_threads_give_the_bits_of_serial(toml):
    expected = outcome(run_with(toml, "serial", chunk=2))
    assert outcome(run_with(toml, "thread", chunk=2, workers=3)) == expected


@pytest.mark.parametrize("toml", COURSES.values(), ids=COURSES)
def test_cohort_inside_of_processes_gives_the_bits_of_cohort(toml):
    expected = outcome(run_with(toml, "cohort", chunk=2))
    assert outcome(run_with(toml, "process", chunk=2, workers=2, inside="cohort")) == expected


@pytest.mark.parametrize("toml", COURSES.values(), ids=COURSES)
def test_cohort_gives_the_model_of_serial(toml):
    serial, many = run_with(toml, "serial"), run_with(toml, "cohort")
    torch.testing.assert_close(
        many.result.model["model"], serial.result.model["model"], atol=1e-5, rtol=1e-4
    )
    for name, value in serial.result.metrics.items():
        assert many.result.metrics[name] == pytest.approx(value, abs=1e-4)


def test_a_cohort_course_repeats_its_bits():
    assert outcome(run_with("", "cohort", chunk=3)) == outcome(run_with("", "cohort", chunk=3))


@define(eq=False)
class Killer(Component):
    """Kills a worker between two versions."""

    name = "killer"

    @hookimpl
    def fscore_version_ended(self, course):
        os.kill(course.executor.pool.workers[0].process.pid, signal.SIGKILL)


def test_a_killed_worker_is_replaced_and_the_bits_stay():
    expected = outcome(run_with("", "cohort", chunk=2))
    changes = {"executor.use": "process", "executor.inside": "cohort", "executor.chunk": 2}
    assert outcome(fs_course("", changes=changes, plugins=[Killer])) == expected


# ---------------------------------------------------------------------------- what auto chooses


@define(eq=False, slots=False)
class Branching(SGD):
    """Python decides by values, behind the back of torch."""

    name = "branching"

    def loss(self, variables, batch, context):
        losses = super().loss(variables, batch, context)
        return losses if float(losses.detach().mean()) > 1 else 2 * losses


@define(eq=False, slots=False)
class Alone(SGD):
    name = "alone"
    lifts = False


@define(eq=False, slots=False)
class Joined(SGD):
    """Takes one norm over all clients: nothing fails, but the numbers are others."""

    name = "joined"

    def adjust(self, gradient, variables, context):
        return {n: g / (1e-3 + torch.linalg.vector_norm(g)) for n, g in gradient.items()}


@define(eq=False)
class TrainerPlugin(Component):
    name = "trainers"

    @hookimpl
    def fscore_register_trainers(self):
        return [Branching, Alone, Joined]


def auto(toml="", **given):
    return tiny_course(toml, plugins=[TrainerPlugin], changes={"executor.use": "auto"}, given=given)


def test_auto_chooses_many_clients_at_once_for_a_small_model():
    executor = auto('[trainer]\nuse = "sgd"\nbatch_size = 5').executor
    assert (executor.name, executor.chunk) == ("cohort", 8)
    start, _, rest = executor.reason.partition(": a step counts ")
    assert start == "cohort, 8 clients a batch"
    assert " operations, many clients at once are faster up to 2e+06; a version counts " in rest
    assert rest.endswith(" operations, parallel from 1e+09")


@pytest.mark.parametrize(
    ("trainer", "why"),
    [
        ("alone", "trainer 'alone' is written for one client at a time"),
        ("joined", "trainer 'joined' gives something else for many clients than for one (group "),
        ("branching", "trainer 'branching' reads a tensor's value in loss() (test_executors.py, line "),
    ],
)  # fmt: skip
def test_auto_computes_one_at_a_time_and_names_the_trainer(trainer, why):
    executor = auto(f'[trainer]\nuse = "{trainer}"').executor
    assert executor.name == "serial"
    assert executor.reason.startswith(f"serial, 8 clients a batch: {why}")


@define(eq=False, slots=False)
class Late(SGD):
    """Python decides by values, from the second task of a client's course on."""

    name = "late"

    def loss(self, variables, batch, context):
        losses = super().loss(variables, batch, context)
        if Path(self.mark).exists() and float(losses.detach().mean()) > 1e9:
            return 2 * losses
        return losses

    mark: str = option(doc="A file; once it is there, the loss branches.")


@define(eq=False)
class LatePlugin(Component):
    name = "later"
    mark: str = option("", doc="The file.")

    @hookimpl
    def fscore_register_trainers(self):
        return [Late]

    @hookimpl
    def fscore_course_started(self, course):
        Path(course.trainer.mark).touch()


def late(mark, use):
    toml = f'[trainer]\nuse = "late"\nmark = "{mark}"'
    return fs_course(toml, changes={"executor.use": use}, plugins=[LatePlugin]).result


def test_auto_goes_on_client_by_client_where_a_trainer_fails_later(tmp_path, capsys):
    done = late(tmp_path / "auto", "auto")
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("executor: ")]
    assert line.startswith(
        "executor: trainer 'late' is computed client by client where many at once fail ("
    )
    assert done.digest == late(tmp_path / "serial", "serial").digest


def test_cohort_fails_where_a_trainer_fails_later(tmp_path):
    done = late(tmp_path / "cohort", "cohort")
    assert done.status == "failed"
    assert done.reason.startswith("executor.use: 'cohort' cannot compute trainer 'late' for many ")


def test_cohort_refuses_such_a_trainer_before_the_course():
    with pytest.raises(ConfigError) as caught:
        tiny_course(
            '[trainer]\nuse = "alone"',
            plugins=[TrainerPlugin],
            changes={"executor.use": "cohort"},
        )
    assert str(caught.value) == (
        "executor.use: 'cohort' cannot compute this course: trainer 'alone' is written for one client at a time. "
        "Remedy: use 'auto' or 'serial'."
    )


def test_auto_computes_a_large_model_one_client_at_a_time():
    reason = auto('[model]\nuse = "mlp"\nhidden = [3000, 3000]').executor.reason
    assert "one client at a time is faster from 2e+06" in reason


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (torch.nn.Dropout(), "the model draws random numbers in its layers (dropout)"),
        (
            torch.nn.BatchNorm1d(4, momentum=None),
            "layer '0' (BatchNorm1d) counts its batches (momentum = None)",
        ),
    ],
)
def test_auto_computes_models_one_at_a_time_that_need_it(layer, why):
    model = GivenModel.of(torch.nn.Sequential(layer, torch.nn.Linear(4, 3)))
    executor = auto(model=model).executor
    assert (executor.name, why in executor.reason) == ("serial", True)


def test_threads_refuse_random_layers():
    model = GivenModel.of(torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(4, 3)))
    with pytest.raises(ConfigError) as caught:
        tiny_course(changes={"executor.use": "thread"}, given={"model": model})
    assert str(caught.value) == (
        "executor.use: 'thread' cannot compute a model that draws random numbers in its layers (dropout). "
        "Remedy: use 'process' or 'serial'."
    )


# ---------------------------------------------------------------------------- bad input


def refused(**options):
    with pytest.raises(ConfigError) as caught:
        tiny_course(changes={f"executor.{k}": v for k, v in options.items()})
    return str(caught.value)


def test_a_chunk_that_needs_too_much_memory_is_refused_with_one_that_fits():
    text = refused(use="cohort", chunk=5000, memory=1)
    assert text.startswith("executor.chunk: 5000 clients at once need about ")
    assert text.endswith(", or raise executor.memory.")
    fitting = int(text.split("chunk = ")[1].split(",")[0])
    tiny_course(changes={"executor.use": "cohort", "executor.chunk": fitting, "executor.memory": 1})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"use": "cohort", "chunk": 0}, "executor.chunk: must be at least 1, got 0"),
        ({"use": "thread", "workers": 0}, "executor.workers: must be at least 1, got 0"),
        ({"use": "cohort", "memory": 0}, "executor.memory: must be greater than 0, got 0.0"),
        (
            {"use": "cohort", "device": "tpu"},
            "executor.device: expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'",
        ),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, text):
    assert refused(**options) == text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_device_that_is_not_there_is_refused():
    text = "executor.device: no CUDA device is there. Remedy: device = 'cpu'."
    assert refused(use="cohort", device="cuda") == text
    assert refused(use="auto", device="cuda") == text


# ---------------------------------------------------------------------------- orders and counts


class OneClient:
    """What `draws.shuffled` asks of a context."""

    def __init__(self, streams, client, task, samples):
        self.samples, self.passes = samples, 0
        self.numbers = lambda purpose, *key, count: streams.numbers(
            purpose, client, task, *key, count=count
        )


@pytest.mark.parametrize("sizes", [[1, 7, 20, 3], [21, 21, 21, 21]])
@pytest.mark.parametrize("batch_size", [0, 1, 3, 7, 50])
@pytest.mark.parametrize("epochs", [0.0, 0.3, 1.0, 2.5])
def test_orders_of_many_clients_are_those_of_each(sizes, batch_size, epochs):
    streams, sizes = Streams(5), np.array(sizes)
    clients, tasks = np.arange(4), np.arange(4) + 10
    steps = passes(
        streams,
        (clients, tasks, np.zeros(4, dtype=np.int64)),
        sizes,
        np.full(4, epochs),
        np.full(4, batch_size),
    )
    for k, size in enumerate(sizes.tolist()):
        order = shuffled(OneClient(streams, k, k + 10, size), epochs, batch_size)
        taken = steps.counts[k, : steps.taken[k]].tolist()
        assert taken == list(order.sizes)
        drawn = [steps.index[k, t, :n].tolist() for t, n in enumerate(taken)]
        whole = order.index is None
        expected = [list(range(size))] * len(taken) if whole else _split(order)
        assert drawn == expected


def _split(order):
    return [piece.tolist() for piece in torch.split(order.index, list(order.sizes))]


def test_steps_are_padded_by_a_third_at_most():
    assert all(n <= padded(n, 100) <= max(n + 1, 1.5 * n) for n in range(1, 101))
    assert len({padded(n, 100) for n in range(1, 101)}) <= 16


def test_clients_of_like_width_are_grouped_and_none_is_lost():
    groups = alike(np.array([10, 1, 10, 3, 80, 9, 10, 75]), least=2)
    assert groups == [[4, 7], [0, 2, 6, 5], [3, 1]]


def test_operations_of_a_linear_layer_are_counted_exactly():
    layer, x = torch.nn.Linear(30, 20), torch.zeros(7, 30)
    with torch.no_grad(), Counter() as counter:
        layer(x)
    assert counter.operations == 2 * 7 * 30 * 20


def test_operations_of_a_convolution_are_counted_exactly():
    layer, x = torch.nn.Conv2d(3, 8, 5, padding=2), torch.zeros(2, 3, 10, 10)
    with torch.no_grad(), Counter() as counter:
        layer(x)
    assert counter.operations == 2 * (2 * 8 * 10 * 10) * (3 * 5 * 5)


def test_a_step_of_softmax_regression_counts_what_the_reference_counts():
    x, y = torch.zeros(50, 784), torch.arange(50) % 10
    clients = GivenData.of([(Samples(x, y), Samples(x[:1], y[:1]))])
    course = tiny_course(
        {"sampler": {"use": "uniform", "clients": 1}, "trainer": {"use": "sgd", "batch_size": 10}},
        given={"data": clients},
    )
    found = cost(course)
    assert found.steps == 5
    assert found.operations == pytest.approx(3 * 2 * 10 * 784 * 10, rel=0.3)


def test_a_question_can_be_asked_in_a_process_of_its_own():
    from fscore.builtin.executors.lifting import _in_a_fork

    assert _in_a_fork(lambda: f"no, {os.getpid() != 0}") == "no, True"
    assert _in_a_fork(lambda: os._exit(3)) == "the process that computed some clients at once died"


def test_the_workloads_of_bench_run_and_are_timed():
    from fscore.cli.bench_command import (
        aggregation,
        clients_of,
        course_of,
        seconds_per_client,
        workload,
    )

    work = workload("W0")
    course = course_of(work, clients_of(work, 20), versions=3, cohort=10)
    assert (course.space.size, course.executor.name) == (10, "cohort")
    assert seconds_per_client(course) > 0
    assert min(aggregation(1000, 3)) > 0
    assert min(aggregation(1000, 3)) > 0


@pytest.mark.parametrize(("features", "chunk"), [(4, 40), (1000, 20)])
def test_clients_that_are_not_worth_a_second_worker_stay_in_one_batch(features, chunk):
    text = f'[data]\nuse = "synthetic"\nclients = 60\nfeatures = {features}\nnum_classes = 5\nunseen_clients = 0\n'
    text += '[sampler]\nclients = 40\n[executor]\nuse = "cohort"\n'
    assert tiny_course(text).executor.chunk == chunk
