"""What a recorded program gives is what its function gives, whatever is done with what it gave before."""

import pytest
import torch
from attrs import define

from fscore.builtin.executors.cohort_lane import CohortLane
from fscore.builtin.executors.lane import Lane
from fscore.builtin.executors.lifting import obstacle
from fscore.builtin.executors.program import record
from fscore.builtin.trainers import SGD, descend
from fscore.component import Component
from fscore.context import Phase
from fscore.hookspecs import hookimpl
from fscore.tasks import Batch, Task
from fscore.testing.course import tiny_course

TEXT = (
    '[data]\nuse = "synthetic"\nclients = 8\nfeatures = 300\nnum_classes = 20\nmin_samples = 20\nmax_samples = 20\n'
    '[model]\nuse = "softmax"\n[trainer]\nbatch_size = 5\nepochs = 2.0\n'
)


@define(eq=False, slots=False)
class Unused(SGD):
    """Has a variable that the loss does not look at, and adds to gradients in place."""

    name = "unused"

    def start(self, context):
        return {"model": self.received(context), "own": self.received(context)}

    def phases(self, context):
        return (Phase(train=("model", "own")),)

    def adjust(self, gradient, variables, context):
        for name, slope in gradient.items():
            slope.add_(variables[name], alpha=0.1)
        return gradient

    def finish(self, variables, context):
        return {"model": variables["model"] + variables["own"]}, {}


@define(eq=False, slots=False)
class Keeping(SGD):
    """Keeps a gradient without copying it."""

    name = "keeping"

    def step(self, variables, gradient, memory, context):
        for name, slope in gradient.items():
            descend(variables[name], slope - 0.5 * memory.get(name, slope), context.options["lr"])
            memory[name] = slope


@define(eq=False, slots=False)
class KeepingPieces(Keeping):
    name = "keeping_pieces"

    def separable(self, context):
        return True


@define(eq=False)
class Trainers(Component):
    name = "trainers"

    @hookimpl
    def fscore_register_trainers(self):
        return [Unused, Keeping, KeepingPieces]


def course_of(trainer):
    return tiny_course(TEXT + f'use = "{trainer}"\n', plugins=[Trainers])


def test_a_gradient_that_is_kept_between_calls_may_be_changed_in_place():
    """The gradient of what the loss does not look at is 0 in each step: it is computed once."""
    course = course_of("unused")
    batch = Batch(tuple(course.opener.job(Task(i, i, 0)) for i in range(6)), sum=False)
    many = CohortLane(course.site, torch.device("cpu"), 1 << 24).batch(batch)
    for one, other in zip(Lane(course.site).batch(batch).outputs, many.outputs, strict=True):
        torch.testing.assert_close(other.values["model"], one.values["model"], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("trainer", ["keeping", "keeping_pieces"])
def test_a_trainer_that_keeps_a_gradient_is_refused(trainer):
    """Its memory is written again by the next step."""
    assert obstacle(course_of(trainer)).startswith(
        f"trainer '{trainer}' gives something else for many clients than for one (group 'model'"
    )


def test_equal_numbers_of_different_types_are_different_arguments():
    def function(y):
        return y + 1, y + 1.0, y * True, y * 1.0

    program = record(function, [torch.zeros(1, 3, dtype=torch.int64)], [True])
    y = torch.arange(12).view(4, 3)
    for found, expected in zip(program.of(4)([y]), function(y), strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_clients_of_several_steps_are_tried_where_there_are_some():
    """The first three take one step each, in which nothing that is kept is used again."""
    text = TEXT.replace("clients = 8", "clients = 60").replace(
        "min_samples = 20", "min_samples = 2"
    )
    text = text.replace("max_samples = 20", "max_samples = 200")
    text = text.replace("epochs = 2.0", 'epochs = 1.0\nuse = "keeping"')
    text = text.replace("batch_size = 5", "batch_size = 16")
    course = tiny_course(text, plugins=[Trainers], changes={"course.seed": 13})
    counts = [course.dataset.samples(client) for client in range(60)]
    assert max(counts[:3]) <= 16 < max(counts)
    assert "keeping" in obstacle(course)


def test_gradients_of_all_numbers_of_clients_share_their_memory():
    """Otherwise ragged cohorts would hold as many gradients as there are numbers of clients."""
    program = record(
        lambda x, y: [torch.cat([x, y], 1)], [torch.ones(1, 2), torch.ones(1, 3)], [True, True]
    )
    addresses = set()
    for clients in (7, 3, 5):
        pair = torch.full((clients, 2), 2.0), torch.full((clients, 3), 3.0)
        for _ in range(2):  # the first call settles what is kept
            (joined,) = program.of(clients)(pair)
            assert torch.equal(joined, torch.cat(pair, 1))
        addresses.add(joined.data_ptr())
    assert len(addresses) == 1
