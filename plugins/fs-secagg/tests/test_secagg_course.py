"""SecAgg in a course: the same model as without it, whatever is lost on the way."""

import base64
import zlib

import numpy as np
import pytest
import torch
from attrs import define
from fs_secagg.client import Secrets
from fs_secagg.mechanism import SecAgg
from fs_secagg.stages import Checksum
from fs_secagg.transcript import computable_sums
from scipy.stats import chisquare
from secagg_helpers import PLAIN, SECAGG, losing, ready, run

from fscore.builtin.record.resume import codec
from fscore.component import Component, state
from fscore.hookspecs import hookimpl
from fscore.testing.contracts import PrivacyContract
from fscore.testing.course import Recorder

UNIFORM = '[aggregator]\nuse = "mean"\nweighting = "uniform"\n'
CLIENTS = 6
"""Of eight clients of the tiny course, two are unseen."""
EVERYBODY = {"sampler__clients": 6, "course__until__versions": 1}


def test_a_course_with_secagg_makes_the_model_of_one_without():
    plain, summed = run(PLAIN), run()

    torch.testing.assert_close(
        summed.result.model["model"], plain.result.model["model"], atol=1e-6, rtol=0
    )
    assert summed.result.status == "complete"


def test_uniform_weights_need_no_bound():
    toml = SECAGG.replace("max_weight = 20\n", "") + UNIFORM

    torch.testing.assert_close(
        run(toml).result.model["model"],
        run(PLAIN + UNIFORM).result.model["model"],
        atol=1e-6,
        rtol=0,
    )


def test_masks_change_not_one_bit_of_the_sum():
    unmasked = run(SECAGG.replace("secagg", "unmasked"))

    assert run().result.digest == unmasked.result.digest


@pytest.mark.parametrize(
    "options", ["malicious = true", "neighbours = 4", "ring = 64", "threshold = 5"]
)
def test_every_variant_gives_the_same_sum(options):
    toml = SECAGG.replace("max_weight = 20\n", f"max_weight = 20\n{options}\n")
    unmasked = run(toml.replace("secagg", "unmasked"))

    assert run(toml).result.digest == unmasked.result.digest
    torch.testing.assert_close(
        run(toml).result.model["model"], run(PLAIN).result.model["model"], atol=1e-6, rtol=0
    )


def test_training_is_reported_although_no_client_reports_in_the_clear():
    plain, summed = run(PLAIN).result.metrics, run().result.metrics

    assert summed["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-3)
    assert (summed["survivors"], summed["dropouts"]) == (5, 0)


@pytest.mark.parametrize(
    ("lost", "failed"),
    [
        ("TaskDown", 1),
        ("KeysUp", 1),
        ("KeysDown", 1),
        ("SharesUp", 1),
        ("SharesDown", 1),
        ("ResultUp", 1),
        ("RequestDown", 0),
        ("AnswerUp", 0),
    ],
)
def test_a_client_that_drops_out_at_any_step_is_left_out_of_an_exact_sum(lost, failed):
    course = run(losing(f"{lost}:2"), **EVERYBODY)
    unmasked = run(losing(f"{lost}:2").replace("secagg", "unmasked"), **EVERYBODY)

    assert course.result.digest == unmasked.result.digest
    assert course.result.status == "complete"
    assert (course.result.tasks["failed"], course.result.metrics["survivors"]) == (
        failed,
        6 - failed,
    )


@pytest.mark.parametrize(
    ("lost", "survivors"), [("SurvivorsDown", 6), ("SignatureUp", 6), ("KeysUp", 5)]
)
def test_malicious_mode_survives_losses_too(lost, survivors):
    course = run(losing(f"{lost}:2", malicious=True), **EVERYBODY)
    unmasked = run(losing(f"{lost}:2", malicious=True).replace("secagg", "unmasked"), **EVERYBODY)

    assert course.result.digest == unmasked.result.digest
    assert course.result.metrics["survivors"] == survivors


def test_losses_at_several_steps():
    toml = losing("KeysUp:0", "ResultUp:1", threshold=4)
    course = run(toml, **EVERYBODY)

    assert (
        course.result.digest == run(toml.replace("secagg", "unmasked"), **EVERYBODY).result.digest
    )
    assert course.result.metrics["dropouts"] == 2


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("KeysUp", "its session ended: 3 clients around client 3 sent keys, 4 needed"),
        ("SharesUp", "its session ended: 3 clients around client 3 shared their keys, 4 needed"),
        ("ResultUp", "its session ended with 3 vectors, 4 needed"),
        ("AnswerUp", "its session ended: the secret of client 0: 3 shares, 4 needed"),
    ],
)
def test_below_the_threshold_a_session_ends_and_nothing_of_it_is_used(lost, reason):
    toml = losing(*(f"{lost}:{client}" for client in range(3)))
    course = run(toml, sampler__clients=6, course__patience=1)

    assert course.result.status == "failed"
    assert course.result.versions == 0
    assert course.result.tasks["used"] == 0
    assert any(call.endswith(reason) for call in course.calls if call.startswith("task_failed"))


@pytest.mark.parametrize(
    ("toml", "first"),
    [
        (losing("KeysUp:0", "KeysUp:1", "KeysUp:2"), "client 0: its message was lost"),
        (losing("AnswerUp:0", "AnswerUp:1", "AnswerUp:2"), "client 0: its session ended: the secret"),
        (SECAGG.replace("20\n", "20\nstep_timeout = 0.01\n") + '[devices]\nuse = "lognormal"\nlatency = 1.0\n',
         "client 0: it sent no keys in time"),
    ],
)  # fmt: skip
def test_the_course_says_why_its_first_session_ended(toml, first):
    result = run(toml, sampler__clients=6, course__patience=1).result
    assert result.status == "failed"
    assert f"; the first: {first}" in result.reason


def test_a_course_goes_on_after_a_session_that_ended():
    """Clients 0 to 2 never answer; sessions of three others make the versions."""
    toml = losing("KeysUp:0", "KeysUp:1", threshold=2)
    course = run(toml, sampler__clients=3, course__patience=50)

    assert course.result.versions == 3
    assert course.result.status in ("complete", "partial")


def test_late_results_are_given_up_and_their_masks_removed():
    toml = SECAGG + '[trigger]\nuse = "goal_achieved"\n[devices]\nuse = "lognormal"\nsigma = 1.5\n'
    changes = {"sampler__clients": 4, "sampler__over_selection": 1.5, "course__until__versions": 4}
    course = run(toml, **changes)

    assert course.result.tasks["used"] == 16
    assert course.result.tasks["aborted"] == 8
    assert course.result.metrics["dropouts"] == 2
    assert course.result.digest == run(toml.replace("secagg", "unmasked"), **changes).result.digest


BUFFERED = (
    SECAGG.replace("max_weight = 20\n", "max_weight = 20\nsession = 3\n")
    + """
[protocol]
use = "rounds"
concurrency = 6
[aggregator]
use = "staleness"
[devices]
use = "lognormal"
sigma = 1.0
"""
)


def test_an_asynchronous_course_sums_closed_cohorts():
    """FedBuff with a closed cohort: two sessions of three are under way, and the slower is a version or two old."""
    course = run(BUFFERED, sampler__clients=3, course__until__versions=5)
    unmasked = run(
        BUFFERED.replace("secagg", "unmasked"), sampler__clients=3, course__until__versions=5
    )

    assert course.result.digest == unmasked.result.digest
    assert course.result.tasks["used"] == 15
    assert {line["staleness"] for line in course.result.history} == {0.0, 1.0, 2.0}


def test_the_discount_of_a_stale_session_is_that_of_its_updates():
    """Polynomial discount, not renormalised: a session one version old moves the model by 2^-1/2 of its mean."""
    changes = {"sampler__clients": 3, "course__until__versions": 2, "devices__sigma": 0.0}
    with_discount = ready(BUFFERED, **changes).run()
    without = ready(
        BUFFERED.replace('"staleness"', '"staleness"\ndiscount = "constant"'), **changes
    ).run()
    stale = [line["staleness"] for line in with_discount.history]
    first = ready(BUFFERED, **{**changes, "course__until__versions": 1}).run().model["model"]

    moved = with_discount.model["model"] - first
    full = without.model["model"] - first

    assert stale == [0, 1]
    torch.testing.assert_close(moved, full * 2**-0.5, atol=1e-6, rtol=1e-4)


def test_tasks_that_fill_no_session_are_given_up():
    """After a loss, four clients are free for a session of three."""
    toml = losing("TaskDown:0", session=3)
    toml += '[protocol]\nuse = "rounds"\nconcurrency = 6\n'
    course = run(toml, sampler__clients=3, course__until__versions=8)

    assert course.result.status == "complete"
    assert course.result.tasks["aborted"] > 0
    assert (
        course.result.digest
        == run(
            toml.replace("secagg", "unmasked"), sampler__clients=3, course__until__versions=8
        ).result.digest
    )


@pytest.mark.parametrize("weights", ["", UNIFORM])
def test_central_noise_meets_the_sum_as_it_does_without_masks(weights):
    """A shift in the place of noise: it is added to the decoded sum, and divided by what the sum is divided by."""
    shift = '[[privacy]]\nuse = "shifting"\nclip_norm = 0.05\n'
    plain = run(PLAIN + shift + weights, course__until__versions=1).result.model["model"]
    summed = run(SECAGG + shift + weights, course__until__versions=1).result.model["model"]

    torch.testing.assert_close(summed, plain, atol=1e-6, rtol=1e-6)
    assert float(plain.mean()) > 1.0


def test_further_groups_are_summed_without_weights():
    """A trainer's own group is added up as it is, beside the weighted model."""
    toml = '[trainer]\nuse = "twofold"\n'
    plain = run(PLAIN + toml).result.model
    summed = run(
        SECAGG.replace("max_weight = 20", "max_weight = 20\nranges = { extra = 50.0 }") + toml
    )

    torch.testing.assert_close(summed.result.model["extra"], plain["extra"], atol=1e-4, rtol=0)
    torch.testing.assert_close(summed.result.model["model"], plain["model"], atol=1e-6, rtol=0)


def test_a_client_that_keeps_a_private_part():
    toml = (
        SECAGG
        + '[model]\nuse = "mlp"\nhidden = [4]\n[trainer]\nuse = "sgd"\nprivate = ["linear"]\n'
    )
    plain = run(toml.replace(SECAGG, PLAIN))

    torch.testing.assert_close(
        run(toml).result.model["model"], plain.result.model["model"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("nan", "ValueError: the group 'model' of the update is not finite"),
        ("error", "RuntimeError: out of order"),
    ],
)
def test_a_client_whose_training_fails_is_left_out(broken, reason):
    """What is not finite is refused before it is masked: nobody could find it in the sum."""
    trainer = f'[trainer]\nuse = "breaking"\nbroken = "{broken}"\n'
    course = run(SECAGG + trainer, **EVERYBODY)

    assert course.result.metrics["survivors"] == 5
    assert course.calls[3] == f"task_failed client=2: {reason}"


@pytest.mark.parametrize(("timeout", "survivors"), [(6.9, 6), (7.9, 6), (100.0, 6)])
def test_the_deadline_of_a_task_does_not_hold_for_the_unmasking(timeout, survivors):
    """Messages take a second: results arrive after six, requests after seven, answers after eight."""
    toml = SECAGG + '[devices]\nuse = "constant"\nlatency = 1.0\n'
    course = run(toml, protocol__timeout=timeout, **EVERYBODY)

    assert course.result.metrics["survivors"] == survivors
    assert course.result.virtual_time == pytest.approx(8.0, abs=0.1)


def test_cohorts_are_opened_one_at_a_time():
    """Two sessions end together; the second waits for the version of the first, and is one version old."""
    toml = BUFFERED.replace(
        'use = "lognormal"\nsigma = 1.0', 'use = "constant"\ncompute = 0.0\nlatency = 1.0'
    )
    course = run(toml, sampler__clients=3, course__until__versions=2, protocol__staleness_limit=1)

    assert course.result.status == "complete"
    assert [line["staleness"] for line in course.result.history] == [0.0, 1.0]


def test_a_client_that_refuses_changed_keys_is_named_and_left_out():
    course = run(SECAGG.replace('"secagg"', '"lying"\nabout = "keys"'), **EVERYBODY)

    assert course.calls[3] == (
        "task_failed client=2: it refused: the server changed this client's keys"
    )
    assert course.result.metrics["survivors"] == 5


def test_a_client_that_refuses_to_unmask_is_waited_for_no_longer():
    """It was told that it is not among the survivors; the shares of the others are enough."""
    course = run(SECAGG.replace('"secagg"', '"lying"\nabout = "survivors"'), **EVERYBODY)

    assert course.result.metrics["survivors"] == 6
    assert course.result.virtual_time < 1.0
    assert course.course.privacy[0].clients[(1, 2)]["memory"]["step"] == "gone"
    assert course.result.digest == run(**EVERYBODY).result.digest


def test_messages_that_come_twice_change_nothing():
    """The second of each is ignored: it restarts no session, and no client drops out."""
    toml = SECAGG.replace("max_weight = 20\n", "max_weight = 20\nmalicious = true\n")
    faults = '[[faults]]\nuse = "duplicate"\nrate = 1.0\nseconds = {}\n'
    course = run(toml).result

    for seconds in (0.0, 0.001, 3.0):
        assert run(toml + faults.format(seconds)).result.digest == course.digest


def test_a_flipped_bit_of_a_vector_is_noticed():
    faults = '[[faults]]\nuse = "corrupt"\nrate = 1.0\nclients = [2]\n'
    course = run(SECAGG + faults, **EVERYBODY)

    assert course.calls[3] == (
        "task_failed client=2: ValueError: the masked vector does not have its checksum"
    )
    assert course.result.metrics["survivors"] == 5


def test_several_processes_give_the_same_bits():
    assert run(executor__use="process").result.digest == run().result.digest


def test_many_clients_at_once_give_the_same_sum():
    torch.testing.assert_close(
        run(executor__use="cohort").result.model["model"],
        run().result.model["model"],
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("moment", [5, 20, 31, 44, 60, 75])
def test_a_course_that_goes_on_from_a_snapshot_ends_with_the_same_bits(moment):
    toml = losing("ResultUp:1", "AnswerUp:3", malicious=True)
    course, other = ready(toml, sampler__clients=6), ready(toml, sampler__clients=6)
    course.run(lambda c: c.loop.delivered == moment)
    coder = codec(course)
    document, tensors = coder.encode(course.dump())

    other.load(coder.decode(document, tensors))

    assert other.run().digest == run(toml, sampler__clients=6).result.digest


def test_a_snapshot_holds_no_secret_of_a_client():

    course = ready()
    course.run(lambda c: c.loop.delivered == 20)
    text = repr(codec(course).encode(course.dump())[0])
    mechanism = course.privacy[0]
    (wave, client), *_ = mechanism.clients
    entropy = mechanism.entropy(client, wave)

    assert len(mechanism.clients) == 5
    for secret in (entropy, Secrets(entropy).own, Secrets(entropy)._mask):
        assert base64.b64encode(secret).decode() not in text


@define(eq=False)
class Watching(Component):
    """Keeps each update as it travels."""

    name = "watching"
    seen: list = state(list)

    @hookimpl
    def fscore_update_received(self, task, update):
        self.seen.append({n: v.clone() for n, v in update.items()})


def test_the_server_sees_uniform_vectors_and_nothing_in_the_clear():
    watching = Watching()
    course = run(SECAGG + '[model]\nuse = "mlp"\nhidden = [500]\n', plugins=[watching])
    model = course.course.space.size
    bytes_ = np.concatenate([u["vector"].numpy().view(np.uint8) for u in watching.seen])

    assert {tuple(u) for u in watching.seen} == {("vector", "checksum")}
    assert {tuple(u["vector"].shape) for u in watching.seen} == {(model + 3,)}
    assert 0.001 < chisquare(np.bincount(bytes_, minlength=256)).pvalue < 0.999


def test_single_updates_do_not_change_the_sum():
    """With somebody who watches, updates are summed one by one."""
    assert run(plugins=[Watching]).result.digest == run().result.digest


def test_the_bytes_of_an_update_are_four_a_value():
    """model, two metrics and the weight, and a checksum; beside it O(k) bytes of keys and shares."""
    course = run(**EVERYBODY)
    size, k = course.course.space.size, 5
    vector = 4 * (size + 3) + 4
    keys, shares, answers = 32 + 96, 32 + 86 * k, 32 + 38 * (k + 1)

    assert course.course.site.upload.nbytes == vector
    assert course.result.bytes["up"] == 6 * (vector + keys + shares + answers)


@pytest.mark.parametrize("lost", [(), ("KeysUp:0",), ("ResultUp:1",), ("AnswerUp:2",)])
def test_the_server_of_a_course_can_compute_one_sum_only(lost):
    """Even if every vector arrived in the end, those of clients that were given up too."""
    course = ready(losing(*lost), sampler__clients=6)
    mechanism = course.privacy[0]
    course.run(lambda c: any(s["step"] == "opened" for s in mechanism.sessions.values()))
    (key,) = mechanism.sessions
    server = mechanism.server(key)

    assert computable_sums(server, server.memory["sealed"]) == [tuple(server.alive)]
    assert len(server.alive) == 6 - len([text for text in lost if "Answer" not in text])


def test_a_sum_that_would_come_out_in_parts_is_not_opened():
    """Neighbours that fall into two groups: each group's sum could be computed."""
    toml = SECAGG.replace("max_weight = 20\n", "max_weight = 20\nneighbours = 2\n")
    recorder = Recorder()
    course = ready(toml, plugins=[recorder], sampler__clients=6, course__patience=1)
    mechanism = course.privacy[0]
    course.run(lambda c: bool(mechanism.sessions))
    (session,) = mechanism.sessions.values()
    session["server"]["graph"] = {0: (1, 2), 1: (0, 2), 2: (0, 1), 3: (4, 5), 4: (3, 5), 5: (3, 4)}

    result = course.run()

    assert recorder.calls[3] == (
        "task_failed client=0: its session ended: the sum of 3 of its 6 clients could be computed"
    )
    assert result.status == "failed"
    assert result.tasks["used"] == 0


def test_sessions_and_secrets_are_forgotten():
    course = run(course__until__versions=6).course
    mechanism = course.privacy[0]

    assert len(mechanism.sessions) <= 2
    assert len(mechanism.clients) <= 10
    assert len(mechanism._live) <= 10


def test_a_changed_vector_is_no_update():
    stage = Checksum()
    stage.layout({})
    sent, _ = stage.apply({"vector": torch.arange(9, dtype=torch.int32)}, None)
    sent["vector"][3] ^= 1

    with pytest.raises(ValueError, match=r"^the masked vector does not have its checksum$"):
        stage.undo(sent, None)


def test_a_whole_vector_has_its_checksum():
    stage = Checksum()
    vector = torch.arange(9, dtype=torch.int32)
    sent, _ = stage.apply({"vector": vector}, None)

    assert stage.undo(sent, None) == {"vector": vector}
    assert int(sent["checksum"]) & 0xFFFFFFFF == zlib.crc32(vector.numpy().tobytes())


class TestSecAgg(PrivacyContract):
    toml = "[plugins]\n"

    def make(self):
        return SecAgg(max_weight=20)
