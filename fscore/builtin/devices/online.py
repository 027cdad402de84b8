"""When clients are online: a random process with the constants of measurements, or a trace."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import define, field, frozen

from fscore.builtin.bounds import POSITIVE
from fscore.builtin.devices.base import MOST_SESSIONS
from fscore.builtin.devices.replay import Assign, by_client, load, number, places
from fscore.component import between, gt, option
from fscore.errors import ConfigError, CourseError
from fscore.kinds.availability import Availability

if TYPE_CHECKING:
    from fscore.course import Course

DAY = 86_400.0
NEVER = (math.inf, math.inf)
WARM_UP = 10
"""Mean cycles that processes ran before virtual time 0, so that not everybody begins alike."""


@define(eq=False)
class Process:
    """The sessions of one client (or its crashes) as far as they are generated."""

    rng: np.random.Generator
    gap: float
    """Median gap in seconds."""
    at: float
    """Where the last session ended."""
    begins: list[float] = field(factory=list)
    ends: list[float] = field(factory=list)

    def add(self, begin: float, end: float, what: str) -> None:
        """Add the next one.

        Raises:
            CourseError: there are too many by now, as where they last a microsecond and tasks a day.
        """
        if len(self.ends) >= MOST_SESSIONS:
            raise CourseError(
                f"{what}: more than {MOST_SESSIONS} of one client by {self.at:g} s of virtual time. "
                "Remedy: make them longer and rarer."
            )
        self.begins.append(begin)
        self.ends.append(end)
        self.at = end


@define(eq=False, slots=False)
class Sessions(Availability):
    """Sessions and gaps in turn, both log-normal; gaps pass faster at the hours when more clients are ready.

    The defaults are those of 710 phones that were locked, charging and on WiFi (FLASH, Yang et al., WWW 2021; FLHetBench,
    Zhang et al., CVPR 2024): sessions LogNormal(5.06, 2.59) seconds, gaps of spread 3.30, the share of time that a client
    is ready Beta(0.54, 5.15), of mean 9.5%, and 1 + 0.329 cos(2 pi (h - 3.39) / 24) over the day. A client's median gap
    follows from its share and the mean of a session. Virtual time 0 is midnight.
    """

    name = "sessions"
    length: float = option(157.6, doc="Median seconds of a session.", validator=POSITIVE)
    length_sigma: float = option(
        2.59, doc="Spread of the logarithm of a session.", validator=between(0, 5)
    )
    gap_sigma: float = option(
        3.30, doc="Spread of the logarithm of a gap.", validator=between(0, 5)
    )
    share_alpha: float = option(
        0.54, doc="Beta(alpha, beta): a client's share of time online.", validator=gt(0)
    )
    share_beta: float = option(5.15, doc="See share_alpha.", validator=gt(0))
    daily: float = option(
        0.329, doc="How much the hour matters: amplitude over mean.", validator=between(0, 0.99)
    )
    peak: float = option(3.39, doc="Hour at which most are online.", validator=between(0, 24))

    KEPT = 100_000
    """Clients whose sessions are kept; those of others are generated again."""

    def bind(self, course: Course) -> None:
        self.streams = course.streams
        self.processes: OrderedDict[int, Process] = OrderedDict()

    def session(self, client: int, now: float) -> tuple[float, float]:
        process = self._process(client)
        while process.at <= now:
            self._extend(process)
        place = bisect_right(process.ends, now)
        return process.begins[place], process.ends[place]

    def _process(self, client: int) -> Process:
        if client in self.processes:
            self.processes.move_to_end(client)
            return self.processes[client]
        rng = self.streams.generator("availability", client)
        share = min(max(float(rng.beta(self.share_alpha, self.share_beta)), 1e-4), 1 - 1e-4)
        mean = self.length * math.exp(self.length_sigma**2 / 2)
        gap = mean * (1 - share) / share / math.exp(self.gap_sigma**2 / 2)
        begin = -(WARM_UP + float(rng.random())) * mean / share
        self.processes[client] = process = Process(rng, gap, begin)
        if len(self.processes) > self.KEPT:
            self.processes.popitem(last=False)
        return process

    def _extend(self, process: Process) -> None:
        gap = process.gap * math.exp(self.gap_sigma * process.rng.standard_normal())
        begin = self.after(process.at, gap)
        length = self.length * math.exp(self.length_sigma * process.rng.standard_normal())
        process.add(begin, begin + length, "devices.availability: sessions")

    def after(self, start: float, seconds: float) -> float:
        """Return when so many seconds passed, counted at the rate of the hour, by bisection to a millisecond."""
        goal = self._passed(start) + seconds
        low, high = start + seconds / (1 + self.daily), start + seconds / (1 - self.daily)
        while high - low > max(1e-3, 1e-12 * abs(high)):
            middle = (low + high) / 2
            low, high = (middle, high) if self._passed(middle) < goal else (low, middle)
        return high

    def _passed(self, t: float) -> float:
        """Return the integral of the rate from time 0 to t, but for a constant."""
        turn = 2 * math.pi / DAY
        return t + self.daily / turn * math.sin(turn * (t - self.peak * 3600))


@frozen
class Recorded:
    """One entry of a trace: sessions inside a period, ascending, that is repeated for ever."""

    begins: tuple[float, ...]
    ends: tuple[float, ...]
    period: float
    shift: float = 0.0
    """Seconds after midnight at which it begins."""

    def session(self, now: float) -> tuple[float, float]:
        """Return the session that `now` lies in, or the next."""
        if not self.begins:
            return NEVER
        if self.begins[0] <= 0 and self.ends == (self.period,):
            return -math.inf, math.inf
        turn = math.floor((now - self.shift) / self.period)
        offset = turn * self.period + self.shift
        place = bisect_right(self.ends, now - offset)
        if place == len(self.ends):
            place, offset = 0, offset + self.period
        end = self.ends[place] + offset
        if self.ends[place] == self.period and self.begins[0] == 0:
            end = self.ends[0] + offset + self.period  # it goes on in the next period
        return self.begins[place] + offset, end


@define(eq=False, slots=False)
class AvailabilityTrace(Availability):
    """Intervals of a file, repeated after their period.

    JSON: {"0": [[start, end], ...], ...} in seconds; a list of {"client", "ready": [[start, end], ...], "start_of_day",
    "length"}; or FedScale's {"0": {"active": [...], "inactive": [...], "finish_time"}}. CSV with a header: client, start,
    end. The period is the `length` or `finish_time` of an entry, else the option, else the last end in the file; with
    `start_of_day` it is made whole days, so that hours keep their place, and virtual time 0 is midnight.
    """

    name = "trace"
    path: str = option(doc="The .json or .csv file, or either with .gz.")
    assign: Assign = option(
        "id", doc="Entries belong to clients by id, or each client has one at random."
    )
    period: float | None = option(
        None, doc="Seconds after which the intervals repeat.", validator=POSITIVE
    )

    def bind(self, course: Course) -> None:
        """Read the file.

        Raises:
            ConfigError: naming the file, the entry and the interval.
        """
        found = _entries(self.path, load(self.path), self.period)
        ids = list(found)
        self.entry = places(self.path, ids, self.assign, course.population, course.streams)
        self.recorded = [found[name] for name in ids]

    def session(self, client: int, now: float) -> tuple[float, float]:
        entry: Recorded = self.recorded[self.entry[client]]
        return entry.session(now)


def _entries(path: str, document: Any, period: float | None) -> dict[str, Recorded]:
    if isinstance(document, list):
        rows = document and isinstance(document[0], Mapping) and "start" in document[0]
        document = _by_rows(path, document) if rows else by_client(path, document)
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path}: expected an object of clients, or a list of them")
    found = {str(name): _pairs(path, str(name), entry) for name, entry in document.items()}
    last = max((end for pairs, _, _ in found.values() for _, end in pairs), default=0.0)
    return {
        name: _recorded(path, name, pairs, own or period or last, start)
        for name, (pairs, own, start) in found.items()
    }


def _by_rows(path: str, rows: Sequence[Any]) -> dict[str, list[list[Any]]]:
    """Return intervals by client, of rows client, start, end."""
    found: dict[str, list[list[Any]]] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping) or any(
            row.get(k) is None for k in ("client", "start", "end")
        ):
            raise ConfigError(f"{path}: row {place}: expected client, start and end")
        found.setdefault(str(row["client"]), []).append([row["start"], row["end"]])
    return found


def _pairs(
    path: str, who: str, entry: Any
) -> tuple[list[tuple[float, float]], float | None, float | None]:
    """Return an entry's intervals, its own period and its start of day."""
    own = start = None
    if isinstance(entry, Mapping):
        span = entry.get("length", entry.get("finish_time"))
        own = None if span is None else number(path, who, "length", span, 1e-9)
        if entry.get("start_of_day") is not None:
            start = number(path, who, "start_of_day", entry["start_of_day"])
        entry = entry["ready"] if "ready" in entry else _paired(path, who, entry)
    if not isinstance(entry, list):
        raise ConfigError(f"{path}: client {who}: expected a list of intervals, got {entry!r}")
    pairs = []
    for place, pair in enumerate(entry):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ConfigError(
                f"{path}: client {who}: interval {place}: expected [start, end], got {pair!r}"
            )
        begin, end = (number(path, who, f"interval {place}", value) for value in pair)
        pairs.append((begin, end))
    return pairs, own, start


def _paired(path: str, who: str, entry: Mapping[str, Any]) -> list[list[Any]]:
    """Return FedScale's times of becoming active and inactive as intervals."""
    active, inactive = entry.get("active"), entry.get("inactive")
    if not isinstance(active, list) or not isinstance(inactive, list):
        raise ConfigError(f"{path}: client {who}: expected 'ready', or 'active' and 'inactive'")
    if len(active) == len(inactive) + 1 and "finish_time" in entry:
        inactive = [*inactive, entry["finish_time"]]
    if len(active) != len(inactive):
        raise ConfigError(
            f"{path}: client {who}: {len(active)} times in 'active', {len(inactive)} in 'inactive'"
        )
    return [list(pair) for pair in zip(active, inactive, strict=True)]


def _recorded(
    path: str, who: str, pairs: Sequence[tuple[float, float]], period: float, start: float | None
) -> Recorded:
    begins: list[float] = []
    ends: list[float] = []
    before = 0.0
    for place, (begin, end) in enumerate(pairs):
        if end <= begin:
            raise ConfigError(
                f"{path}: client {who}: interval {place} ends at {end:g}, before it begins at {begin:g}"
            )
        if begin < before:
            raise ConfigError(
                f"{path}: client {who}: interval {place} begins at {begin:g}, before the one before it ends at {before:g}"
            )
        if ends and begin == before:
            ends[-1] = end
        else:
            begins.append(begin)
            ends.append(end)
        before = end
    if before > period:
        raise ConfigError(
            f"{path}: client {who}: interval {len(pairs) - 1} ends at {before:g}, after the period {period:g}"
        )
    if start is not None:
        period = math.ceil(period / DAY) * DAY
    return Recorded(tuple(begins), tuple(ends), period, start or 0.0)
