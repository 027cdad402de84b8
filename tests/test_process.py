"""The process executor gives the bits of `serial`, whatever happens to its workers."""

import gc
import os
import pickle
import signal
import weakref
from pathlib import Path

import pytest
import torch
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from fscore.builtin.executors.process import Failure, Region, Writer, answer
from fscore.builtin.executors.shared import packed, replaced, unpacked
from fscore.builtin.record.directory import comparable
from fscore.builtin.trainers import SGD
from fscore.component import Component, option
from fscore.errors import CourseError, DataError
from fscore.hookspecs import hookimpl
from fscore.tasks import Batch, Job, Task
from fscore.testing.course import fs_course, tiny_course

COURSES = {
    "plain": "",
    "median": '[aggregator]\nuse = "median"',
    "private": '[model]\nuse = "mlp"\nhidden = [4]\n[trainer]\nuse = "sgd"\nprivate = ["*hidden*"]',
    "asynchronous": (
        '[devices]\nuse = "lognormal"\n[trigger]\nuse = "goal_achieved"\ngoal = 2\n'
        '[protocol]\nuse = "rounds"\nbroadcast = "after_receiving"'
    ),
}


def outcome(run):
    return run.result.digest, [comparable(line) for line in run.result.history]


def process(workers):
    return {"executor.use": "process", "executor.workers": workers, "executor.chunk": 2}


@pytest.fixture(scope="module", params=COURSES)
def course(request):
    from fscore.testing import fs_course

    toml = COURSES[request.param]
    return toml, outcome(fs_course(toml, changes={"executor.chunk": 2}))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_the_bits_of_serial(course, workers, fs_course):
    toml, expected = course
    assert outcome(fs_course(toml, changes=process(workers))) == expected


# ---------------------------------------------------------------------------- workers that die


@define(eq=False)
class Killer(Component):
    """Kills a worker between two versions, while it is idle."""

    name = "killer"

    @hookimpl
    def fscore_version_ended(self, course):
        os.kill(course.executor.pool.workers[0].process.pid, signal.SIGKILL)


@define(eq=False, slots=False)
class Deadly(SGD):
    """Dies on task 5, as often as `marks` is not yet full of marks."""

    name = "deadly"
    marks: str = option(doc="Folder of marks.")
    times: int = option(1, doc="Marks that it takes.")

    def step(self, variables, gradient, memory, context):
        marks = Path(self.marks)
        if context.task.id == 5 and len(list(marks.iterdir())) < self.times:
            (marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().step(variables, gradient, memory, context)


@define(eq=False)
class DeadlyPlugin(Component):
    name = "deadly_plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Deadly]


def deadly(folder, times):
    return f'[trainer]\nuse = "deadly"\nmarks = "{folder}"\ntimes = {times}'


def test_a_worker_killed_between_versions_is_replaced(fs_course):
    expected = outcome(fs_course("", changes={"executor.chunk": 2}))
    assert outcome(fs_course("", changes=process(2), plugins=[Killer])) == expected


def test_a_batch_whose_worker_died_is_computed_again_and_said_so(fs_course, tmp_path, capfd):
    expected = outcome(fs_course("", changes={"executor.chunk": 2}))
    run = fs_course(deadly(tmp_path, 1), changes=process(2), plugins=[DeadlyPlugin])
    (mark,) = tmp_path.iterdir()
    said = [
        f"executor.process: worker {place} (pid {mark.name}) died: SIGKILL; "
        "the batch of tasks 4, 5 is computed again\n"
        for place in (0, 1)
    ]
    assert outcome(run) == expected
    assert capfd.readouterr().err in said


def test_three_deaths_on_one_batch_end_the_course(fs_course, tmp_path):
    run = fs_course(deadly(tmp_path, 9), changes=process(1), plugins=[DeadlyPlugin])
    pids = {int(mark.name) for mark in tmp_path.iterdir()}
    reasons = {
        f"executor.process: worker 0 (pid {pid}) died: SIGKILL; 3 workers died on the batch of tasks 4, 5"
        for pid in pids
    }
    assert len(pids) == 3
    assert run.result.status == "failed"
    assert run.result.reason in reasons


@define(eq=False, slots=False)
class Picky(SGD):
    """Fails at some clients."""

    name = "picky"
    bad_data: bool = option(False, doc="Blame the data.")

    def phases(self, context):
        if context.task.client % 2:
            error = DataError if self.bad_data else ValueError
            raise error(f"data: client {context.task.client} is odd")
        return super().phases(context)


@define(eq=False)
class PickyPlugin(Component):
    name = "picky_plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Picky]


def test_clients_that_fail_are_named_as_by_serial(fs_course):
    toml = '[trainer]\nuse = "picky"'
    expected = fs_course(toml, changes={"executor.chunk": 2}, plugins=[PickyPlugin])
    run = fs_course(toml, changes=process(2), plugins=[PickyPlugin])
    assert any("ValueError: data: client" in call for call in expected.calls)
    assert run.calls == expected.calls
    assert outcome(run) == outcome(expected)


def test_bad_data_fail_the_course_as_by_serial(fs_course):
    toml = '[trainer]\nuse = "picky"\nbad_data = true'
    expected = fs_course(toml, plugins=[PickyPlugin]).result
    result = fs_course(toml, changes=process(2), plugins=[PickyPlugin]).result
    assert (result.status, result.reason) == (expected.status, expected.reason)
    assert result.status == "failed"
    assert result.reason.startswith("data: client ")


def test_a_caller_who_leaves_early_leaves_no_answers_behind():
    course = tiny_course("", changes=process(2))
    jobs = [course.opener.job(task) for task in course.issue(course.sample(4))]
    batches = [Batch((job,), sum=False) for job in jobs]
    course.executor.start(course.site)
    next(course.executor.compute(batches))
    again = [done.outputs[0].task for done in course.executor.compute(batches)]
    course.executor.stop()
    assert again == [job.task.id for job in jobs]


def test_no_worker_outlives_its_course(fs_course):
    run = fs_course("", changes=process(2))
    assert run.course.executor.pool.workers == []


# ---------------------------------------------------------------------------- errors and shared memory


@pytest.mark.parametrize("error", [DataError("data: client 3 has NaN"), CourseError("a\nb")])
def test_an_error_of_a_worker_keeps_its_class_and_text(error):
    again = Failure(type(error).__name__, str(error)).error()
    assert (type(again), str(again)) == (type(error), str(error))


class Refusing:
    """A lane that computes nothing."""

    def __init__(self, error):
        self.error = error

    def batch(self, batch):
        raise self.error


NOTHING = (packed(()), False, False)


def test_a_worker_answers_with_the_error_of_its_lane():
    found = answer(Refusing(DataError("data: client 3 has NaN")), NOTHING, [])
    assert found == Failure("DataError", "data: client 3 has NaN")


def test_a_worker_answers_with_the_traceback_of_a_defect():
    found = answer(Refusing(KeyError("model")), NOTHING, [])
    assert (found.name, found.text.splitlines()[-1]) == ("", "KeyError: 'model'")


def test_a_defect_in_a_worker_is_a_runtime_error_with_its_traceback():
    again = Failure("", "Traceback").error()
    assert (type(again), str(again)) == (RuntimeError, "Traceback")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_a_tensor_goes_through_shared_memory_unchanged(dtype, shape):
    tensor = torch.ones(shape).to(getattr(torch, dtype))
    region = Region(0)
    write = Writer(region)
    refs = [write(tensor), write(tensor.clone()), write(tensor)]
    found = region.tensor(refs[1])
    assert refs[0] == refs[2]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found, tensor)
    del found
    region.close()


def test_a_region_grows_and_keeps_what_was_written():
    region = Region(0)
    write = Writer(region)
    tensors = [torch.full((size,), float(size)) for size in (1, 100, 10_000)]
    refs = [write(tensor) for tensor in tensors]
    assert [region.tensor(ref).tolist() for ref in refs] == [t.tolist() for t in tensors]
    region.close()


def test_what_all_clients_received_stays_one_table_on_its_way_to_a_worker():
    """Else a worker stacks copies, and adds in another order than one process does."""
    sent = {"model": torch.ones(2)}
    jobs = [Job(Task(i, 7 * i, 0), sent, factor=i / 3, row={}) for i in range(3)]
    there = unpacked(replaced(packed(jobs), torch.Tensor, lambda tensor: tensor.tolist()))

    assert there[0].sent == {"model": [1.0, 1.0]}
    assert all(job.sent is there[0].sent for job in there)
    assert [job.task for job in there] == [job.task for job in jobs]
    assert [job.factor for job in there] == [0.0, 1 / 3, 2 / 3]
    assert len({id(job.row) for job in there}) == 3


JOBS = st.builds(
    Job,
    task=st.builds(
        Task,
        st.integers(),
        st.integers(),
        st.sampled_from([0, 1, True]),
        hparams=st.sampled_from([{}, {"trainer.lr": 1}, {"trainer.lr": 1.0}]),
        issued_at=st.floats(allow_nan=False),
    ),
    sent=st.sampled_from([{"model": [1]}, {"model": [2]}]),
    row=st.sampled_from([{}, {"own": [3]}]),
    prepared=st.sampled_from([{}, {0: "mask"}]),
    factor=st.sampled_from([1.0, 1, 0.5]),
    upto=st.sampled_from([None, 15.0]),
)


@given(st.lists(JOBS, max_size=5))
def test_jobs_come_out_as_they_were_packed(jobs):
    assert repr(unpacked(packed(jobs))) == repr(jobs)  # equal, and of the same types


def test_a_batch_is_described_in_little_whatever_its_number_of_clients():
    sent = {"model": torch.ones(2)}
    sizes = [
        len(
            pickle.dumps(
                replaced(packed([Job(Task(i, i, 0), sent) for i in range(n)]), torch.Tensor, str)
            )
        )
        for n in (10, 110)
    ]
    assert sizes[1] - sizes[0] < 100 * 16


def test_courses_that_are_over_are_gone_before_workers_are_forked():
    class Cycle:
        """What a course that is over is: held by nothing but itself."""

    cycle = Cycle()
    cycle.itself, seen = cycle, weakref.ref(cycle)
    gc.disable()
    try:
        del cycle
        assert seen() is not None
        fs_course(changes={"executor.use": "process"})
    finally:
        gc.enable()
    assert seen() is None
