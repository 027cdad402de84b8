"""Groups that are more than a mean: rows of a slot, counts, the server's own update, hidden weights."""

from __future__ import annotations

import pytest
import torch
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.builtin.given import GivenModel
from fscore.builtin.reference import reference
from fscore.builtin.trainers import SGD
from fscore.component import Component, option
from fscore.errors import ConfigError
from fscore.folding import joined
from fscore.hookspecs import hookimpl
from fscore.kinds.policy import Policy
from fscore.kinds.privacy import PrivacyMechanism
from fscore.params import Group, ParamSpace, length, merge
from fscore.paths import Stage
from fscore.tasks import Output, Slice
from fscore.testing import fs_course, tiny_course

ALL = '[sampler]\nuse = "all"\n[course.until]\nversions = 1\n'


@define(eq=False)
class Clusters(SGD):
    """Every client moves one of three rows: that of its own number modulo `used`."""

    name = "clusters"
    used: int = option(2, doc="Rows that are moved.")

    def slots(self, space):
        return {"bank": Group((3, space.size))}

    def first_slots(self, initial):
        return {"bank": initial.repeat(3, 1)}

    def groups(self, space):
        row = Group((), "int64", "sum", public=True)
        return {"bank": Group((space.size,), slot="bank", at="row", rows=3), "row": row}

    def start(self, context):
        return {"model": context.sent["bank"][context.task.client % self.used].clone()}

    def finish(self, variables, context):
        row = context.task.client % self.used
        change = variables["model"] - context.sent["bank"][row]
        return {"bank": change, "row": torch.tensor(row)}, {}


@define(eq=False)
class Counts(SGD):
    """Sends its first coordinate only, with a count, beside the model."""

    name = "counts"

    def slots(self, space):
        return {**super().slots(space), "sparse": Group((4,))}

    def groups(self, space):
        return {
            **super().groups(space),
            "sparse": Group((4,), slot="sparse", count="present"),
            "present": Group((4,), reduce="mean"),
        }

    def finish(self, variables, context):
        groups, rows = super().finish(variables, context)
        present = torch.zeros(4)
        present[context.task.client % 2] = 1.0
        return {**groups, "sparse": 3.0 * present, "present": present}, rows


class Hide(Stage):
    """Moves weight and metrics from beside the path into it, so that the server has their sums only."""

    name = "hide"
    rank = 80
    on_sum = True

    def layout(self, before):
        self.before = before
        own = {"weight": Group((), "float64", "sum"), "metrics": Group((2,), "float64", "sum")}
        return {n: Group(g.shape, g.dtype, "sum") for n, g in before.items()} | own

    def apply(self, values, context):
        weight = values["weight"]
        means = {n for n, g in self.before.items() if g.reduce == "mean"}
        return {n: v * weight if n in means else v for n, v in values.items()}, {}


@define(eq=False)
class Hidden(PrivacyMechanism):
    name = "hidden"
    removes = frozenset({"individual_updates", "public_weights"})

    def stages(self):
        return (Hide(),)


@define(eq=False)
class Groups(Component):
    name = "groups"

    @hookimpl
    def fscore_register_trainers(self):
        return [Clusters, Counts]

    @hookimpl
    def fscore_register_privacy_mechanisms(self):
        return [Hidden]


def run(toml):
    return fs_course(ALL + toml, plugins=[Groups])


def test_each_row_moves_by_the_weighted_mean_of_those_who_moved_it():
    done = run('[trainer]\nuse = "clusters"\n')
    course = tiny_course(ALL)
    course.executor.start(course.site)
    tasks = course.issue(course.sample(6))
    course.opener.compute(tasks)
    expected = course.initial.repeat(3, 1)
    for row in (0, 1):
        mine = [course.opener.outputs[t.id].values for t in tasks if t.client % 2 == row]
        total = sum(float(v["weight"]) for v in mine)
        expected[row] += sum(float(v["weight"]) * v["model"] for v in mine) / total
    assert torch.allclose(done.result.model["bank"], expected, atol=1e-6)


def test_a_row_that_nobody_moved_stays():
    done = run('[trainer]\nuse = "clusters"\n')
    assert torch.equal(done.result.model["bank"][2], done.course.initial)


def test_one_row_is_federated_averaging():
    bank = run('[trainer]\nuse = "clusters"\nused = 1\n').result.model["bank"][0]
    assert torch.allclose(bank, run("").result.model["model"], atol=1e-6)


def test_rows_are_the_same_with_workers():
    toml = '[trainer]\nuse = "clusters"\n[executor]\nchunk = 2\n'
    serial = run(toml + 'use = "serial"\n').result.digest
    assert run(toml + 'use = "process"\nworkers = 2\n').result.digest == serial


def test_rows_are_refused_with_an_aggregator_that_is_no_weighted_sum():
    with pytest.raises(ConfigError) as caught:
        run('[trainer]\nuse = "clusters"\n[aggregator]\nuse = "median"\n')
    assert str(caught.value) == (
        "E-COMPAT: [trainer] 'clusters' needs an aggregate that is a weighted sum, but [aggregator] 'median' takes that away. "
        "Remedy: switch one of them off."
    )


def test_a_count_divides_its_sum_where_somebody_counted():
    sparse = run('[trainer]\nuse = "counts"\n').result.model["sparse"]
    assert sparse.tolist() == pytest.approx([3.0, 3.0, 0.0, 0.0])


def test_weights_and_metrics_that_are_only_known_as_sums_give_the_same_version():
    hidden, plain = run('[[privacy]]\nuse = "hidden"\n'), run("")
    assert torch.allclose(hidden.result.model["model"], plain.result.model["model"], atol=1e-6)
    assert hidden.result.metrics["train_loss"] == pytest.approx(plain.result.metrics["train_loss"])


DIGITS = {
    "data": {"use": "digits", "root": 40, "unseen_clients": 0},
    "course": {"name": "root", "seed": 3, "until": {"versions": 1}},
    "sampler": {"use": "all"},
}


def test_the_reference_is_what_a_client_with_the_servers_data_would_send():
    course = tiny_course(DIGITS)
    course.executor.start(course.site)
    update = reference(course, "root")
    model = course.initial.clone().requires_grad_()
    course.space.bind(course.module, model.detach())
    assert update.shape == course.initial.shape
    assert float(update.norm()) > 0
    data = course.dataset.server("root")
    with torch.no_grad():
        before = course.objective.losses(course.module(data.x), data.y).mean()
        course.space.bind(course.module, course.initial + update)
        after = course.objective.losses(course.module(data.x), data.y).mean()
    assert float(after) < float(before)


def test_the_reference_is_pure():
    course = tiny_course(DIGITS)
    course.executor.start(course.site)
    assert torch.equal(reference(course), reference(course))
    assert course.book.issued == 0


def test_the_servers_samples_are_no_clients():
    course = tiny_course(DIGITS)
    clients = sum(len(part) for part in course.dataset.parts)
    assert (len(course.dataset.server("root").y), clients) == (40, 1797 - 40)


# ------------------------------------------------------------------------------------------------ edges


@define(eq=False)
class Astray(Clusters):
    """Clients with more than 12 samples name a row that does not exist; the others move the first."""

    name = "astray"

    def start(self, context):
        return {"model": context.sent["bank"][..., 0, :].clone()}

    def finish(self, variables, context):
        change = variables["model"] - context.sent["bank"][..., 0, :]
        return {"bank": change, "row": torch.where(torch.as_tensor(context.samples) > 12, 9, 0)}, {}


class Personal(Stage):
    """Sends each client its own number in place of the first parameter."""

    name = "personal"
    rank = 40
    down = True
    per_client = True

    def apply(self, values, context):
        model = values["model"].clone()
        model[0] = float(context.task.client)
        return {**values, "model": model}, {}


@define(eq=False)
class Reads(SGD):
    """Notes what a client can know of its task, and what it was sent."""

    name = "reads"
    notes: list = field(factory=list, init=False)

    def start(self, context):
        memo, sent = dict(context.task.memo), float(context.sent["model"][0])
        self.notes.append((context.task.client, sent, memo))
        return super().start(context)


@define(eq=False)
class Remembers(Policy):
    name = "remembers"
    learned: list = field(factory=list, init=False)

    def choose(self, client, version, rng):
        return {}, {"secret": client}

    def learn(self, outputs, cohort):
        self.learned += [task.memo["secret"] for task in cohort.tasks]


@define(eq=False)
class Sender(PrivacyMechanism):
    name = "sender"

    def stages(self):
        return (Personal(),)


@define(eq=False)
class Edges(Component):
    name = "edges"

    @hookimpl
    def fscore_register_trainers(self):
        return [Astray, Reads]

    @hookimpl
    def fscore_register_policies(self):
        return [Remembers]

    @hookimpl
    def fscore_register_privacy_mechanisms(self):
        return [Sender, Hidden]


def edge(toml, **options):
    return fs_course(ALL + toml, plugins=[Edges], **options)


@pytest.mark.parametrize("executor", ["serial", "cohort"])
def test_a_client_that_names_no_row_is_a_failed_task(executor):
    run = edge(f'[trainer]\nuse = "astray"\n[executor]\nuse = "{executor}"\n')
    course = run.course
    seen = [c for c in range(8) if c not in course.population.unseen]
    large = [c for c in seen if course.dataset.samples(c) > 12]
    assert 0 < len(large) < len(seen)
    failed = [call for call in run.calls if call.startswith("task_failed")]
    assert failed == [f"task_failed client={c}: 'row' names no row of 3" for c in large]
    assert run.result.status == "complete"


def test_a_download_stage_may_differ_by_client():
    run = edge('[trainer]\nuse = "reads"\n[[privacy]]\nuse = "sender"\n')
    assert [sent for client, sent, _ in run.course.trainer.notes if sent != client] == []


def test_what_the_server_remembers_of_a_task_is_not_shown_to_its_client():
    run = edge('[trainer]\nuse = "reads"\n[[policy]]\nuse = "remembers"\n')
    assert [memo for _, _, memo in run.course.trainer.notes if memo] == []
    assert sorted(run.course.policies[0].learned) == [0, 1, 2, 3, 4, 5]


def test_a_cohort_of_nobody_with_hidden_weights_does_not_move_the_model():
    toml = (
        '[[privacy]]\nuse = "hidden"\n[sampler]\nuse = "poisson"\nclients = 1\n[course]\nseed = 1\n'
    )
    run = fs_course(toml, plugins=[Edges], changes={"course.until.versions": 8})
    assert run.result.status == "complete"
    assert 0 in [line["updates"] for line in run.result.history]


def test_overlapping_parts_are_no_shared_part():
    text = '[model]\nuse = "mlp"\nhidden = [4]\n[trainer]\nprivate = ["hidden0", "linear.weight"]\nfrozen = ["hidden0.bias"]\n'
    course = tiny_course(text)
    space, parts = course.space, course.trainer.parts(course.space)
    last = space.entries[-1]
    assert parts["shared"] == ((last.start, last.stop),)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted).map(tuple)))
def test_merged_ranges_and_their_complement_divide_the_vector(ranges):
    space = ParamSpace((), 20)
    joined = merge(sorted(ranges))
    covered = {i for a, b in ranges for i in range(a, b)}
    assert {i for a, b in joined for i in range(a, b)} == covered
    assert length(joined) + length(space.complement(joined)) == 20


class Noisy(torch.nn.Module):
    """Draws random numbers without a layer that says so."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        x = torch.nn.functional.dropout(x, 0.5, training=self.training)
        return self.linear(x)


def test_a_model_that_draws_by_itself_repeats_its_digest():
    torch.manual_seed(0)
    module, digests = Noisy(), set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        given_model = GivenModel.of(module)
        digests.add(fs_course(given={"model": given_model}).result.digest)
    assert len(digests) == 1


@define(eq=False)
class Flaky(SGD):
    """Client 0 raises; client 1 reports a loss that is no number."""

    name = "flaky"

    def finish(self, variables, context):
        if context.task.client == 0:
            raise RuntimeError("no battery")
        if context.task.client == 1:
            context.loss_sum = float("nan")
        return super().finish(variables, context)


@define(eq=False)
class FlakyPlugin(Component):
    name = "flaky"

    @hookimpl
    def fscore_register_trainers(self):
        return [Flaky]


@define(eq=False)
class Spectator(Component):
    name = "spectator"

    @hookimpl
    def fscore_update_received(self, update):
        """Watch, and do nothing."""


@pytest.mark.parametrize("chunk", [2, 4])
def test_a_spectator_changes_nothing_although_clients_fail(chunk):
    toml = ALL + f'[trainer]\nuse = "flaky"\n[executor]\nchunk = {chunk}\n'
    alone = fs_course(toml, plugins=[FlakyPlugin]).result
    watched = fs_course(toml, plugins=[FlakyPlugin, Spectator]).result
    assert (watched.digest, watched.tasks) == (alone.digest, alone.tasks)
    assert alone.tasks["failed"] == 2


def test_a_public_group_is_joined_in_the_order_of_the_outputs_however_they_hold_it():
    """Slices of two batches in any order, dicts between them, beside the stack of single values."""
    first = {"weight": torch.arange(4.0), "metrics": torch.arange(8.0).view(4, 2)}
    second = {name: value + 100 for name, value in first.items()}
    slices = [Slice(first, 2), Slice(first, 0), Slice(second, 3), Slice(second, 1), Slice(first, 1)]
    plain = {"weight": torch.tensor(-1.0), "metrics": torch.tensor([-1.0, -2.0])}
    held = [*slices[:3], plain, plain, *slices[3:]]
    outputs = [Output(i, values) for i, values in enumerate(held)]
    for name in plain:
        expected = torch.stack([output.values[name] for output in outputs])
        assert torch.equal(joined(outputs, name), expected)
    assert joined(outputs, "other") is None
    assert joined([], "weight") is None


def test_a_slice_reads_like_the_dict_of_its_client():
    part = Slice({"weight": torch.arange(4.0)}, 2)
    assert dict(part) == {"weight": torch.tensor(2.0)}
    assert ("weight" in part, "x" in part, len(part), part.get("x")) == (True, False, 1, None)
