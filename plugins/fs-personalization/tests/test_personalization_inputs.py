"""What does not fit is refused before the first round, in full text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fs_personalization
import pytest
from attrs import define
from fs_personalization.plugin import PersonalizationPlugin
from personalization_helpers import EVERYBODY, NAMES, TestPlugin, course, run, tables

import fscore
from fscore.builtin.objectives import Classification
from fscore.errors import ConfigError
from fscore.testing.course import tiny_course

MLP = {"model": {"use": "mlp", "hidden": [5]}}
CLIP = {"privacy": [{"use": "clip", "clip_norm": 1.0}]}
WEIGHTED = {"aggregator": {"use": "mean"}}
PLAIN_MEAN = (
    "aggregator.weighting: '{}' corrects the drift from the plain mean of the clients. "
    'Remedy: set aggregator.weighting = "uniform".'
)
NOTHING_SHARED = (
    "trainer.use: '{}' shares nothing that it trains: all of it is private or frozen. "
    "Remedy: less of trainer.private and trainer.frozen."
)
CASES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("fedper", None, {"head": ["liner"]},
     "trainer.head: 'liner' matches no module of the model, did you mean 'linear'? (modules: hidden0, linear)"),
    ("fedrep", None, {"head": ["*"]}, "trainer.head: '*' matches the whole model"),
    ("lg_fedavg", {"model": {"use": "softmax"}}, {}, "trainer.head: 'linear' matches the whole model"),
    ("fedbabu", {"model": {"use": "mlp", "head": ""}}, {},
     'trainer.head: the model does not say which module is its head. Remedy: set trainer.head = ["name"].'),
    ("fedper", None, {"head": ["hidden0", "linear"]}, "trainer.head: 'hidden0', 'linear' together match the whole model"),
    ("lg_fedavg", None, {"head": ["hidden0", "linear"]},
     "trainer.head: 'hidden0', 'linear' together match the whole model"),
    ("fedper", None, {"private": ["hidden0"]}, NOTHING_SHARED.format("fedper")),
    ("sgd", None, {"private": ["hidden0"], "frozen": ["linear"]}, NOTHING_SHARED.format("sgd")),
    ("fedbabu", None, {"frozen": ["hidden0"]}, NOTHING_SHARED.format("fedbabu")),
    ("local", None, {"frozen": ["hidden0", "linear"]},
     "trainer.frozen: all of the model is frozen, so that nothing is trained. Remedy: freeze less."),
    ("fedrep", None, {"frozen": ["linear"]},
     "trainer.frozen: 'fedrep' trains the head by itself, but all of it is frozen. Remedy: freeze less."),
    ("fedala", None, {"private": ["linear"]},
     "trainer.layers: all of them are private or frozen, so that nothing is mixed. "
     "Remedy: name layers that are shared."),
    ("fedala", {"model": {"use": "mlp_bn"}}, {},
     "trainer.layers: the model does not say which module is its head. "
     'Remedy: set trainer.layers = ["name"].'),
    ("heterofl", {"model": {"use": "mlp_bn"}}, {},
     "trainer.use: 'heterofl' has no mean of running statistics of different widths. "
     'Remedy: trainer.private = ["*BatchNorm*"], or a model without them.'),
    ("fedbn", MLP, {},
     "trainer.use: 'fedbn' keeps batch norm at the client, but the model has none (modules: hidden0, linear)"),
    ("fednova", {"override": [{"clients": [0], "trainer": {"momentum": 1.0}}]}, {},
     "override.0.trainer.momentum: must be between 0 and 0.999, got 1.0"),
    ("fedala", None, {"layers": ["liner"]},
     "trainer.layers: 'liner' matches no module of the model, did you mean 'linear'? (modules: hidden0, linear)"),
    ("ditto", None, {"private": ["*"]}, "trainer.private: '*' matches the whole model"),
    ("scaffold", WEIGHTED, {}, PLAIN_MEAN.format("scaffold")),
    ("feddyn", WEIGHTED, {}, PLAIN_MEAN.format("feddyn")),
    ("fedprox", None, {"mu": -0.1}, "trainer.mu: must be at least 0, got -0.1"),
    ("feddyn", None, {"alpha": 0.0}, "trainer.alpha: must be greater than 0, got 0.0"),
    ("pfedme", None, {"lamda": 0.0}, "trainer.lamda: must be greater than 0, got 0.0"),
    ("pfedme", None, {"inner_steps": 0}, "trainer.inner_steps: must be at least 1, got 0"),
    ("apfl", None, {"alpha": 1.1}, "trainer.alpha: must be between 0 and 1, got 1.1"),
    ("ifca", None, {"clusters": 0}, "trainer.clusters: must be at least 1, got 0"),
    ("fedem", None, {"models": 0}, "trainer.models: must be at least 1, got 0"),
    ("heterofl", None, {"width": 0.0}, "trainer.width: must be greater than 0, got 0.0"),
    ("fedproto", None, {"predict_by": "knn"},
     "trainer.predict_by: expected one of 'prototype', 'head', got the string 'knn'"),
    ("fednova", None, {"momentum": 1.0}, "trainer.momentum: must be between 0 and 0.999, got 1.0"),
    ("fedamp", None, {"alpha": 9.0},
     "trainer.alpha: 9.0 gives a client's own model a negative weight. "
     "Remedy: set it to trainer.sigma / 5 = 2 at most."),
    ("ifca", {"aggregator": {"use": "median"}}, {},
     "E-COMPAT: [trainer] 'ifca' needs an aggregate that is a weighted sum, but [aggregator] 'median' takes that "
     "away. Remedy: switch one of them off."),
    ("fedproto", {"aggregator": {"use": "median"}}, {},
     "E-COMPAT: [trainer] 'fedproto' needs an aggregate that is a weighted sum, but [aggregator] 'median' takes "
     "that away. Remedy: switch one of them off."),
    ("fednova", CLIP, {},
     "trainer.use: 'fednova' sends the length of its local work, which [[privacy]] 'clip' would clip together with "
     "the update. Remedy: switch one of them off."),
    ("fedamp", CLIP, {},
     "trainer.use: 'fedamp' sends its own model, which [[privacy]] 'clip' would clip together with "
     "the update. Remedy: switch one of them off."),
    ("heterofl", CLIP, {},
     "trainer.use: 'heterofl' sends which coordinates a client holds, which [[privacy]] 'clip' would clip together "
     "with the update. Remedy: switch one of them off."),
    ("local", CLIP, {},
     "privacy: 'local' sends no update that could be protected. Remedy: remove [[privacy]]."),
    ("fedem", None, {"private": ["linear"]},
     "trainer.private: 'fedem' exchanges whole models. Remedy: remove trainer.private."),
    ("ditto", {"store": {"use": "none"}}, {},
     "E-COMPAT: [trainer] 'ditto' needs clients that keep state, but [store] 'none' takes that away. "
     "Remedy: switch one of them off."),
    ("scaffold", {"trigger": {"use": "goal_achieved", "goal": 2}}, {},
     "E-COMPAT: [trainer] 'scaffold' needs updates of the current version, but [trigger] 'goal_achieved' takes "
     "that away. Remedy: switch one of them off."),
]  # fmt: skip


@pytest.mark.parametrize(("trainer", "more", "options", "text"), CASES)
def test_a_course_that_cannot_work_is_refused(trainer, more, options, text):
    with pytest.raises(ConfigError) as error:
        course(trainer, more, **options)
    assert str(error.value) == text


LONE = {
    "model": {"use": "mlp_bn"},
    "data": {**EVERYBODY["data"], "min_samples": 11, "max_samples": 11, "test": 0.0},
}


@pytest.mark.parametrize(("batch_size", "said"), [(5, True), (4, False), (0, False)])
def test_fedbn_says_that_a_batch_of_one_sample_has_no_variance(batch_size, said):
    made = course("fedbn", LONE, batch_size=batch_size)
    advice = list(made.trainer.advise(made))
    expected = (
        "trainer.batch_size: the last batch of 5 of 5 clients has one sample, of which batch norm has no variance: "
        "their tasks fail (client 0). Remedy: another batch_size."
    )
    assert advice == ([expected] if said else [])


@pytest.mark.parametrize("trainer", NAMES)
def test_every_trainer_refuses_a_negative_learning_rate(trainer):
    with pytest.raises(ConfigError) as error:
        course(trainer, lr=-1.0)
    assert str(error.value) == "trainer.lr: must be at least 0, got -1.0"


@pytest.mark.parametrize(
    "trainer", [n for n in NAMES if n not in ("local", "fednova", "fedamp", "heterofl")]
)
def test_other_methods_combine_with_a_joint_clip(trainer):
    assert run(trainer, CLIP).result.status == "complete"


@define(eq=False)
class Other(Classification):
    """An objective of another name."""

    name = "other"


def test_fedem_mixes_class_probabilities_only():
    with pytest.raises(ConfigError) as error:
        tiny_course(
            tables("fedem"),
            plugins=[PersonalizationPlugin, TestPlugin],
            given={"objective": Other()},
        )
    assert str(error.value) == (
        "objective.use: 'fedem' mixes class probabilities, but the objective is 'other'. "
        'Remedy: use "classification".'
    )


def test_heterofl_refuses_layers_that_do_not_follow_one_another():
    from fs_personalization.slices import levels

    from fscore.params import Entry, ParamSpace

    entries = (
        Entry("a.weight", (4, 3), 0, 12, trainable=True, module="a", kind="Linear"),
        Entry("b.weight", (2, 5), 12, 22, trainable=True, module="b", kind="Linear"),
    )
    with pytest.raises(ConfigError) as error:
        levels(ParamSpace(entries, 22))
    assert str(error.value) == (
        "trainer.use: 'heterofl' cannot cut the model, because 'b.weight' of shape (2, 5) does not follow the "
        "layer before it"
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n != "local"])
def test_the_kernel_names_no_method(name):
    kernel = Path(fscore.__file__).parent
    outside = ("builtin", "cli", "testing")
    files = [p for p in kernel.rglob("*.py") if p.relative_to(kernel).parts[0] not in outside]
    word = re.compile(rf"\b{name}\b", re.IGNORECASE)
    assert [p.name for p in files if word.search(p.read_text())] == []


def test_the_hooks_are_importable_without_torch():
    import subprocess
    import sys

    code = "import sys, fs_personalization.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_is_typed():
    assert (Path(fs_personalization.__file__).parent / "py.typed").exists()
