from __future__ import annotations

import numpy as np
import pytest
from attrs import define
from test_inversion_courses import HIDDEN, PLUGINS, toml

from fscore.builtin.trainers import SGD
from fscore.errors import ConfigError
from fscore.params import Group
from fscore.testing.course import tiny_course


def problems(text: str, **changes) -> list[str]:
    with pytest.raises(ConfigError) as error:
        tiny_course(text, plugins=PLUGINS, changes=changes)
    return list(error.value.problems)


LENET = 'use = "lenet_sigmoid"'


def test_more_images_than_the_attack_handles():
    assert problems(toml('use = "idlg"\nmax_images = 3', images=4, model=LENET)) == [
        "attack.0.max_images: 'idlg' reconstructs at most 3 images of an update, but one of client 0 holds 5. "
        "Remedy: raise max_images, or give the clients fewer samples."
    ]


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ("[0, 1]", "there is no update of version 1"),
        ("[-1]", "there is no update of version -1"),
        ("[]", "none is named"),
    ],
)
def test_versions_that_are_never_made(versions, found):
    assert problems(toml(f'use = "analytic"\nversions = {versions}')) == [
        f"attack.0.versions: {found}. Remedy: name some from 0 to 0."
    ]


def test_a_learning_rate_of_zero_shows_nothing():
    assert problems(toml('use = "analytic"'), **{"trainer.lr": 0.0}) == [
        "attack.0.use: an update of trainer.lr = 0 shows nothing. Remedy: raise trainer.lr."
    ]


def test_a_model_that_is_kept_in_part():
    assert problems(toml('use = "analytic"'), **{"trainer.private": ["linear"]}) == [
        "attack.0.use: 'analytic' needs the whole model, but trainer.private keeps a part of it at the client. "
        "Remedy: remove trainer.private."
    ]


@define(eq=False)
class Half(SGD):
    """Keeps the head of every client's model at the client, as a method of its own."""

    name = "half"

    def parts(self, space):
        head = space.part(kinds=["linear"], names=["linear"])
        return {**super().parts(space), "private": head, "shared": space.complement(head)}


@define(eq=False)
class Bank(SGD):
    """Moves one of two models."""

    name = "bank"

    def slots(self, space):
        return {"models": Group((2, space.size))}

    def groups(self, space):
        return {
            "model": Group((space.size,), slot="models", at="which", rows=2),
            "which": Group((), "int64", "sum", public=True),
        }


@pytest.mark.parametrize("trainer", [Half(batch_size=0), Bank(batch_size=0)])
def test_a_trainer_that_sends_no_whole_model(trainer):
    text = toml('use = "analytic"').replace("[trainer]", "[ignored]")
    text = text.replace("[ignored]\n    batch_size = 0\n    lr = 0.1\n", "")

    with pytest.raises(ConfigError) as error:
        tiny_course(text, plugins=PLUGINS, given={"trainer": trainer})

    assert list(error.value.problems) == [
        "attack.0.use: 'analytic' needs the whole model on its way down and up, but trainer "
        f"'{trainer.name}' sends something else. Remedy: remove the attack, or choose another trainer, like 'sgd'."
    ]


def test_a_server_optimizer_that_hides_the_step():
    more = '[server_optimizer]\nuse = "adam"\n'
    found = problems(toml('use = "analytic"\nadversary = "released"', more=more))
    assert found == [
        "attack.0.adversary: 'released' reads the step between two versions, which server_optimizer 'adam' changes. "
        "Remedy: use 'sgd' without momentum, or adversary 'server'."
    ]


def test_a_wire_that_shows_no_single_updates():
    assert problems(toml('use = "analytic"\nadversary = "observer"', more=HIDDEN)) == [
        "attack.0.adversary: single updates are hidden on the wire, which shows an observer nothing. "
        "Remedy: adversary = 'server', which attacks their sum."
    ]


def test_samples_that_nobody_states():
    more = '[aggregator]\nuse = "mean"\nweighting = "uniform"\n'
    assert problems(toml('use = "analytic"', more=more)) == [
        "attack.0.images: no client states how many samples it has in this course. "
        "Remedy: say how many the adversary takes a client to have."
    ]


def test_an_empty_range_of_pixels():
    assert problems(toml('use = "analytic"\nlow = 1.0')) == [
        "attack.0.high: must be above low, 1.0, got 1.0"
    ]


def test_a_model_that_analytic_cannot_read():
    assert problems(toml('use = "analytic"', model=LENET)) == [
        "attack.0.use: 'analytic' cannot read this model: the model does not begin with a fully connected layer with a "
        "bias. Remedy: use model 'mlp' or 'softmax', or another attack."
    ]


def test_a_model_that_cannot_carry_an_imprint():
    assert problems(toml('use = "imprint"', model='use = "softmax"')) == [
        "attack.0.use: 'imprint' cannot be planted: the model does not begin with a fully connected layer, ReLU, and a "
        "fully connected layer. Remedy: use model 'imprinted', or 'mlp' with activation 'relu'."
    ]


def test_regression_has_no_classes(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=values[:, :4], y=values[:, 4:])
    text = f"""
    objective = {{ use = "regression" }}
    trainer = {{ batch_size = 0 }}
    data = {{ use = "npz", path = "{tmp_path / "data.npz"}", partition = {{ use = "iid", clients = 10 }} }}
    [[attack]]
    use = "analytic"
    """
    assert problems(text) == [
        "attack.0.use: 'analytic' reconstructs classified samples, but the objective is 'regression'. "
        "Remedy: remove the attack, or use objective 'classification'."
    ]


def test_soteria_needs_a_fully_connected_head():
    more = '[[privacy]]\nuse = "soteria"\n'
    text = toml('use = "idlg"', model='use = "lenet_sigmoid", head = "conv3"', more=more)
    assert problems(text) == [
        "privacy.0.use: 'soteria' defends a fully connected head, and model.head = 'conv3' is none. "
        "Remedy: set model.head to such a layer."
    ]


def test_images_are_needed_for_the_lenet():
    text = 'model = { use = "lenet_sigmoid" }'
    assert problems(text) == [
        "model.use: 'lenet_sigmoid' needs images (channels, height, width) with classes, but the data have samples of shape "
        "(4,)"
    ]
