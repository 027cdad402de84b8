"""The least of a course and a pool that built-in components ask for."""

from attrs import define, field

from fscore.kinds.population import Population
from fscore.rng import Streams
from fscore.tasks import Task


@define
class TinyCourse:
    streams: Streams = field(factory=lambda: Streams(7))
    dataset: object = None
    population: object = None
    sampler: object = None
    objective: object = None
    protocol: object = None


@define
class TinyPool:
    """Tasks as (id, arrival time)."""

    results: list = field(factory=list)
    in_flight: int = 0
    lost: int = 0
    version: int = 0
    since: float = 0.0
    wanted: int = 3

    @property
    def arrived(self):
        return [(Task(i, i, 0), at) for i, at in self.results]


def bound(component, **course):
    component.bind(TinyCourse(**course))
    return component


def ids(tasks):
    return [task.id for task in tasks]


def everybody(size, unseen=(), busy=()):
    away = {*unseen, *busy}
    return Population(size, frozenset(unseen), lambda ids, _: [i not in away for i in ids])
