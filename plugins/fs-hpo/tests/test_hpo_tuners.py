"""Tuners: what they ask for against their papers, and that searches repeat whatever computes them."""

import copy

import numpy as np
import optuna
import pytest
from fs_hpo.asha import ASHA
from fs_hpo.halving import BOHB, Hyperband, SuccessiveHalving
from fs_hpo.model_based import GP, TPE
from fs_hpo.pbt import PBT, perturbed
from fs_hpo.plugin import HpoPlugin
from fs_hpo.sampling import Observation, suggested
from fs_hpo.storage import opened

from fscore.builtin.tuning.search import Tuning
from fscore.builtin.tuning.space import Axis, axes
from fscore.errors import ConfigError, CourseError
from fscore.kinds.tuner import Report
from fscore.testing import TunerContract, fs_course
from fscore.testing.course import TINY

SPACE = {"trainer.lr": {"low": 0.001, "high": 1.0, "log": True}}


def searched(folder, tune, workers=1, **changes):
    made = copy.deepcopy(TINY)
    made["data"]["val"] = 0.2
    made["evaluation"] = {"every": 0}
    made = {**made, **changes, "tune": {"space": SPACE, "versions": 9, **tune}}
    tuning = Tuning(made, folder, [HpoPlugin], workers)
    list(tuning.run())
    return tuning


def played(tuner, loss):
    """Run a search whose trials give `loss(params, versions)`; return the trials and what they cost."""
    asked, stood, cost = [], {}, 0
    while trials := tuner.ask():
        for trial in trials:
            begin = stood.get(trial.id if trial.fork is None else trial.fork, 0)
            asked.append(trial)
            cost += trial.versions - begin
        stood.update({t.id: t.versions for t in trials})
        for trial in trials:
            value = loss(trial.params, trial.versions)
            tuner.tell(trial, None if value is None else Report(value, 3, 0.1, 1))
    return asked, cost


def bowl(params, versions):
    return abs(np.log10(params["trainer.lr"]) + 1) + 1 / versions


class Contract(TunerContract):
    """The suite of fscore on each tuner."""

    def test_it_repeats_to_its_end(self):
        ends = [played(self.make(), bowl) for _ in range(2)]
        assert ends[0] == ends[1]

    def test_it_ends_where_every_trial_fails(self):
        asked, _ = played(self.make(), lambda params, versions: None)
        assert len({trial.id for trial in asked}) == len(asked)


class TestSuccessiveHalving(Contract):
    def make(self):
        return SuccessiveHalving(space=SPACE, versions=9)

    def test_81_trials_cost_243_versions(self):
        """81 x 1 + 27 x 2 + 9 x 6 + 3 x 18."""
        tuner = SuccessiveHalving(space=SPACE, versions=27, trials=81)
        asked, cost = played(tuner, bowl)
        assert cost == 243 == tuner.cost()
        assert [sum(t.versions == v for t in asked) for v in (1, 3, 9, 27)] == [81, 27, 9, 3]

    def test_the_best_of_a_rung_go_on(self):
        asked, _ = played(self.make(), bowl)
        first = {t.id: bowl(t.params, 1) for t in asked if t.versions == 1}
        assert {t.id for t in asked if t.versions == 3} == set(sorted(first, key=first.get)[:3])

    def test_larger_is_better_where_the_metric_is_maximised(self):
        tuner = SuccessiveHalving(space=SPACE, versions=9, direction="maximize")
        asked, _ = played(tuner, bowl)
        first = {t.id: -bowl(t.params, 1) for t in asked if t.versions == 1}
        assert {t.id for t in asked if t.versions == 3} == set(sorted(first, key=first.get)[:3])

    def test_failed_trials_are_never_promoted(self):
        asked, _ = played(self.make(), lambda p, v: None if p["trainer.lr"] < 0.05 else bowl(p, v))
        assert all(t.params["trainer.lr"] >= 0.05 for t in asked if t.versions > 1)


class TestHyperband(Contract):
    def make(self):
        return Hyperband(space=SPACE, versions=9)

    def test_brackets_are_those_of_the_paper(self):
        """R = 81, eta = 3 (Li et al., 2018, table 1)."""
        assert Hyperband(space=SPACE, versions=81).brackets() == [
            (81, [1, 3, 9, 27, 81]),
            (34, [3, 9, 27, 81]),
            (15, [9, 27, 81]),
            (8, [27, 81]),
            (5, [81]),
        ]

    def test_its_cost_is_the_sum_over_rungs(self):
        tuner = self.make()
        assert played(tuner, bowl)[1] == tuner.cost() == 9 + 3 * 2 + 6 + 5 * 3 + 6 + 3 * 9


class TestBOHB(Contract):
    def make(self):
        return BOHB(space=SPACE, versions=9)

    def test_all_random_it_is_hyperband(self):
        bohb = BOHB(space=SPACE, versions=9, random_fraction=1.0)
        assert played(bohb, bowl) == played(Hyperband(space=SPACE, versions=9), bowl)

    def test_its_model_is_of_the_longest_rung_with_enough_observations(self):
        """After 9 trials of 1, 3 of 3 and 1 of 9 versions, only the first rung has d + 3 = 4 of them."""
        tuner = BOHB(space=SPACE, versions=9, random_fraction=0.0)
        asked, _ = played(tuner, bowl)
        seen = [Observation(dict(t.params), bowl(t.params, 1)) for t in asked if t.versions == 1]
        seed = int(np.random.SeedSequence([0, 9]).generate_state(1)[0])
        tenth = next(t for t in asked if t.id == 9)
        assert tenth.params == suggested(axes(SPACE), "tpe", seen, seed)


class TestASHA(Contract):
    def make(self):
        return ASHA(space=SPACE, versions=9, trials=9, slots=1)

    def test_a_trial_goes_on_as_soon_as_it_is_the_best_of_three(self):
        """With one slot and losses in rising order: trial 0 is promoted after three, and again after three promotions."""
        tuner = ASHA(space=SPACE, versions=9, trials=9, slots=1)
        asked, _ = played(tuner, lambda params, versions: 1.0)
        assert [(t.id, t.versions) for t in asked] == [
            (0, 1), (1, 1), (2, 1), (0, 3),
            (3, 1), (4, 1), (5, 1), (1, 3),
            (6, 1), (7, 1), (8, 1), (2, 3),
            (0, 9),
        ]  # fmt: skip


class TestTPE(Contract):
    def make(self):
        return TPE(space=SPACE, versions=3, trials=15, startup=5)

    def test_it_finds_the_bottom_of_a_bowl(self):
        asked, _ = played(TPE(space=SPACE, versions=3, trials=50, startup=10), bowl)
        away = [bowl(t.params, np.inf) for t in asked]
        assert np.median(away[10:]) < 0.6 * np.median(away[:10])


class TestGP(Contract):
    def make(self):
        return GP(space=SPACE, versions=3, trials=8, startup=5)

    def test_it_finds_the_bottom_of_a_bowl(self):
        asked, _ = played(GP(space=SPACE, versions=3, trials=14, startup=6), bowl)
        assert min(bowl(t.params, np.inf) for t in asked[6:]) < 0.1


class TestPBT(Contract):
    def make(self):
        return PBT(space=SPACE, versions=4, population=4)

    def test_the_worst_quarter_become_copies_of_the_best(self):
        asked, cost = played(PBT(space=SPACE, versions=6, interval=2, population=8), bowl)
        assert cost == 8 * 6
        first = {t.id: bowl(t.params, 2) for t in asked if t.versions == 2}
        ranked = sorted(first, key=first.get)
        second = [t for t in asked if t.versions == 4]
        forks = [t for t in second if t.fork is not None]
        assert {t.fork for t in forks} <= set(ranked[:2])
        assert {t.id for t in second if t.fork is None} == set(ranked[:6])
        assert len(forks) == 2

    def test_numbers_are_multiplied_and_lists_go_to_the_neighbour(self):
        rate = Axis("trainer.lr", (), 0.01, 1.0, log=True)
        assert [perturbed(rate, 0.5, 2.0, up=up) for up in (True, False)] == [1.0, 0.25]
        assert perturbed(rate, 0.8, 2.0, up=True) == 1.0
        whole = Axis("trainer.batch_size", (), 1, 8)
        assert [perturbed(whole, v, 1.2, up=up) for v in (1, 2, 8) for up in (True, False)] == [
            2, 1, 3, 1, 8, 7,
        ]  # fmt: skip
        sizes = Axis("trainer.batch_size", (5, 10, 20))
        assert [
            perturbed(sizes, v, 2.0, up=up) for v, up in ((10, True), (20, True), (5, False))
        ] == [20, 20, 5]


# ------------------------------------------------------------------------ proposals


def test_conditional_options_are_there_only_with_what_they_depend_on():
    space = {
        "trainer.momentum": [0.0, 0.9],
        "trainer.nesterov": {"values": [True, False], "when": {"trainer.momentum": 0.9}},
    }
    asked, _ = played(
        TPE(space=space, versions=1, trials=25, startup=5),
        lambda p, v: p["trainer.momentum"] + p.get("trainer.nesterov", 0),
    )
    for trial in asked:
        assert ("trainer.nesterov" in trial.params) == (trial.params["trainer.momentum"] == 0.9)


def test_a_space_may_be_nested(tmp_path):
    flat = {"use": "bohb", "versions": 4, "eta": 2, "random_fraction": 0.0}
    nested = {**flat, "space": {"trainer": {"lr": SPACE["trainer.lr"]}}}
    one, other = (searched(tmp_path / n, t) for n, t in (("a", flat), ("b", nested)))
    assert [d.trial for d in one.finished] == [d.trial for d in other.finished]
    assert len(other.tuner.observed[0][1]) == 1


@pytest.mark.parametrize("use", ["tpe", "gp"])
def test_choices_may_be_lists(tmp_path, use):
    space = {"model.hidden": [[4], [8, 8]]}
    tune = {"use": use, "trials": 4, "startup": 2, "versions": 1, "space": space}
    storage = str(tmp_path / "study.log")
    tuning = searched(tmp_path / "s", {**tune, "storage": storage}, model={"use": "mlp"})
    assert {str(d.trial.params["model.hidden"]) for d in tuning.finished} <= {"[4]", "[8, 8]"}
    assert {t.params["model.hidden"] for t in opened(storage).trials} <= {"[4]", "[8, 8]"}
    assert all(isinstance(d.trial.params["model.hidden"], list) for d in tuning.finished)


def test_proposals_depend_on_what_is_known_and_not_on_the_process(tmp_path):
    """Told again, a tuner asks for the same: none of the first samples is issued twice."""
    tuner = TPE(space=SPACE, versions=1, trials=20, startup=4)
    asked, _ = played(tuner, bowl)
    again = TPE(space=SPACE, versions=1, trials=20, startup=4)
    for trial in asked[:12]:
        assert again.ask()[0] == trial
        again.tell(trial, Report(bowl(trial.params, 1), 3, 0.1, 1))
    assert again.ask()[0] == asked[12]
    assert len({t.params["trainer.lr"] for t in asked}) == 20


@pytest.mark.parametrize("name", ["study.log", "sqlite:///study.db"])
def test_a_storage_follows_the_search_and_takes_no_trial_twice(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        tuner = TPE(space=SPACE, versions=1, trials=4, startup=2, storage=name)
        asked, _ = played(tuner, lambda p, v: None if v > 1 else bowl(p, v))
    trials = opened(name).trials
    assert [t.params for t in trials] == [dict(t.params) for t in asked]
    assert [t.value for t in trials] == [bowl(t.params, 1) for t in asked]
    assert {t.state for t in trials} == {optuna.trial.TrialState.COMPLETE}


def test_a_storage_of_another_search_is_refused(tmp_path):
    name = str(tmp_path / "study.log")
    played(TPE(space=SPACE, versions=1, trials=1, storage=name), bowl)
    with pytest.raises(CourseError) as caught:
        played(TPE(space=SPACE, versions=1, trials=1, storage=name, seed=1), bowl)
    assert str(caught.value) == (
        f"tune.storage: trial 0 in '{name}' is of another search. Remedy: name another storage."
    )


# ------------------------------------------------------------------------ on courses

TUNERS = [
    {"use": "successive_halving"},
    {"use": "hyperband", "versions": 4, "eta": 2},
    {"use": "asha", "trials": 7, "slots": 3},
    {"use": "bohb", "versions": 4, "eta": 2},
    {"use": "tpe", "trials": 5, "startup": 2, "parallel": 2, "versions": 2},
    {"use": "pbt", "population": 4, "interval": 2, "versions": 6},
]


@pytest.mark.parametrize("tune", TUNERS, ids=lambda tune: tune["use"])
def test_the_best_file_has_the_digest_of_the_best_trial_with_one_worker_or_two(tmp_path, tune):
    one, two = (searched(tmp_path / str(n), tune, workers=n) for n in (1, 2))
    assert (tmp_path / "1/trials.jsonl").read_text() == (tmp_path / "2/trials.jsonl").read_text()
    assert (
        fs_course(one.best_tables(), plugins=[HpoPlugin]).result.digest == one.best().outcome.digest
    )
    assert two.best() == one.best()


@pytest.mark.parametrize("tune", TUNERS, ids=lambda tune: tune["use"])
def test_a_search_that_was_stopped_anywhere_goes_on_to_the_same_trials(tmp_path, tune):
    whole = searched(tmp_path / "whole", tune)
    for steps in (1, len(whole.finished) // 2, len(whole.finished) - 1):
        run = Tuning(whole.tables, tmp_path / str(steps), [HpoPlugin]).run()
        for _ in range(steps):
            next(run)
        run.close()
        searched(tmp_path / str(steps), tune)
        lines = (tmp_path / str(steps) / "trials.jsonl").read_text()
        assert lines == (tmp_path / "whole/trials.jsonl").read_text()


def test_halving_costs_what_it_says(tmp_path):
    tuning = searched(tmp_path, {"use": "successive_halving"})
    assert tuning.spent()["versions"] == 9 + 3 * 2 + 1 * 6 == tuning.tuner.cost()


def test_a_promoted_trial_equals_one_that_was_never_interrupted(tmp_path):
    tuning = searched(tmp_path, {"use": "successive_halving"})
    longest = tuning.best()
    whole = fs_course(
        {"data": {**TINY["data"], "val": 0.2}},
        changes={**longest.trial.params, "course.until.versions": 9},
    )
    assert longest.trial.versions == 9
    assert longest.outcome.digest == whole.result.digest


@pytest.mark.parametrize(
    "fidelity",
    [{"evaluation.final_clients": [2, 4, 6]}, {"evaluation": {"final_clients": [2, 4, 6]}}],
    ids=["flat", "nested"],
)
def test_more_clients_are_evaluated_at_higher_rungs(tmp_path, fidelity):
    tuning = searched(tmp_path, {"use": "successive_halving", "fidelity": fidelity})
    seen = {(d.trial.versions, d.report.clients) for d in tuning.finished}
    assert [max(n for v, n in seen if v == versions) for versions in (1, 3, 9)] == [2, 4, 6]
    assert tuning.spent()["versions"] == 21


def test_with_more_clients_per_version_trials_start_again(tmp_path):
    fidelity = {"sampler.clients": [2, 3, 4]}
    tuning = searched(tmp_path, {"use": "successive_halving", "fidelity": fidelity})
    assert tuning.spent() == {
        "versions": 9 + 3 * 3 + 9,
        "client_updates": 9 * 2 + 3 * 3 * 3 + 9 * 4,
        "virtual_time": pytest.approx(tuning.spent()["virtual_time"]),
    }
    assert tuning.best_tables()["sampler"]["clients"] == 4


def test_fedex_is_wrapped_by_halving(tmp_path):
    """Survivors keep their models and what FedEx learned."""
    policy = [{"use": "fedex", "around": SPACE, "count": 3}]
    space = {**SPACE, "server_optimizer.lr": [0.5, 1.0]}
    tuning = searched(
        tmp_path,
        {"use": "successive_halving", "space": space},
        policy=policy,
        trainer={"use": "sgd"},
    )
    best = tuning.best_tables()
    assert tuning.spent()["versions"] == 21
    assert fs_course(best, plugins=[HpoPlugin]).result.digest == tuning.best().outcome.digest


@pytest.mark.parametrize(
    ("tune", "line"),
    [
        (
            {"use": "successive_halving", "trials": 9, "budget": {"versions": 8}},
            "tune.budget.versions: 8 versions do not pay for the first rung, 9 trials of 1. "
            "Remedy: raise it, or lower tune.trials.",
        ),
        (
            {"use": "hyperband", "min_versions": 10},
            "tune.min_versions: 10 versions, but a full trial has 9",
        ),
        (
            {"use": "asha", "min_versions": 10},
            "tune.min_versions: 10 versions, but a full trial has 9",
        ),
        (
            {"use": "pbt", "population": 4, "interval": 2, "budget": {"versions": 7}},
            "tune.budget.versions: 7 versions do not pay for the first 2 of 4 trials. "
            "Remedy: raise it, or lower tune.population.",
        ),
        (
            {"use": "hyperband", "fidelity": {"sampler.clients": 3}},
            "tune.fidelity.sampler.clients: expected a list, one value for each of 3 rungs",
        ),
        (
            {"use": "hyperband", "fidelity": {"sampler.clients": [2, 3, "a"]}},
            "tune.fidelity.sampler.clients: expected an integer or a number, got the string 'a'",
        ),
        (
            {"use": "tpe", "storage": "/nowhere/study.log"},
            "tune.storage: '/nowhere/study.log' cannot be used: [Errno 2] No such file or directory: "
            "'/nowhere/study.log'. Remedy: the path of a journal file, or a URL like sqlite:///study.db.",
        ),
        (
            {"use": "tpe", "storage": "foo://x"},
            "tune.storage: 'foo://x' cannot be used: Can't load plugin: sqlalchemy.dialects:foo. "
            "Remedy: the path of a journal file, or a URL like sqlite:///study.db.",
        ),
        (
            {"use": "hyperband", "fidelity": {"sampler.clients": [2, 4]}},
            "tune.fidelity.sampler.clients: expected a value for each of 3 rungs, got 2",
        ),
        (
            {"use": "hyperband", "fidelity": {"sampler.client": [2, 3, 4]}},
            "tune.fidelity.sampler.client: unknown option of 'uniform', did you mean 'clients'?",
        ),
        (
            {"use": "pbt", "space": {"server_optimizer.lr": [0.5, 1.0]}},
            "tune.space.server_optimizer.lr: 'pbt' changes options while a course runs, and this one may not differ by "
            "task. Remedy: leave it out, or search for it with another tuner.",
        ),
    ],
)
def test_a_search_that_cannot_work_is_refused(tmp_path, tune, line):
    with pytest.raises(ConfigError) as caught:
        searched(tmp_path, tune)
    assert caught.value.problems == (line,)
