"""FedEx against hand-computed steps, its degenerate equivalences, and its schedule."""

import copy
import math

import numpy as np
import pytest
import tomli
import torch
from attrs import define
from fs_hpo.exponentiated import discounted_mean, entropy, gradient, stepped
from fs_hpo.fedex import FedEx
from fs_hpo.plugin import HpoPlugin

from fscore import Component, hookimpl
from fscore.builtin.given import GivenModel
from fscore.builtin.policies import drawn
from fscore.builtin.trainers import SGD
from fscore.errors import ConfigError
from fscore.kinds.privacy import PrivacyMechanism
from fscore.testing import fs_course
from fscore.testing.course import TINY, tiny_course

RATES = [{"trainer.lr": 0.01}, {"trainer.lr": 0.1}, {"trainer.lr": 0.5}]


def tables(policy=None, **changes):
    made = copy.deepcopy(TINY)
    made["data"]["val"] = 0.3
    made["evaluation"] = {"every": 0}
    made["course"]["until"] = {"versions": 6}
    if policy is not None:
        made["policy"] = [{"use": "fedex", **policy}]
    return {**made, **changes}


def ran(policy=None, out=None, **changes):
    return fs_course(tables(policy, **changes), plugins=[HpoPlugin], out=out)


# ------------------------------------------------------------------------ the formulas


def test_three_arms_by_hand():
    """theta = 1/3 each; tasks draw arms 0, 2, 2 with weights 1/2, 1/4, 1/4, scores 1, 3, 5 and baseline 2.

    grad_0 = 1/2 (1-2) / (1/3) = -3/2, grad_2 = (1/4 (3-2) + 1/4 (5-2)) / (1/3) = 3. With eta = sqrt(2 log 3), divided by
    the largest entry, 3: theta_a is proportional to exp(-eta grad_a / 3).
    """
    slope = gradient(
        3, [0, 2, 2], [1 / 3] * 3, np.array([0.5, 0.25, 0.25]), np.array([-1.0, 1.0, 3.0])
    )
    assert slope.tolist() == pytest.approx([-1.5, 0.0, 3.0])
    policy = FedEx(arms=RATES)
    policy.z, policy.norms = [[-math.log(3)] * 3], [0.0]
    policy._move(0, slope)
    eta = math.sqrt(2 * math.log(3))
    raw = [math.exp(eta / 2), 1.0, math.exp(-eta)]
    assert policy.theta()[0] == pytest.approx([r / sum(raw) for r in raw])


def test_the_importance_weight_is_the_probability_at_issue():
    slope = gradient(2, [1], [0.2], np.array([1.0]), np.array([3.0]))
    assert slope.tolist() == [0.0, 15.0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("aggressive", [(0.5, 0.0), (0.25, 0.0)]),
        ("adaptive", [(0.5, 4.0), (2 / (math.sqrt(20) * 2), 20.0)]),
        ("auto", [(1.0, 1.0), (1 / math.sqrt(2), 2.0)]),
        ("constant", [(1.0, 0.0), (1.0, 0.0)]),
        ("scale", [(math.sqrt(2 * math.log(3)), 0.0)] * 2),
    ],
)
def test_step_sizes_over_two_rounds(kind, expected):
    """Gradients with largest entries 2 and 4, eta 1."""
    store, found = 0.0, []
    for largest in (2.0, 4.0):
        rate, store = stepped(kind, 1.0, largest, store, 3)
        found.append((rate, store))
    assert found == [pytest.approx(pair) for pair in expected]


def test_the_baseline_is_the_last_score_the_mean_or_in_between():
    scores = [4.0, 2.0, 1.0]
    assert [discounted_mean(scores, g) for g in (0.0, 0.5, 1.0)] == pytest.approx(
        [1.0, (4 * 0.25 + 2 * 0.5 + 1) / 1.75, 7 / 3]
    )


def test_entropy_of_a_grid_is_that_of_the_product():
    a, b = [0.5, 0.5], [0.2, 0.3, 0.5]
    product = [p * q for p in a for q in b]
    assert entropy([a, b]) == pytest.approx(-sum(p * math.log(p) for p in product))


def test_arms_are_drawn_in_proportion():
    rng = np.random.default_rng(0)
    places = [drawn([0.1, 0.6, 0.3], rng.random()) for _ in range(20000)]
    assert np.bincount(places) / 20000 == pytest.approx([0.1, 0.6, 0.3], abs=0.015)


# ------------------------------------------------------------------------ in a course


def test_one_arm_is_fedavg_bit_for_bit():
    plain = fs_course(tables(trainer={"use": "sgd", "lr": 0.2}))
    assert ran({"arms": [{"trainer.lr": 0.2}]}).result.digest == plain.result.digest


def test_it_learns_which_rate_is_better():
    run = ran({"arms": [{"trainer.lr": 0.0001}, {"trainer.lr": 0.5}]})
    theta = run.course.policies[0].theta()[0]
    assert theta[1] > 0.9
    assert run.result.metrics["fedex_entropy"] == entropy([theta])


def test_a_course_step_is_the_formula_on_what_the_clients_reported():
    """One version: theta after it, recomputed from the arms that tasks drew and the models that they trained."""
    course = tiny_course(tables({"arms": RATES}), plugins=[HpoPlugin])
    course.run(lambda c: c.book.version == 1)
    policy = course.policies[0]
    again = tiny_course(tables({"arms": RATES}), plugins=[HpoPlugin])
    again.run(lambda c: c.book.in_flight == 4)
    tasks = sorted(again.book.flying(), key=lambda t: t.client)
    again.executor.start(again.site)
    weights, scores = [], []
    for task in tasks:
        context_rates = RATES[task.memo["fedex_arms"][0]]
        assert dict(task.hparams) == context_rates
        again.opener.compute([task])
        model = again.opener.outputs[task.id].values["model"] + again.bank[0]["model"]
        val = again.site.data(task.client, "val")
        params = again.space.views(model)
        weights.append(len(val.y))
        if len(val.y):
            outputs = torch.func.functional_call(again.module, params, (val.x,))
            scores.append(float(torch.nn.functional.cross_entropy(outputs, val.y)))
        else:
            scores.append(0.0)
    share = np.array(weights) / sum(weights)
    slope = np.zeros(3)
    for task, w, s in zip(tasks, share, scores, strict=True):
        slope[task.memo["fedex_arms"][0]] += w * s / (1 / 3)
    moved = np.exp(-math.sqrt(2 * math.log(3)) * slope / np.abs(slope).max())
    assert policy.theta()[0] == pytest.approx((moved / moved.sum()).tolist(), rel=1e-5)


def test_below_the_cutoff_the_likeliest_arm_is_used_and_nothing_is_learned():
    run = ran(
        {"arms": RATES, "cutoff": 1.09}, course={"name": "t", "seed": 3, "until": {"versions": 4}}
    )
    policy = run.course.policies[0]
    assert policy.stopped
    assert sorted(policy.theta()[0]) == [0.0, 0.0, 1.0]
    assert [version for version, _ in policy.history] == [0, 1]


def test_a_grid_has_one_distribution_per_option():
    run = ran({"grid": {"trainer.lr": [0.01, 0.5], "trainer.momentum": [0.0, 0.5, 0.9]}})
    assert [len(row) for row in run.course.policies[0].theta()] == [2, 3]


def test_arms_around_the_course_stay_near_it():
    around = {"trainer.lr": {"low": 1e-4, "high": 1.0, "log": True}}
    run = ran({"around": around, "count": 20, "epsilon": 0.1}, trainer={"use": "sgd", "lr": 0.1})
    rates = [arm["trainer.lr"] for arm in run.course.policies[0].arms_by_choice()[0]]
    assert rates[0] == 0.1
    assert len(set(rates)) == 20
    assert all(abs(math.log10(r) + 1) <= 0.4 + 1e-9 for r in rates)


def test_the_difference_of_training_can_be_the_score():
    run = ran({"arms": [{"trainer.lr": 0.0}], "diff": True})
    assert run.course.policies[0].scores == [0.0] * 6


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(4)], ids=repr)
def test_models_are_judged_in_evaluation_mode(layer):
    """Clients that do not move give the score of version 0, whatever the layer does in training."""
    made = tables({"arms": [{"trainer.epochs": 1e-12, "trainer.batch_size": 1}]})
    model = GivenModel.of(torch.nn.Sequential(layer, torch.nn.Linear(4, 3)))
    course = tiny_course(made, plugins=[HpoPlugin], given={"model": model})
    course.run(lambda c: c.book.in_flight == 4)
    data = [course.site.data(task.client, "val") for task in course.book.flying()]
    x, y = (torch.cat([samples[i] for samples in data]) for i in (0, 1))
    outputs = torch.func.functional_call(
        course.module.eval(), course.space.views(course.bank[0]["model"]), (x,)
    )
    course.module.train()
    course.run(lambda c: c.book.version == 1)
    expected = float(torch.nn.functional.cross_entropy(outputs, y))
    assert course.policies[0].scores == [pytest.approx(expected, rel=1e-6)]


def test_one_arm_is_fedavg_with_dropout_too():
    model = GivenModel.of(torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 3)))
    digests = [
        fs_course(tables(policy), plugins=[HpoPlugin], given={"model": model}).result.digest
        for policy in (None, {"arms": [{"trainer.lr": 0.1}], "diff": True})
    ]
    assert digests[0] == digests[1]


def test_an_accuracy_is_turned_round():
    run = ran({"arms": [{"trainer.lr": 0.0001}, {"trainer.lr": 0.5}], "metric": "accuracy"})
    assert all(-1 <= score <= 0 for score in run.course.policies[0].scores)


def test_tasks_remember_what_was_known_when_they_were_issued():
    """Asynchronously, results of older versions carry the probabilities of their issue."""
    changes = {
        "trigger": {"use": "goal_achieved", "goal": 2},
        "protocol": {"use": "rounds", "broadcast": "after_receiving"},
        "devices": {"use": "constant", "compute": 0.1},
    }
    course = tiny_course(tables({"arms": RATES}, **changes), plugins=[HpoPlugin])
    course.run(lambda c: c.book.version == 4)
    policy = course.policies[0]
    known = dict(policy.history)
    for task in course.book.unresolved():
        place = task.memo["fedex_arms"][0]
        assert task.memo["fedex_chances"][0] == known[task.version][0][place]


def test_the_schedule_replays_to_the_same_digest(tmp_path):
    run = ran({"arms": RATES, "cutoff": 0.7}, out=tmp_path / "run")
    written = tomli.loads((tmp_path / "run/schedule-0.toml").read_text())
    replay = fs_course({**tables(), **written})
    assert replay.result.digest == run.result.digest != fs_course(tables()).result.digest
    policy = run.course.policies[0]
    versions = [step["version"] for step in written["policy"][0]["steps"]]
    weights = [step["choices"][0]["weights"] for step in written["policy"][0]["steps"]]
    assert list(zip(versions, weights, strict=True)) == [(v, row) for v, (row,) in policy.history]


def test_it_survives_a_snapshot():
    from fscore.builtin.record.resume import codec

    whole = ran({"arms": RATES})
    course = tiny_course(tables({"arms": RATES}), plugins=[HpoPlugin])
    course.run(lambda c: c.book.version == 3)
    coder = codec(course)
    document, tensors = coder.encode(course.dump())
    other = tiny_course(tables({"arms": RATES}), plugins=[HpoPlugin])
    other.load(coder.decode(document, tensors))
    assert other.run().digest == whole.result.digest
    assert other.policies[0].theta() == whole.course.policies[0].theta()


@pytest.mark.parametrize("executor", ["process", "cohort"])
def test_executors_report_what_serial_reports(executor):
    serial = ran({"arms": RATES}, executor={"use": "serial"}).course.policies[0]
    other = ran({"arms": RATES}, executor={"use": executor}).course.policies[0]
    assert np.array(other.theta()) == pytest.approx(np.array(serial.theta()), rel=1e-4)


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ({}, "policy.0: expected one of arms, grid and around, got none"),
        (
            {"arms": [{"trainer.lrr": 0.1}]},
            "policy.0.arms.0.arms.0: 'trainer.lrr': unknown option of 'sgd', did you mean 'lr'?",
        ),
        (
            {"arms": [{"trainer.nesterov": True}]},
            "policy.0.arms.0.arms.0: 'trainer.nesterov' cannot differ by task (these can: lr, epochs, batch_size, "
            "max_grad_norm, momentum, weight_decay)",
        ),
        (
            {"arms": [{"trainer.lr": -1.0}]},
            "policy.0.arms.0.arms.0: trainer.lr: must be at least 0, got -1.0",
        ),
        (
            {"arms": RATES, "metric": "f1"},
            "policy.0.metric: nobody reports 'f1' (known: accuracy, loss)",
        ),
        (
            {"around": {"trainer.lr": {"low": 1.0, "high": 0.1}}},
            "policy.0.around.trainer.lr: low 1.0 is greater than high 0.1",
        ),
    ],
)
def test_bad_arms_are_refused_before_the_course(policy, line):
    with pytest.raises(ConfigError) as caught:
        ran(policy)
    assert caught.value.problems == (line,)


def test_a_private_course_is_not_tuned_silently():
    with pytest.raises(ConfigError) as caught:
        ran({"arms": RATES}, privacy=[{"use": "clip"}])
    assert caught.value.problems == (
        "policy.0.privacy: missing; clients send metrics in the clear, which [[privacy]] 'clip' does not account for. "
        "Remedy: privacy = \"ignored\", or tune without 'fedex'.",
    )


def test_what_is_ignored_is_said():
    run = ran({"arms": RATES, "privacy": "ignored"}, privacy=[{"use": "clip"}])
    assert list(run.course.policies[0].advise(run.course)) == [
        "policy.0.privacy: ignored; the clients' metrics are releases that nobody accounts for. "
        "Remedy: tune without 'fedex'."
    ]


@define(eq=False)
class Averaged(SGD):
    """Evaluates the mean of two models."""

    name = "averaged"

    def predictor(self, variables, context):
        return (variables["model"] + context.sent["model"]) / 2


@define(eq=False)
class AveragedPlugin(Component):
    name = "averaged"

    @hookimpl
    def fscore_register_trainers(self):
        return [Averaged]


def test_a_trainer_that_is_evaluated_otherwise_is_refused():
    with pytest.raises(ConfigError) as caught:
        fs_course(
            tables({"arms": RATES}, trainer={"use": "averaged"}),
            plugins=[HpoPlugin, AveragedPlugin],
        )
    assert caught.value.problems == (
        "policy.0.use: trainer 'averaged' is evaluated by more than the model that it sends, which is all that 'fedex' "
        "judges. Remedy: another trainer, or tune without 'fedex'.",
    )


@define(eq=False)
class Sums(PrivacyMechanism):
    """Shows nobody's metrics."""

    name = "sums"
    removes = frozenset({"plain_metrics"})


@define(eq=False)
class SumsPlugin(Component):
    name = "sums"

    @hookimpl
    def fscore_register_privacy_mechanisms(self):
        return [Sums]


def test_where_metrics_are_hidden_it_is_refused():
    made = tables({"arms": RATES, "privacy": "ignored"}, privacy=[{"use": "sums"}])
    with pytest.raises(ConfigError) as caught:
        fs_course(made, plugins=[HpoPlugin, SumsPlugin])
    assert caught.value.problems == (
        "E-COMPAT: [[policy]] 'fedex' needs metrics of single clients in the clear, but [[privacy]] 'sums' takes that "
        "away. Remedy: switch one of them off.",
    )
