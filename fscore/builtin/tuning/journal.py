"""What a search notes of itself, so that it can be killed: its tables, and one line per step that its tuner was told of."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import define, field

from fscore.builtin.record.directory import RunDirectory
from fscore.builtin.record.files import append_line, write_file, writing
from fscore.builtin.tuning.trials import Outcome
from fscore.config import Tables
from fscore.errors import SnapshotError
from fscore.kinds.tuner import Trial

if TYPE_CHECKING:
    from fscore.builtin.tuning.search import Finished

FORMAT = 1
TABLES, LINES = "search.json", "trials.jsonl"


@define(eq=False)
class Journal:
    """The files of one search; only one process at a time has it open."""

    folder: Path
    _record: RunDirectory
    _noted: dict[tuple[int, int], dict[str, Any]] = field(factory=dict, init=False)

    @classmethod
    def open(cls, folder: Path, tables: Tables, distributions: Mapping[str, str]) -> Self:
        """Begin a search in a folder, or take up the one of these tables.

        Raises:
            ConfigError: the folder cannot be made, or holds a run.
            SnapshotError: it holds another search, or another process is at it.
        """
        journal = cls(folder, RunDirectory.create(folder, "tune"))
        try:
            journal._begin(tables, distributions)
        except BaseException:
            journal._record.close()
            raise
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._record.close()

    def _begin(self, tables: Tables, distributions: Mapping[str, str]) -> None:
        path = self.folder / TABLES
        if path.exists():
            if read_tables(self.folder) != json.loads(json.dumps(tables)):
                raise SnapshotError(
                    f"{path}: this folder holds another search. Remedy: name another folder."
                )
        else:
            content = {"format": FORMAT, "tables": tables, "distributions": dict(distributions)}
            write_file(path, json.dumps(content, indent=2).encode() + b"\n")
        for line in self._lines():
            step = line["trial"], line["versions"]
            if step in self._noted:
                raise SnapshotError(
                    f"{self.folder / LINES}: trial {step[0]} at {step[1]} versions stands there twice"
                )
            self._noted[step] = line

    def _lines(self) -> list[dict[str, Any]]:
        """Return the whole lines; what a killed process left of the last one is cut off."""
        path = self.folder / LINES
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content.rpartition(b"\n")[0] + b"\n" if b"\n" in content else b""
        if len(whole) < len(content):
            with writing(path):
                os.truncate(path, len(whole))
        return [_checked(text, f"{path}: line {i}") for i, text in enumerate(whole.splitlines(), 1)]

    def outcome(self, trial: Trial) -> Outcome | None:
        """Return what is noted of a step.

        Raises:
            SnapshotError: something else was asked for when it was noted.
        """
        line = self._noted.pop((trial.id, trial.versions), None)
        if line is None:
            return None
        asked = {"params": json.loads(json.dumps(dict(trial.params))), "fork": trial.fork}
        if any(line[name] != value for name, value in asked.items()):
            raise SnapshotError(
                f"{self.folder / LINES}: trial {trial.id} was {line['params']}, and the tuner asks for {asked['params']} "
                "now. Remedy: use the versions of search.json, or begin a new search."
            )
        found = {f.name: line[f.name] for f in attrs.fields(Outcome) if f.name in line}
        return Outcome(
            **{
                **found,
                **line["total"],
                "stderr": _number(line["stderr"]),
                "value": _number(line["value"]),
            }
        )

    def end(self) -> None:
        """Note that the tuner asks for no more.

        Raises:
            SnapshotError: there are lines that it did not ask for.
        """
        if self._noted:
            trial, versions = next(iter(self._noted))
            raise SnapshotError(
                f"{self.folder / LINES}: the tuner never asked for trial {trial} at {versions} versions. Remedy: use the "
                "versions of search.json, or begin a new search."
            )

    def append(self, done: Finished, privacy: str) -> None:
        """Note a step, and what holds for its privacy; it is on the disk when this returns."""
        path = self.folder / LINES
        text = json.dumps({**line_of(done), "privacy": privacy}, allow_nan=False).encode()
        append_line(path, text)
        with writing(path), path.open("rb") as file:
            os.fsync(file.fileno())


COSTS = ("versions", "client_updates", "virtual_time")
"""Units of a budget."""
FIELDS = {
    "trial": int,
    "params": dict,
    "versions": int,
    "fork": int | None,
    "value": int | float | None,
    "clients": int,
    "stderr": int | float | None,
    "total": dict,
    "digest": str,
    "figures": dict,
    "reason": str,
}
"""What is read of a line."""


def line_of(done: Finished) -> dict[str, Any]:
    """Return the line of a step: what was asked, what it gave, what it cost alone and with what went before."""
    trial, outcome = done.trial, done.outcome
    return {
        "trial": trial.id,
        "params": dict(trial.params),
        "versions": trial.versions,
        "fork": trial.fork,
        "value": _finite(outcome.value),
        "clients": outcome.clients,
        "stderr": _finite(outcome.stderr),
        "cost": dict(done.cost),
        "total": {name: getattr(outcome, name) for name in COSTS},
        "digest": outcome.digest,
        "figures": {name: _finite(value) for name, value in outcome.figures.items()},
        "reason": outcome.reason,
    }


def read_tables(folder: Path) -> Tables:
    """Return the tables of the search in a folder.

    Raises:
        SnapshotError: there is none, or of another format.
    """
    path = folder / TABLES
    if not path.is_file():
        raise SnapshotError(f"{folder}: not the folder of a search, it has no {TABLES}")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise SnapshotError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SnapshotError(f"{path}: not a search of format {FORMAT}")
    tables = content.get("tables")
    if not isinstance(tables, dict):
        raise SnapshotError(f"{path}: it holds no course file")
    return tables


def _checked(text: bytes, where: str) -> dict[str, Any]:
    """Return a line of `trials.jsonl`.

    Raises:
        SnapshotError: it is damaged.
    """
    try:
        line = json.loads(text)
    except ValueError as error:
        raise SnapshotError(f"{where}: not JSON: {error}") from error
    wrong = [
        n
        for n, types in FIELDS.items()
        if not isinstance(line, dict) or n not in line or not isinstance(line[n], types)
    ]
    if not wrong and set(line["total"]) != set(COSTS):
        wrong = ["total"]
    if wrong:
        raise SnapshotError(
            f"{where}: '{wrong[0]}' is missing or damaged. Remedy: cut the file before this line."
        )
    return dict(line)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
