"""Where tuners get new parameters from: at random, or from an Optuna sampler that is fitted to what was observed.

Each proposal is a function of the seed, its number and the observations, and of nothing else: Optuna samplers are made
anew for it. So a search that is told its results again proposes the same, whatever process it runs in.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import define, frozen

from fscore.builtin.tuning.space import Axis, Params, axes, draw
from fscore.component import ge, option, state
from fscore.kinds.tuner import Report, Tuner

if TYPE_CHECKING:
    import optuna

Method = Literal["random", "tpe", "gp"]
STUDY = "fscore"


@frozen
class Observation:
    """Parameters and their loss: smaller is better; None: unknown yet, or failed."""

    params: Params
    loss: float | None


@define(eq=False, slots=False)
class Proposing(Tuner):
    """A tuner with a seed, which draws parameters one after another."""

    seed: int = option(0, doc="Seed of the search.", validator=ge(0))
    drawn: int = state(int)

    def loss(self, report: Report) -> float:
        """Return the metric, negated where larger is better."""
        return report.value if self.direction == "minimize" else -report.value

    def propose(
        self,
        method: Method = "random",
        observations: Sequence[Observation] = (),
        *,
        startup: int = 0,
    ) -> Params:
        """Return the next parameters.

        Args:
            method: how; `tpe` and `gp` draw at random while there are fewer than `startup` observations.
            observations: what is known; those without a loss are taken to be under way.
            startup: observations that a model needs.
        """
        number, self.drawn = self.drawn, self.drawn + 1
        space = axes(self.space)
        if method == "random" or sum(o.loss is not None for o in observations) < startup:
            return draw(space, self.rng(number))
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return suggested(space, method, observations, seed)

    def rng(self, number: int) -> np.random.Generator:
        """Return the generator of one numbered decision."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, number])))


def suggested(
    space: Sequence[Axis], method: Method, observations: Sequence[Observation], seed: int
) -> Params:
    """Return what an Optuna sampler asks for after some observations."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        sampler=_sampler(method, seed, conditional=any(axis.when for axis in space)),
        pruner=optuna.pruners.NopPruner(),
        study_name=STUDY,
        direction="minimize",
    )
    study.add_trials([frozen_trial(space, o) for o in observations])
    trial = study.ask()
    params: Params = {}
    for axis in space:
        if axis.holds(params):
            params[axis.key] = _suggest(trial, axis)
    return params


def frozen_trial(space: Sequence[Axis], observation: Observation) -> optuna.trial.FrozenTrial:
    """Return an observation as Optuna keeps it; without a loss it is under way. Lists and tables stand as text."""
    import optuna

    states = optuna.trial.TrialState
    known = [axis for axis in space if axis.key in observation.params]
    return optuna.trial.create_trial(
        state=states.RUNNING if observation.loss is None else states.COMPLETE,
        value=observation.loss,
        params={axis.key: _kept(observation.params[axis.key]) for axis in known},
        distributions={axis.key: distribution(axis) for axis in known},
    )


def distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    """Return Optuna's word for an axis."""
    from optuna import distributions as d

    if axis.values:
        return d.CategoricalDistribution([_kept(value) for value in axis.values])
    if axis.whole:
        return d.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return d.FloatDistribution(axis.low, axis.high, log=axis.log)


def _kept(value: Any) -> Any:
    """Return a value as a storage keeps it: Optuna's choices are numbers, words or none."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _suggest(trial: optuna.Trial, axis: Axis) -> Any:
    if axis.values:
        names = [_kept(value) for value in axis.values]
        return axis.values[names.index(trial.suggest_categorical(axis.key, names))]
    if axis.whole:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log)


def _sampler(method: Method, seed: int, *, conditional: bool) -> optuna.samplers.BaseSampler:
    from optuna.samplers import GPSampler, TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is marked experimental
        if method == "gp":
            return GPSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
        return TPESampler(seed=seed, n_startup_trials=0, multivariate=True, group=conditional)
