"""Client state lives on across versions, snapshots, stores and executors; unseen clients have each method's own rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fs_personalization.plugin import PersonalizationPlugin
from personalization_helpers import EVERYBODY, NAMES, TestPlugin, course, model, rows, run, tables
from torch.nn.functional import cross_entropy

from fscore.builtin.executors.lane import Lane
from fscore.builtin.record.resume import codec
from fscore.errors import ConfigError
from fscore.tasks import Task
from fscore.testing import fs_course

STATEFUL = tuple(n for n in NAMES if n not in (
    "fedprox", "fednova", "fedbabu", "per_fedavg", "ifca", "heterofl"))  # fmt: skip


def held(course: Any) -> dict[int, dict[str, list[float]]]:
    """All client rows as plain numbers."""
    store = course.store
    return {
        client: {name: row.flatten().tolist() for name, row in store.get(client).items()}
        for client in store.clients()
    }


@pytest.mark.parametrize("trainer", NAMES)
def test_a_course_that_goes_on_from_a_snapshot_ends_like_one_that_was_not_stopped(trainer):
    whole, paused, resumed = (course(trainer) for _ in range(3))
    expected = whole.run()
    paused.run(lambda c: c.settled and c.book.version == 2)
    coder = codec(paused)
    document, tensors = coder.encode(paused.dump())

    resumed.load(coder.decode(document, tensors))

    actual = resumed.run()
    assert (actual.digest, actual.metrics) == (expected.digest, expected.metrics)
    assert held(resumed) == held(whole)


@pytest.mark.parametrize("trainer", STATEFUL)
def test_clients_that_trained_keep_state_and_others_have_none(trainer):
    done = run(trainer, {"course": {"until": {"versions": 1}}})
    assert len(held(done.course)) == 4


@pytest.mark.parametrize("trainer", ["ditto", "fedper", "fedem", "apfl"])
def test_disk_equals_memory(trainer, tmp_path):
    plugins = [PersonalizationPlugin, TestPlugin]
    text = tables(trainer, {"store": {"use": "disk"}})
    disk = fs_course(text, plugins=plugins, out=tmp_path / "run").result
    memory = run(trainer).result
    assert (disk.digest, disk.metrics) == (memory.digest, memory.metrics)


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize("trainer", NAMES)
def test_several_cores_give_the_bits_of_serial(trainer, executor):
    serial = run(trainer).result
    two = run(trainer, {"executor": {"use": executor, "workers": 2, "chunk": 2}}).result
    one = run(trainer, {"executor": {"use": "serial", "chunk": 2}}).result
    assert (two.digest, two.metrics) == (one.digest, one.metrics)
    torch.testing.assert_close(two.model, serial.model, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trainer", NAMES)
def test_auto_computes_many_clients_at_once(trainer):
    chosen = run(trainer, {"executor": {"use": "auto", "chunk": 2}})
    many = run(trainer, {"executor": {"use": "cohort", "chunk": 2}})
    assert chosen.course.executor.name == "cohort"
    assert chosen.result.digest == many.result.digest


def assert_like_serial(trainer: str, **options: Any) -> None:
    serial = run(trainer, **options).result
    many = run(trainer, {"executor": {"use": "cohort", "chunk": 2}}, **options).result
    torch.testing.assert_close(many.model, serial.model, rtol=1e-4, atol=1e-5)
    for name in ("test_loss", "unseen_test_loss", "train_loss"):
        assert many.metrics[name] == pytest.approx(serial.metrics[name], rel=1e-4)


@pytest.mark.parametrize("trainer", NAMES)
def test_many_clients_at_once_give_what_serial_gives(trainer):
    assert_like_serial(trainer)


@pytest.mark.parametrize("trainer", NAMES)
def test_many_clients_at_once_with_fine_tuning_and_momentum(trainer):
    assert_like_serial(trainer, finetune=1.0, momentum=0.5)


OWN = {
    "fedprox": {"mu": 3.0}, "ditto": {"lamda": 3.0}, "pfedme": {"lamda": 3.0, "eta": 0.2},
    "per_fedavg": {"alpha": 0.3}, "fedamp": {"lamda": 3.0}, "fedproto": {"lamda": 3.0},
    "heterofl": {"width": 0.5}, "scaffold": {"lr": 0.3}, "fednova": {"momentum": 0.7},
}  # fmt: skip


@pytest.mark.parametrize("executor", ["serial", "cohort"])
@pytest.mark.parametrize("trainer", list(OWN))
def test_options_of_single_clients_hold_for_them_alone(trainer, executor):
    once = {"course": {"until": {"versions": 2}}, "executor": {"use": executor}}
    own = {**once, "override": [{"clients": [0, 1], "trainer": OWN[trainer]}]}
    serial = run(trainer, {**EVERYBODY, **own, "executor": {"use": "serial"}}).result
    some = run(trainer, {**EVERYBODY, **own}).result
    nobody, everybody = (
        run(trainer, {**EVERYBODY, **once}).result,
        run(trainer, {**EVERYBODY, **once}, **OWN[trainer]).result,
    )
    losses = {r.metrics["test_loss"] for r in (some, nobody, everybody)}
    assert len(losses) == 3
    torch.testing.assert_close(some.model, serial.model, rtol=1e-4, atol=1e-5)


NORMED = {"model": {"use": "mlp_bn", "head": "linear"}}


@pytest.mark.parametrize("trainer", NAMES)
def test_many_clients_at_once_keep_the_statistics_that_serial_keeps(trainer):
    own = {"private": ["*BatchNorm*"]} if trainer == "heterofl" else {}
    chunk = {"chunk": 2}
    one = run(trainer, {**NORMED, "executor": {"use": "serial", **chunk}}, momentum=0.5, **own)
    many = run(trainer, {**NORMED, "executor": {"use": "cohort", **chunk}}, momentum=0.5, **own)
    torch.testing.assert_close(many.result.model, one.result.model, rtol=1e-4, atol=1e-5)
    for client in one.course.store.clients():
        expected = one.course.store.get(client)
        torch.testing.assert_close(many.course.store.get(client), expected, rtol=1e-4, atol=1e-5)
    for name in ("test_loss", "unseen_test_loss", "train_loss"):
        assert many.result.metrics[name] == pytest.approx(one.result.metrics[name], rel=1e-4)


# ------------------------------------------------------------------------------------------ unseen clients


def unseen(trainer: str, **options: Any) -> tuple[Any, int, dict[str, torch.Tensor]]:
    """A finished course, its first unseen client, and the variables with which that one is evaluated."""
    done = run(trainer, **options)
    client = sorted(done.course.population.unseen)[0]
    lane = Lane(done.course.site)
    task = Task(-1, client, done.course.book.version, "evaluate")
    with torch.no_grad():
        context = lane._context(done.course.opener.job(task, "test"))
        lane._survey(context, done.course.site.data(client, "train"))
        variables = lane._load(done.course.trainer.start(context))
        variables["deployed"] = done.course.trainer.predictor(variables, context)
    return done, client, {name: values.detach() for name, values in variables.items()}


@pytest.mark.parametrize("trainer", ["ditto", "pfedme", "apfl", "fedala"])
def test_an_unseen_client_of_two_models_deploys_the_global_one(trainer):
    done, _, variables = unseen(trainer)
    torch.testing.assert_close(variables["deployed"], model(done), rtol=1e-6, atol=1e-7)


def test_an_unseen_client_of_fedper_has_the_first_head_on_the_common_base():
    done, _, variables = unseen("fedper")
    assert torch.equal(variables["deployed"][:25], model(done)[:25])
    assert torch.equal(variables["deployed"][25:], done.course.initial[25:])


def test_an_unseen_client_of_fedamp_deploys_the_mean_of_those_who_trained():
    done, _, variables = unseen("fedamp")
    trained = model(done, "trained") > 0
    expected = model(done, "models")[trained].mean(dim=0)
    torch.testing.assert_close(variables["deployed"], expected)


def network(flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Outputs of the MLP 4-5-3, by hand."""
    w1, b1, w2, b2 = flat.split([20, 5, 15, 3])
    return torch.relu(x @ w1.view(5, 4).T + b1) @ w2.view(3, 5).T + b2


def test_an_unseen_client_of_ifca_chooses_by_its_training_samples():
    done, client, variables = unseen("ifca")
    data = done.course.site.data(client, "train")
    losses = [cross_entropy(network(w, data.x), data.y) for w in model(done, "models")]
    assert variables["cluster"] == torch.stack(losses).argmin()
    assert torch.equal(variables["deployed"], model(done, "models")[variables["cluster"]])


def test_an_unseen_client_of_fedem_finds_its_mixture_on_its_training_samples():
    done, client, variables = unseen("fedem")
    data = done.course.site.data(client, "train")
    bank = [model(done, name) for name in ("model", "model1", "model2")]
    losses = [cross_entropy(network(w, data.x), data.y, reduction="none") for w in bank]
    expected = (-torch.stack(losses)).softmax(dim=0).mean(dim=1)
    torch.testing.assert_close(variables["mixture"], expected)


def test_fine_tuning_moves_an_unseen_client_only_in_its_evaluation():
    plain, tuned = run("sgd").result, run("sgd", finetune=3.0).result
    assert tuned.digest == plain.digest
    assert tuned.metrics["unseen_test_loss"] != plain.metrics["unseen_test_loss"]


@pytest.mark.parametrize("trainer", NAMES)
def test_fine_tuning_combines_with_every_method_and_changes_no_training(trainer):
    plain, tuned = run(trainer, finetune=0.0).result, run(trainer, finetune=2.0).result
    assert tuned.digest == plain.digest
    assert tuned.metrics["test_loss"] != plain.metrics["test_loss"]


# ------------------------------------------------------------------------------------------ parts


def test_batch_norm_is_found_by_its_class_with_buffers():
    done = run("fedbn")
    private = done.course.site.parts["private"]
    inside = [
        e.name
        for e in done.course.space.entries
        if any(start <= e.start < stop for start, stop in private)
    ]
    assert inside == [
        "downsample.1.weight",
        "downsample.1.bias",
        "downsample.1.running_mean",
        "downsample.1.running_var",
    ]


def test_fedbn_leaves_batch_norm_of_the_global_model_as_it_began():
    done = run("fedbn", {**EVERYBODY, "model": {"use": "mlp_bn"}})
    private = slice(25, 45)
    assert torch.equal(model(done)[private], done.course.initial[private])
    own = rows(done, "private")
    assert (own - own[0]).abs().max(dim=1).values[1:].min() > 1e-3


def test_ditto_fedbn_and_fine_tuning_combine():
    norm = {"model": {"use": "mlp_bn"}, "trainer": {}}
    done = run(
        "ditto", norm | {"trainer": {"use": "ditto", "private": ["*BatchNorm*"], "finetune": 1.0}}
    )
    assert done.result.status == "complete"
    assert torch.equal(model(done)[25:45], done.course.initial[25:45])


@pytest.mark.parametrize(
    "trainer", ["scaffold", "feddyn", "fednova", "fedprox", "ditto", "apfl", "fedala"]
)
def test_private_parts_never_leave_their_client(trainer):
    own = {"layers": ["hidden0"]} if trainer == "fedala" else {}
    done = run(trainer, private=["linear"], **own)
    assert torch.equal(model(done)[25:], done.course.initial[25:])
    assert done.course.site.upload.wire["model"].shape == (25,)


def test_feddyn_and_local_send_no_more_than_they_must():
    sizes = {
        t: course(t).site.download.nbytes for t in ("sgd", "feddyn", "scaffold", "local", "fedper")
    }
    assert sizes == {"sgd": 172, "feddyn": 172, "scaffold": 344, "local": 0, "fedper": 100}


def test_an_update_of_fedamp_that_was_lost_leaves_nothing_behind():
    lossy = {"faults": [{"use": "drop", "rate": 0.4, "during": [[0, 0.15]]}]}
    done = run("fedamp", {**EVERYBODY, **lossy, "course": {"until": {"versions": 9}}})
    assert done.result.tasks["failed"] > 0
    torch.testing.assert_close(model(done, "models"), rows(done, "personal"))


# ------------------------------------------------------------------------------------------ asynchrony

LATE = {
    "protocol": {"use": "rounds", "broadcast": "after_receiving", "concurrency": 3},
    "trigger": {"use": "goal_achieved", "goal": 2},
    "devices": {"use": "lognormal"},
}


@pytest.mark.parametrize("trainer", [n for n in NAMES if n not in ("scaffold", "feddyn")])
def test_methods_that_allow_it_run_asynchronously(trainer):
    done = run(trainer, LATE)
    assert done.result.status == "complete"
    assert done.result.versions == 3
    assert max(line["staleness"] for line in done.result.history) > 0


ONE_BY_ONE = {
    **LATE,
    "trigger": {"use": "goal_achieved", "goal": 1},
    "aggregator": {"use": "fedasync"},
}
WHOLE = tuple(
    n for n in NAMES if n not in ("scaffold", "feddyn", "fednova", "fedamp", "ifca", "heterofl")
)


@pytest.mark.parametrize("trainer", WHOLE)
def test_methods_that_send_a_model_are_mixed_one_by_one(trainer):
    assert run(trainer, ONE_BY_ONE).result.status == "complete"


@pytest.mark.parametrize("trainer", ["fednova", "fedamp", "ifca", "heterofl"])
def test_others_are_not(trainer):
    with pytest.raises(ConfigError) as error:
        run(trainer, ONE_BY_ONE)
    assert str(error.value) == (
        f"aggregator.use: 'fedasync' mixes whole models, but trainer '{trainer}' sends parts or other groups. "
        "Remedy: choose 'staleness', or a trainer that sends its model."
    )
