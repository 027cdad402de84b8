"""A search: trials as their tuner asks for them, in run directories, told in an order that workers do not change.

    search.json        the course file with its search, and the versions of every distribution in use
    trials.jsonl       one line per step of a trial, in the order in which the tuner was told
    trials/0003/       the run directory of trial 3
    best.toml          the course of the best trial; `fscore run` gives its digest again
    report.html        plots

A search that was killed goes on: its tuner is told the lines again, which makes it ask for the same trials.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path

from attrs import define, field, frozen

from fscore.builtin.record.directory import RunDirectory
from fscore.builtin.record.files import write_file
from fscore.builtin.record.resume import distributions
from fscore.builtin.tables import document, resolved, unstructure
from fscore.builtin.tuning.checks import check_search, privacy_of
from fscore.builtin.tuning.journal import COSTS, Journal
from fscore.builtin.tuning.lineage import Lineage
from fscore.builtin.tuning.page import page
from fscore.builtin.tuning.space import axes
from fscore.builtin.tuning.trials import (
    Outcome,
    Plugins,
    Step,
    advance,
    fork,
    processes,
)
from fscore.config import Config, Tables, resolve
from fscore.errors import ConfigError, CourseError
from fscore.kinds.tuner import Report, Trial, Tuner


@frozen
class Finished:
    """A step of a trial and what it gave."""

    trial: Trial
    outcome: Outcome
    report: Report | None
    """None: it failed, for `outcome.reason`."""
    cost: Mapping[str, float]
    """What it cost alone, by unit of a budget, whether it failed or not."""

    @property
    def reason(self) -> str:
        """Why it failed; empty: it did not."""
        return self.outcome.reason


@define(eq=False)
class Running:
    """A step that the tuner asked for and was not told of."""

    trial: Trial
    order: int
    steps: int
    """Versions that it computes if it does not fail."""
    ends: int
    """In versions computed one after another on the tuner's own workers, where it is asynchronous."""
    before: Outcome
    """What it starts from."""
    noted: Outcome | None = None
    """What a killed search had noted of it."""
    future: Future[Outcome] | None = None


@define(eq=False)
class Tuning:
    """One search over a course file, in a folder of its own; `workers` processes compute its trials."""

    tables: Tables
    folder: Path
    plugins: Plugins = ()
    workers: int = 1
    finished: list[Finished] = field(factory=list, init=False)
    tuner: Tuner = field(init=False)
    privacy: str = field(default="", init=False)
    """`proxy_data`, `budget`, `ignored`, or empty: the course has no privacy."""
    repeats: bool = field(default=True, init=False)
    """Whether a course of this search gives the same model again; not if its noise cannot be drawn again."""
    over: str = field(default="", init=False)
    """Why the search ended before its tuner did."""
    lineage: Lineage = field(init=False)
    _config: Config = field(init=False)
    _outcomes: dict[int, Outcome] = field(factory=dict, init=False)
    """By trial, the last one."""
    _journal: Journal = field(init=False)
    _clock: int = field(default=0, init=False)
    _reserved: int = field(default=0, init=False)
    _asked: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if "tune" not in self.tables:
            raise ConfigError("tune: missing table; `fscore tune` needs it")
        self._config = resolve(copy.deepcopy(self.tables), plugins=self.plugins)
        tuner = self._config.components["tune"]
        if not isinstance(tuner, Tuner):
            raise ConfigError("tune: this component is no tuner")
        self.tuner = tuner
        self.lineage = Lineage(copy.deepcopy(self.tables), tuner.versions, self._config.components)
        self.privacy, _ = privacy_of(tuner)
        course = check_search(tuner, self._config, self.lineage, self.plugins)
        self.repeats = not course.durable
        if not any(key.endswith(".use") for key in self.keys()):
            self.lineage.tables["executor"] = unstructure(course.executor)  # resolved once for all

    # ------------------------------------------------------------------------ the search

    def run(self) -> Iterator[Finished]:
        """Run trials until the tuner asks for no more or the budget is spent; yield each as the tuner hears of it.

        Raises:
            CourseError: every trial failed.
            WriteError: the disk is full; the search can go on from its folder.
            ConfigError: the budget does not pay for the first trial.
            SnapshotError: the folder holds another search, or another process is at it.
        """
        versions = distributions(self._config.host)
        with (
            Journal.open(self.folder, self.tables, versions) as self._journal,
            self._pool() as pool,
        ):
            yield from self._search(pool)
            self._journal.end()
        if not self.finished:
            raise CourseError("tune: the tuner asked for no trial")
        if all(done.report is None for done in self.finished):
            raise CourseError(
                f"tune: all {len(self.finished)} trials failed: {self.finished[-1].reason}"
            )

    def _search(self, pool: Executor | None) -> Iterator[Finished]:
        running: list[Running] = []
        try:
            while not self._spent():
                if not running or self.tuner.asynchronous:
                    running += self._start(running, pool)
                if not running:
                    return
                first = min(running, key=self._turn)
                running.remove(first)
                done = self._done(first)
                if first.noted is None:
                    self._journal.append(done, self.privacy)
                self.finished.append(done)
                self._clock = first.ends
                self.tuner.tell(done.trial, done.report)
                yield done
        finally:
            for other in running:
                if other.future:
                    other.future.cancel()

    def best(self) -> Finished:
        """Return the best trial among those that were reported at the most versions."""
        return self.ranked()[0]

    def ranked(self) -> list[Finished]:
        """Return the last steps of all trials: the longest first, then the best; failed ones at the end."""
        sign = 1 if self.tuner.direction == "minimize" else -1

        def key(done: Finished) -> tuple[bool, int, float]:
            value = sign * done.report.value if done.report else 0.0
            return done.report is None, -done.trial.versions, value

        return sorted(self._last(), key=key)

    def keys(self) -> list[str]:
        """Return the dotted keys of the space."""
        return [axis.key for axis in axes(self.tuner.space)]

    def spent(self) -> dict[str, float]:
        """Return what all trials cost so far, in each unit of a budget."""
        return {unit: math.fsum(done.cost[unit] for done in self.finished) for unit in COSTS}

    def _pool(self) -> contextlib.AbstractContextManager[Executor | None]:
        return processes(self.workers) if self.workers > 1 else contextlib.nullcontext()

    def _turn(self, running: Running) -> tuple[int, int]:
        return (running.ends if self.tuner.asynchronous else 0, running.order)

    # ------------------------------------------------------------------------ one step

    def _start(self, running: Sequence[Running], pool: Executor | None) -> list[Running]:
        """Enter what the tuner asks for, as far as the budget goes."""
        if self.over:
            return []
        trials = self.tuner.ask()
        begins = self.lineage.enter(trials, {r.trial.id for r in running})
        started: list[Running] = []
        for trial, begin in zip(trials, begins, strict=True):
            steps = trial.versions - begin
            if not self._affordable(steps):
                break
            before = self._outcomes.get(_source(trial), Outcome())
            noted = self._journal.outcome(trial)
            ends = self._clock + steps
            started.append(Running(trial, self._asked, steps, ends, before, noted))
            self._asked += 1
        fresh = [one for one in started if one.noted is None]
        for one in fresh:
            if one.trial.fork is not None:
                fork(self._place(one.trial.fork), self._place(one.trial.id))
        if pool:
            for one in fresh:
                one.future = pool.submit(advance, self._step(one.trial), self.plugins)
        return started

    def _affordable(self, steps: int) -> bool:
        limit = self.tuner.budget.versions
        if limit is not None and self._reserved + steps > limit:
            if not self._reserved:
                raise ConfigError(
                    f"tune.budget.versions: {limit} do not pay for the first trial, which takes {steps}"
                )
            self.over = f"the budget of {limit} versions is spent"
            return False
        self._reserved += steps
        return True

    def _spent(self) -> bool:
        """Whether what the tuner was told of exceeds the budget; noted in `over`."""
        spent = self.spent()
        for unit in ("client_updates", "virtual_time"):
            limit = getattr(self.tuner.budget, unit)
            if limit is not None and spent[unit] >= limit:
                self.over = f"the budget of {limit} {unit.replace('_', ' ')} is spent"
                return True
        return False

    def _place(self, trial: int) -> Path:
        return self.folder / "trials" / f"{trial:04d}"

    def _step(self, trial: Trial) -> Step:
        kind, value = privacy_of(self.tuner)
        tables = self.lineage.course(trial.id, data=value if kind == "proxy_data" else None)
        noise = float(value) if kind == "budget" else None
        return Step(
            self._place(trial.id), tables, trial.versions, self.tuner.metric, trial.id, noise
        )

    def _done(self, one: Running) -> Finished:
        """Return the result of a step: noted before, computed elsewhere, or computed now."""
        if one.noted is not None:
            outcome = one.noted
        elif one.future is None:
            outcome = advance(self._step(one.trial), self.plugins)
        else:
            outcome = _result(one.future)
        cost = {unit: max(getattr(outcome, unit) - getattr(one.before, unit), 0) for unit in COSTS}
        if outcome.reason:
            self._reserved -= one.steps - int(cost["versions"])
            return Finished(one.trial, outcome, None, cost)
        self._outcomes[one.trial.id] = outcome
        report = Report(outcome.value, outcome.clients, outcome.stderr, **cost)
        return Finished(one.trial, outcome, report, cost)

    # ------------------------------------------------------------------------ what it leaves

    def best_tables(self) -> Tables:
        """Return the resolved course file of the best trial, on the course's own data, for `fscore run`."""
        trial = self.best().trial
        tables = self.lineage.course(trial.id, until=trial.versions)
        described = RunDirectory(self._place(trial.id)).read_run()
        tables["executor"] = described["course"]["executor"]
        return resolved(resolve(tables, plugins=self.plugins))

    def write(self) -> None:
        """Write `best.toml` and `report.html`.

        Raises:
            WriteError: they could not be written.
        """
        remark = f"# {self.remark}\n" if self.remark else ""
        best = remark + document(self.best_tables())
        write_file(self.folder / "best.toml", best.encode())
        write_file(self.folder / "report.html", page(self).encode())

    @property
    def remark(self) -> str:
        """What has to be said with every result of this search about privacy; empty: nothing."""
        if self.privacy == "ignored":
            return (
                "privacy ignored: the metrics of this search are releases that nobody accounts for"
            )
        if self.privacy == "proxy_data":
            return (
                "privacy: all trials ran on the proxy data of tune.privacy, not on the course's own"
            )
        if self.privacy == "budget":
            losses = [done.outcome.figures.get("epsilon", 0.0) for done in self._last()]
            return (
                f"privacy: epsilon {math.fsum(losses):.4g} for the whole search, the sum over its {len(losses)} trials; "
                "each client's metric was cut to [0, 1]; noise is drawn from the course's seed, as in a simulation"
            )
        return ""

    def _last(self) -> list[Finished]:
        """Return the last step of each trial."""
        return list({done.trial.id: done for done in self.finished}.values())


def _result(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise CourseError(
            "tune: a worker process died; the search can go on from its folder"
        ) from error


def _source(trial: Trial) -> int:
    return trial.id if trial.fork is None else trial.fork
