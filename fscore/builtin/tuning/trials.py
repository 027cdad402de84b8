"""One step of a trial in its own run directory, in this process or another; nothing here knows a tuner.

A step takes up the newest snapshot of the directory, so that it computes only what is missing: after a promotion the
rest, after a fork (which copies the directory) what follows the source, after a kill what was not done.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from fscore.builtin.record.directory import RunDirectory
from fscore.builtin.record.resume import codec, describe, write
from fscore.builtin.record.snapshot import latest
from fscore.component import Component, figures_of
from fscore.config import Tables, resolve
from fscore.course import Course
from fscore.errors import ConfigError, CourseError, SnapshotError, WriteError
from fscore.events import Released
from fscore.params import digest

if TYPE_CHECKING:
    from fscore.kinds.evaluator import PerClient

Plugins = Sequence[type[Component] | Component]


@frozen
class Step:
    """A course in its folder, the version it goes on to, and what is asked of it there."""

    folder: Path
    tables: Tables
    versions: int
    metric: str
    trial: int = 0
    """Its id; no two trials get the same noise, or the difference of their metrics would have none."""
    noise: float | None = None
    """Noise multiplier of the metric, where it is charged to the accountant."""


@frozen
class Outcome:
    """What a step found. Costs are of the whole trial so far, from version 0 on."""

    value: float = math.nan
    clients: int = 0
    stderr: float = math.nan
    versions: int = 0
    client_updates: int = 0
    virtual_time: float = 0.0
    digest: str = ""
    figures: Mapping[str, float] = field(factory=dict)
    reason: str = ""
    """Why it failed; empty: it did not."""


def advance(step: Step, plugins: Plugins = ()) -> Outcome:
    """Run a step.

    Raises:
        PluginError: a plugin broke its contract.
        SnapshotError: its folder cannot be used.
        WriteError: the disk is full; what else goes wrong fails the trial.
    """
    import torch

    torch.set_num_threads(1)
    try:
        return _advanced(step, plugins)
    except WriteError:  # of the disk, not of the trial
        raise
    except (ConfigError, CourseError) as error:
        return Outcome(reason=one_line(error))


def _advanced(step: Step, plugins: Plugins) -> Outcome:
    there = (step.folder / "run.json").is_file()
    record = RunDirectory.open(step.folder) if there else RunDirectory.create(step.folder, "trial")
    try:
        ended = record.read_result() if there else None
        if ended and ended["versions"] < step.versions:
            return _failed(ended)
        executor = {"executor": record.read_run()["course"]["executor"]} if there else {}
        course = Course(resolve({**step.tables, **executor}, plugins=plugins), record)
        if not ended:
            record.write_run(describe(course))
            _load(course, step, record)
            if course.book.version <= step.versions:
                return _run(course, step, record)
        if course.durable:
            raise SnapshotError(
                f"{step.folder}: this trial went beyond version {step.versions}, its line of that version is gone, and its "
                "noise cannot be drawn again. Remedy: begin a new search."
            )
    finally:
        record.close()
    shutil.rmtree(step.folder)  # lines were cut, or a fork's folder deleted: it is computed again
    return _advanced(step, plugins)


def _failed(ended: Mapping[str, Any]) -> Outcome:
    """Return the outcome of a trial whose course failed, of its result."""
    return Outcome(
        reason=ended["reason"],
        versions=ended["versions"],
        client_updates=ended["tasks"]["used"],
        virtual_time=ended["virtual_time"],
    )


def _load(course: Course, step: Step, record: RunDirectory) -> None:
    """Take up the newest whole snapshot, if there is any."""
    try:
        found = latest(record.snapshots, codec(course), use=course.load)
    except SnapshotError as error:
        raise SnapshotError(
            f"{error}. Remedy: delete {step.folder}; the trial is computed again."
        ) from error
    if found is None:
        record.cut(0)


def _run(course: Course, step: Step, record: RunDirectory) -> Outcome:
    judged: list[Outcome] = []

    def reached(course: Course) -> bool:
        if course.book.version < step.versions or not course.settled:
            return False
        judged.append(judge(course, step))
        return True

    try:
        result = course.run(reached)
    except WriteError:
        raise
    except CourseError as error:
        return evolve(costs(course), reason=one_line(error))
    if result is not None:
        return evolve(costs(course), reason=result.reason)
    if step.noise is not None:
        charge(course, step.noise)
    write(course, record)
    course.store.close()
    return evolve(judged[-1], figures=_figures(course))


def judge(course: Course, step: Step) -> Outcome:
    """Return the metric of the current version of a course, with its standard error over clients.

    With noise, the metric is the mean over clients of values cut to [0, 1], plus Gaussian noise of standard deviation
    noise / clients, from the course's seed; its standard error is that of the noise, since the clients' spread would be
    another release.

    Raises:
        CourseError: nobody reported it, or it is not finite.
    """
    metrics, per_client = course.reporting.evaluate(everybody=True)
    own = _values(course, per_client, step.metric)
    if step.metric not in metrics:
        raise CourseError(f"nobody reported {step.metric}: no client that takes part has such data")
    value, error = metrics[step.metric], standard_error(own)
    if step.noise is not None:
        rng = course.streams.generator("metric", step.trial, course.book.version)
        error = step.noise / len(own)
        cut = math.fsum(min(max(v, 0.0), 1.0) for v in own) / len(own)
        value = cut + error * float(rng.standard_normal())
    if not math.isfinite(value):
        raise CourseError(f"{step.metric} is not finite")
    return evolve(
        costs(course),
        value=value,
        clients=len(own),
        stderr=error,
        digest=digest(course.bank[course.book.version]),
    )


def costs(course: Course) -> Outcome:
    """Return an outcome that holds what a course has cost so far, and nothing else."""
    return Outcome(
        versions=course.book.version,
        client_updates=course.book.counts["used"],
        virtual_time=course.loop.now,
    )


def one_line(error: Exception) -> str:
    """Return the text of an error in one line."""
    return str(error).replace("\n", "; ")


def charge(course: Course, noise: float) -> None:
    """Let the course's accountant charge the release of a metric of all clients.

    A tuner that is killed before it noted the result charges it again when it goes on: never too little.

    Raises:
        ConfigError: nobody did.
    """
    before = _figures(course)
    facts = (("unit", "client"), ("noise_multiplier", noise), ("rate", 1.0))
    course.handlers.deliver(Released("metric", facts))
    if _figures(course) == before:
        raise ConfigError(
            "tune.privacy: nobody charged the metric to a budget. Remedy: switch on a plugin whose accountant does, or "
            'privacy = "ignored".'
        )


def _figures(course: Course) -> dict[str, float]:
    return figures_of([*course.components.values(), *course.host.plugins])


def _values(course: Course, per_client: PerClient, metric: str) -> list[float]:
    part, _, rest = metric.partition("_")
    unseen = course.population.unseen
    names = {judge.name for judge in course.evaluator.judges()}
    name = next((n for n in (rest, rest.rpartition("_")[0]) if n in names), rest)
    own = per_client.get(part, {})
    return [own[c][name] for c in sorted(own) if name in own[c] and c not in unseen]


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def fork(source: Path, target: Path) -> None:
    """Copy a trial that nobody is running, entirely or not at all; one that is there already stays.

    Where the source is gone, the target's own file computes it from version 0 on.
    """
    if target.exists() or not source.exists():
        return
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh, ignore=shutil.ignore_patterns(".lock"))
    fresh.rename(target)


def processes(workers: int) -> Executor:
    """Return a pool of processes that compute steps, and that end with this process."""
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
        os._exit(1)

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which waits for their steps
    threading.Thread(target=watch, daemon=True).start()
