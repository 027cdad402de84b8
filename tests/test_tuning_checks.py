"""What a search refuses, what it says of privacy, and the command line."""

import json
from typing import Any

import pytest
from attrs import define
from tuning_helpers import lines, searched, tables

from fscore.builtin.tables import document
from fscore.builtin.tuning.search import Tuning
from fscore.cli import main
from fscore.component import Component, state
from fscore.errors import ConfigError, CourseError
from fscore.events import Released
from fscore.participant import Participant, handles
from fscore.testing.course import TINY

# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("tune", "line"),
    [
        (
            {"use": "grid", "space": {}},
            "tune.space: empty; name at least one dotted key of the course",
        ),
        (
            {"use": "grid", "space": {"trainer.lr": {"low": 1.0, "high": 0.1}}},
            "tune.space.trainer.lr: low 1.0 is greater than high 0.1",
        ),
        (
            {"use": "grid", "space": {"trainer.lrr": [0.1]}},
            "tune.space.trainer.lrr: unknown option of 'sgd', did you mean 'lr'?",
        ),
        (
            {"use": "grid", "space": {"trainer.lr": [0.1, -1.0]}},
            "tune.space.trainer.lr: must be at least 0, got -1.0",
        ),
        (
            {"use": "grid", "space": {"trainer.lr": [0.1, "a"]}},
            "tune.space.trainer.lr: expected a number, got the string 'a'",
        ),
        (
            {"use": "grid", "metric": "test_loss"},
            "tune.metric: 'test_loss' is of test data; choose one of validation data (val_accuracy, val_loss)",
        ),
        (
            {"use": "grid", "metric": "val_f1"},
            "tune.metric: nobody reports 'val_f1' (known: val_accuracy, val_loss)",
        ),
        (
            {"use": "grid", "metric": "val_accuracy"},
            "tune.direction: expected 'maximize', the better end of 'val_accuracy', got 'minimize'",
        ),
        (
            {"use": "grid", "metric": "unseen_val_loss"},
            "tune.metric: 'unseen_val_loss' is of clients that never take part; choose one of those that do "
            "(val_accuracy, val_loss)",
        ),
        (
            {"use": "grid", "space": {"tune.versions": [1, 2]}},
            "tune.space.tune.versions: the search does not search its own options",
        ),
        (
            {"use": "grid", "space": {"course": {"until": {"versions": [1, 2]}}}},
            "tune.space.course.until.versions: the length of a trial is tune.versions",
        ),
        (
            {"use": "grid", "privacy": "never mind"},
            'tune.privacy: expected "ignored", { proxy_data = { use = ... } } or { budget = NOISE }, '
            "got 'never mind'",
        ),
        (
            {"use": "grid", "privacy": {"budget": 1.0}},
            "tune.privacy: a budget, but the course has no [[privacy]]. Remedy: remove it.",
        ),
    ],
)
def test_a_search_that_cannot_work_is_refused(tmp_path, tune, line):
    with pytest.raises(ConfigError) as caught:
        Tuning(tables(tune), tmp_path)
    assert caught.value.problems == (line,)
    assert list(tmp_path.iterdir()) == []


def test_each_problem_is_said_once(tmp_path):
    space = {"trainer.lr": [0.1, 0.2], "trainer.lrr": [1, 2], "trainer.momentum": [0.0, 2.0]}
    with pytest.raises(ConfigError) as caught:
        Tuning(tables({"use": "grid", "space": space}), tmp_path)
    assert caught.value.problems == (
        "tune.space.trainer.lrr: unknown option of 'sgd', did you mean 'lr'?",
        "tune.space.trainer.momentum: must be between 0 and 1, got 2.0",
    )


def test_a_course_without_validation_data_is_refused(tmp_path):
    made = tables({"use": "grid"})
    del made["data"]["val"]
    with pytest.raises(ConfigError) as caught:
        Tuning(made, tmp_path)
    assert caught.value.problems == (
        "tune.metric: no client that takes part has validation data. Remedy: data.val = 0.2",
    )


def test_a_diverging_trial_is_counted_as_failed_and_the_search_goes_on(tmp_path):
    tuning = searched(tmp_path, {"use": "grid", "space": {"trainer.lr": [3e38, 0.1]}})
    assert [d.report is None for d in tuning.finished] == [True, False]
    assert tuning.finished[0].reason != ""
    assert tuning.best().trial.params == {"trainer.lr": 0.1}


def test_a_failed_trial_costs_what_it_computed_and_gives_back_the_rest_of_its_budget(tmp_path):
    """The first trial diverges before version 4: a budget of two trials pays for two more."""
    space = {"trainer.lr": [3e38, 0.1, 0.2]}
    for workers in (1, 2):
        tuning = searched(
            tmp_path / str(workers),
            {"use": "grid", "space": space, "budget": {"versions": 8}},
            workers=workers,
        )
        failed, *rest = tuning.finished
        assert failed.cost["versions"] < 4
        assert failed.cost["virtual_time"] > 0
        assert tuning.spent()["versions"] == failed.cost["versions"] + 4 * len(rest)
    assert lines(tmp_path / "1") == lines(tmp_path / "2")
    (tmp_path / "1/trials.jsonl").write_text("")  # read from the trial's own result this time
    searched(tmp_path / "1", {"use": "grid", "space": space, "budget": {"versions": 8}})
    assert lines(tmp_path / "1") == lines(tmp_path / "2")


def test_all_trials_failing_ends_with_a_summary(tmp_path):
    with pytest.raises(CourseError, match=r"tune: all 2 trials failed: "):
        searched(tmp_path, {"use": "grid", "space": {"trainer.lr": [2e38, 3e38]}})


# ------------------------------------------------------------------------ privacy

CLIPPED = {"privacy": [{"use": "clip"}]}


def test_silent_tuning_of_a_private_course_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Tuning(tables({"use": "grid"}, **CLIPPED), tmp_path)
    assert caught.value.problems == (
        "tune.privacy: missing; metrics of a course with [[privacy]] 'clip' are releases too. Remedy: "
        'privacy = { proxy_data = { use = ... } }, { budget = NOISE } or "ignored".',
    )


def test_ignored_privacy_is_said_with_the_result(tmp_path):
    tuning = searched(tmp_path, {"use": "grid", "privacy": "ignored"}, **CLIPPED)
    tuning.write()
    assert tuning.remark == (
        "privacy ignored: the metrics of this search are releases that nobody accounts for"
    )
    assert tuning.remark in (tmp_path / "report.html").read_text()
    assert (tmp_path / "best.toml").read_text().startswith(f"# {tuning.remark}\n")
    assert [json.loads(line)["privacy"] for line in lines(tmp_path)] == ["ignored", "ignored"]


def test_what_is_wrong_with_proxy_data_is_said_of_the_proxy(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Tuning(
            tables({"use": "grid", "privacy": {"proxy_data": {"use": "no"}}}, **CLIPPED), tmp_path
        )
    assert caught.value.problems == (
        "tune.privacy.proxy_data: data.use: no data is called 'no' (known: digits, npz, synthetic)",
    )


def test_trials_on_proxy_data_never_touch_the_data_of_the_course(tmp_path):
    proxy = {**TINY["data"], "clients": 6, "unseen_clients": 0, "val": 0.2}
    tuning = searched(tmp_path, {"use": "grid", "privacy": {"proxy_data": proxy}}, **CLIPPED)
    described = json.loads((tmp_path / "trials/0000/run.json").read_text())["course"]
    assert described["data"]["clients"] == 6
    assert tuning.best_tables()["data"]["clients"] == 8


@define(eq=False, slots=False)
class Counter(Participant):
    """Handles releases as an accountant would."""

    name = "counter"
    owner: Any

    @handles(Released)
    def count(self, event):
        self.owner.charged = [*self.owner.charged, dict(event.facts)]


@define(eq=False)
class Accountant(Component):
    """One unit of loss per metric."""

    name = "accountant"
    charged: list[dict[str, object]] = state(list)

    def participants(self):
        return (Counter(self),)

    def figures(self):
        return {"epsilon": float(len(self.charged))}


def test_each_metric_is_charged_to_the_budget_and_noised(tmp_path):
    tune = {"use": "grid", "metric": "val_accuracy_mean", "direction": "maximize"}
    plain = searched(tmp_path / "plain", {**tune, "privacy": "ignored"}, **CLIPPED)
    noised = searched(
        tmp_path / "noised", {**tune, "privacy": {"budget": 0.5}}, plugins=[Accountant], **CLIPPED
    )
    assert [d.outcome.figures for d in noised.finished] == [{"epsilon": 1.0}] * 2
    assert noised.remark.startswith(
        "privacy: epsilon 2 for the whole search, the sum over its 2 trials"
    )
    for a, b in zip(plain.finished, noised.finished, strict=True):
        assert a.outcome.digest == b.outcome.digest
        assert a.report.value != b.report.value
        assert abs(a.report.value - b.report.value) < 5 * 0.5 / a.report.clients
        assert b.report.stderr == 0.5 / b.report.clients


def test_no_two_trials_get_the_same_noise(tmp_path):
    """Else differences of metrics, by which trials are chosen, would be released without noise."""
    tune = {"use": "grid", "metric": "val_accuracy_mean", "direction": "maximize"}
    tune |= {"space": {"evaluation.worst": [0.1, 0.2]}, "privacy": {"budget": 1.0}}
    one, other = searched(tmp_path, tune, plugins=[Accountant], **CLIPPED).finished
    assert one.outcome.digest == other.outcome.digest
    assert one.report.value != other.report.value


def test_a_budget_that_nobody_keeps_is_refused(tmp_path):
    with pytest.raises(CourseError) as caught:
        searched(tmp_path, {"use": "grid", "privacy": {"budget": 0.5}}, **CLIPPED)
    assert str(caught.value) == (
        "tune: all 2 trials failed: tune.privacy: nobody charged the metric to a budget. Remedy: switch on a plugin "
        'whose accountant does, or privacy = "ignored".'
    )


# ------------------------------------------------------------------------ the command line


def run(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_the_command_prints_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    (tmp_path / "c.toml").write_text(document(tables({"use": "grid"})))
    assert run(["tune", str(tmp_path / "c.toml"), "--out", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line[:45] for line in out[:2]] == [
        "trial   0  trainer.lr = 0.01  4 versions  val",
        "trial   1  trainer.lr = 0.5  4 versions  val_",
    ]
    assert (
        out[2]
        == "2 steps of trials, 0 failed; 8 versions, 32 client updates, 0.288 virtual seconds"
    )
    assert out[3].startswith("best: trial 1, val_loss ")
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        ".lock",
        "best.toml",
        "report.html",
        "search.json",
        "trials",
        "trials.jsonl",
    ]


def test_on_a_terminal_the_trials_are_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "c.toml").write_text(document(tables({"use": "grid"})))
    assert run(["tune", str(tmp_path / "c.toml"), "--out", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out
    assert "grid: 2 steps, 8 versions" in out
    assert "trial   0" not in out


def test_the_command_exits_with_one_where_all_trials_fail(tmp_path, capsys):
    made = tables({"use": "grid", "space": {"trainer.lr": [2e38, 3e38]}})
    (tmp_path / "c.toml").write_text(document(made))
    assert run(["tune", str(tmp_path / "c.toml"), "--out", str(tmp_path / "s")]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == (
        "2 steps of trials, 2 failed; 0 versions, 3 client updates, 0.144 virtual seconds"
    )
    assert captured.err.splitlines()[1].startswith("error: tune: all 2 trials failed: ")


def test_the_command_says_on_whose_data_the_best_settings_run(tmp_path, capsys):
    proxy = {**TINY["data"], "val": 0.2}
    made = tables({"use": "grid", "privacy": {"proxy_data": proxy}}, **CLIPPED)
    (tmp_path / "c.toml").write_text(document(made))
    assert run(["tune", str(tmp_path / "c.toml"), "--out", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"`fscore run {tmp_path / 's/best.toml'}` runs its settings on the course's own data; "
        f"plots: {tmp_path / 's/report.html'}"
    )


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    assert run(["tune", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: not the folder of a search, it has no search.json\n"
    )


def test_a_folder_takes_no_changes(tmp_path, capsys):
    assert run(["tune", str(tmp_path), "--set", "a=1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: a search that goes on takes neither --set nor --out\n"
    )
