"""Recipes for what acts at the server."""

from __future__ import annotations

from fscore.cli.recipes.recipe import Recipe

AGGREGATOR = Recipe(
    kind="aggregator",
    plural="aggregators",
    suffix="Aggregator",
    suites="AggregatorContract",
    about="the weighted mean, in which an update counts less for every version that it is old",
    tables="""\
[aggregator]
use = "$name"
decay = 0.5
""",
    more="""

def test_without_decay_it_is_the_mean():
    toml = '[aggregator]\\nuse = "$name"\\ndecay = 1.0'

    own = fs_course(toml, plugins=[${title}Plugin]).result.model["model"]

    assert own.tolist() == fs_course().result.model["model"].tolist()
""",
    code='''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import between, option
from fscore.kinds.aggregator import Aggregator

if TYPE_CHECKING:
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class ${title}Aggregator(Aggregator):
    """The mean with the factor decay^tau for updates that are tau versions old."""

    name = "$name"
    decay: float = option(0.5, doc="Factor per version.", validator=between(0.01, 1.0))

    def factors(self, cohort: Cohort) -> Sequence[float]:
        return [self.decay**staleness for staleness in cohort.staleness]
''',
)

SERVER_OPTIMIZER = Recipe(
    kind="server_optimizer",
    plural="server_optimizers",
    suffix="Optimizer",
    suites="ServerOptimizerContract",
    about="steps of the server that become shorter with every version",
    tables="""\
[server_optimizer]
use = "$name"
decay = 0.1
""",
    code='''\
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import ge, option, state
from fscore.kinds.server_optimizer import ServerOptimizer

if TYPE_CHECKING:
    from fscore.params import Tensors


@define(eq=False, slots=False)
class ${title}Optimizer(ServerOptimizer):
    """Moves along the clients' mean change by lr / (1 + decay t) in step t."""

    name = "$name"
    decay: float = option(0.1, doc="How fast steps become shorter.", validator=ge(0))
    steps: int = state(int)

    def step(self, slots: Tensors, directions: Tensors) -> Tensors:
        rate = self.lr / (1 + self.decay * self.steps)
        self.steps += 1
        return {name: slots[name] + rate * d for name, d in directions.items()}
''',
)

SAMPLER = Recipe(
    kind="sampler",
    plural="samplers",
    suffix="Sampler",
    suites="SamplerContract",
    about="clients that took part least often come first",
    tables="""\
[sampler]
use = "$name"
clients = 4
""",
    arguments="clients=4",
    code='''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import state
from fscore.kinds.sampler import Sampler

if TYPE_CHECKING:
    import numpy as np

    from fscore.kinds.population import Population


@define(eq=False, slots=False)
class ${title}Sampler(Sampler):
    """Free clients that were chosen least often, ties at random; linear in the population."""

    name = "$name"
    chosen: dict[int, int] = state(dict)
    """How often each client was chosen."""

    def select(
        self, count: int, population: Population, now: float, rng: np.random.Generator
    ) -> Sequence[int]:
        free = population.everybody_free(now)
        mixed = [free[i] for i in rng.permutation(len(free))]
        least = sorted(mixed, key=lambda client: self.chosen.get(client, 0))[:count]
        self.chosen = {**self.chosen, **{c: self.chosen.get(c, 0) + 1 for c in least}}
        return sorted(least)
''',
)

TRIGGER = Recipe(
    kind="trigger",
    plural="triggers",
    suffix="Trigger",
    suites="TriggerContract",
    about="a cohort is ready when a share of the wanted results has arrived",
    tables="""\
[trigger]
use = "$name"
share = 0.5
""",
    code='''\
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.triggers import Early
from fscore.component import between, option

if TYPE_CHECKING:
    from fscore.kinds.trigger import Pool
    from fscore.tasks import Task


@define(eq=False, slots=False)
class ${title}Trigger(Early):
    """Ready when a share of the wanted results has arrived, or nothing else is under way."""

    name = "$name"
    share: float = option(0.5, doc="Share of the results.", validator=between(0.01, 1))

    def ready(self, pool: Pool, now: float) -> Sequence[Task]:
        enough = pool.waiting >= math.ceil(self.share * pool.wanted)
        if enough or not pool.in_flight:
            return [task for task, _ in pool.arrived]
        return ()
''',
)

POLICY = Recipe(
    kind="policy",
    plural="policies",
    suffix="Policy",
    suites="PolicyContract",
    about="the learning rate of the clients falls with every version",
    tables="""\
[[policy]]
use = "$name"
decay = 0.9
""",
    code='''\
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.component import Scalar, between, gt, option
from fscore.kinds.policy import Policy

if TYPE_CHECKING:
    import numpy as np


@define(eq=False, slots=False)
class ${title}Policy(Policy):
    """The learning rate lr decay^t for tasks on version t."""

    name = "$name"
    lr: float = option(0.1, doc="Learning rate on version 0.", validator=gt(0))
    decay: float = option(0.9, doc="Factor per version.", validator=between(0.01, 1))

    def choose(
        self, client: int, version: int, rng: np.random.Generator
    ) -> tuple[Mapping[str, Scalar], Mapping[str, Any]]:
        return {"trainer.lr": self.lr * self.decay**version}, {}
''',
)

EVALUATOR = Recipe(
    kind="evaluator",
    plural="evaluators",
    suffix="Evaluator",
    suites="EvaluatorContract",
    about="beside the usual metrics, how far the best client is from the worst",
    tables="""\
[evaluation]
use = "$name"
""",
    more="""

def test_the_range_is_in_every_line():
    run = fs_course('[evaluation]\\nuse = "$name"', plugins=[${title}Plugin])

    assert all(0 <= line["test_accuracy_range"] <= 1 for line in run.result.history)
""",
    code='''\
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.evaluation import Instrument
from fscore.kinds.evaluator import PerClient

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class ${title}Evaluator(Instrument):
    """Adds the range over clients of each metric: `test_accuracy_range`."""

    name = "$name"

    def evaluate(
        self, course: Course, *, everybody: bool = False
    ) -> tuple[dict[str, float], PerClient]:
        metrics, per_client = super().evaluate(course, everybody=everybody)
        for part, clients in per_client.items():
            for judge in self.judges():
                values = [own[judge.name] for own in clients.values()]
                if values:
                    metrics[f"{part}_{judge.name}_range"] = max(values) - min(values)
        return metrics, per_client
''',
)

REPORTER = Recipe(
    kind="reporter",
    plural="reporters",
    suffix="Reporter",
    suites="ReporterContract",
    about="one short line of text per version",
    tables="""\
[[reporter]]
use = "$name"
""",
    more="""

def test_it_prints_a_line_per_version(capsys):
    fs_course('[[reporter]]\\nuse = "$name"', plugins=[${title}Plugin])

    assert len(capsys.readouterr().out.splitlines()) == 3
""",
    code='''\
import sys
from collections.abc import Mapping
from typing import Any

from attrs import define

from fscore.component import option
from fscore.kinds.reporter import Reporter


@define(eq=False, slots=False)
class ${title}Reporter(Reporter):
    """Prints one field of each line of metrics."""

    name = "$name"
    field: str = option("train_loss", doc="The field of metrics.jsonl that is printed.")

    def reported(self, line: Mapping[str, Any]) -> None:
        sys.stdout.write(f"version {line['version']}: {self.field} {line.get(self.field)}\\n")
''',
)

TUNER = Recipe(
    kind="tuner",
    plural="tuners",
    suffix="Tuner",
    suites="TunerContract",
    about="every combination of the lists in its space, one after another",
    command="tune",
    tables="""\
[tune]
use = "$name"
versions = 3
space = { "trainer.lr" = [0.1, 0.3] }
""",
    arguments='space={"trainer.lr": [0.1, 0.3]}, versions=3',
    code='''\
import itertools
from collections.abc import Sequence

from attrs import define

from fscore.component import state
from fscore.kinds.tuner import Report, Trial, Tuner


@define(eq=False, slots=False)
class ${title}Tuner(Tuner):
    """Tries every combination of the lists in `space`, one after another."""

    name = "$name"
    told: list[int] = state(list)
    """Trials that ended."""

    def ask(self) -> Sequence[Trial]:
        points = list(itertools.product(*self.space.values()))
        number = len(self.told)
        if number == len(points):
            return ()
        return (Trial(number, dict(zip(self.space, points[number], strict=True)), self.versions),)

    def tell(self, trial: Trial, report: Report | None) -> None:
        self.told = [*self.told, trial.id]
''',
)

PROTOCOL = Recipe(
    kind="protocol",
    plural="protocols",
    suffix="Protocol",
    suites="ProtocolContract",
    about="the model goes from client to client, each of which trains it and hands it on",
    tables="""\
[protocol]
use = "$name"
""",
    code='''\
from collections.abc import Iterable
from typing import ClassVar

from attrs import define, frozen

from fscore.events import DISPATCH, Condition, CourseStarted, Ending, Message, Role, TaskLost
from fscore.kinds.protocol import Protocol
from fscore.participant import Participant, handles
from fscore.tasks import SERVER, Deferred, Task


@frozen
class Turn(Condition):
    """It is the next client's turn."""

    priority: ClassVar[int] = DISPATCH


@frozen
class Down(Message):
    """The model goes to a client."""

    to: ClassVar[Role] = "client"
    task: Task


@frozen
class Up(Message):
    """What the client made of it comes back."""

    result: Deferred


@define(eq=False, slots=False)
class ${title}Protocol(Protocol):
    """One client after another trains the model; each result is a version."""

    name = "$name"
    tables = frozenset({"sampler", "aggregator", "server_optimizer"})

    def participants(self) -> Iterable[type[Participant]]:
        return (AtServer, AtClient)


@define(eq=False, slots=False)
class AtServer(Participant):
    """Asks one client at a time."""

    @handles(CourseStarted, emits=(Turn,))
    def begin(self, event: CourseStarted) -> None:
        self.emit(Turn())

    @handles(Turn, emits=(Down, Ending))
    def ask(self, event: Turn) -> None:
        course, last = self.course, self.course.config.course.until.versions
        clients = course.sample(1)
        if course.book.version == last:
            self.emit(Ending(f"made {last} versions"))
        elif not clients:
            self.emit(Ending("nobody is free", failed=True))
        else:
            (task,) = course.issue(clients)
            self.send(Down(SERVER, task.client, task))

    @handles(Up, emits=(Turn,))
    def take(self, event: Up) -> None:
        course, book = self.course, self.course.book
        task = book.arrive(event.result.task, course.loop.now)
        if task is None:
            return
        opened = course.opener.open(book.claim([task]))
        for failed, reason in opened.failed:
            course.fail(failed, reason)
        if not opened.failed:
            course.advance(opened)
            course.report()
        self.emit(Turn())

    @handles(TaskLost, emits=(Turn,))
    def lose(self, event: TaskLost) -> None:
        if self.course.book.flies(event.task.id):
            self.course.fail(event.task, event.reason)
            self.emit(Turn())


@define(eq=False, slots=False)
class AtClient(Participant):
    """Trains."""

    role: ClassVar[Role] = "client"

    @handles(Down, emits=(Up,))
    def train(self, event: Down) -> None:
        result = self.course.work(event.task)
        self.send(Up(event.receiver, SERVER, result), after=result)
''',
)

RECIPES = (
    AGGREGATOR,
    SERVER_OPTIMIZER,
    SAMPLER,
    TRIGGER,
    POLICY,
    EVALUATOR,
    REPORTER,
    TUNER,
    PROTOCOL,
)
