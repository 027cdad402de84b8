"""Client-level mechanisms: noise of the right size whatever happens, adaptive clipping, charging what was realised."""

import math
from collections import Counter

import pytest
import torch
from fs_dp.accounting import Release, epsilon
from fs_dp.clipping import BIT, JointClip, joint_norm
from fs_dp.ledger import ledger_of
from fs_dp.plugin import DPPlugin
from scipy import stats

from fscore.params import Group
from fscore.tasks import Cohort, Task
from fscore.testing import fs_course, tiny_course

TOML = """
[plugins.dp]
reproducible = true
[aggregator]
use = "fixed_mean"
[[privacy]]
use = "gaussian"
noise_multiplier = 2.0
clip_norm = 0.5
"""
STILL = TOML + "[trainer]\nlr = 0.0\n"
"""Clients that move nothing: what a version moves is noise alone."""


def course(toml=TOML, **changes):
    return tiny_course(toml, changes=changes)


def run(toml=TOML, changes=None, **more):
    return fs_course(toml, changes=changes, **more)


def cohort_of(*clients, waves=None, number=1):
    waves = waves or [1] * len(clients)
    tasks = [Task(i, c, 0, wave=w) for i, (c, w) in enumerate(zip(clients, waves, strict=True))]
    return Cohort(number, tuple(tasks), (0,) * len(tasks))


# ---------------------------------------------------------------------------- noise


@pytest.mark.parametrize("reproducible", ["true", "false"])
def test_the_noise_of_a_version_is_z_times_c_over_the_public_denominator(reproducible):
    toml = STILL.replace("true", reproducible)
    squares, size = 0.0, 0
    for seed in range(20):
        made = course(toml, **{"course.seed": seed})
        made.run(lambda c: c.book.version == 1)
        drawn = (made.bank[1]["model"] - made.initial) / (2.0 * 0.5 / 4)
        squares, size = squares + float(drawn.double().square().sum()), size + len(drawn)
    assert 1e-3 < stats.chi2.cdf(squares, size) < 1 - 1e-3


def test_who_drops_out_leaves_the_noise_as_it_is():
    made = course()
    sums = {"model": torch.zeros(made.space.size)}
    noised = [
        made.privacy[0].privatise(sums, cohort_of(*clients), made.streams.generator("t"))["model"]
        for clients in ([0, 1, 2, 3], [0])
    ]
    assert torch.equal(*noised)
    assert made.aggregator.denominator([1.0], [1.0]) == 4


def test_an_empty_cohort_is_noise_alone():
    made = course()
    noised = made.privacy[0].privatise({}, cohort_of(), made.streams.generator("t"))
    assert float(noised["model"].std()) == pytest.approx(2.0 * 0.5, rel=0.6)


def test_noise_of_two_versions_is_independent():
    made = course(STILL, **{"model.use": "mlp"})
    made.run(lambda c: c.book.version == 1)
    first = made.bank[1]["model"] - made.initial
    made.run(lambda c: c.book.version == 2)
    second = made.bank[2]["model"] - made.initial - first
    cosine = float(torch.nn.functional.cosine_similarity(first, second, dim=0))
    assert abs(cosine) * math.sqrt(len(first)) < 4


def test_secure_noise_is_another_in_each_run():
    toml = TOML.replace("true", "false")
    assert run(toml).result.digest != run(toml).result.digest


def test_without_noise_to_speak_of_it_is_the_plain_mean():
    quiet = TOML.replace("2.0", "1e-9").replace("0.5", "1e3")
    private = run(quiet).result
    plain = run('[aggregator]\nweighting = "uniform"').result
    torch.testing.assert_close(private.model["model"], plain.model["model"], atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------- the clip


def clipped(values, norm=1.0, **options):
    stage = JointClip("privacy.0", norm, **options)
    stage.layout({n: Group(tuple(v.shape)) for n, v in values.items()})
    return stage.apply(values, None)[0]


def test_the_clip_is_joint_over_all_groups():
    made = clipped({"a": torch.full((8,), 3.0), "b": torch.full((2, 2), 4.0)})
    assert joint_norm(list(made.values())) == pytest.approx(1.0, rel=1e-6)
    assert float(made["a"][0] / made["b"][0, 0]) == pytest.approx(0.75)


def test_an_update_within_the_norm_and_a_zero_update_stay():
    for value in (torch.tensor([0.3, 0.4]), torch.zeros(2)):
        assert torch.equal(clipped({"a": value})["a"], value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_not_finite_stays_so_and_is_rejected(bad):
    made = clipped({"a": torch.tensor([1.0, bad])})
    assert not bool(torch.isfinite(made["a"]).all())


def test_huge_values_do_not_overflow_the_norm():
    made = clipped({"a": torch.full((100,), 1e30)})
    assert joint_norm([made["a"]]) == pytest.approx(1.0, rel=1e-6)


def test_public_and_bounded_groups_lie_outside():
    stage = JointClip("privacy.0", 1.0)
    layout = {"a": Group((2,)), "n": Group((1,), public=True), "b": Group((1,), bounded=True)}
    stage.layout(layout)
    values = {"a": torch.tensor([3.0, 4.0]), "n": torch.tensor([9.0]), "b": torch.tensor([9.0])}
    made, _ = stage.apply(values, None)
    assert {n: float(v.norm()) for n, v in made.items()} == {"a": 1.0, "n": 9.0, "b": 9.0}


def test_a_client_cannot_move_the_sum_by_more_than_the_norm():
    kept, removed = course(), course()
    for made in (kept, removed):
        made.executor.start(made.site)
    tasks = tuple(Task(i, i, 0) for i in range(4))
    whole = kept.opener.open(Cohort(1, tasks, (0,) * 4)).sums["model"]
    less = removed.opener.open(Cohort(1, tasks[:3], (0,) * 3)).sums["model"]
    assert float((whole - less).norm()) <= 0.5 * (1 + 1e-6)


# ---------------------------------------------------------------------------- weights


WEIGHED = TOML.replace(
    '"fixed_mean"', '"fixed_mean"\nweighting = "samples"\nmax_weight = 10.0\nclients = 3.5'
)


def test_weights_are_bounded_hidden_and_over_a_public_number():
    made = course(WEIGHED)
    made.executor.start(made.site)
    tasks = tuple(Task(i, i, 0) for i in range(2))
    opened = made.opener.open(Cohort(1, tasks, (0, 0)))
    plain = course()
    plain.executor.start(plain.site)
    plain.opener.compute(tasks)
    expected = sum(
        plain.opener.outputs[i].values["model"] * min(made.dataset.samples(i), 10) / 10
        for i in range(2)
    )
    torch.testing.assert_close(opened.sums["model"], expected)
    assert made.aggregator.denominator([1.0], [99.0]) == 3.5
    assert "weight" not in made.site.upload.wire


def test_stale_updates_count_less_and_never_more_than_one():
    made = course(TOML.replace('"fixed_mean"', '"fixed_mean"\na = 0.5'))
    cohort = Cohort(1, (Task(0, 0, 0), Task(1, 1, 0)), (0, 3))
    assert list(made.aggregator.factors(cohort)) == [1.0, 0.5]


# ---------------------------------------------------------------------------- adaptive clipping


ADAPTIVE = TOML.replace('"gaussian"', '"adaptive_clipping"')


def adaptive(start, clients=100, noise=1.0):
    toml = (
        f'[plugins.dp]\nreproducible = true\n[aggregator]\nuse = "fixed_mean"\nclients = {clients}'
    )
    toml += (
        f'\n[[privacy]]\nuse = "adaptive_clipping"\nnoise_multiplier = {noise}\nclip_norm = {start}'
    )
    return tiny_course(toml)


@pytest.mark.parametrize("start", [0.1, 1.0, 10.0])
def test_the_norm_converges_to_the_quantile(start):
    """Norms are uniform in (0.5, 1.5), so that their median is 1."""
    made = adaptive(start)
    mechanism, rng = made.privacy[0], made.streams.generator("norms")
    for version in range(100):
        bits = sum(0.5 if norm <= mechanism.norm else -0.5 for norm in rng.uniform(0.5, 1.5, 100))
        sums = {"model": torch.zeros(made.space.size), BIT: torch.tensor([bits])}
        made._announced[0] = dict(mechanism.announce())
        noise = made.streams.generator("noise", version)
        mechanism.privatise(sums, cohort_of(0, number=version), noise)
    assert 0.9 <= mechanism.norm <= 1.1


@pytest.mark.parametrize(("deviation", "expected"), [(5, 1.005038), (10, 1.001252), (50, 1.00005)])
def test_bits_and_updates_share_the_noise_multiplier(deviation, expected):
    made = course(ADAPTIVE.replace("2.0", f"1.0\nbit_noise = {deviation}.0"))
    assert made.privacy[0].update_multiplier == pytest.approx(expected, abs=1e-6)


def test_updates_and_bits_together_cost_one_release():
    made = course(ADAPTIVE)
    mechanism = made.privacy[0]
    parts = Counter(
        {Release(mechanism.update_multiplier): 1, Release(2 * mechanism.bit_deviation): 1}
    )
    assert epsilon(parts, 1e-5) == pytest.approx(epsilon({Release(2.0): 1}, 1e-5), rel=1e-9)


def test_a_version_is_noised_by_the_norm_that_its_clients_clipped_to():
    made = course(ADAPTIVE)
    made._announced[0] = {"clip_norm": 7.0}
    assert made.privacy[0]._largest(cohort_of(0, 1)) == 7.0
    made.privacy[0].logarithm = -3.0
    assert made.privacy[0]._largest(cohort_of(0, 1)) == 7.0


@pytest.mark.parametrize("sign", ["lower", "raise"])
def test_a_clip_norm_that_runs_away_fails_the_course(sign):
    quantile = 0.0 if sign == "lower" else 1.0
    toml = ADAPTIVE.replace("2.0", f"2.0\nclip_lr = 1e9\nquantile = {quantile}")
    result = fs_course(toml).result
    assert result.status == "failed"
    assert result.reason.startswith("privacy.0.clip_lr: the clip norm ran away to exp(")
    assert result.reason.endswith(" of the first one. Remedy: lower clip_lr, or bit_noise.")


def test_the_norm_is_announced_with_each_version():
    made = course(ADAPTIVE)
    made.run(lambda c: c.book.version == 2)
    mechanism = made.privacy[0]
    assert mechanism.logarithm != 0
    assert made.announced(2)["clip_norm"] == 0.5 * math.exp(mechanism.logarithm)


def test_the_bit_says_whether_an_update_was_within_the_norm():
    for value, bit in ((0.9, 0.5), (1.1, -0.5)):
        made = clipped({"a": torch.tensor([value])}, bit=True)
        assert made[BIT].tolist() == [bit]


# ---------------------------------------------------------------------------- what is charged


POISSON = TOML + '[sampler]\nuse = "poisson"\nclients = 0.5\n'


def test_a_poisson_sample_is_charged_with_its_rate():
    made = run(POISSON)
    spent = {Release(2.0, 0.5): 3}
    assert ledger_of(made.course).spent("client") == spent
    assert made.result.metrics["epsilon"] == epsilon(spent, 1e-5)


def test_a_fixed_number_of_clients_is_charged_to_those_who_took_part():
    made = run()
    assert ledger_of(made.course).spent("client") == {}
    own = ledger_of(made.course).own["client"]
    assert sum(rows[0][2] for rows in own.values()) == 12
    most = max(rows[0][2] for rows in own.values())
    assert made.result.metrics["epsilon"] == epsilon({Release(2.0): most}, 1e-5)


def test_a_cohort_of_two_waves_is_no_poisson_sample():
    made = course(POISSON)
    list(made.privacy[0].releases(cohort_of(0, 1, waves=[1, 2])))
    assert ledger_of(made).spent("client") == {Release(2.0, 1.0): 1}


def test_who_is_in_a_cohort_twice_is_charged_twice_the_sensitivity():
    fixed, poisson = course(), course(POISSON)
    for made in (fixed, poisson):
        list(made.privacy[0].releases(cohort_of(0, 0, 1, waves=[1, 2, 1])))
    assert ledger_of(fixed).largest("client") == epsilon({Release(1.0): 1}, 1e-5)
    assert ledger_of(poisson).largest("client") == epsilon({Release(1.0): 1}, 1e-5)


def test_a_sampler_that_may_look_at_private_values_charges_everybody():
    made = run(TOML + '[sampler]\nuse = "weighted"\n')
    assert made.course.sampler.scheme == "other"
    assert ledger_of(made.course).spent("client") == {Release(2.0): 3}


def test_epsilon_stands_in_every_line_and_grows():
    values = [line["epsilon"] for line in run(POISSON).result.history]
    assert values == [epsilon({Release(2.0, 0.5): v}, 1e-5) for v in (1, 2, 3)]


def test_the_noise_for_an_epsilon_is_enough_and_not_too_much():
    toml = POISSON.replace("noise_multiplier = 2.0\n", "").replace("true", "true\nepsilon = 3.0")
    result = run(toml).result
    assert 2.99 < result.metrics["epsilon"] <= 3.0


def test_a_budget_ends_the_course_before_it_is_exceeded():
    toml = POISSON.replace("true", "true\nbudget = 3.0")
    result = run(toml, {"course.until.versions": 50}).result
    after = epsilon({Release(2.0, 0.5): result.versions + 1}, 1e-5)
    assert result.metrics["epsilon"] <= 3.0 < after
    assert result.status == "complete"
    assert result.reason == (
        f"the privacy budget is spent: epsilon {result.metrics['epsilon']:.4g} of 3, "
        f"one more version would make it {after:.4g}"
    )


def test_a_budget_ends_the_part_of_single_clients():
    toml = TOML.replace("true", "true\nbudget = 3.0")
    made = run(toml, {"course.until.versions": 50})
    assert made.result.metrics["epsilon"] <= 3.0
    assert made.result.reason == "the privacy budget of every client is spent: epsilon 3"
    own = ledger_of(made.course).own["client"]
    assert {rows[0][2] for rows in own.values()} == {2.0}
    assert epsilon({Release(2.0): 3}, 1e-5) > 3.0 >= epsilon({Release(2.0): 2}, 1e-5)


def test_the_ledger_survives_a_resume(tmp_path):
    import fscore

    whole = run(ADAPTIVE, out=tmp_path / "whole").result
    begun = tiny_course(ADAPTIVE, out=tmp_path / "begun", changes={"record.snapshot_seconds": 0.0})
    begun.run(lambda c: c.book.version == 2 and not c._unrecorded)
    begun.record.close()
    resumed = fscore.resume(tmp_path / "begun")
    assert resumed.metrics["epsilon"] == whole.metrics["epsilon"]
    assert resumed.digest == whole.digest


def test_secure_noise_makes_each_version_durable():
    assert course(TOML.replace("true", "false")).durable
    assert not course(TOML).durable


def test_the_plugin_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, fs_dp.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert DPPlugin.name == "dp"
