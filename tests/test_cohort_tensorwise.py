"""Large tensors of a model are stepped one by one, with gradients that are added where they are computed."""

import pytest
import torch
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.builtin.executors.cohort_lane import CohortLane
from fscore.builtin.executors.lane import Lane
from fscore.builtin.executors.products import Product
from fscore.builtin.executors.program import _DIRECT
from fscore.builtin.executors.rewriting import NARROW, Ref, aten, on_short_axes, with_products
from fscore.builtin.given import GivenData, GivenModel
from fscore.builtin.trainers import SGD
from fscore.component import Component
from fscore.context import Samples
from fscore.hookspecs import hookimpl
from fscore.tasks import Batch, Task
from fscore.testing.course import tiny_course

CPU = torch.device("cpu")
WIDE = 300


class Deep(torch.nn.Module):
    """Two layers whose weights are products of matrices: the gradient of one factor is a product with the other."""

    def __init__(self):
        super().__init__()
        self.left = torch.nn.Parameter(0.1 * torch.randn(WIDE, 12))
        self.right = torch.nn.Parameter(0.1 * torch.randn(12, WIDE))
        self.last = torch.nn.Linear(WIDE, 4)

    def forward(self, x):
        return self.last(torch.relu(x @ (self.left @ self.right)))


def mlp():
    return torch.nn.Sequential(
        torch.nn.Linear(WIDE, 20), torch.nn.Tanh(), torch.nn.Linear(20, 20), torch.nn.ReLU(),
        torch.nn.Linear(20, 4),
    )  # fmt: skip


MODELS = {"linear": lambda: torch.nn.Linear(WIDE, 10), "mlp": mlp, "deep": Deep}


@define(eq=False, slots=False)
class Pull(SGD):
    """A term of the loss that looks at the whole vector."""

    name = "pull"

    def loss(self, variables, batch, context):
        apart = (variables["model"] - context.sent["model"]).square().sum()
        return super().loss(variables, batch, context) + 0.3 * apart


@define(eq=False)
class PullPlugin(Component):
    name = "pull_plugin"

    @hookimpl
    def fscore_register_trainers(self):
        return [Pull]


def course_of(model, sizes, **trainer):
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(1)

    def part(size):
        x = torch.randn(size, WIDE, generator=generator)
        return Samples(x, torch.randint(4, (size,), generator=generator))

    data = GivenData.of([(part(size), part(1)) for size in sizes])
    tables = {
        "sampler": {"use": "uniform", "clients": 1},
        "trainer": {"use": "sgd", "lr": 0.1, **trainer},
    }
    given = {"data": data, "model": GivenModel.of(model())}
    return tiny_course(tables, given=given, plugins=[PullPlugin])


def compare(course, hparams=()):
    """Compare with one client at a time, and see to it that tensors were stepped one by one."""
    options = dict(hparams)
    tasks = [Task(i, i, 0, hparams=options.get(i, {})) for i in range(course.population.size)]
    jobs = tuple(course.opener.job(task) for task in tasks)
    lane = CohortLane(course.site, CPU, 1 << 24)
    for batch in (Batch(jobs, sum=False), Batch(jobs, sum=True)):
        one, many = Lane(course.site).batch(batch), lane.batch(batch)
        for a, b in zip(one.outputs, many.outputs, strict=True):
            assert a.error == b.error
            for name, value in a.values.items():
                torch.testing.assert_close(b.values[name], value, atol=2e-6, rtol=1e-4)
        for name, value in (one.sums or {}).items():
            torch.testing.assert_close(many.sums[name], value, atol=2e-4, rtol=1e-4)
    programs = [p for p in lane.lift._programs.values() if p is not None]
    assert any(program.written for program in programs)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"weight_decay": 0.1},
        {"batch_size": 0, "epochs": 3.0},
        {"epochs": 2.5, "batch_size": 4},
        {"use": "pull", "epochs": 2.0},
    ],
)
def test_models_and_options(model, trainer):
    compare(course_of(MODELS[model], [7, 30, 3, 12, 12], **trainer))


@pytest.mark.parametrize("model", MODELS)
def test_options_that_differ_between_clients(model):
    options = {"trainer.lr": 0.01, "trainer.momentum": 0.5, "trainer.weight_decay": 0.1}
    compare(course_of(MODELS[model], [7, 30, 3], epochs=2.0), {1: options, 2: {"trainer.lr": 0.2}})


def test_a_part_that_stays_at_the_client():
    compare(course_of(mlp, [7, 12], private=["4"]))


def test_a_gradient_that_is_another_input_is_copied_before_that_is_written():
    calls, results = with_products([], (Ref(1), Ref(0), Ref(2)), frozenset({0, 1}))
    assert [(call.function, call.args) for call in calls] == [
        (aten.clone.default, (Ref(1),)),
        (aten.clone.default, (Ref(0),)),
    ]
    assert results == (Ref(calls[0].out), Ref(calls[1].out), Ref(2))


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    batch_size=st.integers(0, 12),
    epochs=st.sampled_from([0.3, 1.0, 2.5]),
    momentum=st.sampled_from([0.0, 0.5]),
)
def test_ragged_sizes(sizes, batch_size, epochs, momentum):
    course = course_of(
        MODELS["linear"], sizes, batch_size=batch_size, epochs=epochs, momentum=momentum
    )
    compare(course)


@pytest.mark.parametrize("trainer", [{"max_grad_norm": 0.5}, {"frozen": ["0"]}], ids=str)
def test_steps_that_need_the_whole_vector_have_it(trainer):
    course = course_of(mlp, [7, 12], **trainer)
    jobs = tuple(course.opener.job(Task(i, i, 0)) for i in range(2))
    lane = CohortLane(course.site, CPU, 1 << 24)
    done = lane.batch(Batch(jobs, sum=False))
    expected = Lane(course.site).batch(Batch(jobs, sum=False))
    for a, b in zip(expected.outputs, done.outputs, strict=True):
        torch.testing.assert_close(b.values["model"], a.values["model"], atol=2e-6, rtol=1e-4)
    assert not any(p.written for p in lane.lift._programs.values())


# ---------------------------------------------------------------------------- products


def product():
    left, right = torch.randn(3, 2, 5), torch.randn(3, 5, 4)
    return Product(left, right), torch.bmm(left, right).flatten(1)


def test_a_product_is_added_in_place():
    made, tensor = product()
    values = torch.randn(3, 8)
    expected = values - 0.5 * tensor
    assert values.add_(made[..., 0:8], alpha=-0.5) is values
    torch.testing.assert_close(values, expected)
    assert made._tensor is None


def test_a_product_is_added_to_values_that_lie_apart():
    made, tensor = product()
    values = torch.randn(3, 9)[:, 1:]
    expected = values + tensor
    values.add_(made)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(
    "use",
    [
        lambda p: p[..., 2:6],
        lambda p: p[0],
        lambda p: p + 1,
        lambda p: 1 - p,
        lambda p: 0.5 * p,
        lambda p: torch.ones(3, 1) * p,
        lambda p: p / 2,
        lambda p: -p,
        lambda p: p.clone(),
        lambda p: torch.cat([p, p], 1),
        lambda p: torch.linalg.vector_norm(p, dim=-1, keepdim=True),
        lambda p: torch.zeros(3, 8).sub_(2 * p),
        lambda p: torch.ones(3, 8).addcmul_(p, p, value=0.1),
        lambda p: p.mul(2).add_(p),
        lambda p: p * p,
        lambda p: (p > 0).float(),
        lambda p: torch.tensor(p.shape),
    ],
)
def test_whatever_is_asked_of_a_product_is_asked_of_its_tensor(use):
    made, tensor = product()
    torch.testing.assert_close(use(made), use(tensor))


# ---------------------------------------------------------------------------- softmax over short axes


@pytest.mark.parametrize("classes", [1, 2, 10, NARROW - 1, NARROW])
def test_softmax_over_a_short_axis(classes):
    x = 20 * torch.randn(4, 3, classes)
    x[0, 0, 0] = float("-inf") if classes > 1 else 0.0
    x[1, 1, 0] = float("nan")
    forward, backward = aten._log_softmax.default, aten._log_softmax_backward_data.default
    expected = forward(x, 2, False)
    found = on_short_axes(forward, (x, 2, False), expected)
    assert (found is forward) == (classes >= NARROW)
    torch.testing.assert_close(found(x, 2, False), expected, equal_nan=True)
    slope = torch.randn_like(x)
    arguments = (slope, expected, 2, torch.float32)
    expected = backward(*arguments)
    found = on_short_axes(backward, arguments, expected)
    torch.testing.assert_close(found(*arguments), expected, equal_nan=True)


def test_softmax_over_another_axis_is_torchs_own():
    x, forward = torch.randn(4, 3, 3), aten._log_softmax.default
    assert on_short_axes(forward, (x, 1, False), forward(x, 1, False)) is forward


# ---------------------------------------------------------------------------- functions in the place of operations


def arguments(operation):
    """Return arguments that an operation is recorded with."""
    x, index = torch.randn(3, 4, 1), torch.zeros(3, 4, 1, dtype=torch.int64)
    shaped = {
        "transpose": (1, 2), "unsqueeze": (1,), "view": ([3, 2, 2],), "mean": ([1],),
        "sum": ([1], True), "squeeze": ([2],), "gather": (1, index), "scatter_add": (1, index, x),
        "add": (x[:, :1],), "sub": (x,), "mul": (x[:1],), "bmm": (x.transpose(1, 2),),
    }  # fmt: skip
    return (x, *shaped.get(operation._schema.name.removeprefix("aten::"), ()))


@pytest.mark.parametrize("operation", _DIRECT, ids=str)
def test_a_function_gives_the_bits_of_its_operation(operation):
    given = arguments(operation)
    found, expected = _DIRECT[operation](*given), operation(*given)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
