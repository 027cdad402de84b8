"""Bayesian optimisation by Optuna: full trials, proposed by a model of what the ones before gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import define

from fs_hpo.sampling import Method, Observation, Proposing
from fs_hpo.storage import mirror, opened
from fscore.builtin.tuning.space import Params, axes
from fscore.component import ge, option, state
from fscore.errors import WriteError
from fscore.kinds.tuner import Report, Trial

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class ModelBased(Proposing):
    """Trials in full, `parallel` at a time; those under way are known to the model."""

    method: ClassVar[Method] = "tpe"

    trials: int = option(30, doc="Number of trials.", validator=ge(1))
    parallel: int = option(1, doc="Trials that are proposed together.", validator=ge(1))
    startup: int = option(10, doc="Random trials before the model.", validator=ge(1))
    storage: str = option(
        "",
        doc="Optuna storage that is kept up to date beside: a journal file, or a URL (sqlite:///x.db).",
    )
    told: list[tuple[Params, float | None]] = state(list)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a storage that cannot be used; it is made here."""
        if self.storage:
            try:
                opened(self.storage)
            except WriteError as error:
                yield str(error)

    def ask(self) -> Sequence[Trial]:
        count = min(self.parallel, self.trials - self.drawn)
        known = [Observation(p, loss) for p, loss in self.told if loss is not None]
        first = self.drawn
        for _ in range(count):
            known.append(Observation(self.propose(self.method, known, startup=self.startup), None))
        asked = [o.params for o in known if o.loss is None]
        return [Trial(first + i, params, self.versions) for i, params in enumerate(asked)]

    def tell(self, trial: Trial, report: Report | None) -> None:
        params, loss = dict(trial.params), None if report is None else self.loss(report)
        self.told.append((params, loss))
        if self.storage:
            mirror(self.storage, axes(self.space), len(self.told) - 1, Observation(params, loss))


@define(eq=False, slots=False)
class TPE(ModelBased):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), multivariate, by Optuna."""

    name = "tpe"


@define(eq=False, slots=False)
class GP(ModelBased):
    """Bayesian optimisation with a Gaussian process and logEI (Ament et al., NeurIPS 2023), by Optuna."""

    name = "gp"
    method: ClassVar[Method] = "gp"
