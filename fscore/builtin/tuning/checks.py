"""What is wrong with a search, before its first trial: space, metric, privacy, and what its tuner refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fscore.builtin.tuning.space import axes, examples, problems
from fscore.config import Config, resolve
from fscore.errors import ConfigError
from fscore.kinds import kind_of
from fscore.kinds.metric import Metric

if TYPE_CHECKING:
    from fscore.builtin.tuning.lineage import Lineage
    from fscore.builtin.tuning.trials import Plugins
    from fscore.course import Course
    from fscore.kinds.tuner import Tuner

SUFFIXES = ("", "_mean", "_worst")
TEST = ("test_", "server_")
NOT_SEARCHED = {
    "tune": "the search does not search its own options",
    "course.until": "the length of a trial is tune.versions",
    "reporter": "trials have no reporters",
    "record": "it changes no result",
}
"""Tables that a trial takes from its search, and why they are no options of a space."""


def check_search(tuner: Tuner, config: Config, lineage: Lineage, plugins: Plugins) -> Course:
    """Refuse a search that cannot work; return one course of it, assembled.

    Raises:
        ConfigError: every problem that can be seen at once.
    """
    found = [
        *problems(tuner.space),
        *_key_problems(tuner),
        *_metric_problems(tuner, config),
        *_privacy_form(tuner),
    ]
    if not found:
        found = list(dict.fromkeys(_corner_problems(tuner, lineage, plugins)))
    if found:
        raise ConfigError(found)
    course = _course(tuner, lineage, plugins)
    if found := list(_course_problems(tuner, course)):
        raise ConfigError(found)
    return course


def privacy_of(tuner: Tuner) -> tuple[str, Any]:
    """Return what holds for the metrics of a course with privacy, and its value: a [data] table or a noise multiplier."""
    if isinstance(tuner.privacy, str):
        return tuner.privacy, None
    return next(iter(tuner.privacy.items()), ("", None))


# ------------------------------------------------------------------------ one table at a time


def _key_problems(tuner: Tuner) -> Iterator[str]:
    for axis in axes(tuner.space) if not list(problems(tuner.space)) else ():
        for table, why in NOT_SEARCHED.items():
            if f"{axis.key}.".startswith(f"{table}."):
                yield f"tune.space.{axis.key}: {why}"


def _metric_problems(tuner: Tuner, config: Config) -> Iterator[str]:
    classes = _judges(config)
    known = [f"val_{name}" for name in classes]
    base = next((s for s in SUFFIXES[1:] if tuner.metric.endswith(s)), "")
    name = tuner.metric.removesuffix(base)
    parts = getattr(config.components["evaluation"], "parts", ["val"])
    if tuner.metric.startswith(TEST):
        yield (
            f"tune.metric: '{tuner.metric}' is of test data; choose one of validation data ({', '.join(known)})"
        )
    elif tuner.metric.startswith("unseen_"):
        yield (
            f"tune.metric: '{tuner.metric}' is of clients that never take part; choose one of those that do "
            f"({', '.join(known)})"
        )
    elif name not in known:
        yield f"tune.metric: nobody reports '{tuner.metric}' (known: {', '.join(known)})"
    elif "val" not in parts:
        yield "evaluation.parts: 'val' is missing, and tune.metric is of validation data. Remedy: add it."
    else:
        better = "maximize" if classes[name[4:]].higher_is_better else "minimize"
        if tuner.direction != better:
            yield (
                f"tune.direction: expected '{better}', the better end of '{tuner.metric}', got '{tuner.direction}'"
            )


def _judges(config: Config) -> dict[str, type[Metric]]:
    """Return the metrics of a course by name."""
    kind = kind_of(Metric)
    given = getattr(config.components["evaluation"], "metrics", ())
    if given or kind is None:
        return {metric.name: type(metric) for metric in given}
    names = config.components["objective"].metrics  # type: ignore[attr-defined]
    found = {name: config.host.registry.find(kind, name) for name in names}
    return {n: cls for n, cls in found.items() if cls is not None and issubclass(cls, Metric)}


def _privacy_form(tuner: Tuner) -> Iterator[str]:
    kind, value = privacy_of(tuner)
    forms = '"ignored", { proxy_data = { use = ... } } or { budget = NOISE }'
    plain = isinstance(tuner.privacy, str)
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if plain:
        good = kind in ("", "ignored")
    else:
        good = len(tuner.privacy) == 1 and (
            (kind == "proxy_data" and isinstance(value, dict)) or (kind == "budget" and number)
        )
    if not good:
        yield f"tune.privacy: expected {forms}, got {tuner.privacy!r}"


# ------------------------------------------------------------------------ with the course


def _corner_problems(tuner: Tuner, lineage: Lineage, plugins: Plugins) -> Iterator[str]:
    """Yield what the course file says to the corners of the space."""
    kind, value = privacy_of(tuner)
    data = value if kind == "proxy_data" else None
    if data is not None:
        try:
            resolve(lineage.with_params({}, data), plugins=plugins)
        except ConfigError as error:
            yield from (f"tune.privacy.proxy_data: {line}" for line in error.problems)
            return
    keys = [axis.key for axis in axes(tuner.space)]
    for key, params in examples(axes(tuner.space)):
        try:
            resolve(lineage.with_params(params, data), plugins=plugins)
        except ConfigError as error:
            for line in error.problems:
                text = line.removeprefix("--set: ")
                named = any(text.startswith(f"{other}:") for other in keys)
                yield f"tune.space.{text}" if named else f"tune.space.{key}: {text}"


def _course(tuner: Tuner, lineage: Lineage, plugins: Plugins) -> Course:
    """Assemble one course of the space; nothing of it is kept on disk."""
    from fscore.course import Course

    kind, value = privacy_of(tuner)
    _, params = next(examples(axes(tuner.space)))
    data = value if kind == "proxy_data" else None
    tables = {**lineage.with_params(params, data), "store": {"use": "memory"}}
    return Course(resolve(tables, plugins=plugins))


def _course_problems(tuner: Tuner, course: Course) -> Iterator[str]:
    """Yield what is wrong with a search over a course, and what the tuner thinks of it."""
    kind, _ = privacy_of(tuner)
    if course.privacy and not kind:
        names = ", ".join(f"'{mechanism.name}'" for mechanism in course.privacy)
        yield (
            f"tune.privacy: missing; metrics of a course with [[privacy]] {names} are releases too. Remedy: "
            'privacy = { proxy_data = { use = ... } }, { budget = NOISE } or "ignored".'
        )
    if kind == "budget" and not course.privacy:
        yield "tune.privacy: a budget, but the course has no [[privacy]]. Remedy: remove it."
    if not _validates(course):
        yield "tune.metric: no client that takes part has validation data. Remedy: data.val = 0.2"
    yield from tuner.check(course)


def _validates(course: Course) -> bool:
    unseen = course.population.unseen
    seen = (c for c in range(course.population.size) if c not in unseen)
    return any(len(course.site.data(client, "val").y) for client in seen)
