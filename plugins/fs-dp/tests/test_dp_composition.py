"""With asynchrony, personalisation, compression, robust rules and secure sums: it runs, or is refused by its rule."""

import pytest
import torch
from attrs import define
from fs_dp.accounting import Release, epsilon
from fs_dp.central import rounding
from fs_dp.ledger import ledger_of

from fscore.builtin.executors.cohort import CohortExecutor
from fscore.errors import ConfigError, PluginError
from fscore.events import Released
from fscore.kinds.aggregator import Aggregator
from fscore.kinds.compressor import Compressor
from fscore.params import Group
from fscore.paths import Stage
from fscore.testing import fs_course, tiny_course

TOML = """
[plugins.dp]
reproducible = true
[aggregator]
use = "fixed_mean"
clients = 3.0
a = 0.5
[[privacy]]
use = "gaussian"
noise_multiplier = 2.0
clip_norm = 0.5
"""
ASYNCHRONOUS = """
[devices]
use = "lognormal"
[sampler]
use = "uniform"
clients = 5
[trigger]
use = "goal_achieved"
goal = 3
[protocol]
broadcast = "after_receiving"
"""


def problems(toml, **more):
    with pytest.raises(ConfigError) as caught:
        tiny_course(toml, **more)
    return list(caught.value.problems)


def test_an_asynchronous_course_charges_who_was_in_each_buffer():
    made = fs_course(TOML + ASYNCHRONOUS, changes={"course.until.versions": 8})
    own = ledger_of(made.course).own["client"]
    assert made.result.tasks["used"] == 24
    assert sum(rows[0][2] for rows in own.values()) >= 24
    most = max(rows[0][2] for rows in own.values())
    assert made.result.metrics["epsilon"] == epsilon({Release(2.0): most}, 1e-5)


def test_a_budget_holds_in_an_asynchronous_course():
    toml = TOML.replace("true", "true\nbudget = 5.0") + ASYNCHRONOUS
    result = fs_course(toml, changes={"course.until.versions": 60}).result
    assert result.metrics["epsilon"] <= 5.0
    assert result.versions < 60


def test_a_cohort_of_one_is_refused():
    toml = TOML.replace("clients = 3.0", "clients = 1.0") + ASYNCHRONOUS.replace("= 3", "= 1")
    assert problems(toml) == [
        "privacy.0.use: 'gaussian' hides a client among others, but a version is made of one. "
        "Remedy: more clients per version, or use = 'local_dp'."
    ]


def test_what_stays_at_the_client_is_neither_clipped_nor_noised():
    toml = TOML + '[model]\nuse = "mlp"\n[trainer]\nprivate = ["linear"]\nlr = 0.0\n'
    made = fs_course(toml)
    moved = made.result.model["model"] != made.course.initial
    private = torch.zeros(made.course.space.size, dtype=torch.bool)
    for start, stop in made.course.site.parts["private"]:
        private[start:stop] = True
    assert not bool(moved[private].any())
    assert bool(moved[~private].all())


@define(eq=False, slots=False)
class Rule(Aggregator):
    name = "rule"
    needs = frozenset({"individual_updates"})

    def reduce(self, rows, weights):
        return rows.median(dim=0).values


def test_a_robust_rule_is_refused():
    toml = TOML.replace('[aggregator]\nuse = "fixed_mean"\nclients = 3.0\na = 0.5\n', "")
    assert problems(toml, given={"aggregator": Rule()}) == [
        "E-COMPAT: [[privacy]] 'gaussian' needs fixed denominator, but nothing in this course provides it. "
        "Remedy: add 'fixed_mean', or switch 'gaussian' off."
    ]


class Halve(Stage):
    """Linear, so that it can be undone on a noised sum."""

    name = "halve"
    rank = 40

    def layout(self, before):
        self.names = [n for n, g in before.items() if not g.public]
        return before

    def apply(self, values, context):
        return {n: v / 2 if n in self.names else v for n, v in values.items()}, {}

    def undo(self, values, context):
        return {n: v * 2 if n in self.names else v for n, v in values.items()}


class Codes(Halve):
    name = "codes"

    def layout(self, before):
        layout = super().layout(before)
        return {n: Group(g.shape, "int8") if n in self.names else g for n, g in layout.items()}


@define(eq=False, slots=False)
class Linear(Compressor):
    name = "linear"

    def stages(self):
        return (Halve(),)


@define(eq=False, slots=False)
class Integers(Compressor):
    name = "integers"

    def stages(self):
        return (Codes(),)


def test_compression_lies_before_the_clip_and_is_undone_behind_the_noise():
    quiet = TOML.replace("2.0", "1e-9").replace("0.5\n", "1e3\n")
    plain = fs_course(quiet).result.model["model"]
    halved = fs_course(quiet, given={"compressor.0": Linear()})
    torch.testing.assert_close(halved.result.model["model"], plain, atol=1e-5, rtol=0)
    ranks = [p.stage.name for p in halved.course.site.upload.placed]
    assert ranks == ["difference", "halve", "joint clip"]


def test_noise_is_undone_with_the_sum():
    still = TOML + "[trainer]\nlr = 0.0\n"
    plain = fs_course(still).result.model["model"]
    halved = fs_course(still, given={"compressor.0": Linear()}).result.model["model"]
    initial = tiny_course(still).initial
    torch.testing.assert_close(halved - initial, 2 * (plain - initial), atol=1e-4, rtol=0)


def test_compression_to_integers_is_refused():
    assert problems(TOML, given={"compressor.0": Integers()}) == [
        "privacy.0.use: group 'model' of the upload is int8; only float32 and float64 can be clipped and noised. "
        "Remedy: switch off what makes it so (a compressor)."
    ]


class Rounded(Stage):
    name = "rounded"
    rank = 80
    moves = 0.25

    def apply(self, values, context):
        return values, {}


@define(eq=False, slots=False)
class Rounding(Compressor):
    name = "rounding"

    def stages(self):
        return (Rounded(),)


def test_rounding_behind_the_clip_adds_to_the_sensitivity():
    course = tiny_course(TOML, given={"compressor.0": Rounding()})
    assert rounding(course) == 0.25
    assert course.privacy[0]._largest(course.book.claim([])) == 0.75


def test_central_and_sample_level_ledgers_stand_side_by_side():
    toml = TOML + '[[privacy]]\nuse = "dp_sgd"\nnoise_multiplier = 1.0\n'
    made = fs_course(toml)
    ledger = ledger_of(made.course)
    assert made.result.metrics["epsilon"] == ledger.largest("client")
    assert made.result.metrics["epsilon_sample"] == ledger.largest("sample")


def test_noise_meets_the_sum_that_secure_aggregation_reveals():
    pytest.importorskip("fs_secagg")
    toml = TOML + '[plugins.secagg]\n[[privacy]]\nuse = "secagg"\n'
    made = fs_course(toml)
    assert made.result.status == "complete"
    assert made.result.metrics["epsilon"] == fs_course(TOML).result.metrics["epsilon"]
    names = [p.stage.name for p in made.course.site.upload.placed]
    assert names.index("joint clip") < names.index("fixed point") < names.index("mask")


def released(course, *facts):
    course.handlers.deliver(Released("metric", facts))


def test_a_noised_metric_is_charged_to_everybody():
    course = tiny_course(TOML)
    released(course, ("unit", "client"), ("noise_multiplier", 3.0), ("rate", 1.0))
    assert ledger_of(course).spent("client") == {Release(3.0): 1}
    assert course.privacy[0].figures() == {"epsilon": epsilon({Release(3.0): 1}, 1e-5)}


def test_a_metric_without_its_facts_is_refused():
    with pytest.raises(PluginError) as caught:
        released(tiny_course(TOML), ("unit", "client"))
    assert str(caught.value) == (
        "Released('metric'): facts {'unit': 'client'}, expected unit ('client' or 'sample'), noise_multiplier and rate"
    )


WEIGHED = 'clients = 3.0\nweighting = "samples"\nmax_weight = 9.0'


@pytest.mark.parametrize(
    "toml",
    [
        TOML,
        TOML.replace("clients = 3.0", WEIGHED),
        TOML.replace('"gaussian"', '"adaptive_clipping"'),
        TOML.replace('"gaussian"', '"local_dp"'),
    ],
    ids=["gaussian", "weights", "adaptive", "local"],
)
def test_many_clients_at_once_are_clipped_and_noised_as_one_by_one(toml):
    one = fs_course(toml).result.model["model"]
    course = tiny_course(toml, given={"executor": CohortExecutor(chunk=4)})
    assert all(p.stage.lifts for p in course.site.upload.placed)
    course.run()
    torch.testing.assert_close(course.bank[3]["model"], one, atol=1e-5, rtol=0)


PERSONAL = TOML + '[plugins.personalization]\n[trainer]\nuse = "USE"\n[model]\nuse = "mlp"\n'
SAMPLES = PERSONAL.replace('"gaussian"', '"dp_sgd"').replace("2.0", "2.0\nmode = 'hooks'")


@pytest.mark.parametrize("use", ["ditto", "fedrep", "fedala"])
@pytest.mark.parametrize("toml", [PERSONAL, SAMPLES], ids=["client", "sample"])
def test_personalised_trainers_train_under_differential_privacy(toml, use):
    pytest.importorskip("fs_personalization")
    made = fs_course(toml.replace("USE", use))
    assert made.result.status == "complete"
    assert made.result.metrics["epsilon"] > 0


def test_models_that_are_trained_together_are_clipped_together():
    pytest.importorskip("fs_personalization")
    toml = SAMPLES.replace("mode = 'hooks'", "").replace("USE", "apfl")
    assert fs_course(toml).result.status == "complete"
    with pytest.raises(PluginError) as caught:
        fs_course(toml, changes={"privacy.0.mode": "ghost"})
    assert str(caught.value) == (
        "trainer: it trains model and mixed together; opacus has hooks for one. Remedy: mode = 'vectorised'."
    )


def test_a_trainer_with_batches_of_its_own_is_refused():
    pytest.importorskip("fs_personalization")
    assert problems(SAMPLES.replace("USE", "pfedme")) == [
        "privacy.0.use: trainer 'pfedme' has its own batches, which 'dp_sgd' would replace. Remedy: another trainer."
    ]
