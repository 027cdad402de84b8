"""What a course guarantees, in words and numbers, before it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fs_dp.clear import MEANINGS, METRICS, foreseen
from fs_dp.ledger import UNITS, Ledger, ledger_of, mechanisms
from fscore.cli.pictures import Chart, Line, page
from fscore.errors import ConfigError, CourseError

if TYPE_CHECKING:
    from fs_dp.mechanism import Accounted
    from fscore.course import Course

ROWS = 20
"""Rows of the table at most."""
WIDTH = 40
"""Characters of the longest bar."""


def report(course: Course, versions: int | None = None) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        versions: how many versions to foresee; None: those of `course.until`.

    Raises:
        ConfigError: the course has no mechanism of this package, or the number of versions is not known.
    """
    found, count = _protected(course), _count(course, versions)
    yield f"course '{course.config.course.name}', {count} versions, delta {ledger_of(course).delta:g}"
    for mechanism in found:
        yield ""
        yield from _words(course, mechanism)
        yield ""
        yield from table(mechanism, count)
    yield ""
    yield "told without noise and charged to nobody, counted as in_the_clear in every line:"
    yield from _told(course, count)
    yield ""
    yield "not covered:"
    yield from (f"  * {line}" for line in uncovered(course))


def _told(course: Course, versions: int) -> Iterator[str]:
    withheld = ledger_of(course).metrics == "withheld"
    for name, count in foreseen(course, versions, withheld=withheld).items():
        yield f"  * {name}, {MEANINGS[name]}: {count} times"


def _protected(course: Course) -> Sequence[Accounted]:
    if any(isinstance(p, Ledger) for p in course.host.plugins) and (found := mechanisms(course)):
        return found
    raise ConfigError(
        "privacy: no mechanism of differential privacy in this course. Remedy: [plugins.dp] and [[privacy]] use = 'gaussian'"
    )


def _count(course: Course, versions: int | None) -> int:
    if count := versions or course.config.course.until.versions:
        return int(count)
    raise ConfigError(
        "course.until: the number of versions is not known. Remedy: fscore privacy FILE --versions N"
    )


def statement(course: Course) -> dict[str, Any]:
    """Return the ledger of a course that ran, as plain data: what was released, with which noise, charged to whom."""
    ledger = ledger_of(course)
    return {
        "accountant": ledger.accountant,
        "adjacency": ledger.adjacency,
        "delta": ledger.delta,
        "reproducible": ledger.reproducible,
        "mechanisms": [{"use": m.name, "unit": m.unit, "noise_multiplier": m.multiplier} for m in mechanisms(course)],
        "epsilon": {unit: ledger.largest(unit) for unit in UNITS},
        "columns": ["noise_multiplier", "rate", "count"],
        "everybody": ledger.common,
        "clients": ledger.own,
        "in_the_clear": ledger.clear,
        "not_covered": list(uncovered(course)),
    }  # fmt: skip


def write_statement(course: Course) -> None:
    """Write the ledger to `privacy.json` in the run directory, if the course has one.

    Raises:
        CourseError: it could not be written.
    """
    if course.record is None or not mechanisms(course):
        return
    path = course.record.path / "privacy.json"
    try:
        path.write_text(json.dumps(statement(course), indent=2) + "\n")
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}") from error


def picture(course: Course, versions: int | None = None) -> str:
    """Return an HTML page of its own: epsilon version by version, one chart per mechanism, and the budget.

    Args:
        versions: how many versions to foresee; None: those of `course.until`.

    Raises:
        ConfigError: as `report`.
    """
    found, count = _protected(course), _count(course, versions)
    lines = "\n".join(report(course, versions))
    charts = (_chart(mechanism, count).svg() for mechanism in found)
    return page(
        f"Privacy of '{course.config.course.name}'", [*charts, f"<pre>{escape(lines)}</pre>"]
    )


def _chart(mechanism: Accounted, versions: int) -> Chart:
    ledger = mechanism.ledger
    drawn = [
        Line(
            f"'{mechanism.name}', one {mechanism.unit}", [(0.0, 0.0), *points(mechanism, versions)]
        )
    ]
    if ledger.budget is not None:
        drawn.append(Line("budget", [(0.0, ledger.budget), (float(versions), ledger.budget)]))
    return Chart(f"epsilon at delta {ledger.delta:g}", "version", "epsilon", drawn)


def points(mechanism: Accounted, versions: int) -> list[tuple[int, float]]:
    """Return versions, up to `ROWS` of them with the first and the last, and epsilon after each."""
    return [(v, mechanism.worst(v)) for v in _spread(versions)]


def table(mechanism: Accounted, versions: int) -> Iterator[str]:
    """Yield version, epsilon and a bar, for versions up to the last or to the one that the budget forbids."""
    budget = mechanism.ledger.budget
    found = points(mechanism, versions)
    most = max(e for _, e in found)
    yield "  version    epsilon"
    for version, value in found:
        bar = "#" * max(1, math.ceil(WIDTH * value / most))
        beyond = "  beyond the budget" if budget is not None and value > budget else ""
        yield f"  {version:>7}  {value:>9.4f}  {bar}{beyond}"


def _spread(versions: int) -> list[int]:
    """Return up to `ROWS` versions, the first and the last among them."""
    rows = min(ROWS, versions)
    return sorted({round(1 + i * (versions - 1) / max(1, rows - 1)) for i in range(rows)})


def _words(course: Course, mechanism: Accounted) -> Iterator[str]:
    ledger = mechanism.ledger
    adjacency = {"add_remove": "added or removed", "replace_one": "replaced by another"}
    yield f"[[privacy]] '{mechanism.name}': {mechanism.guarantee()}"
    yield f"  unit        one {mechanism.unit}"
    yield f"  adjacency   two courses are neighbours if one {mechanism.unit} is {adjacency[ledger.adjacency]}"
    if (mechanism.unit, mechanism.common, ledger.adjacency) == ("client", False, "add_remove"):
        yield "              who takes part is public and stays: the updates of a client that is removed count as zero"
    yield f"  sampling    {mechanism.sampling()}"
    yield f"  noise       multiplier {mechanism.multiplier:.6g}, {_generator(ledger)}"
    yield f"  accountant  {ledger.accountant}" + (
        ", approximate: below the true value" if ledger.accountant == "gdp_approximate" else ""
    )
    if ledger.budget is not None:
        yield f"  budget      epsilon {ledger.budget:g}, which {mechanism.consequence()}"


def _generator(ledger: Ledger) -> str:
    if ledger.reproducible:
        return "pseudorandom from the course's seed: it protects against nobody who knows the seed"
    return "exact, on a grid, from the system's generator"


def uncovered(course: Course) -> Iterator[str]:
    """Yield what a course reveals besides what its mechanisms protect."""
    public = [n for n, g in course.site.upload.wire.items() if g.public and n != METRICS]
    units = {m.unit for m in mechanisms(course)}
    if public:
        yield f"the groups that travel in the clear: {', '.join(public)}"
    if METRICS in course.site.upload.wire and ledger_of(course).metrics == "clear":
        yield "each client's sum of losses and number of samples, which travel in the clear. Remedy: plugins.dp.metrics = 'withheld'"
    yield "what is chosen by train_loss or evaluations: early stopping, the best version, [tune]"
    if "client" in units:
        yield "who takes part, when, and who failed"
    if "sample" in units:
        yield "how many samples a client has"
    if course.sampler.scheme == "other":
        yield f"sampler '{course.sampler.name}', if it chooses by private values; everybody is charged as if sampled"
    if course.sampler.scheme == "poisson":
        yield "the course's seed: who knows it knows who was sampled, and amplification is lost"
    if len(units) > 1:
        yield "both units together: each epsilon holds for its own unit alone"
    yield from _besides(course)
    yield "other courses on the same data: another run of this file, a fork of this run"
    yield "float32 rounding while updates are summed"


def _besides(course: Course) -> Iterator[str]:
    """Yield what stands between the proof of amplification and the course."""
    leaving = course.faults or course.devices.next_change(0.0) is not None
    if ledger_of(course).amplified and leaving:
        yield "draws of which nobody came back: they are drawn again, which amplification does not cover"
