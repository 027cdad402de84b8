"""Where each trial of a search comes from, and the course file that gives the same model in one piece.

A trial that was forked, or that goes on with other options, has segments: from which version on which options hold. The
first segment's options stand in the course's tables, later ones in the steps of a policy `schedule`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

from attrs import define, field, frozen

from fscore.builtin.tables import put
from fscore.component import Component, Scalar, per_client_options
from fscore.config import Tables
from fscore.errors import PluginError
from fscore.kinds.tuner import Trial


@frozen
class Segment:
    """Options that hold from a version on."""

    version: int
    params: Mapping[str, Scalar]


@define(eq=False)
class Lineage:
    """The trials of a search by id, on one course file."""

    tables: Tables
    versions: int
    """Versions of a full trial: the horizon of every course, however far it is run."""
    components: Mapping[str, Component]
    """Of the course as the file has it; they say which options may differ by task."""
    segments: dict[int, tuple[Segment, ...]] = field(factory=dict, init=False)
    reached: dict[int, int] = field(factory=dict, init=False)
    """Version up to which each trial was asked for."""

    def enter(self, trials: Sequence[Trial], busy: Collection[int] = ()) -> list[int]:
        """Enter what a tuner asks for at once; return the versions at which the trials begin.

        Args:
            trials: forks among them start from where their sources stood before.
            busy: trials under way.

        Raises:
            PluginError: the tuner asks for what cannot be run.
        """
        segments, reached = dict(self.segments), dict(self.reached)
        begins = []
        for trial in trials:
            begin, past = self._origin(trial, segments, reached, busy)
            if not past or dict(past[-1].params) != dict(trial.params):
                past = (*past, Segment(begin, trial.params))
            self._steps(past)
            self.segments[trial.id], self.reached[trial.id] = past, trial.versions
            begins.append(begin)
        return begins

    def _origin(
        self,
        trial: Trial,
        segments: Mapping[int, tuple[Segment, ...]],
        reached: Mapping[int, int],
        busy: Collection[int],
    ) -> tuple[int, tuple[Segment, ...]]:
        known = trial.id in reached
        source = trial.id if trial.fork is None else trial.fork
        begin = reached.get(source, 0)
        if trial.fork is not None and (known or trial.fork not in reached):
            raise PluginError(
                f"tuner: trial {trial.id} is forked from {trial.fork}: expected a new id and a known source"
            )
        if source in busy or trial.id in busy:
            raise PluginError(f"tuner: trial {source} is under way and was asked for again")
        if not begin < trial.versions <= self.versions:
            raise PluginError(
                f"tuner: trial {trial.id} was asked for at {trial.versions} versions: expected more than {begin}, "
                f"and {self.versions} at most"
            )
        return begin, segments.get(source, ())

    def course(self, trial: int, *, data: Tables | None = None, until: int | None = None) -> Tables:
        """Return the course file of a trial, without its search and reporters.

        Args:
            trial: its id.
            data: a table that replaces `[data]`.
            until: versions; default: the horizon.
        """
        tables = self.with_params(self.segments[trial][0].params, data)
        direct, steps = self._steps(self.segments[trial])
        for key, value in direct.items():
            put(tables, key, value)
        if steps:
            tables.setdefault("policy", []).append({"use": "schedule", "steps": steps})
        tables["course"]["until"] = {"versions": until or self.versions}
        return tables

    def with_params(self, params: Mapping[str, Scalar], data: Tables | None = None) -> Tables:
        """Return the course file with options set; arguments as in `course`."""
        tables = copy.deepcopy(self.tables)
        tables.pop("tune", None)
        tables["reporter"] = []
        if data:
            tables["data"] = copy.deepcopy(data)
        for key, value in params.items():
            put(tables, key, value)
        tables.setdefault("course", {})["until"] = {"versions": self.versions}
        return tables

    def _steps(self, segments: Sequence[Segment]) -> tuple[Tables, list[Tables]]:
        """Return what later segments change: options of the evaluation, which move nothing, and steps of a schedule."""
        direct: Tables = {}
        steps: list[Tables] = []
        first, values = segments[0].params, dict[str, Scalar]()
        for segment in segments[1:]:
            for key, value in segment.params.items():
                if key.startswith("evaluation."):
                    direct[key] = value
                elif first.get(key) != value or key in values:
                    self._may_change(key)
                    values[key] = value
            steps.append({"version": segment.version, "values": dict(values)})
        return direct, [step for step in steps if step["values"]]

    def _may_change(self, key: str) -> None:
        if not changeable(self.components, key):
            raise PluginError(
                f"tuner: '{key}' changes in the middle of a course, but only options that may differ by task can"
            )


def changeable(components: Mapping[str, Component], key: str) -> bool:
    """Whether an option may differ by task, so that it may change while a course runs."""
    table, _, name = key.rpartition(".")
    return table in components and name in per_client_options(components[table])
