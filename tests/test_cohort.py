"""The cohort lane gives what the serial lane gives, up to rounding, for every trainer, model and stage."""

import numpy as np
import pytest
import torch
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.builtin.executors.cohort_lane import CohortLane
from fscore.builtin.executors.lane import Lane
from fscore.builtin.given import GivenData, GivenModel
from fscore.builtin.trainers import SGD
from fscore.component import Component, ge, option
from fscore.context import Order, Phase, Samples
from fscore.errors import CourseError
from fscore.hookspecs import hookimpl
from fscore.params import Group
from fscore.tasks import Batch, Task
from fscore.testing.course import tiny_course

CPU = torch.device("cpu")
MLP = '[model]\nuse = "mlp"\nhidden = [5]\n'


# ---------------------------------------------------------------------------- trainers that override one piece each


@define(eq=False, slots=False)
class Prox(SGD):
    name = "prox"
    mu: float = option(0.1, doc="Proximal weight.", validator=ge(0), per_client=True)

    def adjust(self, gradient, variables, context):
        pull = context.options["mu"] * (variables["model"] - context.sent["model"])
        return {"model": gradient["model"] + pull}


@define(eq=False, slots=False)
class LossTerm(SGD):
    """An extra term inside the loss, of what was received and of an option."""

    name = "loss_term"
    mu: float = option(0.3, doc="Weight.", validator=ge(0), per_client=True)

    def loss(self, variables, batch, context):
        distance = (variables["model"] - context.sent["model"]).square().sum()
        return super().loss(variables, batch, context) + context.options["mu"] * distance


@define(eq=False, slots=False)
class TwoModels(SGD):
    name = "two_models"

    def row(self, space):
        return {**super().row(space), "own": Group((space.size,))}

    def first_row(self, initial):
        return {**super().first_row(initial), "own": initial.clone()}

    def start(self, context):
        return {**super().start(context), "own": context.row["own"]}

    def phases(self, context):
        return (Phase(("model",)), Phase(("own",), epochs=1.5))

    def loss(self, variables, batch, context):
        return context.losses(variables[context.phase.train[0]], batch)

    def adjust(self, gradient, variables, context):
        received = context.sent["model"]
        return {
            n: g + 0.1 * (variables[n] - received) if n == "own" else g for n, g in gradient.items()
        }

    def finish(self, variables, context):
        groups, rows = super().finish(variables, context)
        return groups, {**rows, "own": variables["own"]}

    def predictor(self, variables, context):
        return variables["own"]


@define(eq=False, slots=False)
class HeadThenBase(SGD):
    name = "head_then_base"

    def parts(self, space):
        head = space.part(names=["linear"])
        return {**super().parts(space), "head": head, "base": space.complement(head)}

    def phases(self, context):
        return (Phase(epochs=2.0, part="head"), Phase(part="base"))


@define(eq=False, slots=False)
class Mixture(SGD):
    """Measures before and after, weighs samples by their numbers, and keeps a scalar of its own."""

    name = "mixture"

    def groups(self, space):
        return {**super().groups(space), "fit": Group((), reduce="sum")}

    def survey(self, samples, context):
        losses = context.losses(context.sent["model"], samples)
        valid = torch.ones_like(losses) if samples.valid is None else samples.valid
        return {"before": (losses * valid).sum() / valid.sum(), "each": losses}

    def start(self, context):
        return {**super().start(context), "alpha": context.measured["before"][..., None]}

    def loss(self, variables, batch, context):
        weights = context.measured["each"][batch.numbers]
        return weights * super().loss(variables, batch, context)

    def step(self, variables, gradient, memory, context):
        super().step(variables, gradient, memory, context)
        variables["alpha"].mul_(0.5)

    def summary(self, variables, samples, context):
        losses = context.losses(variables["model"], samples)
        valid = torch.ones_like(losses) if samples.valid is None else samples.valid
        return {"after": (losses * valid).sum() / valid.sum()}

    def finish(self, variables, context):
        groups, rows = super().finish(variables, context)
        return {**groups, "fit": context.measured["after"] + variables["alpha"][..., 0]}, rows


@define(eq=False, slots=False)
class PerSample(SGD):
    """Gradients of single samples, clipped, with noise of the client's own generator."""

    name = "per_sample"

    def gradient(self, loss, variables, batch, context):
        rows = context.per_sample(loss, variables, batch, context)["model"]
        norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        total = (rows * torch.clamp(0.5 / (norms + 1e-12), max=1.0)).sum(dim=-2)
        rng = context.rng("noise", context.step)
        noise = torch.from_numpy(rng.standard_normal(rows.shape[-1]).astype(np.float32))
        return {"model": (total + 0.1 * noise) / 5}


@define(eq=False, slots=False)
class Poisson(SGD):
    """Batches that are drawn for each client; some are empty."""

    name = "poisson_batches"

    def batches(self, context):
        rng = context.rng("batches")
        drawn = [rng.random(context.samples) < 0.2 for _ in range(4)]
        index = np.concatenate([np.flatnonzero(d) for d in drawn])
        return Order(torch.from_numpy(index), tuple(int(d.sum()) for d in drawn))


@define(eq=False, slots=False)
class StepLoss(SGD):
    """A loss that depends on the number of the step, which no recording may hold."""

    name = "step_loss"

    def loss(self, variables, batch, context):
        return super().loss(variables, batch, context) * (1 + context.step)


@define(eq=False, slots=False)
class Branching(SGD):
    """Python decides by values: what cannot be computed for many clients at once."""

    name = "branching"

    def loss(self, variables, batch, context):
        losses = super().loss(variables, batch, context)
        return losses if float(losses.detach().mean()) > 1 else 2 * losses


@define(eq=False, slots=False)
class Counting(SGD):
    """A Python counter inside the loss: computed again, it gives something else."""

    name = "counting"

    def loss(self, variables, batch, context):
        self.calls = getattr(self, "calls", 0) + 1
        return super().loss(variables, batch, context) / self.calls


TRAINERS = [
    Prox, LossTerm, TwoModels, HeadThenBase, Mixture, PerSample, Poisson, StepLoss, Branching, Counting,
]  # fmt: skip


@define(eq=False)
class TrainerPlugin(Component):
    name = "trainers"

    @hookimpl
    def fscore_register_trainers(self):
        return TRAINERS


def course_of(toml, **changes):
    return tiny_course(toml, plugins=[TrainerPlugin], changes=changes)


def jobs_of(course, kind="train", part="train", clients=range(6)):
    overrides = course.config.overrides
    found = []
    for i, client in enumerate(clients):
        hparams = {}
        for override in overrides:
            if client in override.clients:
                hparams.update(override.values)
        found.append(course.opener.job(Task(i, client, 0, kind, hparams=hparams), part))
    return tuple(found)


def both(course, batch):
    """Return the outputs of the serial lane and of the cohort lane."""
    many = CohortLane(course.site, CPU, 1 << 24)
    return Lane(course.site).batch(batch), many.batch(batch)


def assert_alike(one, other, tolerance=2e-6):
    assert [o.task for o in one.outputs] == [o.task for o in other.outputs]
    assert [o.error for o in one.outputs] == [o.error for o in other.outputs]
    for a, b in zip(one.outputs, other.outputs, strict=True):
        close(a.values, b.values, tolerance)
        close(a.row, b.row, tolerance)
        assert (a.wire is None) == (b.wire is None)
        close(a.wire or {}, b.wire or {}, tolerance)
    close(one.sums or {}, other.sums or {}, 100 * tolerance)


def close(one, other, tolerance):
    assert set(one) == set(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        torch.testing.assert_close(other[name], value, atol=tolerance, rtol=1e-4)


def compare(course, tolerance=2e-6):
    """Compare training, one by one and summed, and evaluation."""
    jobs = jobs_of(course)
    for batch in (Batch(jobs, sum=False, wire=True), Batch(jobs, sum=True)):
        assert_alike(*both(course, batch), tolerance)
    judged = jobs_of(course, "evaluate", "test", range(8))
    assert_alike(*both(course, Batch(judged, sum=False)), 1e-4)


# ---------------------------------------------------------------------------- trainers, options, stages


@pytest.mark.parametrize(
    "trainer",
    [
        "sgd", "prox", "loss_term", "two_models", "head_then_base", "mixture", "per_sample",
        "poisson_batches", "step_loss",
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch_size", [0, 4])
def test_trainers(trainer, batch_size):
    compare(
        course_of(f'{MLP}[trainer]\nuse = "{trainer}"\nbatch_size = {batch_size}\nepochs = 2\n')
    )


@pytest.mark.parametrize(
    "options",
    [
        "batch_size = 0\nepochs = 3",
        "batch_size = 1",
        "batch_size = 1000",
        "epochs = 1e-12\nbatch_size = 3",
        "epochs = 0.4",
        "epochs = 2.7\nbatch_size = 3",
        "momentum = 0.9",
        "momentum = 0.9\nnesterov = true",
        "weight_decay = 0.1",
        "max_grad_norm = 0.2",
        "max_grad_norm = 0.2\nfrozen = ['linear']",
        "private = ['linear']\nepochs = 2",
        "private = ['*hidden*']\nmomentum = 0.5",
        "frozen = ['*hidden*']",
        "finetune = 2.0",
    ],
)
def test_options_of_sgd(options):
    compare(course_of(f'{MLP}[trainer]\nuse = "sgd"\n{options}\n'))


OVERRIDES = """
[trainer]
use = "prox"
batch_size = 4
[[override]]
clients = [1, 3]
trainer.lr = 0.02
trainer.mu = 0.5
[[override]]
clients = [2, 3]
trainer.epochs = 2.5
trainer.momentum = 0.5
[[override]]
clients = [4]
trainer.batch_size = 2
trainer.weight_decay = 0.1
"""


def test_options_that_differ_between_clients():
    compare(course_of(MLP + OVERRIDES))


def test_a_loss_of_options_that_differ_between_clients():
    compare(course_of(MLP + OVERRIDES.replace('"prox"', '"loss_term"')))


STAGES = ['[[privacy]]\nuse = "clip"\nclip_norm = 0.01\n', '[aggregator]\nuse = "median"\n']


@pytest.mark.parametrize("stage", STAGES)
def test_stages_and_aggregators(stage):
    compare(course_of(MLP + stage))


def test_tasks_that_start_from_different_versions():
    course = course_of(MLP + '[trainer]\nuse = "prox"')
    course.bank[1] = {"model": course.bank[0]["model"] + 0.1}
    course._announced[1] = course.announced(0)
    jobs = tuple(course.opener.job(Task(i, i, i % 2)) for i in range(6))
    assert_alike(*both(course, Batch(jobs, sum=False)))


def test_factors_weigh_the_sum():
    course = course_of(MLP)
    jobs = tuple(course.opener.job(Task(i, i, 0), factor=0.5 + i) for i in range(6))
    assert_alike(*both(course, Batch(jobs, sum=True)))


def test_a_job_that_ends_before_a_rank():
    from attrs import evolve

    course = course_of(MLP)
    jobs = tuple(evolve(job, upto=15.0) for job in jobs_of(course))
    assert_alike(*both(course, Batch(jobs, sum=False)))


# ---------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        ({"use": "softmax"}, 2e-6),
        ({"use": "mlp", "hidden": [6, 5], "activation": "tanh"}, 2e-6),
        ({"use": "femnist_cnn", "hidden": 8}, 2e-5),
        ({"use": "cnn", "hidden": 8}, 2e-5),
    ],
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_models(model, tolerance, momentum):
    trainer = {"use": "sgd", "lr": 0.05, "momentum": momentum, "max_grad_norm": 1.0}
    course = on_given(image_clients([5, 11, 3]), model=model, trainer=trainer)
    batch = Batch(jobs_of(course, clients=range(3)), sum=False)
    assert_alike(*both(course, batch), tolerance)


def on_given(clients, **tables):
    """Return a course on the data of given clients."""
    tables = {"sampler": {"use": "uniform", "clients": 1}, **tables}
    return tiny_course(tables, given={"data": GivenData.of(clients)})


def image_clients(sizes):
    generator = torch.Generator().manual_seed(5)

    def part(size):
        x = torch.randn(size, 1, 8, 8, generator=generator)
        return Samples(x, torch.randint(3, (size,), generator=generator))

    return [(part(size), part(2)) for size in sizes]


def text_clients(sizes):
    generator = torch.Generator().manual_seed(5)

    def part(size):
        return Samples(*(torch.randint(7, (size, 6), generator=generator) for _ in range(2)))

    return [(part(size), part(2)) for size in sizes]


class Reader(torch.nn.Module):
    """Tokens to logits of the next ones, through a recurrent layer and a norm."""

    def __init__(self, kind):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 3)
        self.recurrent = getattr(torch.nn, kind)(3, 6, batch_first=True)
        self.norm = torch.nn.LayerNorm(6)
        self.linear = torch.nn.Linear(6, 7)

    def forward(self, x):
        return self.linear(self.norm(self.recurrent(self.embedding(x))[0]))


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_recurrent_models(kind):
    torch.manual_seed(2)
    course = tiny_course(
        {
            "sampler": {"use": "uniform", "clients": 1},
            "objective": {"use": "next_token"},
            "trainer": {"use": "sgd", "batch_size": 4},
        },
        given={"data": GivenData.of(text_clients([5, 9, 3])), "model": GivenModel.of(Reader(kind))},
    )
    assert_alike(*both(course, Batch(jobs_of(course, clients=range(3)), sum=False)))


# ---------------------------------------------------------------------------- ragged clients


def ragged(sizes, **trainer):
    generator = torch.Generator().manual_seed(1)

    def part(size):
        x = torch.randn(size, 3, generator=generator)
        return Samples(x, torch.randint(2, (size,), generator=generator))

    clients = [(part(size), part(1)) for size in sizes]
    return on_given(clients, trainer={"use": "sgd", "lr": 0.1, **trainer})


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch_size=st.integers(0, 12),
    epochs=st.sampled_from([0.3, 1.0, 2.0, 2.5]),
    momentum=st.sampled_from([0.0, 0.5]),
)
def test_ragged_sizes(sizes, batch_size, epochs, momentum):
    course = ragged(sizes, batch_size=batch_size, epochs=epochs, momentum=momentum)
    jobs = jobs_of(course, clients=range(len(sizes)))
    assert_alike(*both(course, Batch(jobs, sum=False)))
    assert_alike(*both(course, Batch(jobs, sum=True)))


# ---------------------------------------------------------------------------- the same bits


def test_the_same_batch_gives_the_same_bits():
    course = ragged([3, 17, 8, 8, 30, 1], batch_size=5, epochs=2, momentum=0.9)
    batch = Batch(jobs_of(course), sum=True)
    lane = CohortLane(course.site, CPU, 1 << 24)
    first, again = lane.batch(batch), lane.batch(batch)
    fresh = CohortLane(course.site, CPU, 1 << 24).batch(batch)
    for other in (again, fresh):
        assert torch.equal(first.sums["model"], other.sums["model"])


def test_a_full_store_of_samples_changes_nothing():
    course = ragged([3, 17, 8, 8, 30, 1], batch_size=5)
    large, small = (CohortLane(course.site, CPU, size) for size in (1 << 24, 1))
    for clients in ([0, 1, 2], [3, 4], [1, 5], [0, 1, 2, 3, 4, 5]):
        batch = Batch(jobs_of(course, clients=clients), sum=True)
        assert torch.equal(large.batch(batch).sums["model"], small.batch(batch).sums["model"])


# ---------------------------------------------------------------------------- what cannot be computed at once


def test_a_trainer_that_branches_on_values_is_refused_by_name():
    course = course_of(MLP + '[trainer]\nuse = "branching"')
    with pytest.raises(CourseError) as caught:
        CohortLane(course.site, CPU, 1 << 24).batch(Batch(jobs_of(course), sum=True))
    start = "executor.use: 'cohort' cannot compute trainer 'branching' for many clients at once (RuntimeError: vmap: "
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("Remedy: use 'auto' or 'serial'.")


def test_a_trainer_that_counts_calls_is_refused():
    course = course_of(MLP + '[trainer]\nuse = "counting"')
    with pytest.raises(CourseError) as caught:
        CohortLane(course.site, CPU, 1 << 24).batch(Batch(jobs_of(course), sum=True))
    assert "(Impure: it does not do the same thing twice: 1 and then 2)" in str(caught.value)


def test_where_it_may_the_lane_says_so_and_computes_one_by_one(capsys):
    course = course_of(MLP + '[trainer]\nuse = "branching"')
    batch = Batch(jobs_of(course), sum=True)
    lane = CohortLane(course.site, CPU, 1 << 24, strict=False)
    done = [lane.batch(batch), lane.batch(batch)][-1]
    assert torch.equal(done.sums["model"], Lane(course.site).batch(batch).sums["model"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("executor: trainer 'branching' is computed client by client where ")
