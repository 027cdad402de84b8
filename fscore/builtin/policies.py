"""Built-in policies: options that a schedule says, version by version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.tuning.space import flat
from fscore.component import Component, Scalar, ge, option, options_of
from fscore.config import structure_option
from fscore.errors import nearest
from fscore.kinds.policy import Policy
from fscore.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from fscore.course import Course

Arm = dict[str, Any]
"""Options by dotted key."""


@define(eq=False, slots=False)
class Choice(Settings):
    """Some settings of options, and how likely each is."""

    arms: list[Arm] = option(doc="Settings: tables of options by dotted key.")
    weights: list[float] = option(factory=list, doc="Probability of each; none: all alike.")

    def probabilities(self) -> list[float]:
        """Return the probability of each arm; they add up to 1."""
        if not self.weights:
            return [1 / len(self.arms)] * len(self.arms)
        return self.weights

    def settings(self) -> list[Arm]:
        """Return the arms by dotted key."""
        return [flat(arm) for arm in self.arms]


@define(eq=False, slots=False)
class Step(Settings):
    """What holds from a version on; it replaces the step before it."""

    version: int = option(doc="First version whose tasks it is for.", validator=ge(0))
    values: Arm = option(factory=dict, doc="Options by dotted key.")
    choices: list[Choice] = option(
        factory=list, doc="Drawn anew for each task, one setting of each choice."
    )


@define(eq=False, slots=False)
class Drawing(Policy):
    """Draws one arm of each of several choices for every task."""

    def choices(self, version: int) -> Sequence[tuple[Sequence[Arm], Sequence[float]]]:
        """Return what is drawn from for a task on a version: arms and their probabilities."""
        raise NotImplementedError

    def choose(
        self, client: int, version: int, rng: np.random.Generator
    ) -> tuple[Mapping[str, Scalar], Mapping[str, Any]]:
        """Draw; the server remembers places and probabilities of the arms, as of now."""
        options: Arm = {}
        places, chances = [], []
        for arms, weights in self.choices(version):
            place = drawn(weights, float(rng.random()))
            options.update(arms[place])
            places.append(place)
            chances.append(weights[place])
        return options, {f"{self.name}_arms": places, f"{self.name}_chances": chances}


def drawn(weights: Sequence[float], number: float) -> int:
    """Return the place at which the running sum of `weights` exceeds a number in [0, 1)."""
    total = 0.0
    for place, weight in enumerate(weights):
        total += weight
        if number < total:
            return place
    return max(range(len(weights)), key=weights.__getitem__)


@define(eq=False, slots=False)
class Schedule(Drawing):
    """Options by version, fixed or drawn for each task; what a tuner found is replayed by it."""

    name = "schedule"
    steps: list[Step] = option(doc="Steps: { version, values } or { version, choices }.")

    def choices(self, version: int) -> Sequence[tuple[Sequence[Arm], Sequence[float]]]:
        now = [step for step in self.steps if step.version <= version]
        return [(c.settings(), c.probabilities()) for c in now[-1].choices] if now else ()

    def choose(
        self, client: int, version: int, rng: np.random.Generator
    ) -> tuple[Mapping[str, Scalar], Mapping[str, Any]]:
        now = [step for step in self.steps if step.version <= version]
        options, _ = super().choose(client, version, rng)
        return {**(flat(now[-1].values) if now else {}), **options}, {}

    def check(self, course: Course) -> Iterable[str]:
        """Refuse steps out of order, and options that tasks do not have."""
        key = table_of(self, course)
        versions = [step.version for step in self.steps]
        if versions != sorted(set(versions)):
            yield f"{key}.steps: expected versions in rising order, got {versions}"
        for i, step in enumerate(self.steps):
            yield from arm_problems(course, step.values, f"{key}.steps.{i}.values")
            for j, choice in enumerate(step.choices):
                yield from choice_problems(course, choice, f"{key}.steps.{i}.choices.{j}")


def table_of(component: Component, course: Course) -> str:
    """Return the table that a component of a course stands in, `policy.0`."""
    return next(t for t, own in course.components.items() if own is component)


def choice_problems(course: Course, choice: Choice, key: str) -> Iterable[str]:
    """Yield what is wrong with a choice in a course."""
    if not choice.arms:
        yield f"{key}.arms: an empty list"
    if choice.weights and len(choice.weights) != len(choice.arms):
        yield f"{key}.weights: {len(choice.weights)} weights for {len(choice.arms)} arms"
    elif choice.weights and not (min(choice.weights) >= 0 and abs(sum(choice.weights) - 1) < 1e-6):
        yield f"{key}.weights: expected probabilities that add up to 1, got {choice.weights}"
    for i, arm in enumerate(choice.arms):
        yield from arm_problems(course, arm, f"{key}.arms.{i}")


def arm_problems(course: Course, arm: Arm, key: str) -> Iterable[str]:
    """Yield the options of an arm that a task cannot have, or not with these values."""
    for name, value in flat(arm).items():
        table, _, own = name.rpartition(".")
        component = course.components.get(table)
        fields = {a.name: a for a in options_of(type(component))} if component else {}
        allowed = [n for n, a in fields.items() if a.metadata["per_client"]]
        if component is None:
            yield f"{key}: '{name}': no table [{table}]{nearest(table, course.components)}"
        elif own not in fields:
            yield f"{key}: '{name}': unknown option of '{component.name}'{nearest(own, allowed)}"
        elif own not in allowed:
            yield f"{key}: '{name}' cannot differ by task (these can: {', '.join(allowed) or 'none'})"
        else:
            yield from structure_option(type(component), own, value, f"{key}: {name}")[1]
