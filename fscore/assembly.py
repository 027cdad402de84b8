"""From a resolved course file to a course that can run: components, model, paths, handlers, checks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fscore.builtin.views import VIEWS
from fscore.component import Component
from fscore.compose import removed, violations
from fscore.context import Samples
from fscore.errors import ConfigError, CourseError, FscoreError, nearest
from fscore.graph import Graph
from fscore.kinds.population import Population
from fscore.params import ParamSpace
from fscore.participant import Handlers, Participant
from fscore.paths import Path, Placed
from fscore.site import METRICS, Site

if TYPE_CHECKING:
    import torch

    from fscore.course import Course

SINGLE = (
    "trainer", "sampler", "trigger", "protocol", "aggregator", "server_optimizer", "devices", "executor",
    "objective", "model", "store",
)  # fmt: skip
MANY = {"privacy": "privacy", "attack": "attacks", "policy": "policies",
        "reporter": "reporters", "faults": "faults"}  # fmt: skip


def assemble(course: Course) -> None:
    """Fill a course from its configuration.

    Raises:
        ConfigError: all problems of composition at once.
    """
    _make_components(course)
    _population(course)
    _model(course)
    for component in (c for _, c in owners(course) if c is not course.dataset):
        component.bind(course)
    course.removed = removed(owners(course))
    problems = violations(owners(course), course.host.registry.providers)
    for _, component in owners(course):
        problems += component.check(course)
    problems += _protocol_tables(course)
    problems += _override_problems(course)
    problems += _end_problems(course)
    if problems:
        raise ConfigError(problems)
    _handlers(course)
    _site(course)
    problems = [*course.graph.problems(), *_attack_problems(course)]
    if problems:
        raise ConfigError(problems)
    course.advice = tuple(line for _, c in owners(course) for line in c.advise(course))


def owners(course: Course) -> list[tuple[str, Component]]:
    """Return every component of the course with its label, plugins first, in the order of the file."""
    labelled = [(f"[plugins.{p.name}]", p) for p in course.host.plugins]
    for table, component in course.components.items():
        name = table.split(".")[0]
        labelled.append((f"[[{name}]]" if "." in table else f"[{name}]", component))
    return labelled


def _make_components(course: Course) -> None:
    config, host = course.config, course.host
    course.components = {t: host.make(t, c) for t, c in config.components.items() if t != "tune"}
    course.dataset = course.components["data"]
    course.evaluator = course.components["evaluation"]  # type: ignore[assignment]
    for table in SINGLE:
        setattr(course, table, course.components[table])
    for table, attribute in MANY.items():
        found = [c for t, c in course.components.items() if t.startswith(f"{table}.")]
        setattr(course, attribute, found)
    for fault in reversed(course.faults):
        course.devices = fault.around(course.devices)


def _population(course: Course) -> None:
    course.dataset.bind(course)
    course.population = Population(course.dataset.size(), course.dataset.unseen(), course.free)


def _model(course: Course) -> None:
    classes = course.dataset.classes()
    course.example = example = _example(course)
    with course.streams.torch("initialisation"):
        try:
            course.module = course.model.build(example, classes)
            course.space = ParamSpace.of(course.module)
            course.initial = course.space.read(course.module)
        except FscoreError:
            raise
        except Exception as error:
            raise ConfigError(
                f"model.use: building '{course.model.name}' failed: {_line(error)}"
            ) from error
    _fits(course, example)


def _example(course: Course) -> Samples:
    """Return two samples of the first client that takes part and has any."""
    unseen = course.population.unseen
    for client in (c for c in range(course.population.size) if c not in unseen):
        samples = course.dataset.client(client, "train")
        if len(samples.y):
            return Samples(samples.x[:2], samples.y[:2])
        raise CourseError(f"data: client {client} has no training samples")
    raise ConfigError("data: no client takes part in training")


def _fits(course: Course, example: Samples) -> None:
    """Refuse a model or an objective that does not fit the data, before anything runs."""
    import torch

    try:
        with torch.no_grad(), course.streams.torch("fit"):
            before = torch.get_rng_state()
            copy.deepcopy(course.module).train()(example.x)
            course.random_layers = not torch.equal(before, torch.get_rng_state())
            outputs = copy.deepcopy(course.module).eval()(example.x)
            losses = course.objective.losses(outputs, example.y)
    except Exception as error:
        shape = tuple(example.x.shape[1:])
        raise ConfigError(
            f"model.use: '{course.model.name}' with objective '{course.objective.name}' does not fit samples of shape {shape}: {_line(error)}"
        ) from error
    if losses.shape != (len(example.y),):
        raise ConfigError(
            f"objective.use: '{course.objective.name}' gave losses of shape {tuple(losses.shape)} "
            f"for {len(example.y)} samples, expected one per sample"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _handlers(course: Course) -> None:
    participants: list[Participant] = []
    for _, component in owners(course):
        for made in component.participants():
            participant = made() if isinstance(made, type) else made
            participant.course = course
            participants.append(participant)
    course.participants = participants
    course.handlers = Handlers.of(participants)
    course.graph = Graph.of(course.handlers)


def _site(course: Course) -> None:
    controlled = [
        (
            attack,
            frozenset(attack.controls(course.population, course.streams.generator("attack", i))),
        )
        for i, attack in enumerate(course.attacks)
    ]
    placed = list(_placed(course, controlled))
    trainer, space = course.trainer, course.space
    groups = {**trainer.groups(space), "metrics": METRICS}
    upload = Path.of((p for p in placed if not p.stage.down), groups)
    download = Path.of((p for p in placed if p.stage.down), trainer.downloads(space))
    rows = {**trainer.row(space), **upload.rows, **download.rows}
    course.site = Site(
        streams=course.streams,
        dataset=course.dataset,
        module=course.module,
        space=space,
        initial=course.initial,
        trainer=trainer,
        objective=course.objective,
        metrics=course.evaluator.judges(),
        upload=upload,
        download=download,
        rows=rows,
        head=course.model.head,
        attacks=controlled,
        random_layers=course.random_layers,
    )
    folder = course.record.path if course.record else None
    course.store.open(rows, _first_rows(course), folder)


def _placed(course: Course, controlled: Sequence[tuple[Any, frozenset[int]]]) -> Iterator[Placed]:
    only = {id(attack): clients for attack, clients in controlled}
    for table, component in course.components.items():
        for stage in component.stages():
            clients = only.get(id(component))
            yield Placed(stage, table, clients if clients or not stage.down else None)
    for plugin in course.host.plugins:
        for stage in plugin.stages():
            yield Placed(stage, plugin.name)


def _first_rows(course: Course) -> dict[str, torch.Tensor]:
    from fscore.params import zeros

    first = zeros(course.site.rows)
    first.update(course.trainer.first_row(course.initial))
    return first


def _protocol_tables(course: Course) -> Iterable[str]:
    """Refuse tables that the protocol would not read."""
    read_by_some = ("sampler", "trigger", "aggregator", "server_optimizer")
    for table in read_by_some:
        if table in course.config.tables and table not in course.protocol.tables:
            yield f"{table}: protocol '{course.protocol.name}' does not read this table. Remedy: remove it."


def _attack_problems(course: Course) -> Iterable[str]:
    for i, attack in enumerate(course.attacks):
        for view in sorted(set(attack.sees) - set(VIEWS)):
            yield f"attack.{i}: '{attack.name}' sees '{view}', which is no view{nearest(view, VIEWS)}"
        if attack.colludes and course.site.rows:
            yield (
                f"attack.{i}: '{attack.name}' crafts a cohort's updates together, but clients here keep state, and are "
                "computed one by one. Remedy: switch one of them off."
            )


def _override_problems(course: Course) -> Iterable[str]:
    """Refuse overrides of clients that do not exist."""
    size = course.population.size
    for place, override in enumerate(course.config.overrides):
        for client in override.clients:
            if not 0 <= client < size:
                yield f"override.{place}.clients: there is no client {client}, ids are 0 to {size - 1}"


def _end_problems(course: Course) -> Iterable[str]:
    until = course.config.course.until
    if until.versions is None and until.virtual_time is None and until.client_updates is None:
        yield (
            "course.until: the course has no end. Remedy: write until = { versions = 50 }, or virtual_time, "
            "or client_updates."
        )
