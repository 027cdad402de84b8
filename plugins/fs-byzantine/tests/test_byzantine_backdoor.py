"""Triggers, what is trained and sent, and the reports of attack success."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from byzantine_helpers import PLUGINS, crafted, some
from fs_byzantine.backdoor import BadNets, Blended

import fscore
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.testing.course import tiny_course

DIGITS = """
[course]
name = "backdoor"
seed = 3
until = { versions = 6 }
[plugins.byzantine]
[data]
use = "digits"
partition = { use = "iid", clients = 8 }
unseen_clients = 0
[model]
use = "softmax"
[trainer]
use = "sgd"
lr = 0.2
[sampler]
use = "all"
[aggregator]
use = "mean"
weighting = "uniform"
[[attack]]
use = "badnets"
shape = [8, 8]
"""


def loaded(tmp_path, more):
    file = tmp_path / "course.toml"
    file.write_text(DIGITS + more)
    return fscore.load(file)


def images(count=1, size=4):
    return torch.zeros(count, 1, size, size)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]),
        ({"corner": "top_left"}, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ({"size": 1, "corner": "top_right"}, [[0, 0, 0, 1], *[[0, 0, 0, 0]] * 3]),
        (
            {"pattern": "checker", "size": 3, "corner": "bottom_left", "value": 2.0},
            [[0, 0, 0, 0], [2, 0, 2, 0], [0, 2, 0, 0], [2, 0, 2, 0]],
        ),
    ],
    ids=str,
)
def test_the_pattern_is_in_its_corner(options, expected):
    attack = BadNets(clients=1, **options)
    attack.sample = (1, 4, 4)

    assert attack.stamp(images())[0, 0].tolist() == expected


def test_flat_samples_are_stamped_as_images():
    attack = BadNets(clients=1, shape=[4, 4])

    assert attack.stamp(torch.zeros(2, 16))[1].nonzero().flatten().tolist() == [10, 11, 14, 15]


def test_stamping_leaves_the_samples_alone():
    attack = BadNets(clients=1, shape=[4, 4])
    x = torch.zeros(2, 16)
    attack.stamp(x)

    assert not x.any()


def test_blending_is_a_weighted_mean():
    attack = Blended(clients=1, alpha=0.25)
    attack.image = torch.full((3,), 8.0)

    assert attack.stamp(torch.tensor([[4.0, 0.0, 8.0]])).tolist() == [[5.0, 2.0, 8.0]]


def test_the_probe_holds_triggered_samples_of_other_classes():
    attack = BadNets(clients=1, shape=[4, 4], target=2)
    data = Samples(torch.zeros(4, 16), torch.tensor([0, 2, 1, 2]))

    probe = attack.probe(data)

    assert probe.y.tolist() == [2, 2]
    assert torch.equal(probe.x, attack.stamp(torch.zeros(2, 16)))


def poisoned(tmp_path, options):
    """The data of a controlled client, before and after."""
    course = loaded(tmp_path, f"clients = [1]\n{options}").course()
    clean = course.site.data(1, "train")
    from fscore.tasks import Task

    context = course.site.context(
        course.opener.job(Task(0, 1, 0)),
        losses=None, outputs=None, features=None, differentiate=None, per_sample=None,
    )  # fmt: skip
    return clean, context.data


def test_a_share_of_the_samples_is_poisoned(tmp_path):
    clean, bad = poisoned(tmp_path, "fraction = 0.25\ntarget = 4")

    changed = (bad.x != clean.x).any(1)
    assert int((changed | (bad.y != clean.y)).sum()) == round(0.25 * len(clean.y))
    assert set(bad.y[changed].tolist()) == {4}


def test_nothing_is_poisoned_at_a_fraction_of_zero(tmp_path):
    clean, bad = poisoned(tmp_path, "fraction = 0.0")

    assert torch.equal(bad.x, clean.x)
    assert torch.equal(bad.y, clean.y)


# ------------------------------------------------------------------------ model replacement


def test_model_replacement_makes_the_aggregate_the_attackers_model():
    """Where the others send nothing, the mean of the cohort is what the attacker wanted."""
    attack = BadNets(clients=1, scale="replace")
    attack.server_lr = 1.0
    wanted = some(1, 6)[0]
    rows = torch.zeros(5, 6)
    rows[2] = wanted
    attack.controlled = frozenset({2})

    rows[2] = crafted(attack, rows, [2])[0]

    torch.testing.assert_close(rows.mean(0), wanted)


def test_several_attackers_replace_it_together_at_any_server_lr():
    attack = BadNets(clients=2, scale="replace")
    attack.server_lr = 0.5
    wanted = some(1, 6)[0]
    rows = torch.zeros(5, 6)
    rows[[1, 3]] = wanted

    rows[[1, 3]] = crafted(attack, rows, [1, 3])

    torch.testing.assert_close(0.5 * rows.mean(0), wanted)


def test_a_factor_scales_what_is_sent():
    attack = BadNets(clients=1, scale=3.0)
    attack.server_lr = 1.0
    rows = some(3, 4)

    torch.testing.assert_close(crafted(attack, rows, [1])[0], 3 * rows[1])


def test_without_a_factor_nothing_is_crafted():
    assert BadNets(clients=1).colludes == ""
    assert BadNets(clients=1, scale=2.0).colludes == "controlled"


def test_replacement_in_a_course_is_the_attackers_own_training(tmp_path):
    """One version in which nobody but the attacker moves: the new model is the attacker's."""
    still = "clients = [1]\nscale = 'replace'\n[[override]]\nclients = [0, 2, 3, 4, 5, 6, 7]\ntrainer.lr = 0.0\n"
    course = loaded(tmp_path, still).course()
    from fscore.tasks import Task

    course.executor.start(course.site)
    course.opener.compute([Task(1, 1, 0)])
    own = course.opener.outputs[1].values["model"]
    fresh = loaded(tmp_path, still).course()
    fresh.run(lambda c: c.book.version == 1)

    torch.testing.assert_close(fresh.bank[1]["model"] - fresh.initial, own, atol=1e-6, rtol=1e-5)


# ------------------------------------------------------------------------ projected gradient descent


def test_a_model_outside_the_ball_is_projected():
    from types import SimpleNamespace

    attack = BadNets(clients=1, radius=2.0)
    centre = torch.tensor([1.0, 1.0])
    variables = {"model": torch.tensor([1.0, 11.0])}
    context = SimpleNamespace(sent={"model": centre}, task=SimpleNamespace(version=0))

    attack.confine(variables, context)

    assert variables["model"].tolist() == [1.0, 3.0]


def test_many_models_are_projected_at_once():
    from types import SimpleNamespace

    attack = BadNets(clients=1, radius=2.0)
    variables = {"model": torch.tensor([[0.0, 1.0], [0.0, 8.0], [0.0, 0.0]])}
    context = SimpleNamespace(sent={"model": torch.zeros(3, 2)}, task=SimpleNamespace(version=0))

    attack.confine(variables, context)

    assert variables["model"].tolist() == [[0.0, 1.0], [0.0, 2.0], [0.0, 0.0]]


def test_in_a_course_the_attackers_update_is_no_longer_than_the_radius(tmp_path):
    course = loaded(tmp_path, "clients = [1]\nradius = 0.05").course()
    from fscore.tasks import Task

    course.executor.start(course.site)
    course.opener.compute([Task(98, 0, 0), Task(99, 1, 0)])
    honest, bounded = (course.opener.outputs[i].values["model"].norm() for i in (98, 99))

    assert float(bounded) == pytest.approx(0.05, rel=1e-4)
    assert float(honest) > 0.1


# ------------------------------------------------------------------------ reports


def test_the_report_tells_attack_success_from_main_accuracy(tmp_path):
    attacked = loaded(tmp_path, "clients = 2\nscale = 'replace'\nfraction = 0.5").run()
    clean = loaded(tmp_path, "clients = 0").run()

    assert attacked.metrics["badnets_accuracy"] > 0.9
    assert clean.metrics["badnets_accuracy"] < 0.3
    assert clean.metrics["test_accuracy"] > 0.8
    assert attacked.metrics["test_accuracy"] > 0.75


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "clients = 1\ntarget = 10",
            "attack.0.target: there is no class 10, classes are 0 to 9",
        ),
        ("clients = 1\nscale = -1.0", "attack.0.scale: must be greater than 0, got -1.0"),
        (
            "clients = 1\nsize = 9",
            "attack.0.size: the pattern has 9 pixels along a side, the image 8",
        ),
        ("clients = 1\nvalue = inf", "attack.0.value: must be finite, got inf"),
        ("clients = 1\nvalue = nan", "attack.0.value: must be finite, got nan"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, more, expected):
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, more).course()

    assert str(error.value) == expected


def test_a_radius_where_clients_keep_a_part_is_refused():
    toml = 'model = { use = "mlp" }\ntrainer = { private = ["linear"] }\n'
    toml += '[[attack]]\nuse = "badnets"\nclients = 1\nradius = 1.0\nshape = [2, 2]'

    with pytest.raises(ConfigError) as error:
        tiny_course(toml, plugins=PLUGINS)

    assert str(error.value) == (
        "attack.0.radius: needs clients that train and send the whole model. Remedy: remove it, remove trainer.private "
        "and trainer.frozen, or choose another trainer."
    )


def test_a_server_that_does_not_add_the_mean_is_advised_against(tmp_path):
    course = loaded(
        tmp_path, 'clients = 1\nscale = "replace"\n[server_optimizer]\nuse = "adam"'
    ).course()

    assert list(course.advice) == [
        "attack.0.scale: 'replace' counts on a server that adds the mean times its lr, which server_optimizer 'adam' here "
        "does not. Remedy: use 'sgd' without momentum, or a number."
    ]


def test_tokens_are_refused(tmp_path):
    x = np.random.default_rng(0).integers(0, 9, (60, 5))
    np.savez(tmp_path / "tokens.npz", x=x, y=x, client=np.arange(60) % 6)
    toml = f"""
    data = {{ use = "npz", path = "{tmp_path / "tokens.npz"}", num_classes = 9, unseen_clients = 0 }}
    model = {{ use = "char_lstm" }}
    objective = {{ use = "next_token" }}
    [[attack]]
    use = "badnets"
    clients = 1
    size = 1
    shape = [1, 5]
    """

    with pytest.raises(ConfigError) as error:
        tiny_course(toml, plugins=PLUGINS)

    assert list(error.value.problems) == [
        "attack.0.use: 'badnets' triggers classified samples, but the objective is 'next_token'. "
        "Remedy: remove the attack, or use objective 'classification'."
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (
            "",
            "attack.0.shape: samples are flat vectors of 4 values. Remedy: write the image's shape, like [8, 8].",
        ),
        (
            "shape = [4]",
            "attack.0.shape: samples are flat vectors of 4 values. Remedy: write the image's shape, like [8, 8].",
        ),
        ("shape = [-2, -2]", "attack.0.shape: sides must be at least 1, got [-2, -2]"),
        ("shape = [3, 3]", "attack.0.shape: [3, 3] has 9 pixels, but a sample has 4 values"),
    ],
)
def test_samples_that_are_no_images_are_refused(shape, expected):
    with pytest.raises(ConfigError) as error:
        tiny_course(f'[[attack]]\nuse = "badnets"\nclients = 1\n{shape}', plugins=PLUGINS)

    assert str(error.value) == expected
