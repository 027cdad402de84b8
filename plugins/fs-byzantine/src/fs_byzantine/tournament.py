"""Tournaments: every attack against every defence, from one file, with the same seeds."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from fscore.builtin.tables import read
from fscore.errors import ConfigError, FscoreError, nearest

Tables = dict[str, Any]
CLEAN = "none"
"""Label of the row without an attack."""
PROBING = ("badnets", "blended")
"""Attacks that show the released model triggered samples, reported under their name."""
NO_TRIGGER = ("label", "clients", "fraction", "scale", "radius", "start", "stop", "every")
"""Options of a backdoor that do not change what its trigger looks like."""
OPTIONS = ("metric", "seeds", "clients", "attack", "defence")


@frozen
class Cell:
    """One course of a tournament and what it gave."""

    attack: str
    defence: str
    seed: int
    status: str = ""
    reason: str = ""
    metrics: Mapping[str, float | None] = {}
    """None: no finite number."""


@frozen
class Tournament:
    """What a file says: a course, and the attacks and defences that meet in it."""

    course: Tables
    attacks: Mapping[str, Tables]
    """Tables `[[attack]]` by label, `none` not among them."""
    defences: Mapping[str, Tables]
    """Tables `[aggregator]` by label."""
    seeds: tuple[int, ...]
    metric: str

    @classmethod
    def of(cls, path: Path) -> Tournament:
        """Read a course file with a table [tournament].

        Raises:
            ConfigError: with every problem of that table.
        """
        tables = read(path)
        given = tables.pop("tournament", None)
        if not isinstance(given, dict):
            raise ConfigError(f"tournament: {path} has no table [tournament]")
        problems = list(_problems(tables, given))
        if problems:
            raise ConfigError(problems)
        extra = {"clients": given["clients"]} if "clients" in given else {}
        attacks = _labelled([{**extra, **entry} for entry in given["attack"]])
        seeds = tuple(given.get("seeds", [tables.get("course", {}).get("seed", 0)]))
        metric = given.get("metric", "test_accuracy")
        return cls(tables, attacks, _labelled(given["defence"]), seeds, metric)

    def cells(self) -> Iterator[Cell]:
        """Yield every course: without an attack first, then attack by attack."""
        for attack in (CLEAN, *self.attacks):
            for defence in self.defences:
                yield from (Cell(attack, defence, seed) for seed in self.seeds)

    def tables(self, cell: Cell) -> Tables:
        """Return the course file of a cell; a clean one carries all attacks that control nobody, to probe the model."""
        tables = copy.deepcopy(self.course)
        tables.setdefault("course", {})["seed"] = cell.seed
        tables["aggregator"] = dict(self.defences[cell.defence])
        fixed = list(tables.get("attack", []))
        if cell.attack != CLEAN:
            tables["attack"] = [*fixed, dict(self.attacks[cell.attack])]
        else:
            tables["attack"] = [*fixed, *self._probes()]
        tables.pop("reporter", None)
        return tables

    def _probes(self) -> list[Tables]:
        """Return one attack of each name that probes, controlling nobody."""
        from fs_byzantine.backdoor import BadNets, Blended

        probing = {BadNets.name, Blended.name}
        found = {
            a["use"]: {**a, "clients": 0} for a in self.attacks.values() if a["use"] in probing
        }
        return list(found.values())

    def check(self) -> None:
        """Assemble every pair once.

        Raises:
            ConfigError: with every problem of every pair.
        """
        import fscore

        problems: dict[str, None] = {}
        for cell in self.cells():
            if cell.seed != self.seeds[0]:
                continue
            try:
                fscore.load(self.tables(cell)).course()
            except ConfigError as error:
                for line in error.problems:
                    problems[f"{cell.attack} against {cell.defence}: {line}"] = None
        if problems:
            raise ConfigError(list(problems))

    def play(
        self,
        workers: int = 1,
        told: Callable[[Cell], None] = lambda cell: None,
        known: Mapping[str, Cell] | None = None,
    ) -> list[Cell]:
        """Run every course and return what each gave, in order; one that fails says so in its cell.

        Args:
            workers: processes; the result does not depend on it.
            told: called with each cell that is done.
            known: cells of an earlier play by `key`, which are not run again.

        Raises:
            ConfigError: the courses do not report the tournament's metric.
        """
        jobs = [(cell, self.tables(cell)) for cell in self.cells()]
        done = {key(cell, tables): cell for cell, tables in jobs}
        done |= {k: cell for k, cell in (known or {}).items() if k in done}
        left = [job for job in jobs if not done[key(*job)].status]
        for job, cell in zip(left, _played(left, workers), strict=True):
            self._measured(cell)
            done[key(*job)] = cell
            told(cell)
        return list(done.values())

    def _measured(self, cell: Cell) -> None:
        """Refuse a metric that courses do not report, as soon as one of them ended."""
        if cell.status != "failed" and self.metric not in cell.metrics:
            raise ConfigError(
                f"tournament.metric: the courses report no {self.metric!r}{nearest(self.metric, cell.metrics)}"
            )


def key(cell: Cell, tables: Tables) -> str:
    """Return a digest of what is played: the pair's labels and its course file."""
    text = json.dumps([cell.attack, cell.defence, tables], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _played(jobs: list[tuple[Cell, Tables]], workers: int) -> Iterator[Cell]:
    if workers == 1:
        yield from map(_run, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:
        try:
            yield from pool.map(_run, jobs)
        finally:  # who stops listening does not wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)


class Diary:
    """The cells that are done, one line of JSON each, so that a tournament that is interrupted goes on."""

    def __init__(self, path: Path, games: Tournament) -> None:
        self.path, self.games = path, games

    def note(self, cell: Cell) -> None:
        """Add a cell."""
        line = {"key": key(cell, self.games.tables(cell)), **asdict(cell)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> dict[str, Cell]:
        """Return what was noted, by key; lines that are torn, or of something else, are left out, and played again."""
        if not self.path.is_file():
            return {}
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                own = entry.pop("key")
                found[own] = Cell(**entry)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return found


def _problems(tables: Tables, given: Tables) -> Iterator[str]:
    for name in given:
        if name not in OPTIONS:
            yield f"tournament.{name}: unknown option of [tournament]{nearest(name, OPTIONS)}"
    for name in ("attack", "defence"):
        yield from _entry_problems(f"tournament.{name}", given.get(name))
    seeds = given.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        yield "tournament.seeds: expected a list of integers"
    if not isinstance(given.get("metric", ""), str):
        yield "tournament.metric: expected a string"
    if isinstance(seeds, list) and len(set(map(str, seeds))) < len(seeds):
        yield "tournament.seeds: a seed is there twice. Remedy: name each once."
    if "aggregator" in tables:
        yield "aggregator: a tournament takes it from [[tournament.defence]]. Remedy: remove this table."


def _entry_problems(key: str, entries: Any) -> Iterator[str]:
    if not isinstance(entries, list) or not entries:
        yield f"{key}: expected an array of tables, [[{key}]]"
        return
    labels = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
            yield f"{key}.{place}.use: missing; choose a component"
        else:
            labels.append(str(entry.get("label", entry["use"])))
    yield from _trigger_problems(key, entries)
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"{key}: two are called '{label}'. Remedy: give one of them another label."
    if CLEAN in labels:
        yield f"{key}: '{CLEAN}' is the row without an attack. Remedy: use another label."


def _trigger_problems(key: str, entries: list[Any]) -> Iterator[str]:
    for use in PROBING:
        triggers = [
            {k: v for k, v in entry.items() if k not in NO_TRIGGER}
            for entry in entries
            if isinstance(entry, dict) and entry.get("use") == use
        ]
        if any(trigger != triggers[0] for trigger in triggers):
            yield (
                f"{key}: two use '{use}' with different triggers, but their reports have one name. "
                "Remedy: play them in two tournaments."
            )


def _labelled(entries: list[Tables]) -> dict[str, Tables]:
    return {
        str(entry.get("label", entry["use"])): {k: v for k, v in entry.items() if k != "label"}
        for entry in entries
    }


def _run(job: tuple[Cell, Tables]) -> Cell:
    import fscore

    cell, tables = job
    try:
        result = fscore.load(tables).run()
    except FscoreError as error:
        return Cell(cell.attack, cell.defence, cell.seed, "failed", str(error))
    metrics = {n: float(v) if math.isfinite(v) else None for n, v in result.metrics.items()}
    return Cell(cell.attack, cell.defence, cell.seed, result.status, result.reason, metrics)


def plain(tournament: Tournament, cells: list[Cell]) -> dict[str, Any]:
    """Return a tournament and its cells as data for JSON."""
    return {**asdict(tournament), "cells": [asdict(cell) for cell in cells]}
