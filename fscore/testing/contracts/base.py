"""What holds for a component of any kind."""

# ruff: noqa: S101
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tomli

from fscore.builtin.record.resume import codec
from fscore.component import Component, options_of, states_of
from fscore.config import Tables
from fscore.kinds import kind_of
from fscore.tasks import Cohort, Task
from fscore.testing.course import tiny_course

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.result import Result


class Described:
    """It says what it is."""

    def make(self) -> Any:
        """Return a fresh component."""
        raise NotImplementedError("return your component from make()")

    def test_has_a_name_and_a_docstring(self) -> None:
        made = self.make()
        assert made.name
        assert (type(made).__doc__ or "").strip()

    def test_every_option_is_documented(self) -> None:
        undocumented = [a.name for a in options_of(type(self.make())) if not a.metadata["doc"]]
        assert undocumented == []


class ComponentContract(Described):
    """What holds for a component of any kind: it runs in a course, repeats, and survives a snapshot."""

    toml = ""
    """Tables that the tiny course needs for this component."""
    versions = 3
    """Versions that the tiny course makes."""

    def course(self, **changes: Any) -> Course:
        """Return a tiny course with the component in its place."""
        tables = tomli.loads(self.toml)
        given = self.place(self.make(), tables)
        return tiny_course(tables, given=given, changes=changes)

    def place(self, made: Component, tables: Tables) -> dict[str, Component]:
        """Put the component into the tables, or return it by the table that it stands in for."""
        kind = kind_of(type(made))
        if kind is None or not kind.table:
            raise AssertionError(f"{made.name}: no table of a course file holds such a component")
        return {f"{kind.table}.0" if kind.many else kind.table: made}

    def finished(self, course: Course) -> Result:
        """Run a course to its end."""
        result = course.run()
        assert result is not None
        assert result.status == "complete", result.reason
        return result

    def test_a_course_with_it_reaches_its_end(self) -> None:
        assert self.finished(self.course()).versions == self.versions

    def test_the_same_seed_gives_the_same_bits(self) -> None:
        assert self.finished(self.course()).digest == self.finished(self.course()).digest

    def test_options_do_not_change_while_it_runs(self) -> None:
        course = self.course()
        before = self._options(course)
        self.finished(course)
        assert self._options(course) == before

    def test_a_snapshot_in_the_middle_changes_nothing(self) -> None:
        whole = self.finished(self.course())
        course = self.course()
        course.run(lambda c: c.book.version == 1)
        coder = codec(course)
        document, tensors = coder.encode(course.dump())
        other = self.course()
        other.load(coder.decode(document, tensors))
        assert self.finished(other).digest == whole.digest

    def test_state_is_plain_data(self) -> None:
        course = self.course()
        self.finished(course)
        states = {n: getattr(c, n) for c in course.components.values() for n in states_of(c)}
        codec(course).encode(states)

    @staticmethod
    def _options(course: Course) -> dict[str, str]:
        return {
            f"{table}.{a.name}": repr(getattr(c, a.name))
            for table, c in course.components.items()
            for a in options_of(type(c))
        }


def cohort(staleness: Sequence[int]) -> Cohort:
    """Return a cohort of one task per entry."""
    newest = max(staleness, default=0)
    tasks = tuple(Task(i, i, newest - tau) for i, tau in enumerate(staleness))
    return Cohort(1, tasks, tuple(staleness))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of tensors have the same names and values."""
    return one.keys() == other.keys() and all(bool((v == other[n]).all()) for n, v in one.items())


def plain_course(toml: str | Tables = "", **changes: Any) -> Course:
    """Return a tiny course of built-in components alone."""
    return tiny_course(tomli.loads(toml) if isinstance(toml, str) else toml, changes=changes)
