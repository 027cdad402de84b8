"""Successive halving, Hyperband and BOHB: many short trials, of which the best go on from their snapshots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fs_hpo.sampling import Observation, Proposing
from fscore.builtin.tuning.space import Params, axes, flat
from fscore.component import between, ge, option, options_of, state
from fscore.config import structure_option
from fscore.errors import nearest
from fscore.kinds.tuner import Report, Trial

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class Halving(Proposing):
    """Brackets one after another; in each, rung by rung, the best of every `eta` trials go on.

    A promoted trial goes on from its snapshot, so that a rung costs only the versions that are new.
    """

    eta: int = option(3, doc="One of so many trials goes on at each rung.", validator=ge(2))
    min_versions: int = option(1, doc="Versions of the shortest trials.", validator=ge(1))
    fidelity: dict[str, Any] = option(
        factory=dict,
        doc="Options by rung, the last value for full trials; trials start again where they are not of the evaluation.",
    )
    bracket: int = state(int)
    rung: int = state(lambda: -1)
    alive: list[tuple[int, Params]] = state(list)
    losses: dict[int, float] = state(dict)
    observed: list[tuple[int, Params, float | None]] = state(list)
    """Versions, parameters and loss of everything that was told."""
    used: int = state(int)
    """Ids given away."""

    # ------------------------------------------------------------------------ the plan

    def brackets(self) -> list[tuple[int, list[int]]]:
        """Return number of trials and versions at each rung, of each bracket."""
        raise NotImplementedError

    def halvings(self) -> int:
        """Return s, the most often that trials can be cut to 1/eta: eta^s * min_versions <= versions."""
        return halvings(self.min_versions, self.versions, self.eta)

    def rungs(self, s: int) -> list[int]:
        """Return the versions of the rungs of a bracket with `s` cuts: versions / eta^s, ..., versions."""
        return [self.versions // self.eta ** (s - i) for i in range(s + 1)]

    def cost(self) -> int:
        """Return the versions that the whole search takes if no trial fails."""
        return sum(_cost(self, trials, rungs) for trials, rungs in self.brackets())

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a budget below the first rung, and options by rung that cannot be."""
        trials, rungs = self.brackets()[0]
        limit = self.budget.versions
        if self.min_versions > self.versions:
            yield f"tune.min_versions: {self.min_versions} versions, but a full trial has {self.versions}"
        elif limit is not None and limit < trials * rungs[0]:
            yield (
                f"tune.budget.versions: {limit} versions do not pay for the first rung, {trials} trials of {rungs[0]}. "
                "Remedy: raise it, or lower tune.trials."
            )
        most = max(len(rungs) for _, rungs in self.brackets())
        for key, values in flat(self.fidelity).items():
            yield from _fidelity_problems(key, values, most, course)

    # ------------------------------------------------------------------------ asked and told

    def ask(self) -> Sequence[Trial]:
        while self.bracket < len(self.brackets()):
            trials, rungs = self.brackets()[self.bracket]
            self.rung += 1
            if self.rung == 0:
                self.alive = [self._new(self.sample()) for _ in range(trials)]
            elif self.rung < len(rungs):
                self._promote()
            if self.alive and self.rung < len(rungs):
                self.losses = {}
                return [
                    Trial(trial, {**params, **self._extra(rungs)}, rungs[self.rung])
                    for trial, params in self.alive
                ]
            self.bracket, self.rung, self.alive = self.bracket + 1, -1, []
        return ()

    def tell(self, trial: Trial, report: Report | None) -> None:
        loss = None if report is None else self.loss(report)
        searched = {axis.key for axis in axes(self.space)}
        params = {key: value for key, value in trial.params.items() if key in searched}
        self.observed.append((trial.versions, params, loss))
        if loss is not None:
            self.losses[trial.id] = loss

    def sample(self) -> Params:
        """Return the parameters of a new trial."""
        return self.propose()

    def _promote(self) -> None:
        """Keep the best of the last rung: one of `eta`, failed ones count as the worst."""
        keep = len(self.alive) // self.eta
        whole = [(self.losses[t], t, params) for t, params in self.alive if t in self.losses]
        best = sorted(whole, key=lambda entry: entry[:2])[:keep]
        self.alive = [(trial, params) for _, trial, params in best]
        if any(not key.startswith("evaluation.") for key in flat(self.fidelity)):
            self.alive = [self._new(params) for _, params in self.alive]

    def _new(self, params: Params) -> tuple[int, Params]:
        self.used += 1
        return self.used - 1, params

    def _extra(self, rungs: Sequence[int]) -> dict[str, Any]:
        """Return the options of the current rung; rungs are counted from the last."""
        by_rung = flat(self.fidelity).items()
        return {key: values[self.rung - len(rungs)] for key, values in by_rung}


def halvings(shortest: int, versions: int, eta: int) -> int:
    """Return the largest s with eta^s * shortest <= versions; 0 where there is none."""
    s = 0
    while shortest * eta ** (s + 1) <= versions:
        s += 1
    return s


def _cost(tuner: Halving, trials: int, rungs: Sequence[int]) -> int:
    total, before = 0, 0
    for versions in rungs:
        total += trials * (versions - before)
        trials, before = trials // tuner.eta, versions
    return total


def _fidelity_problems(key: str, values: Any, most: int, course: Course) -> Iterable[str]:
    table, _, name = key.rpartition(".")
    where = f"tune.fidelity.{key}"
    component = course.components.get(table)
    if component is None:
        yield f"{where}: no table [{table}]{nearest(table, course.components)}"
    elif name not in (known := {a.name for a in options_of(type(component))}):
        yield f"{where}: unknown option of '{component.name}'{nearest(name, known)}"
    elif not isinstance(values, list):
        yield f"{where}: expected a list, one value for each of {most} rungs"
    elif len(values) < most:
        yield f"{where}: expected a value for each of {most} rungs, got {len(values)}"
    else:
        for value in values:
            yield from structure_option(type(component), name, value, where)[1]


@define(eq=False, slots=False)
class SuccessiveHalving(Halving):
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016), one bracket of Hyperband's."""

    name = "successive_halving"
    trials: int | None = option(
        None,
        doc="Trials of the first rung; default: as many as leave one at the last.",
        validator=ge(1),
    )

    def brackets(self) -> list[tuple[int, list[int]]]:
        s = self.halvings()
        trials = self.eta**s if self.trials is None else self.trials
        while (
            s and trials < self.eta**s
        ):  # fewer trials: fewer cuts, so that one is left at the end
            s -= 1
        return [(trials, self.rungs(s))]


@define(eq=False, slots=False)
class Hyperband(Halving):
    """Hyperband (Li et al., JMLR 2018, algorithm 1): brackets from the most trials cut most often to a few that are not cut.

    Bracket s begins with ceil((s_max + 1) / (s + 1) * eta^s) trials of versions / eta^s versions.
    """

    name = "hyperband"
    rounds: int = option(1, doc="How often all brackets are run.", validator=ge(1))

    def brackets(self) -> list[tuple[int, list[int]]]:
        most = self.halvings()
        once = [
            (math.ceil((most + 1) * self.eta**s / (s + 1)), self.rungs(s))
            for s in range(most, -1, -1)
        ]
        return once * self.rounds


@define(eq=False, slots=False)
class BOHB(Hyperband):
    """BOHB (Falkner et al., ICML 2018, section 4): Hyperband whose new trials come from a TPE model.

    The model is of the longest rung with enough observations, d + 3 for d options (their N_min + 2 with N_min = d + 1);
    a share of the trials stays random. Optuna's TPE stands in for their kernel density estimator.
    """

    name = "bohb"
    random_fraction: float = option(
        1 / 3, doc="Share of new trials that are drawn at random.", validator=between(0, 1)
    )

    def sample(self) -> Params:
        needed = len(axes(self.space)) + 3
        levels: dict[int, list[Observation]] = {}
        for versions, params, loss in self.observed:
            if loss is not None:
                levels.setdefault(versions, []).append(Observation(params, loss))
        known = [v for v in sorted(levels) if len(levels[v]) >= needed]
        chance = self.rng(2**31 + self.drawn).random()
        if not known or chance < self.random_fraction:
            return self.propose()
        return self.propose("tpe", levels[known[-1]])
