"""The round is replaceable: clients exchange models with neighbours, and there is no server."""

from typing import ClassVar

import tomli
import torch
from attrs import define, frozen

from fscore.builtin.trainers import SGD
from fscore.component import Component, option
from fscore.events import DISPATCH, Condition, CourseStarted, Ending, Message, Role
from fscore.hookspecs import hookimpl
from fscore.kinds.protocol import Protocol
from fscore.participant import Participant, handles
from fscore.tasks import Deferred
from fscore.testing import fs_course
from fscore.testing.course import tiny_course


@frozen
class Turn(Condition):
    """Everybody trains, starting from what the neighbours sent."""

    where: ClassVar[Role] = "client"
    priority: ClassVar[int] = DISPATCH
    number: int = 0


@frozen
class Model(Message):
    """A client's result goes to a neighbour."""

    to: ClassVar[Role] = "client"
    result: Deferred


@define(eq=False)
class Gossip(Protocol):
    """Clients on a ring train and mix with both neighbours."""

    name = "gossip"
    turns: int = option(3, doc="Turns.")

    def participants(self):
        return (Peers(self),)


@define(eq=False)
class Peers(Participant):
    role = "client"
    name = "peers"
    gossip: Gossip

    @handles(CourseStarted, emits=(Turn,))
    def begin(self, event):
        self.emit(Turn())

    @handles(Turn, emits=(Model, Turn, Ending))
    def train(self, event):
        course, ring = self.course, self.course.population.participants
        previous = {task.client: task for task, _ in course.book.arrived}
        if event.number == self.gossip.turns:
            self._mix(list(previous.values()))
            self.emit(Ending("gossiped"))
            return
        for client in range(ring):
            around = [previous.get((client + d) % ring) for d in (-1, 0, 1)]
            inputs = tuple(Deferred(t.id, 0, 0.0) for t in around if t is not None)
            (task,) = course.issue([client], inputs=inputs)
            result = course.work(task)
            for d in (-1, 1):
                self.send(Model(client, (client + d) % ring, result), after=result)
        self.emit(Turn(number=event.number + 1), after=1.0)

    def _mix(self, tasks):
        """The final model is the mean of what the clients have."""
        course = self.course
        course.opener.compute(tasks)
        changes = [course.opener.outputs[t.id].values["model"] for t in tasks]
        slots = {"model": course.bank[0]["model"] + torch.stack(changes).mean(dim=0)}
        course.publish(slots, course.book.claim(tasks))

    @handles(Model)
    def hear(self, event):
        self.course.book.arrive(event.result.task, self.course.loop.now)


@define(eq=False)
class Mixing(SGD):
    """Starts from the mean of what was heard."""

    name = "mixing"

    def start(self, context):
        model = context.sent["model"]
        heard = [values["model"] for values in context.job.inputs]
        return {"model": model + torch.stack(heard).mean(dim=0) if heard else model}


@define(eq=False)
class GossipPlugin(Component):
    name = "gossip"

    @hookimpl
    def fscore_register_protocols(self):
        return [Gossip]

    @hookimpl
    def fscore_register_trainers(self):
        return [Mixing]


TOML = """
[protocol]
use = "gossip"
turns = 3
[trainer]
use = "mixing"
[data]
use = "synthetic"
clients = 6
features = 4
num_classes = 3
min_samples = 20
max_samples = 30
unseen_clients = 0
"""


def gossip(**changes):
    tables = {**tomli.loads(TOML), "sampler": None}
    return fs_course(tables, plugins=[GossipPlugin], changes=changes)


def test_gossip_runs_without_a_server():
    run = gossip()
    assert run.result.reason == "gossiped"
    assert run.course.book.version == 1
    assert [p.role for p in run.course.participants] == ["client"]


def test_gossip_learns():
    before = gossip(**{"protocol.turns": 1}).result.metrics["test_loss"]
    after = gossip(**{"protocol.turns": 8}).result.metrics["test_loss"]
    assert after < before


def test_gossip_repeats():
    assert gossip().result.digest == gossip().result.digest


def test_a_cohort_of_tasks_with_inputs_is_opened_where_updates_are_summed():
    course = tiny_course()
    course.executor.start(course.site)
    clients = [c for c in range(8) if course.free([c], 0.0)[0]][:2]
    (before,) = course.issue(clients[:1])
    (after,) = course.issue(clients[1:], inputs=(Deferred(before.id, 0, 0.0),))
    course.book.arrive(before.id, 0.0)
    course.book.arrive(after.id, 0.0)
    assert not course.single_updates
    opened = course.opener.open(course.book.claim([after]))
    course.executor.stop()

    assert [output.error for output in opened.outputs] == [""]
    assert sorted(course.opener.outputs) == [before.id, after.id]
