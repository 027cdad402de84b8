"""Built-in tuners: grid and random search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import define

from fscore.component import Scalar, ge, option, state
from fscore.kinds.tuner import Report, Trial, Tuner


@define(eq=False, slots=False)
class Search(Tuner):
    """All trials at once, each run in full; what remains is to choose their parameters."""

    told: list[tuple[int, float]] = state(list)
    asked: bool = state(bool)

    def candidates(self) -> list[dict[str, Scalar]]:
        """Return the parameters of every trial."""
        raise NotImplementedError

    def ask(self) -> Sequence[Trial]:
        if self.asked:
            return ()
        self.asked = True
        return [Trial(i, params, self.versions) for i, params in enumerate(self.candidates())]

    def tell(self, trial: Trial, report: Report | None) -> None:
        if report is not None:
            self.told.append((trial.id, report.value))


@define(eq=False, slots=False)
class GridSearch(Search):
    """Every combination of the listed values, the last key fastest; ranges are cut into `points`."""

    name = "grid"
    points: int = option(3, doc="Values of a range { low, high, log }.", validator=ge(2))

    def candidates(self) -> list[dict[str, Scalar]]:
        axes = [self._axis(values) for values in self.space.values()]
        return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*axes)]

    def _axis(self, values: Any) -> list[Scalar]:
        if isinstance(values, list):
            return values
        return [scaled(values, i / (self.points - 1)) for i in range(self.points)]


@define(eq=False, slots=False)
class RandomSearch(Search):
    """Independent random parameters (Bergstra and Bengio, JMLR 2012)."""

    name = "random"
    trials: int = option(10, doc="Number of trials.", validator=ge(1))
    seed: int = option(0, doc="Seed of the search.", validator=ge(0))

    def candidates(self) -> list[dict[str, Scalar]]:
        rng = np.random.Generator(np.random.Philox(self.seed))
        return [{k: _drawn(v, rng) for k, v in self.space.items()} for _ in range(self.trials)]


def _drawn(values: Any, rng: np.random.Generator) -> Scalar:
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]  # type: ignore[no-any-return]
    return scaled(values, float(rng.random()))


def scaled(bounds: dict[str, Any], share: float) -> Scalar:
    """Return the value at a share of a range: linear or logarithmic; integers where both bounds are."""
    low, high = bounds["low"], bounds["high"]
    if bounds.get("log"):
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    if isinstance(low, int) and isinstance(high, int):
        return round(value)
    return float(value)
