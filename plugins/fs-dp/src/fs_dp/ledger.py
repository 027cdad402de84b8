"""The privacy ledger of a course: what was released with which noise, to whom it is charged, and what that amounts to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from attrs import define

from fs_dp.accounting import Accountant, Adjacency, Release, bound, epsilon, joined, undominated
from fscore.component import Component, gt, option, state
from fscore.errors import PluginError
from fscore.events import Ending, Released
from fscore.participant import Participant, handles

if TYPE_CHECKING:
    import numpy as np

    from fs_dp.mechanism import Accounted
    from fs_dp.noise import Source
    from fscore.course import Course
    from fscore.paths import Stage
    from fscore.tasks import Task

Unit = Literal["client", "sample"]
UNITS: tuple[Unit, ...] = ("client", "sample")
Entries = list[list[float]]
"""Rows of noise multiplier, rate, count."""


def _below_one(instance: Any, attribute: Any, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"must lie between 0 and 1, got {value!r}")


@define(eq=False, slots=False)
class Ledger(Component):
    """One per course; it holds the options of accounting and charges every release before it can be read.

    A release on a Poisson sample is charged to everybody, with its rate. A release without sampling is charged to the
    clients that took part: who took part is public, and the others' data did not enter.
    """

    accountant: Accountant = option(
        "pld", doc="How releases compose: pld, rdp, prv; gdp_approximate is no guarantee."
    )
    adjacency: Adjacency = option(
        "add_remove", doc="Neighbouring data: one unit added or removed, or one replaced."
    )
    delta: float = option(1e-5, doc="Delta of every epsilon.", validator=_below_one)
    epsilon: float | None = option(
        None,
        doc="Epsilon of the whole course; gives the mechanism without noise_multiplier its noise.",
        validator=gt(0),
    )
    budget: float | None = option(
        None,
        doc="Epsilon that is never exceeded: it ends the course, or a client's part in it.",
        validator=gt(0),
    )
    amplification: bool | None = option(
        None,
        doc="Amplification by sampling: true demands it, false does without; default: where the sampler gives it.",
    )
    reproducible: bool = option(
        False,
        doc="Noise from the course's seed: it repeats, and protects nobody who knows the seed.",
    )
    metrics: Literal["clear", "withheld"] = option(
        "clear",
        doc="What clients report of their training: in the clear, counted as in_the_clear; or nothing (train_loss is nan).",
    )
    common: dict[str, Entries] = state(dict)
    own: dict[str, dict[str, Entries]] = state(dict)
    clear: dict[str, int] = state(dict)
    """How often something was told without noise, by the names of `fs_dp.clear.MEANINGS`."""

    def bind(self, course: Course) -> None:
        """Remember the course."""
        self.course = course

    @property
    def durable(self) -> bool:
        """Noise of the system's generator cannot be drawn again."""
        return not self.reproducible and bool(mechanisms(self.course))

    def flags(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """Say that nobody sees metrics of single clients, where they are withheld."""
        needs, provides, removes = super().flags()
        hidden = {"plain_metrics"} if self.metrics == "withheld" else set()
        return needs, provides, removes | hidden

    def stages(self) -> Iterable[Stage]:
        """Withhold what clients report of their training, where the file wants it."""
        if self.metrics == "withheld":
            from fs_dp.clear import Withheld

            yield Withheld()

    def participants(self) -> Iterable[Participant]:
        """Return the handler of releases."""
        return (Clerk(self),)

    # ------------------------------------------------------------------------ what is not noised

    def tell(self, *names: str) -> None:
        """Count what was told without noise; it is charged to nobody."""
        for name in names:
            self.clear = {**self.clear, name: self.clear.get(name, 0) + 1}

    def figures(self) -> Mapping[str, float]:
        """Return how often something was told without noise so far, in a course that protects anything."""
        told = bool(mechanisms(self.course))
        return {"in_the_clear": float(sum(self.clear.values()))} if told else {}

    # ------------------------------------------------------------------------ noise

    def source(self, rng: np.random.Generator) -> Source:
        """Return where noise comes from: the system's generator, or `rng` where the course is reproducible."""
        from fs_dp.noise import Secure, Seeded

        return Seeded(rng) if self.reproducible else Secure()

    # ------------------------------------------------------------------------ charging

    def charge(
        self, unit: Unit, release: Release, count: float = 1, client: int | None = None
    ) -> None:
        """Enter a release, to everybody or to one client."""
        if client is None:
            self.common = {**self.common, unit: _added(self.common.get(unit, []), release, count)}
        else:
            entries = self.own.setdefault(unit, {})
            entries[str(client)] = _added(entries.get(str(client), []), release, count)

    def charge_issued(self, course: Course, tasks: Iterable[Task]) -> None:
        """Charge what these tasks' clients release themselves, whatever becomes of their updates."""
        issued = [m for m in mechanisms(course) if m.at_issue]
        for task in tasks if issued else ():
            for mechanism in issued:
                if task.kind == "train":
                    release, count = mechanism.price(task)
                    self.charge(mechanism.unit, release, count, task.client)

    def charge_metric(self, facts: Mapping[str, Any]) -> None:
        """Charge a noised metric to everybody, by its facts: unit, noise_multiplier, rate.

        Raises:
            PluginError: a fact is missing or is none.
        """
        unit, z, rate = (facts.get(name) for name in ("unit", "noise_multiplier", "rate"))
        if unit not in UNITS or not isinstance(z, int | float) or not isinstance(rate, int | float):
            raise PluginError(
                f"Released('metric'): facts {facts!r}, expected unit ('client' or 'sample'), noise_multiplier and rate"
            )
        self.charge(unit, Release(float(z), float(rate)))

    def spent(self, unit: Unit, client: int | None = None) -> dict[Release, float]:
        """Return what a client's data (or those of one who never took part) were used for."""
        rows = list(self.common.get(unit, ()))
        if client is not None:
            rows += self.own.get(unit, {}).get(str(client), ())
        return joined((Release(multiplier, rate), count) for multiplier, rate, count in rows)

    def of(self, spent: Mapping[Release, float]) -> float:
        """Return epsilon of releases, with this ledger's accountant, adjacency and delta."""
        return epsilon(spent, self.delta, self.accountant, self.adjacency)

    def within(self, spent: Mapping[Release, float], most: float) -> bool:
        """Return whether epsilon of releases is at most `most`; what a cheap bound can tell costs little."""
        return bound(spent, self.delta, self.adjacency) <= most or self.of(spent) <= most

    def largest(self, unit: Unit) -> float:
        """Return the largest epsilon over all units so far."""
        common = self.spent(unit)
        charged = [joined([*common.items(), *own.items()]) for own in self._worst(unit)]
        bounded = [(bound(c, self.delta, self.adjacency), c) for c in charged]
        found = self.of(common)
        for most, spent in sorted(bounded, key=lambda b: -b[0]):
            if most <= found:
                break
            found = max(found, self.of(spent))
        return found

    def _worst(self, unit: Unit) -> list[dict[Release, float]]:
        """Return what is charged to single clients, without what another's charges dominate."""
        distinct = {tuple(map(tuple, rows)) for rows in self.own.get(unit, {}).values()}
        if all(len(rows) == 1 for rows in distinct):
            return [{Release(z, q): c} for ((z, q, c),) in undominated(distinct)]
        return [{Release(z, q): c for z, q, c in rows} for rows in distinct]

    def reports(self) -> dict[str, float]:
        """Return the epsilon of each unit that is protected; the first is called `epsilon`."""
        used = [u for u in UNITS if any(m.unit == u for m in mechanisms(self.course))]
        names = ["epsilon", *(f"epsilon_{unit}" for unit in used[1:])]
        return {name: self.largest(unit) for name, unit in zip(names, used, strict=False)}

    # ------------------------------------------------------------------------ the budget

    def able(self, clients: Sequence[int]) -> list[bool]:
        """Return which clients may take part once more without exceeding the budget."""
        budget = self.budget
        charged = [m for m in mechanisms(self.course) if not m.common]
        if budget is None or not charged:
            return [True] * len(clients)
        pending = Counter(t.client for m in charged if not m.at_issue for t in self._unresolved())
        return [
            all(self.within(self._after(m, c, pending[c]), budget) for m in charged)
            for c in clients
        ]

    def _unresolved(self) -> Iterable[Task]:
        return self.course.book.unresolved()

    def _after(self, mechanism: Accounted, client: int, pending: int) -> dict[Release, float]:
        """Return what is spent if a client's pending updates and one more all come into one version."""
        release, count = mechanism.cost(client)
        spent = self.spent(mechanism.unit, client)
        return joined([*spent.items(), (release, count * (1 + pending) ** 2)])

    def exhausted(self) -> str:
        """Return why the course must end, empty if it may go on."""
        budget = self.budget
        if budget is None:
            return ""
        for mechanism in mechanisms(self.course):
            if mechanism.common:
                spent = self.spent(mechanism.unit)
                release, count = mechanism.cost(0)
                after = joined([*spent.items(), (release, count)])
                if not self.within(after, budget):
                    return (
                        f"the privacy budget is spent: epsilon {self.of(spent):.4g} of {budget:g}, "
                        f"one more version would make it {self.of(after):.4g}"
                    )
        unseen = self.course.population.unseen
        everybody = (c for c in range(self.course.population.size) if c not in unseen)
        if not any(self.able([client])[0] for client in everybody):
            return f"the privacy budget of every client is spent: epsilon {budget:g}"
        return ""

    # ------------------------------------------------------------------------ checks

    @property
    def amplified(self) -> bool:
        """Whether amplification by sampling is claimed."""
        return self.amplification is not False and not self.dependence()

    def dependence(self) -> tuple[str, str] | None:
        """Return why clients are not drawn independently of each other, and a remedy; None: they are."""
        course = self.course
        if course.sampler.scheme != "poisson":
            return f"sampler '{course.sampler.name}' gives none", "sampler.use = 'poisson'"
        if course.trigger.name != "all_received":
            return (
                f"with trigger '{course.trigger.name}' it depends on others whether a client is in time",
                "trigger.use = 'all_received'",
            )
        if (least := getattr(course.protocol, "min_results", 1)) > 1:
            return (
                f"protocol.min_results has draws of fewer than {least} drawn again",
                "remove protocol.min_results",
            )
        return None

    def check(self, course: Course) -> Iterable[str]:
        """Refuse what no guarantee can be given for."""
        used = mechanisms(course)
        if self.amplification and (found := self.dependence()):
            yield (
                f"plugins.dp.amplification: {found[0]}; it is proven for independent draws of closed cohorts. "
                f"Remedy: {found[1]}, or remove the line."
            )
        if self.accountant == "gdp_approximate" and (self.epsilon or self.budget):
            yield (
                "plugins.dp.accountant: 'gdp_approximate' lies below the true epsilon, so that it keeps no promise. "
                "Remedy: accountant = 'pld', or remove plugins.dp.epsilon and plugins.dp.budget."
            )
        yield from self._delta_problems(course, used)
        yield from self._noise_problems(course, used)

    def advise(self, course: Course) -> Iterable[str]:
        """Say what weakens a guarantee, where there is one."""
        if not mechanisms(course):
            return
        if self.reproducible:
            yield (
                "plugins.dp.reproducible: the noise follows from course.seed, and protects against nobody who knows it. "
                "Remedy: remove the line, outside of simulations."
            )
        found, central = self.dependence(), any(not m.at_issue for m in mechanisms(course))
        if found and central and course.sampler.scheme == "poisson" and self.amplification is None:
            yield (
                f"plugins.dp.amplification: none is counted, because {found[0]}. Remedy: {found[1]}, or set it to false."
            )
        if self.accountant == "gdp_approximate":
            yield (
                "plugins.dp.accountant: 'gdp_approximate' reports less than the true epsilon. Remedy: accountant = 'pld'."
            )

    def _delta_problems(self, course: Course, used: Sequence[Accounted]) -> Iterable[str]:
        units = {m.unit for m in used}
        most = {"client": course.population.participants, "sample": 1}
        if "sample" in units:
            most["sample"] = max(course.dataset.samples(c) for c in range(course.population.size))
        for unit in sorted(units):
            if self.delta >= 1 / most[unit]:
                yield (
                    f"plugins.dp.delta: must be less than 1/{most[unit]}, one over the number of {unit}s, "
                    f"got {self.delta:g}. Remedy: lower it."
                )

    def _noise_problems(self, course: Course, used: Sequence[Accounted]) -> Iterable[str]:
        silent = [m for m in used if m.noise_multiplier is None]
        if self.epsilon and not silent:
            yield (
                "plugins.dp.epsilon: no mechanism is without noise_multiplier, so that it would have no effect. "
                "Remedy: remove one of them."
            )
        if len(silent) > 1:
            yield "plugins.dp.epsilon: it can give one mechanism its noise. Remedy: set the other's noise_multiplier."


@define(eq=False, slots=False)
class Clerk(Participant):
    """Looks at the ledger after every release, and ends the course before the budget is exceeded."""

    name = "privacy_ledger"
    ledger: Ledger

    @handles(Released, emits=(Ending,))
    def account(self, event: Released) -> None:
        """Charge a metric that was noised elsewhere; end the course where nobody can take part in another version."""
        if event.what == "metric":
            self.ledger.charge_metric(dict(event.facts))
        if reason := self.ledger.exhausted():
            self.emit(Ending(reason))


def _added(rows: Entries, release: Release, count: float) -> Entries:
    """Return the rows with one more release, alike ones joined."""
    key = [release.noise_multiplier, release.rate]
    found = [row for row in rows if row[:2] == key]
    total = count + (found[0][2] if found else 0)
    return [*(row for row in rows if row[:2] != key), [*key, float(total)]]


def mechanisms(course: Course) -> list[Accounted]:
    """Return the mechanisms of a course that the ledger accounts for."""
    from fs_dp.mechanism import Accounted

    return [m for m in course.privacy if isinstance(m, Accounted)]


def ledger_of(course: Course) -> Ledger:
    """Return the ledger of a course; a mechanism of this package is only there with it."""
    return next(plugin for plugin in course.host.plugins if isinstance(plugin, Ledger))
