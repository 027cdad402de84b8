"""Attackers that act alone, in courses; and what is refused before a course runs."""

from __future__ import annotations

import pytest
import torch
from attrs import define
from byzantine_helpers import PLUGINS, assembled, course
from fs_byzantine.simple import LabelFlip

from fscore.builtin.trainers import SGD
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.kinds.privacy import PrivacyMechanism
from fscore.params import Group
from fscore.tasks import Task
from fscore.testing.course import tiny_course

EVERYBODY = """
course = { until = { versions = 1 } }
sampler = { use = "all" }
aggregator = { use = "mean", weighting = "uniform" }
"""


def moved(toml):
    """How far one version moves the model (P,)."""
    run = course(EVERYBODY + toml)
    return run.result.model["model"] - run.course.initial


def attack(use, options="", clients="1.0"):
    return f'[[attack]]\nuse = "{use}"\nclients = {clients}\n{options}\n'


def test_flipped_signs_move_the_model_back():
    torch.testing.assert_close(moved(attack("sign_flip", "scale = 2.0")), -2 * moved(""))


def test_gaussian_noise_of_everybody_averages_out():
    wide = 'model = { use = "mlp", hidden = [500] }\n'

    noise = moved(wide + attack("gaussian", "std = 3.0"))

    assert float(noise.std()) == pytest.approx(3.0 / 6**0.5, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.1)


def test_random_values_are_uniform():
    wide = 'model = { use = "mlp", hidden = [500] }\n'

    noise = moved(wide + attack("random_update", "scale = 2.0"))

    assert float(noise.std()) == pytest.approx(2.0 / 3**0.5 / 6**0.5, rel=0.05)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_number_fails_its_client_and_not_the_course(value):
    run = course(attack("non_finite", f'value = "{value}"', "1") + '[sampler]\nuse = "all"')

    assert run.result.status == "complete"
    assert run.result.tasks["failed"] == 3
    assert torch.isfinite(run.result.model["model"]).all()


def test_a_huge_number_passes_for_a_number_and_ruins_the_mean():
    run = course(attack("non_finite", 'value = "1e30"', "1") + '[sampler]\nuse = "all"')

    assert run.result.tasks["failed"] == 0
    assert float(run.result.model["model"].abs().max()) > 1e28


@pytest.mark.parametrize(("path", "longest"), [("obey", 0.1), ("skip", 1e29)])
def test_who_skips_the_path_is_not_clipped(path, longest):
    clip = '[[privacy]]\nuse = "clip"\nclip_norm = 0.1\n'
    options = f'value = "1e30"\npath = "{path}"'

    step = moved(clip + attack("non_finite", options, "1"))

    assert (float(torch.linalg.vector_norm(step)) > longest) is (path == "skip")


def test_labels_are_mirrored():
    flip = LabelFlip(clients=1)
    flip.classes = 10
    data = Samples(torch.zeros(4, 2), torch.tensor([0, 3, 9, 5]))

    assert flip.poison(data, at_version(0)).y.tolist() == [9, 6, 0, 4]


def test_one_class_becomes_another():
    flip = LabelFlip(clients=1, source=3, target=7)
    flip.classes = 10
    data = Samples(torch.zeros(4, 2), torch.tensor([0, 3, 9, 3]))

    assert flip.poison(data, at_version(0)).y.tolist() == [0, 7, 9, 7]


def test_outside_its_schedule_labels_stay():
    flip = LabelFlip(clients=1, start=2)
    flip.classes = 10
    data = Samples(torch.zeros(2, 2), torch.tensor([0, 3]))

    assert flip.poison(data, at_version(1)) is data


def at_version(version):
    """The context of a task on a version of a tiny course."""
    from fscore.tasks import Task

    made = assembled("")
    return made.site.context(
        made.opener.job(Task(0, 0, version)) if version == 0 else _job(made, version),
        losses=None, outputs=None, features=None, differentiate=None, per_sample=None,
    )  # fmt: skip


def _job(made, version):
    from fscore.tasks import Job, Task

    return Job(Task(0, 0, version), made.bank[0])


def test_a_schedule_that_begins_after_the_end_changes_nothing():
    assert course(attack("sign_flip", "start = 3")).result.digest == course("").result.digest


def test_a_schedule_that_ends_leaves_the_rest_honest():
    long = course(attack("sign_flip", "stop = 1"))

    assert long.result.digest not in (
        course("").result.digest,
        course(attack("sign_flip")).result.digest,
    )


def test_a_share_of_the_participants_is_controlled():
    made = assembled(attack("sign_flip", clients="0.5"))

    assert len(made.attacks[0].controlled) == 3
    assert not made.attacks[0].controlled & set(made.population.unseen)


def test_named_clients_are_controlled():
    unseen = set(assembled("").population.unseen)
    seen = [c for c in range(8) if c not in unseen][:2]

    assert assembled(attack("sign_flip", clients=str(seen))).attacks[0].controlled == set(seen)


UNSEEN = min(assembled("").population.unseen)
SEEN = min(set(range(8)) - set(assembled("").population.unseen))


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            attack("sign_flip", clients="7"),
            "attack.0.clients: 7 attackers, but 6 clients take part. Remedy: lower it.",
        ),
        (
            attack("sign_flip", clients="1.5"),
            "attack.0.clients: a share must be between 0 and 1, got 1.5",
        ),
        (
            attack("sign_flip", clients="nan"),
            "attack.0.clients: a share must be between 0 and 1, got nan",
        ),
        (
            attack("sign_flip", clients="-1"),
            "attack.0.clients: must be at least 0, got -1",
        ),
        (
            attack("sign_flip", clients=f"[{SEEN}, {SEEN}]"),
            f"attack.0.clients: client {SEEN} is named twice. Remedy: name it once.",
        ),
        (
            attack("sign_flip", clients="[9]"),
            "attack.0.clients: there is no client 9, ids are 0 to 7",
        ),
        (
            attack("sign_flip", clients=f"[{UNSEEN}]"),
            f"attack.0.clients: client {UNSEEN} never takes part in training. "
            "Remedy: choose another, or lower data.unseen_clients.",
        ),
        (
            attack("sign_flip", "start = 4\nstop = 4", clients="1"),
            "attack.0.stop: version 4 is not after start, 4. Remedy: raise it.",
        ),
        (
            attack("label_flip", "target = 3", clients="1"),
            "attack.0.target: there is no class 3, classes are 0 to 2",
        ),
        (
            attack("label_flip", "source = 1\ntarget = 1", clients="1"),
            "attack.0.target: class 1 stays what it is. Remedy: choose another than source.",
        ),
        (
            attack("ipm", "epsilon = 0", clients="1"),
            "attack.0.epsilon: must be greater than 0, got 0.0",
        ),
    ],
)
def test_what_cannot_be_is_refused(toml, expected):
    with pytest.raises(ConfigError) as error:
        assembled(toml)

    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            attack("ipm", "start = 3", clients="1"),
            "attack.0.start: it never acts, since the course ends with version 3. Remedy: lower it.",
        ),
        (
            attack("sign_flip", clients="0.05"),
            "attack.0.clients: a share of 0.05 of 6 clients is nobody. Remedy: raise it.",
        ),
    ],
)
def test_what_never_acts_is_advised_against(toml, expected):
    assert list(assembled(toml).advice) == [expected]


@pytest.mark.parametrize("clients", ["0", "[]", "0.0"])
def test_who_controls_nobody_on_purpose_needs_no_advice(clients):
    assert list(assembled(attack("sign_flip", clients=clients)).advice) == []


@define(eq=False)
class Counts(SGD):
    """Sends sums alone, as prototypes are."""

    name = "counts"

    def groups(self, space):
        return {"model": Group((space.size,), reduce="sum", slot="model")}


def test_who_would_forge_nothing_is_advised_against():
    given = {"trainer": Counts()}
    made = tiny_course(attack("sign_flip", clients="1"), plugins=PLUGINS, given=given)

    assert list(made.attacks[0].advise(made)) == [
        "attack.0.use: 'sign_flip' forges what is averaged, but trainer 'counts' sends nothing of the kind. "
        "Remedy: remove the attack, or choose another trainer."
    ]


@define(eq=False)
class Twice(SGD):
    """Sends its model and a second vector of the same shape, which is averaged too."""

    name = "twice"

    def groups(self, space):
        return {**super().groups(space), "second": Group((space.size,))}

    def finish(self, variables, context):
        values, rows = super().finish(variables, context)
        return {**values, "second": torch.zeros_like(variables["model"])}, rows


@pytest.mark.parametrize("use", ["gaussian", "random_update"])
def test_each_group_gets_noise_of_its_own(use):
    made = tiny_course(EVERYBODY + attack(use), plugins=PLUGINS, given={"trainer": Twice(lr=0.0)})
    made.executor.start(made.site)
    made.opener.compute([Task(0, SEEN, 0)])
    sent = made.opener.outputs[0].values

    assert not torch.equal(sent["model"], sent["second"])


def test_noise_that_no_float_holds_fails_its_client_and_not_the_course():
    run = course('[sampler]\nuse = "all"\n' + attack("gaussian", "std = 1e300", "1"))

    assert (run.result.status, run.result.tasks["failed"]) == ("complete", 3)


def test_alie_that_does_nothing_is_advised_against():
    made = assembled('sampler = { use = "uniform", clients = 6 }\n' + attack("alie", clients="1"))

    assert list(made.attacks[0].advise(made)) == [
        "attack.0.z: with 1 of a version's 6 updates z is -0.25, so that 'alie' sends no more than the honest mean. "
        "Remedy: raise clients, or set z."
    ]


def test_alie_that_does_something_needs_no_advice():
    made = assembled('sampler = { use = "uniform", clients = 6 }\n' + attack("alie", clients="3"))

    assert list(made.attacks[0].advise(made)) == []


@define(eq=False)
class Masks(PrivacyMechanism):
    """Hides single updates, as secure aggregation does."""

    name = "masks"
    removes = frozenset({"individual_updates"})


@pytest.mark.parametrize(("knowledge", "lines"), [("all", 1), ("controlled", 0)])
def test_knowledge_that_is_hidden_is_advised_against(knowledge, lines):
    toml = attack("ipm", f'knowledge = "{knowledge}"', clients="1")
    made = tiny_course(toml, plugins=PLUGINS, given={"privacy.0": Masks()})

    assert list(made.attacks[0].advise(made)) == lines * [
        "attack.0.knowledge: single updates are hidden in this course, but 'ipm' knows them all. "
        "Remedy: set it to 'controlled'."
    ]


def test_the_plugin_is_what_switches_it_on():
    with pytest.raises(ConfigError) as error:
        tiny_course(attack("sign_flip", clients="1"))

    assert str(error.value) == (
        "attack.0.use: 'sign_flip' comes with the plugin 'byzantine', which is not switched on. "
        "Remedy: add the table [plugins.byzantine]."
    )
