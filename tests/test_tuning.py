"""Searches: what is asked for is run, told and noted, and budgets end them."""

import pytest
from tuning_helpers import TunerPlugin, searched, tables

from fscore.builtin.tuning.trials import standard_error
from fscore.errors import ConfigError, CourseError, PluginError
from fscore.testing import fs_course

# ------------------------------------------------------------------------ built-in tuners


def test_grid_runs_every_combination(tmp_path):
    space = {"trainer.lr": [0.1, 0.2], "trainer.epochs": [1, 2]}
    tuning = searched(tmp_path, {"use": "grid", "space": space})
    assert [d.trial.params for d in tuning.finished] == [
        {"trainer.lr": 0.1, "trainer.epochs": 1},
        {"trainer.lr": 0.1, "trainer.epochs": 2},
        {"trainer.lr": 0.2, "trainer.epochs": 1},
        {"trainer.lr": 0.2, "trainer.epochs": 2},
    ]


def test_random_search_draws_inside_the_range_and_repeats(tmp_path):
    space = {"trainer.lr": {"low": 0.001, "high": 1.0, "log": True}}
    runs = [
        [
            d.trial.params["trainer.lr"]
            for d in searched(
                tmp_path / name, {"use": "random", "trials": 4, "space": space}
            ).finished
        ]
        for name in ("a", "b")
    ]
    assert runs[0] == runs[1]
    assert all(0.001 <= lr <= 1.0 for lr in runs[0])
    assert len(set(runs[0])) == 4


def test_best_file_reruns_to_the_same_digest(tmp_path):
    tuning = searched(tmp_path, {"use": "grid"})
    best = tuning.best()
    assert best.trial.params == {"trainer.lr": 0.5}
    run = fs_course(tuning.best_tables())
    assert run.result.digest == best.outcome.digest
    assert run.result.metrics["val_loss"] == best.report.value


def test_a_report_carries_clients_standard_error_and_cost(tmp_path):
    report = searched(tmp_path, {"use": "grid"}).finished[1].report
    run = fs_course(
        tables(), changes={"trainer.lr": 0.5, "course.until.versions": 4, "tune.use": "grid"}
    )
    unseen = run.course.population.unseen
    own = [v["loss"] for c, v in sorted(run.result.per_client["val"].items()) if c not in unseen]
    assert (report.clients, report.stderr) == (len(own), standard_error(own))
    assert (report.versions, report.client_updates) == (4, 16)
    assert report.virtual_time == run.result.virtual_time


def test_standard_error_is_that_of_the_mean():
    assert standard_error([1.0, 2.0, 3.0, 6.0]) == pytest.approx((14 / 3 / 4) ** 0.5)


# ------------------------------------------------------------------------ promote and fork


def test_a_promoted_trial_equals_an_uninterrupted_one_and_costs_only_the_rest(tmp_path):
    tuning = searched(tmp_path, {"use": "halving"}, plugins=[TunerPlugin])
    done = tuning.finished
    assert [d.report.versions for d in done] == [2, 2, 2, 2]
    assert [d.report.client_updates for d in done] == [8, 8, 8, 8]
    whole = fs_course(
        tables({"use": "grid"}), changes={"trainer.lr": 0.2, "course.until.versions": 4}
    )
    assert done[2].outcome.digest == whole.result.digest
    assert done[2].report.value == whole.result.metrics["val_loss"]


def test_a_fork_starts_where_its_source_stood_before_the_batch(tmp_path):
    batches = [[[0, 0.2, 2]], [[0, 0.2, 4], [1, 0.2, 4, 0]]]
    first, goes_on, fork = searched(
        tmp_path, {"use": "scripted", "batches": batches}, plugins=[TunerPlugin]
    ).finished
    assert fork.outcome.digest == goes_on.outcome.digest != first.outcome.digest


def test_a_fork_leaves_the_rows_of_its_source_alone(tmp_path):
    rows = {"store": {"use": "disk"}, "model": {"use": "mlp", "hidden": [4]}}
    rows["trainer"] = {"use": "sgd", "private": ["hidden0"]}
    batches = [[[0, 0.2, 1]], [[1, 0.9, 2, 0]], [[0, 0.2, 4]]]
    done = searched(
        tmp_path, {"use": "scripted", "batches": batches}, plugins=[TunerPlugin], **rows
    ).finished
    whole = fs_course(
        {**tables(**rows), "tune": None},
        changes={"trainer.lr": 0.2, "course.until.versions": 4, "store.use": "memory"},
    )
    assert [d.reason for d in done] == ["", "", ""]
    assert done[2].outcome.digest == whole.result.digest


def test_the_file_of_a_forked_trial_replays_its_schedule_to_the_same_digest(tmp_path):
    batches = [[[0, 0.1, 2]], [[1, 0.4, 3, 0]], [[2, 0.2, 4, 1]]]
    tuning = searched(tmp_path, {"use": "scripted", "batches": batches}, plugins=[TunerPlugin])
    assert tuning.best().trial.id == 2
    best = tuning.best_tables()
    assert best["trainer"]["lr"] == 0.1
    assert best["policy"] == [
        {
            "use": "schedule",
            "steps": [
                {"version": 2, "values": {"trainer.lr": 0.4}, "choices": []},
                {"version": 3, "values": {"trainer.lr": 0.2}, "choices": []},
            ],
        }
    ]
    assert fs_course(best, plugins=[TunerPlugin]).result.digest == tuning.best().outcome.digest


def test_an_asynchronous_tuner_is_told_in_the_order_of_virtual_ends(tmp_path):
    batches = [[[0, 0.1, 4], [1, 0.2, 1]], [[2, 0.3, 1]], [[3, 0.4, 3]]]
    for workers in (1, 2):
        tuning = searched(
            tmp_path / str(workers),
            {"use": "racing", "batches": batches},
            plugins=[TunerPlugin],
            workers=workers,
        )
        assert tuning.tuner.heard == [1, 2, 0, 3]


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        (
            [[[0, 0.1, 5]]],
            "trial 0 was asked for at 5 versions: expected more than 0, and 4 at most",
        ),
        (
            [[[0, 0.1, 2]], [[0, 0.1, 2]]],
            "trial 0 was asked for at 2 versions: expected more than 2, and 4 at most",
        ),
        ([[[0, 0.1, 2, 7]]], "trial 0 is forked from 7: expected a new id and a known source"),
        (
            [[[0, {"sampler.clients": 3}, 2]], [[0, {"sampler.clients": 4}, 4]]],
            "'sampler.clients' changes in the middle of a course, but only options that may differ by task can",
        ),
    ],
)
def test_a_tuner_that_asks_for_the_impossible_is_named(tmp_path, batches, text):
    with pytest.raises(PluginError) as caught:
        searched(tmp_path, {"use": "scripted", "batches": batches}, plugins=[TunerPlugin])
    assert str(caught.value) == f"tuner: {text}"


def test_a_tuner_that_asks_for_nothing_is_told_so(tmp_path):
    with pytest.raises(CourseError) as caught:
        searched(tmp_path, {"use": "scripted"}, plugins=[TunerPlugin])
    assert str(caught.value) == "tune: the tuner asked for no trial"


# ------------------------------------------------------------------------ budgets


def test_a_budget_of_versions_runs_what_fits(tmp_path):
    tuning = searched(tmp_path, {"use": "random", "budget": {"versions": 10}})
    assert tuning.spent()["versions"] == 8
    assert tuning.over == "the budget of 10 versions is spent"


@pytest.mark.parametrize(
    ("budget", "trials", "text"),
    [
        ({"client_updates": 17}, 2, "the budget of 17 client updates is spent"),
        ({"virtual_time": 0.2}, 2, "the budget of 0.2 virtual time is spent"),
    ],
)
def test_a_budget_ends_the_search_once_it_is_spent(tmp_path, budget, trials, text):
    for workers in (1, 2):
        tuning = searched(
            tmp_path / str(workers), {"use": "random", "budget": budget}, workers=workers
        )
        assert (len(tuning.finished), tuning.over) == (trials, text)


def test_a_budget_below_one_trial_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        searched(tmp_path, {"use": "random", "budget": {"versions": 3}})
    assert caught.value.problems == (
        "tune.budget.versions: 3 do not pay for the first trial, which takes 4",
    )
