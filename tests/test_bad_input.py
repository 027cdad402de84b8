"""Clients that fail, courses that cannot go on, and mistakes on the command line: named, counted, never silent."""

from __future__ import annotations

import subprocess
import sys

import pytest
from attrs import define

from fscore.builtin.trainers import SGD
from fscore.component import Component, option
from fscore.errors import ConfigError
from fscore.hookspecs import hookimpl
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

ALL = '[sampler]\nuse = "all"\n'
"""All six clients that take part, in every version."""


@define(eq=False)
class Fragile(SGD):
    """Fails, or gives NaN, at some clients."""

    name = "fragile"
    raising: list[int] = option(factory=list, doc="Clients whose computation raises.")
    poisoned: list[int] = option(factory=list, doc="Clients whose update is NaN.")
    blind: list[int] = option(factory=list, doc="Clients that cannot be evaluated.")

    def start(self, context):
        if context.job.task.kind == "evaluate" and context.job.task.client in self.blind:
            raise RuntimeError("no display")
        return super().start(context)

    def finish(self, variables, context):
        if context.job.task.client in self.raising:
            raise RuntimeError("out of battery")
        groups, rows = super().finish(variables, context)
        if context.job.task.client in self.poisoned:
            groups = {name: value * float("nan") for name, value in groups.items()}
        return groups, rows


@define(eq=False)
class FragilePlugin(Component):
    name = "fragile-plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Fragile]


def course(options="", more=""):
    """Run a tiny course of all clients with the fragile trainer."""
    toml = f'[trainer]\nuse = "fragile"\n{options}\n{ALL}{more}'
    return fs_course(toml, plugins=[FragilePlugin])


def failures(run):
    """Return the notes of failed tasks."""
    return [call for call in run.calls if call.startswith("task_failed")]


# ------------------------------------------------------------------------------------------------ clients that fail


def test_a_client_whose_computation_raises_is_counted_and_named_and_the_course_goes_on():
    run = course("raising = [2]")
    assert failures(run) == ["task_failed client=2: RuntimeError: out of battery"] * 3
    assert (run.result.status, run.result.versions) == ("complete", 3)
    assert run.result.tasks["failed"] == 3
    assert run.result.tasks["used"] == 15


def test_a_client_whose_update_is_not_finite_is_counted_and_named_and_the_course_goes_on():
    run = course("poisoned = [4]")
    assert failures(run) == ["task_failed client=4: the update is not finite"] * 3
    assert (run.result.status, run.result.versions) == ("complete", 3)
    assert run.result.tasks["failed"] == 3


def test_a_failing_client_leaves_no_trace_in_the_model():
    ways = [course("raising = [2]"), course("poisoned = [2]")]
    one, two = (run.result.model["model"].tolist() for run in ways)
    assert one == pytest.approx(two, rel=1e-6)


def test_a_reducing_aggregator_sees_only_whole_updates():
    run = course("poisoned = [4]", '[aggregator]\nuse = "median"')
    assert (run.result.status, run.result.tasks["failed"]) == ("complete", 3)


def test_the_books_balance():
    tasks = course("raising = [1]\npoisoned = [2]").result.tasks
    resolved = ("used", "unused", "failed", "expired", "aborted")
    assert tasks["issued"] == sum(tasks[name] for name in resolved)


def test_a_course_whose_cohorts_are_always_too_small_fails_with_the_reason():
    run = course("raising = [0, 1]", "[protocol]\nmin_results = 5")
    assert run.result.status == "failed"
    assert run.result.reason == (
        "3 cohorts in a row failed: 4 whole updates of 6, at least 5 needed; the first: client 0: RuntimeError: out of battery"
    )
    assert run.calls[-1] == f"course_failed {run.result.reason}"
    assert run.result.exit_code == 1


def test_patience_is_how_many_cohorts_may_fail_in_a_row():
    run = course("raising = [0, 1]", "[protocol]\nmin_results = 5\n[course]\npatience = 1")
    assert run.result.reason == (
        "a cohort failed: 4 whole updates of 6, at least 5 needed; the first: client 0: RuntimeError: out of battery"
    )


@define(eq=False)
class Once(SGD):
    """Fails at every client in the first wave."""

    name = "fragile"

    def start(self, context):
        if context.job.task.wave == 1:
            raise RuntimeError("out of battery")
        return super().start(context)


@define(eq=False)
class OncePlugin(Component):
    name = "once-plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Once]


def test_a_course_that_reached_its_end_although_a_cohort_failed_is_partial():
    run = fs_course(f'[trainer]\nuse = "fragile"\n{ALL}', plugins=[OncePlugin])
    assert (run.result.status, run.result.versions) == ("partial", 3)
    assert run.result.reason == "made 3 versions"
    assert len(failures(run)) == 6


def test_a_client_that_cannot_be_evaluated_fails_the_course_by_name():
    run = course("blind = [2]")
    assert run.result.status == "failed"
    assert run.result.reason == "evaluation of client 2: RuntimeError: no display"


def test_a_version_that_is_not_finite_fails_the_course():
    run = fs_course("[server_optimizer]\nlr = 1e39")
    assert (run.result.status, run.result.versions) == ("failed", 0)
    assert run.result.reason == "version 1 is not finite: training diverged"


def test_a_course_whose_results_never_arrive_in_time_fails():
    run = fs_course("[devices]\nlatency = 2.0\n[protocol]\ntimeout = 1.0")
    assert (run.result.status, run.result.versions) == ("failed", 0)
    assert set(failures(run)) <= {
        f"task_failed client={client}: its deadline passed" for client in range(6)
    }


# ------------------------------------------------------------------------------------------------ command line

GOOD = """
[course]
name = "tiny"
until = { versions = 1 }
[data]
use = "synthetic"
clients = 4
max_samples = 20
[model]
use = "softmax"
[sampler]
clients = 2
"""


def fscore(*words, cwd):
    """Run the command line; return its exit code, output and errors."""
    command = [sys.executable, "-c", "from fscore.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "course.toml"
    path.write_text(GOOD)
    return path


def test_a_course_that_reaches_its_end_exits_with_0(file, tmp_path):
    code, _, errors = fscore("run", file, "--quiet", "--out", tmp_path / "run", cwd=tmp_path)
    assert (code, errors) == (0, "")


def test_a_course_that_fails_exits_with_1_and_says_why(file, tmp_path):
    code, _, errors = fscore(
        "run", file, "--quiet", "--set", "server_optimizer.lr=1e39", cwd=tmp_path
    )
    assert code == 1
    assert errors == "error: course failed: version 1 is not finite: training diverged\n"


def test_a_mistake_in_the_file_exits_with_2_and_one_line_per_problem(file, tmp_path):
    code, output, errors = fscore(
        "check", file, "--set", "trainer.lrr=1", "--set", "course.seed=-1", cwd=tmp_path
    )
    assert (code, output) == (2, "")
    assert errors == (
        "error: course.seed: must be at least 0, got -1\n"
        "error: trainer.lrr: unknown option of 'sgd', did you mean 'lr'?\n"
    )


def test_a_missing_file_exits_with_2(tmp_path):
    code, output, errors = fscore("run", "no.toml", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert errors == "error: no.toml: No such file or directory\n"


def test_a_plugin_that_breaks_its_contract_exits_with_3(file, tmp_path):
    info = tmp_path / "bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fscore.plugins]\nbad = bad_module:Plugin\n")
    (tmp_path / "bad_module.py").write_text("Plugin = 3\n")
    file.write_text(GOOD + "[plugins.bad]\n")
    code, output, errors = fscore("check", file, cwd=tmp_path)
    assert (code, output) == (3, "")
    assert errors == (
        "error: plugins.bad: the entry point gives 3, expected a subclass of Component\n"
    )


@pytest.mark.parametrize("code", ["import fscore", "from fscore.cli import main; main(['--help'])"])
def test_torch_is_not_imported_before_it_is_needed(code, tmp_path):
    script = (
        "import sys\n"
        f"try:\n    {code}\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == "False\n"


def test_kernel_modules_that_plugins_import_do_not_import_torch(tmp_path):
    script = (
        "import sys, fscore.component, fscore.kinds, fscore.hookspecs, fscore.settings\n"
        "import fscore.config, fscore.plugins, fscore.participant\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_more_clients_than_there_are_is_one_problem():
    with pytest.raises(ConfigError) as raised:
        tiny_course(changes={"sampler.clients": 9})
    assert [line.partition(":")[0] for line in raised.value.problems] == ["sampler.clients"]
