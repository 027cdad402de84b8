"""What is refused before the first round, with key and remedy; every text in full."""

import pytest
import torch
from attrs import define
from fs_dp.ledger import ledger_of

from fscore.builtin import trainers
from fscore.errors import ConfigError
from fscore.kinds.model import Model
from fscore.testing import fs_course, tiny_course

GAUSSIAN = """
[plugins.dp]
reproducible = true
[aggregator]
use = "fixed_mean"
[[privacy]]
use = "gaussian"
noise_multiplier = 1.0
"""
SGD = """
[plugins.dp]
reproducible = true
[[privacy]]
use = "dp_sgd"
noise_multiplier = 1.0
"""


@define(eq=False, slots=False)
class BatchNormed(Model):
    """A model whose second layer mixes samples."""

    name = "batch_normed"

    def build(self, example, classes):
        return torch.nn.Sequential(
            torch.nn.Linear(example.x.shape[1], 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Linear(8, classes),
        )


def problems(toml, changes=None, given=None):
    with pytest.raises(ConfigError) as caught:
        tiny_course(toml, changes=changes, given=given)
    return list(caught.value.problems)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_noise(value):
    assert problems(GAUSSIAN, {"privacy.0.noise_multiplier": value}) == [
        f"privacy.0.noise_multiplier: must be greater than 0, got {value}: without noise nothing is guaranteed. "
        "Remedy: raise it, or use = 'clip' to bound norms only"
    ]


def test_a_delta_of_one_over_the_number_of_clients():
    assert problems(GAUSSIAN, {"plugins.dp.delta": 0.17}) == [
        "plugins.dp.delta: must be less than 1/6, one over the number of clients, got 0.17. Remedy: lower it."
    ]


def test_a_delta_of_one_over_the_samples_of_a_client():
    (problem,) = problems(SGD, {"plugins.dp.delta": 0.3})
    assert problem.startswith("plugins.dp.delta: must be less than 1/")
    assert problem.endswith(", one over the number of samples, got 0.3. Remedy: lower it.")


def test_a_delta_outside_its_range():
    assert problems(GAUSSIAN, {"plugins.dp.delta": 1.5}) == [
        "plugins.dp.delta: must lie between 0 and 1, got 1.5"
    ]


def test_weights_by_samples_without_a_bound():
    assert problems(GAUSSIAN, {"aggregator.weighting": "samples"}) == [
        "aggregator.max_weight: missing; weights by samples have no bound without it, and one client could outweigh all "
        "others. Remedy: set it, or weighting = 'uniform'."
    ]


def test_a_bound_of_uniform_weights():
    assert problems(GAUSSIAN, {"aggregator.max_weight": 3.0}) == [
        "aggregator.max_weight: weights are uniform. Remedy: weighting = 'samples', or remove the line."
    ]


def test_a_mean_over_who_came():
    assert problems(GAUSSIAN.replace("fixed_mean", "mean")) == [
        "E-COMPAT: [[privacy]] 'gaussian' needs fixed denominator, but nothing in this course provides it. "
        "Remedy: add 'fixed_mean', or switch 'gaussian' off."
    ]


def test_a_cohort_of_one():
    assert problems(GAUSSIAN, {"sampler.clients": 1}) == [
        "privacy.0.use: 'gaussian' hides a client among others, but a version is made of one. "
        "Remedy: more clients per version, or use = 'local_dp'."
    ]


def test_two_announced_clip_norms():
    more = GAUSSIAN + '[[privacy]]\nuse = "adaptive_clipping"\nnoise_multiplier = 1.0\n'
    assert problems(more) == [
        "privacy.1.use: 'gaussian' clips already, and one course has one announced clip norm. "
        "Remedy: remove one of them."
    ]


def test_a_group_that_cannot_be_noised():
    from fs_dp.clipping import JointClip

    from fscore.params import Group

    with pytest.raises(ConfigError) as caught:
        JointClip("privacy.0").layout({"places": Group((3,), "int64")})
    assert str(caught.value) == (
        "privacy.0.use: group 'places' of the upload is int64; only float32 and float64 can be clipped and noised. "
        "Remedy: switch off what makes it so (a compressor)."
    )


def test_a_group_over_a_private_count():
    from fs_dp.clipping import JointClip

    from fscore.params import Group

    layout = {"sums": Group((3,), count="n"), "n": Group((3,), reduce="sum")}
    with pytest.raises(ConfigError) as caught:
        JointClip("privacy.0").layout(layout)
    assert str(caught.value) == (
        "privacy.0.use: group 'sums' of the upload is divided by the private count 'n', for which there is no "
        "mechanism. Remedy: another trainer."
    )


def test_a_group_of_a_row_that_its_client_chooses():
    pytest.importorskip("fs_personalization")
    toml = GAUSSIAN + '[plugins.personalization]\n[trainer]\nuse = "ifca"\n'
    assert problems(toml) == [
        "privacy.0.use: group 'model' of the upload moves the row that its client chooses ('cluster', in the clear) and is "
        "divided by the private number of clients of that row. Remedy: another trainer."
    ]


def test_variances_that_noise_would_make_negative():
    assert problems(GAUSSIAN, given={"model": BatchNormed()}) == [
        "privacy.0.use: noise makes variances of the batch norm layer '1' negative. "
        "Remedy: group norm, or trainer.private = ['BatchNorm1d*']."
    ]


def test_batch_norm_that_stays_at_the_clients():
    course = tiny_course(
        GAUSSIAN, given={"model": BatchNormed()}, changes={"trainer.private": ["BatchNorm1d*"]}
    )
    assert course.run().status == "complete"


@pytest.mark.parametrize("mode", ["auto", "vectorised"])
def test_batch_norm_under_dp_sgd(mode):
    assert problems(SGD, {"privacy.0.mode": mode}, given={"model": BatchNormed()}) == [
        "privacy.0.use: batch norm layer '1' mixes the samples of a batch, so that no clip bounds what one of them does. "
        "Remedy: group norm, in the model's options or by opacus' ModuleValidator.fix."
    ]


@pytest.mark.parametrize("sampler", ["uniform", "all"])
def test_amplification_that_the_sampler_does_not_give(sampler):
    toml = GAUSSIAN.replace("true", "true\namplification = true")
    toml += f'[sampler]\nuse = "{sampler}"\n'
    assert problems(toml) == [
        f"plugins.dp.amplification: sampler '{sampler}' gives none; it is proven for independent draws of closed cohorts. "
        "Remedy: sampler.use = 'poisson', or remove the line."
    ]


FIRST_COME = """
[sampler]
use = "poisson"
clients = 0.5
[trigger]
use = "goal_achieved"
goal = 2
[protocol]
staleness_limit = 0
"""
SMALL_AGAIN = """
[sampler]
use = "poisson"
clients = 0.5
[protocol]
min_results = 2
"""


@pytest.mark.parametrize(
    ("more", "why", "remedy"),
    [
        (
            FIRST_COME,
            "with trigger 'goal_achieved' it depends on others whether a client is in time",
            "trigger.use = 'all_received'",
        ),
        (
            SMALL_AGAIN,
            "protocol.min_results has draws of fewer than 2 drawn again",
            "remove protocol.min_results",
        ),
    ],
)
def test_amplification_where_a_client_depends_on_others(more, why, remedy):
    toml = GAUSSIAN.replace("true", "true\namplification = true") + more
    assert problems(toml) == [
        f"plugins.dp.amplification: {why}; it is proven for independent draws of closed cohorts. "
        f"Remedy: {remedy}, or remove the line."
    ]
    made = fs_course(GAUSSIAN + more)
    assert ledger_of(made.course).spent("client") == {}
    own = ledger_of(made.course).own["client"].values()
    assert {(z, rate) for ((z, rate, _),) in own} == {(1.0, 1.0)}
    assert (
        f"plugins.dp.amplification: none is counted, because {why}. Remedy: {remedy}, or set it to false."
        in made.course.advice
    )


def test_noise_that_makes_the_grid_coarser_than_updates():
    toml = GAUSSIAN.replace("noise_multiplier = 1.0", "noise_multiplier = 1e9")
    size = tiny_course(GAUSSIAN).space.size
    assert problems(toml) == [
        f"privacy.0.noise_multiplier: 1e+09 is too large for {size} parameters, which are rounded to a grid that goes "
        "with the noise. Remedy: lower it."
    ]


def test_poisson_samples_of_an_asynchronous_course():
    toml = GAUSSIAN + '[sampler]\nuse = "poisson"\n[protocol]\nbroadcast = "after_receiving"\n'
    (problem,) = [p for p in problems(toml) if "closed" in p]
    assert problem.startswith("E-COMPAT: [sampler] 'poisson' needs ")


@pytest.mark.parametrize("key", ["epsilon", "budget"])
def test_a_promise_by_an_approximation(key):
    toml = GAUSSIAN.replace(
        "noise_multiplier = 1.0\n", "" if key == "epsilon" else "noise_multiplier = 9.0\n"
    )
    toml = toml.replace("true", f'true\naccountant = "gdp_approximate"\n{key} = 5.0')
    assert problems(toml) == [
        "plugins.dp.accountant: 'gdp_approximate' lies below the true epsilon, so that it keeps no promise. "
        "Remedy: accountant = 'pld', or remove plugins.dp.epsilon and plugins.dp.budget."
    ]


def test_an_accountant_without_a_bound():
    toml = GAUSSIAN.replace("true", 'true\naccountant = "rdp"\nadjacency = "replace_one"')
    assert problems(toml + '[sampler]\nuse = "poisson"\nclients = 0.5\n') == [
        "plugins.dp.accountant: 'rdp' has no bound for Poisson sampling under replace_one; use 'pld'"
    ]


def test_a_missing_noise_multiplier():
    assert problems(GAUSSIAN.replace("noise_multiplier = 1.0\n", "")) == [
        "privacy.0.noise_multiplier: missing. Remedy: set it, or plugins.dp.epsilon, from which it is computed."
    ]


def test_an_epsilon_without_effect():
    assert problems(GAUSSIAN, {"plugins.dp.epsilon": 3.0}) == [
        "plugins.dp.epsilon: no mechanism is without noise_multiplier, so that it would have no effect. "
        "Remedy: remove one of them."
    ]


def test_an_epsilon_of_a_course_of_unknown_length():
    toml = GAUSSIAN.replace("noise_multiplier = 1.0\n", "").replace("true", "true\nepsilon = 3.0")
    changes = {"course.until": {"client_updates": 20}}
    assert problems(toml, changes) == [
        "course.until: noise for plugins.dp.epsilon follows from the number of versions. "
        "Remedy: until = { versions = N }, or set privacy.0.noise_multiplier."
    ]


def test_a_budget_below_one_version():
    assert problems(GAUSSIAN, {"plugins.dp.budget": 1.0}) == [
        "plugins.dp.budget: 1, but one version already costs epsilon 4.377. "
        "Remedy: raise it, or privacy.0.noise_multiplier."
    ]


def test_bits_that_alone_cost_more_than_the_whole():
    toml = GAUSSIAN.replace('"gaussian"', '"adaptive_clipping"')
    assert problems(toml, {"privacy.0.bit_noise": 0.5}) == [
        "privacy.0.bit_noise: 0.5, but the bits alone cost more than a noise multiplier of 1 unless it is greater than "
        "0.5. Remedy: raise it."
    ]


def test_dp_sgd_twice():
    more = SGD + '[[privacy]]\nuse = "dp_sgd"\nnoise_multiplier = 1.0\n'
    assert problems(more) == ["privacy.1.use: 'dp_sgd' is there twice. Remedy: remove one of them."]


@define(eq=False, slots=False)
class Own(trainers.SGD):
    """A trainer with a piece of its own in each place that DP-SGD takes or cannot see."""

    name = "own"

    def gradient(self, loss, variables, batch, context):
        return super().gradient(loss, variables, batch, context)

    def summary(self, variables, samples, context):
        return {"mean": samples.x.mean()}


def test_a_trainer_whose_pieces_dp_sgd_would_replace_or_not_see():
    assert problems(SGD, given={"trainer": Own()}) == [
        "privacy.0.use: trainer 'own' has its own gradient, which 'dp_sgd' would replace. Remedy: another trainer.",
        "privacy.0.use: trainer 'own' measures samples outside its gradient (summary), which 'dp_sgd' does not protect. "
        "Remedy: another trainer.",
    ]


def test_a_mechanism_without_its_plugin():
    (problem,) = problems(GAUSSIAN.replace("[plugins.dp]\nreproducible = true\n", ""))[:1]
    assert "[plugins.dp]" in problem


def test_nbafl_with_a_client_of_fewer_samples():
    options = "nominal_epsilon = 1.0\nleast_samples = 1000"
    toml = GAUSSIAN.replace('"gaussian"\nnoise_multiplier = 1.0', f'"nbafl"\n{options}')
    course = tiny_course()
    least = min(course.dataset.samples(c) for c in range(8))
    assert problems(toml) == [
        f"privacy.0.least_samples: 1000, but a client has {least} samples. Remedy: lower it."
    ]
