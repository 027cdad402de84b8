"""Limits of the machine end a course and are nobody's failure; what trainers raise or forget is said in one line."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from attrs import define

from fscore.builtin.trainers import SGD
from fscore.cli import main
from fscore.component import Component
from fscore.context import Order
from fscore.errors import ConfigError, CourseError, DataError, PluginError
from fscore.hookspecs import hookimpl
from fscore.tasks import Batch
from fscore.testing import fs_course, tiny_course


@define(eq=False, slots=False)
class Hungry(SGD):
    """Wants more memory than there is, once the course has begun."""

    name = "hungry"
    begun = False

    def finish(self, variables, context):
        if self.begun:
            variables["model"].new_empty(1 << 60)
        return super().finish(variables, context)


@define(eq=False, slots=False)
class Broad(SGD):
    """Wants more memory than there is for several clients at once."""

    name = "broad"

    def finish(self, variables, context):
        variables["model"].new_empty(1 << 60 if variables["model"].dim() > 1 else 1)
        return super().finish(variables, context)


@define(eq=False, slots=False)
class Wordy(SGD):
    """Raises what is long, of several lines, and not to be written as UTF-8."""

    name = "wordy"

    def start(self, context):
        raise ValueError("no file \udce9\nremedy: " + "x" * 1_000_000)


@define(eq=False, slots=False)
class Forgetful(SGD):
    """Gives another group than it says."""

    name = "forgetful"

    def finish(self, variables, context):
        groups, rows = super().finish(variables, context)
        return {"modle": groups["model"]}, rows


@define(eq=False, slots=False)
class Endless(SGD):
    """Takes an hour for each task but one, whose data are bad."""

    name = "endless"
    bad = 0
    steps = 0

    def batches(self, context):
        if context.task.id == self.bad:
            raise DataError("data: a client has NaN in x")
        return Order(torch.zeros(36_000, dtype=torch.long), (1,) * 36_000)

    def step(self, variables, gradient, memory, context):
        type(self).steps += 1
        time.sleep(0.1)


@define(eq=False)
class HungryPlugin(Component):
    name = "hungry_plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Hungry, Wordy, Forgetful, Endless, Broad]

    @hookimpl
    def fscore_course_started(self, course):
        course.trainer.begun = True


ALONE = (
    "executor: memory ran out while client {} was computed. "
    "Remedy: fewer workers, smaller batches or a smaller model."
)


@pytest.mark.parametrize("executor", ["serial", "thread", "process"])
def test_memory_that_runs_out_fails_the_course_and_no_client(executor):
    changes = {"executor.use": executor, "evaluation.every": 0}
    run = fs_course('[trainer]\nuse = "hungry"', plugins=[HungryPlugin], changes=changes)
    assert run.result.status == "failed"
    assert run.result.reason in {ALONE.format(client) for client in range(8)}
    assert not any("task_failed" in call for call in run.calls)


@pytest.mark.parametrize("fallback", [True, False])
def test_memory_that_runs_out_for_many_clients_is_never_made_up_for(fallback):
    """One by one there may be enough, and the bits would follow the machine's load."""
    changes = {"executor.use": "cohort", "executor.fallback": fallback, "evaluation.every": 0}
    run = fs_course('[trainer]\nuse = "hungry"', plugins=[HungryPlugin], changes=changes)
    assert run.result.status == "failed"
    assert run.result.reason == (
        "executor.chunk: memory ran out for 4 clients at once. "
        "Remedy: a smaller chunk, or fewer workers."
    )


@pytest.mark.parametrize("executor", ["cohort", "auto"])
def test_free_memory_chooses_no_executor(executor):
    with pytest.raises(ConfigError) as caught:
        tiny_course(
            '[trainer]\nuse = "broad"', plugins=[HungryPlugin], changes={"executor.use": executor}
        )
    assert str(caught.value) == (
        "executor.use: memory ran out while 3 clients were tried at once. "
        "Remedy: executor.use = 'serial', or more free memory."
    )


def test_memory_that_runs_out_elsewhere_is_no_broken_plugin(monkeypatch, capsys):
    def hungry(*args, **kwargs):
        bytearray(1 << 62)

    monkeypatch.setattr("fscore.cli.cli.main", hungry)
    with pytest.raises(SystemExit) as ended:
        main(["run", "x.toml"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: memory ran out: MemoryError\n"


def test_workers_that_cannot_be_started_are_said_so():
    course = tiny_course(changes={"executor.use": "process", "executor.workers": 5})
    jobs = [course.opener.job(task) for task in course.issue(course.sample(4))]
    batches = [Batch((job,), sum=False) for job in jobs]
    course.executor.start(course.site)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 8, hard))
    try:
        with pytest.raises(CourseError) as caught:
            list(course.executor.compute(batches))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        course.executor.stop()
    assert str(caught.value) == (
        "executor.workers: a worker cannot be started (Too many open files). "
        "Remedy: fewer workers, or a higher limit (ulimit -n, ulimit -u)."
    )


EVERY = ["serial", "thread", "process", "cohort", "auto"]


@pytest.mark.parametrize("executor", EVERY)
def test_what_a_client_raises_is_one_line_that_can_be_written(executor, tmp_path):
    changes = {"executor.use": executor}
    run = fs_course(
        '[trainer]\nuse = "wordy"', plugins=[HungryPlugin], changes=changes, out=tmp_path / "run"
    )
    said = "ValueError: no file \\udce9 remedy: xxx"
    assert said in run.result.reason
    assert len(run.result.reason.splitlines()) == 1
    assert len(run.result.reason) < 500
    failures = [call for call in run.calls if call.startswith("task_failed")]
    assert failures
    assert all(said in call for call in failures)


@pytest.mark.parametrize("executor", EVERY)
def test_groups_that_a_trainer_does_not_name_are_a_broken_plugin(executor):
    with pytest.raises(PluginError) as caught:
        fs_course(
            '[trainer]\nuse = "forgetful"',
            plugins=[HungryPlugin],
            changes={"executor.use": executor},
        )
    assert str(caught.value) == (
        "trainer 'forgetful': finish() gave groups ['modle'], expected ['model']"
    )


def test_threads_end_before_their_next_step_when_a_course_does():
    begun = time.monotonic()
    run = fs_course(
        '[trainer]\nuse = "endless"',
        plugins=[HungryPlugin],
        changes={"executor.use": "thread", "executor.chunk": 1},
    )
    steps = Endless.steps
    assert run.result.reason == "data: a client has NaN in x"
    assert time.monotonic() - begun < 60
    time.sleep(0.3)
    assert Endless.steps == steps


PARENT = """
import test_executors_limits as own
own.Endless.bad = None
changes = {"executor.use": "process", "executor.chunk": 2}
own.fs_course('[trainer]\\nuse = "endless"', plugins=[own.HungryPlugin], changes=changes)
"""
"""Its two workers compute for hours."""


def children_of(process):
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
def test_a_worker_ends_with_its_parent_in_the_middle_of_a_batch():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=Path(__file__).parent)
    until = time.monotonic() + 60
    while len(workers := children_of(parent.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    assert len(workers) == 2
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
