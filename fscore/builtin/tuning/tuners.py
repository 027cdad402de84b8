"""Built-in tuners: grid and random search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import define

from fscore.builtin.tuning.space import Params, axes, draw, grid
from fscore.component import ge, option, state
from fscore.kinds.tuner import Report, Trial, Tuner


@define(eq=False, slots=False)
class Search(Tuner):
    """All trials at once, each run in full; what remains is to choose their parameters."""

    asked: bool = state(bool)

    def candidates(self) -> list[Params]:
        """Return the parameters of every trial."""
        raise NotImplementedError

    def ask(self) -> Sequence[Trial]:
        if self.asked:
            return ()
        self.asked = True
        return [Trial(i, params, self.versions) for i, params in enumerate(self.candidates())]

    def tell(self, trial: Trial, report: Report | None) -> None:
        """Nothing depends on results."""


@define(eq=False, slots=False)
class GridSearch(Search):
    """Every combination of the listed values, the last key fastest; ranges are cut into `points`."""

    name = "grid"
    points: int = option(3, doc="Values of a range { low, high, log }.", validator=ge(2))

    def candidates(self) -> list[Params]:
        return grid(axes(self.space), self.points)


@define(eq=False, slots=False)
class RandomSearch(Search):
    """Independent random parameters (Bergstra and Bengio, JMLR 2012)."""

    name = "random"
    trials: int = option(10, doc="Number of trials.", validator=ge(1))
    seed: int = option(0, doc="Seed of the search.", validator=ge(0))

    def candidates(self) -> list[Params]:
        rng = np.random.Generator(np.random.Philox(self.seed))
        return [draw(axes(self.space), rng) for _ in range(self.trials)]
