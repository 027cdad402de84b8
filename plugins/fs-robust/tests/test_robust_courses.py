"""The rules in courses: contracts, resuming, what is refused, and attackers that a mean does not survive."""

from __future__ import annotations

import pytest
import torch
from attrs import define
from fs_robust.centres import CentredClipping, GeometricMedian
from fs_robust.coordinates import TrimmedMean
from fs_robust.dnc import DnC
from fs_robust.krum import Bulyan, Krum, MultiKrum
from fs_robust.norm_bound import NormBound
from fs_robust.plugin import RobustPlugin

from fscore.builtin.reference import reference
from fscore.builtin.trainers import SGD
from fscore.errors import ConfigError
from fscore.kinds.attack import Attack
from fscore.testing import AggregatorContract, fs_course
from fscore.testing.course import tiny_course

PLUGINS = [RobustPlugin]
ALL = 'sampler = { use = "all" }\n'


class TestTrimmedMean(AggregatorContract):
    def make(self):
        return TrimmedMean(byzantine=0.25)


class TestKrum(AggregatorContract):
    def make(self):
        return Krum(byzantine=0)


class TestMultiKrum(AggregatorContract):
    def make(self):
        return MultiKrum(byzantine=0)


class TestBulyan(AggregatorContract):
    def make(self):
        return Bulyan(byzantine=0)


class TestGeometricMedian(AggregatorContract):
    def make(self):
        return GeometricMedian(iterations=500)


class TestCentredClipping(AggregatorContract):
    def make(self):
        return CentredClipping(clip_norm=1e6)


class TestNormBound(AggregatorContract):
    def make(self):
        return NormBound(clip_norm=1e6)


class TestDnC(AggregatorContract):
    def make(self):
        return DnC(byzantine=0.25)


class TestMixedTrimmedMean(AggregatorContract):
    def make(self):
        return TrimmedMean(byzantine=0.25, before=["nnm"])

    toml = "sampler = { clients = 5 }"


def aggregator(text):
    return f"[aggregator]\n{text}\n"


@pytest.mark.parametrize(
    "text",
    [
        'use = "centred_clipping"\nclip_norm = 0.05',
        'use = "krum"\nbyzantine = 0\nbefore = ["bucketing"]',
        'use = "dnc"\nbyzantine = 1\ncoordinates = 3',
    ],
)
def test_state_and_draws_survive_a_snapshot(text):
    toml = ALL + aggregator(text)
    whole = tiny_course(toml, plugins=PLUGINS).run()
    paused, resumed = (tiny_course(toml, plugins=PLUGINS) for _ in range(2))
    paused.run(lambda course: course.settled and course.book.version == 1)

    resumed.load(paused.dump())

    assert resumed.run().digest == whole.digest


def test_a_bound_that_binds_nobody_is_the_uniform_mean():
    plain = fs_course(ALL + aggregator('use = "mean"\nweighting = "uniform"'))
    bound = fs_course(ALL + aggregator('use = "norm_bound"\nclip_norm = 1e6'), plugins=PLUGINS)

    torch.testing.assert_close(bound.result.model["model"], plain.result.model["model"])


@define(eq=False)
class Liar(Attack):
    """Six clients, of whom one or more send a constant."""

    name = "liar"
    colludes = "all"
    controlled = frozenset({0})

    def controls(self, population, rng):
        return frozenset(sorted(set(range(population.size)) - set(population.unseen))[:1])

    def craft(self, honest, mine, cohort, rng):
        return torch.full((len(mine), honest.shape[1]), 1e6)


RULES = [
    'use = "trimmed_mean"\nbyzantine = 1',
    'use = "krum"\nbyzantine = 1',
    'use = "multi_krum"\nbyzantine = 1',
    'use = "geometric_median"',
    'use = "centred_clipping"\nclip_norm = 1.0',
    'use = "norm_bound"\nclip_norm = 1.0',
    'use = "dnc"\nbyzantine = 1',
    'use = "trimmed_mean"\nbyzantine = 1\nbefore = ["nnm"]',
    'use = "geometric_median"\nbyzantine = 1\nbefore = ["bucketing"]',
]


@pytest.mark.parametrize("text", RULES)
def test_one_liar_of_six_does_not_carry_the_model_off(text):
    course = tiny_course(ALL + aggregator(text), plugins=PLUGINS, given={"attack.0": Liar()})

    result = course.run()

    assert result.status == "complete"
    assert float(torch.linalg.vector_norm(result.model["model"])) < 20.0


def test_one_liar_of_six_carries_the_mean_off():
    course = tiny_course(ALL, given={"attack.0": Liar()})

    assert float(torch.linalg.vector_norm(course.run().model["model"])) > 1e5


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'use = "krum"\nbyzantine = 1',
            "aggregator.byzantine: 'krum' with f = 1 needs 5 updates, but a version is made of 4. "
            "Remedy: lower aggregator.byzantine or raise sampler.clients.",
        ),
        (
            'use = "trimmed_mean"\nbyzantine = 2',
            "aggregator.byzantine: 'trimmed_mean' with f = 2 needs 5 updates, but a version is made of 4. "
            "Remedy: lower aggregator.byzantine or raise sampler.clients.",
        ),
        (
            'use = "trimmed_mean"\nbyzantine = 1\nbefore = ["bucketing"]',
            "aggregator.byzantine: 'trimmed_mean' with f = 1 needs 5 updates, but a version is made of 4. "
            "Remedy: lower aggregator.byzantine or raise sampler.clients.",
        ),
        (
            'use = "trimmed_mean"\nbyzantine = 0.5',
            "aggregator.byzantine: a share must be below 0.5, got 0.5. "
            "Remedy: write a number of updates without a decimal point.",
        ),
        (
            'use = "geometric_median"\nbefore = ["nnm"]',
            "aggregator.byzantine: 'nnm' with f = 0 makes all updates equal to their mean. "
            "Remedy: set aggregator.byzantine.",
        ),
        (
            'use = "multi_krum"\nbyzantine = 0\nkeep = 5',
            "aggregator.keep: the mean of 5 updates would hold Byzantine ones, at most 4 of 4 are honest for sure. "
            "Remedy: lower it.",
        ),
        (
            'use = "geometric_median"\nbefore = ["nnn"]',
            "aggregator.before: expected some of 'nnm', 'bucketing', got 'nnn'",
        ),
        (
            'use = "krum"',
            "aggregator.byzantine: missing; 'krum' needs it. f: how many updates of a version may be Byzantine; a number, "
            "or a share of them.",
        ),
        (
            'use = "krum"\nbyzantine = 0\nweighting = "samples"',
            "aggregator.weighting: expected one of 'uniform', got the string 'samples'",
        ),
        (
            'use = "fltrust"',
            "aggregator.use: 'fltrust' needs root data of the server's own, but 'synthetic' gives none. "
            "Remedy: set data.root, or use a data set that has some.",
        ),
    ],
)
def test_what_cannot_be_is_refused(text, expected):
    with pytest.raises(ConfigError) as error:
        tiny_course(aggregator(text), plugins=PLUGINS)

    assert list(error.value.problems) == [expected]


def test_a_share_of_all_is_refused():
    with pytest.raises(ConfigError) as error:
        tiny_course(aggregator('use = "krum"\nbyzantine = 1.0'), plugins=PLUGINS)

    assert list(error.value.problems) == [
        "aggregator.byzantine: a share must be below 0.5, got 1.0. "
        "Remedy: write a number of updates without a decimal point."
    ]


def test_the_goal_of_the_trigger_counts():
    toml = (
        ALL
        + '[trigger]\nuse = "goal_achieved"\ngoal = 4\n'
        + aggregator('use = "krum"\nbyzantine = 1')
    )

    with pytest.raises(ConfigError) as error:
        tiny_course(toml, plugins=PLUGINS)

    assert "needs 5 updates, but a version is made of 4" in str(error.value)


# ------------------------------------------------------------------------ FLTrust

DIGITS = (
    """
course = { seed = 2, until = { versions = 5 } }
data = { use = "digits", partition = { use = "iid", clients = 10 }, unseen_clients = 0, root = 100 }
trainer = { lr = 0.1 }
aggregator = { use = "fltrust" }
"""
    + ALL
)


def test_fltrust_stands_a_liar():
    course = tiny_course(DIGITS, plugins=PLUGINS, given={"attack.0": Liar()})

    assert course.run().metrics["test_accuracy"] > 0.8


def test_fltrust_scales_every_update_to_the_length_of_the_servers_own():
    course = tiny_course(DIGITS, plugins=PLUGINS)
    course.executor.start(course.site)
    root = reference(course, "root")
    course.run(lambda c: c.book.version == 1)
    moved = course.bank[1]["model"] - course.initial

    cosine = float(torch.nn.functional.cosine_similarity(moved, root, dim=0))
    assert cosine > 0.8
    assert float(moved.norm()) <= float(root.norm()) * (1 + 1e-5)


@define(eq=False)
class Surveys(SGD):
    """Measures all samples of a client before it trains."""

    name = "surveys"

    def survey(self, samples, context):
        return {"count": torch.tensor(float(len(samples.y)))}


def test_fltrust_with_a_trainer_that_surveys_samples_is_refused():
    toml = DIGITS.replace("trainer = { lr = 0.1 }\n", "")

    with pytest.raises(ConfigError) as error:
        tiny_course(toml, plugins=PLUGINS, given={"trainer": Surveys()})

    assert list(error.value.problems) == [
        "aggregator.use: 'fltrust' trains on root data as a client does, but trainer 'surveys' first looks at all of a "
        "client's samples. Remedy: choose another aggregator, or another trainer."
    ]


def test_fltrust_repeats_and_resumes():
    whole = tiny_course(DIGITS, plugins=PLUGINS).run()
    paused, resumed = (tiny_course(DIGITS, plugins=PLUGINS) for _ in range(2))
    paused.run(lambda course: course.settled and course.book.version == 2)

    resumed.load(paused.dump())

    assert resumed.run().digest == whole.digest


@pytest.mark.parametrize("byzantine", ["1", "0.25"])
def test_a_cohort_that_lost_too_many_fails_and_the_course_goes_on(byzantine):
    """Six clients, a third of whose updates are no numbers: Krum needs five updates."""
    toml = ALL + '[[faults]]\nuse = "corrupt"\nhow = "nan"\nrate = 0.3\n'
    run = fs_course(toml + aggregator(f'use = "krum"\nbyzantine = {byzantine}'), plugins=PLUGINS)

    assert (run.result.status, run.result.versions, run.course.failed_cohorts) == ("partial", 3, 2)
