"""What the tests of searches share: a tiny course with a search, and tuners of known behaviour."""

import copy
import os
import signal
from typing import Any, ClassVar

from attrs import define

from fscore.builtin.tuning.search import Tuning
from fscore.component import Component, option, state
from fscore.hookspecs import hookimpl
from fscore.kinds.tuner import Trial, Tuner
from fscore.testing.course import TINY


def tables(tune=None, **changes):
    made = copy.deepcopy(TINY)
    made["data"]["val"] = 0.2
    made["evaluation"] = {"every": 0}
    return {
        **made,
        **changes,
        "tune": {"versions": 4, "space": {"trainer.lr": [0.01, 0.5]}, **(tune or {})},
    }


def searched(folder, tune=None, *, plugins=(), workers=1, **changes):
    tuning = Tuning(tables(tune, **changes), folder, plugins, workers)
    list(tuning.run())
    return tuning


def lines(folder):
    return (folder / "trials.jsonl").read_text().splitlines()


@define(eq=False)
class Halving(Tuner):
    """Runs two trials for two versions, promotes the first to four, forks it with another rate."""

    name = "halving"
    step: int = state(int)

    def ask(self):
        self.step += 1
        if self.step == 1:
            return [Trial(0, {"trainer.lr": 0.1}, 2), Trial(1, {"trainer.lr": 0.2}, 2)]
        if self.step == 2:
            return [Trial(1, {"trainer.lr": 0.2}, 4), Trial(2, {"trainer.lr": 0.3}, 4, fork=1)]
        return ()

    def tell(self, trial, report):
        pass


@define(eq=False)
class Scripted(Tuner):
    """Asks for the batches of its option."""

    name = "scripted"
    batches: list[list[list[Any]]] = option(factory=list, doc="Batches of id, lr, versions, fork.")
    step: int = state(int)

    def ask(self):
        self.step += 1
        if self.step > len(self.batches):
            return ()
        return [
            Trial(i, lr if isinstance(lr, dict) else {"trainer.lr": lr}, versions, *fork)
            for i, lr, versions, *fork in self.batches[self.step - 1]
        ]

    def tell(self, trial, report):
        pass


@define(eq=False)
class Racing(Scripted):
    """Asks for one more trial after each result."""

    name = "racing"
    asynchronous: ClassVar[bool] = True
    heard: list[int] = state(list)

    def tell(self, trial, report):
        self.heard.append(trial.id)


@define(eq=False)
class TunerPlugin(Component):
    name = "tuners"

    @hookimpl
    def fscore_register_tuners(self):
        return [Halving, Scripted, Racing]


@define(eq=False)
class Deadly(Component):
    """Kills its process in the middle of a course."""

    name = "deadly"

    @hookimpl
    def fscore_version_ended(self):
        os.kill(os.getpid(), signal.SIGKILL)
