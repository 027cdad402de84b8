"""What a run directory needs to go on: its description, its snapshots, and the way back to a course."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fscore.builtin.record.directory import RunDirectory
from fscore.builtin.record.snapshot import Codec, latest, prune, write_snapshot
from fscore.builtin.tables import resolved
from fscore.component import Component
from fscore.config import resolve
from fscore.errors import SnapshotError
from fscore.opening import Opened
from fscore.tasks import Cohort, Deferred, Output, Slice, Task

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.plugins import PluginHost


def describe(course: Course) -> dict[str, Any]:
    """Return the contents of run.json."""
    return {
        "course": resolved(course.config),
        "seed": course.config.course.seed,
        "distributions": distributions(course.host),
        "upload": list(course.site.upload.describe()),
        "parameters": course.space.size,
        "executor_reason": course.executor.reason,
        "advice": list(course.advice),
    }


def distributions(host: PluginHost) -> dict[str, str]:
    """Return name and version of every distribution in use."""
    found = {name: metadata.version(name) for name in ("fscore", "numpy", "torch")}
    found.update({s.distribution: s.version for s in host.sources.values()})
    return dict(sorted(found.items()))


def codec(course: Course) -> Codec:
    """Return the codec of a course: plain data, tasks, and the events that this course can have."""
    return Codec([Task, Deferred, Cohort, Output, Slice, Opened, *course.graph.events()])


def write(course: Course, record: RunDirectory) -> None:
    """Write a snapshot of the course, and delete old ones."""
    write_snapshot(record.snapshots, course.loop.delivered, course.dump(), codec(course))
    prune(record.snapshots, course.config.record.snapshots)


def resumed(
    path: Path,
    *,
    plugins: Sequence[type[Component] | Component] = (),
    given: Mapping[str, Component] | None = None,
) -> tuple[Course, list[str]]:
    """Return the course of a run directory at its newest whole snapshot, and lines about refused ones.

    Raises:
        SnapshotError: there is no run, it has ended, or no snapshot is whole.
    """
    from fscore.course import Course

    record = RunDirectory.open(path)
    _refuse_ended(record)
    described = record.read_run()
    config = resolve(described["course"], plugins=plugins, given=_checked(described, given or {}))
    course = Course(config, record)
    notes = _changed(described.get("distributions", {}), distributions(course.host))
    found = latest(record.snapshots, codec(course), use=course.load)
    if found is None:
        record.cut(0)
        notes.append(f"{path}: no snapshot was written yet, starting from the beginning")
        return course, notes
    return course, [*notes, *found[2]]


def _refuse_ended(record: RunDirectory) -> None:
    """Refuse a run that has a result, and a result that cannot be read: whether the run ended is not known then."""
    try:
        result = record.read_result()
    except SnapshotError as error:
        raise SnapshotError(f"{error}. Remedy: remove it, and the run goes on.") from error
    if result is not None:
        raise SnapshotError(f"{record.path}: this run has ended, see result.json")


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say which versions differ, since the bits may follow them."""
    return [
        f"{name} was {version} when the run began, and is {now.get(name, 'not used')} now"
        for name, version in before.items()
        if now.get(name) != version
    ]


def _checked(
    described: Mapping[str, Any], given: Mapping[str, Component]
) -> Mapping[str, Component]:
    """Refuse to resume with other objects than those that the run began with."""
    for table in ("model", "data"):
        stated = described["course"].get(table, {})
        if stated.get("use") != "given":
            continue
        if table not in given:
            raise SnapshotError(
                f"{table}: the run used an object of its process. Remedy: hand it over again."
            )
        if getattr(given[table], "digest", None) != stated["digest"]:
            raise SnapshotError(f"{table}: this is not the object that the run began with")
    return given
