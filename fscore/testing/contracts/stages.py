"""The suites for what lies on the path between client and server: stages, compressors, privacy mechanisms, attacks."""

# ruff: noqa: S101
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import tomli
from attrs import define, field, frozen

from fscore.builtin.views import VIEWS
from fscore.component import Component
from fscore.kinds import kind_of
from fscore.params import Layout, Tensors
from fscore.paths import Placed, Stage
from fscore.tasks import Task
from fscore.testing.contracts.base import ComponentContract, cohort, same
from fscore.testing.course import tiny_course

if TYPE_CHECKING:
    from fscore.course import Course


@frozen
class Passage:
    """One call of a stage, with copies of what went in."""

    stage: Stage
    given: Tensors
    still: Tensors
    """The tensors that went in, as they are afterwards."""
    made: Tensors
    row: Tensors
    before: Layout
    after: Layout
    rows: Layout


class PathContract:
    """For a component that puts stages on the path: `class TestMine(PathContract, PrivacyContract)`, beside the suite of its kind."""

    def make(self) -> Any:
        """Return a fresh component."""
        raise NotImplementedError("return your component from make()")

    def course(self, **changes: Any) -> Course:
        """Return a tiny course with the stages on its path."""
        return super().course(**changes)  # type: ignore[misc,no-any-return]

    def owns(self, place: Placed) -> bool:
        """Whether a stage on the path is one of those in question."""
        kind = kind_of(type(self.make()))
        table = kind.table if kind else ""
        return place.owner == (f"{table}.0" if kind and kind.many else table)

    def passages(self, versions: int = 2) -> list[Passage]:
        """Return what went through the stages while a course made some versions."""
        course = self.course()
        seen: list[Passage] = []
        for path in (course.site.upload, course.site.download):
            for index, place in enumerate(path.placed):
                if self.owns(place):
                    layouts = (path.layouts[index], path.layouts[index + 1])
                    _watch(place.stage, layouts, seen.append)
        course.run(lambda c: c.book.version == versions)
        return seen

    def test_stages_have_a_name_and_a_rank(self) -> None:
        stages = self._stages(self.course())
        assert stages
        assert all(stage.name and stage.rank >= 0 for stage in stages)

    def test_the_layout_follows_from_the_layout_before(self) -> None:
        """Asked twice, a stage says the same, and leaves what it was given alone."""
        course = self.course()
        for path in (course.site.upload, course.site.download):
            for index, place in enumerate(path.placed):
                if self.owns(place):
                    before = dict(path.layouts[index])
                    assert place.stage.layout(before) == path.layouts[index + 1]
                    assert before == path.layouts[index]

    def test_values_have_the_declared_form(self) -> None:
        for passage in self.passages():
            made = {n: (tuple(v.shape), _dtype(v)) for n, v in passage.made.items()}
            assert made == {n: (g.shape, g.dtype) for n, g in passage.after.items()}

    def test_rows_have_the_declared_form(self) -> None:
        for passage in self.passages():
            rows = {n: (tuple(v.shape), _dtype(v)) for n, v in passage.row.items()}
            declared = {n: (g.shape, g.dtype) for n, g in passage.rows.items()}
            assert rows == {n: declared[n] for n in rows}

    def test_nothing_is_written_into_what_was_given(self) -> None:
        for passage in self.passages():
            assert same(passage.given, passage.still)

    def test_public_groups_pass_unchanged(self) -> None:
        for passage in self.passages():
            public = [n for n, g in passage.before.items() if g.public]
            for name in (n for n in public if n in passage.after and passage.after[n].public):
                assert bool((passage.made[name] == passage.given[name]).all())

    def _stages(self, course: Course) -> list[Stage]:
        placed = (*course.site.upload.placed, *course.site.download.placed)
        return [place.stage for place in placed if self.owns(place)]


def _watch(stage: Stage, layouts: tuple[Layout, Layout], note: Callable[[Passage], None]) -> None:
    apply, rows = stage.apply, stage.row(layouts[0])

    def watched(values: Tensors, context: Any) -> tuple[Tensors, Tensors]:
        given = {name: value.clone() for name, value in values.items()}
        made, row = apply(values, context)
        note(Passage(stage, given, _copies(values), _copies(made), _copies(row), *layouts, rows))
        return made, row

    stage.apply = watched  # type: ignore[method-assign]


def _copies(tensors: Tensors) -> Tensors:
    return {name: value.clone() for name, value in tensors.items()}


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


@define(eq=False)
class Carrier(Component):
    """Puts one stage on the path."""

    name = "carrier"
    stage: Stage = field()

    def stages(self) -> Iterable[Stage]:
        return (self.stage,)


class StageContract(PathContract):
    """For a stage by itself: declared forms, nothing written in place, the same in workers and for many clients at once."""

    toml = ""
    """Tables that the tiny course needs for this stage."""
    error: float | None = None
    """Largest error of `undo` after `apply`; None: it is not to be undone, or loses something on purpose."""

    def make(self) -> Stage:
        """Return a fresh stage."""
        raise NotImplementedError("return your stage from make()")

    def course(self, **changes: Any) -> Course:
        """Return a tiny course with the stage on its path."""
        tables = tomli.loads(self.toml)
        return tiny_course(tables, plugins=[Carrier(stage=self.make())], changes=changes)

    def owns(self, place: Placed) -> bool:
        """Whether a stage on the path is the one in question."""
        return place.owner == Carrier.name

    def test_a_course_with_it_reaches_its_end(self) -> None:
        result = self.course().run()
        assert result is not None
        assert result.status == "complete", result.reason

    def test_the_same_seed_gives_the_same_bits(self) -> None:
        results = [self.course().run() for _ in range(2)]
        assert len({result.digest for result in results if result}) == 1

    def test_workers_compute_the_same_bits(self) -> None:
        alone = self.course().run()
        workers = self.course(**{"executor.use": "process", "executor.workers": 2}).run()
        assert alone is not None
        assert workers is not None
        assert workers.digest == alone.digest

    def test_many_clients_at_once_give_nearly_the_same_model(self) -> None:
        """`lifts` says that `apply` serves values with a leading axis of clients."""
        import torch

        if not self.make().lifts:
            raise SkipTest("it serves one client at a time")
        alone = self.course().run()
        many = self.course(**{"executor.use": "cohort"}).run()
        assert alone is not None
        assert many is not None
        for name, slot in alone.model.items():
            torch.testing.assert_close(many.model[name], slot, atol=1e-4, rtol=1e-3)

    def test_what_is_undone_is_what_was_sent(self) -> None:

        import torch

        if self.error is None:
            raise SkipTest("it is not undone, or loses something on purpose")
        for passage in self.passages():
            undone = passage.stage.undo(passage.made, cohort([0]))
            for name, value in passage.given.items():
                torch.testing.assert_close(undone[name], value, atol=self.error, rtol=0)


class CompressorContract(PathContract, ComponentContract):
    """For compressors: their stages, the ranks of these, and what the server can read."""

    def test_its_ranks_are_those_of_compression(self) -> None:
        assert {stage.rank for stage in self._stages(self.course())} <= {40, 95}

    def test_the_server_can_read_what_arrives(self) -> None:
        """After undoing, the model's group has the shape of its slot again."""
        course = self.course()
        shapes = {n: g.shape for n, g in course.trainer.groups(course.space).items()}
        rng = course.streams.generator("test")
        course.executor.start(course.site)
        tasks = course.issue(list(course.sample(2)))
        for task in tasks:
            course.book.arrive(task.id, 0.5)
        moved = course.opener.mean(course.opener.open(course.book.claim(tasks)), rng)
        assert {n: tuple(moved[n].shape) for n in shapes} == shapes


class PrivacyContract(ComponentContract):
    """For privacy mechanisms: releases, announcements, noise in the shapes of the groups."""

    def test_releases_are_events(self) -> None:
        from fscore.events import Released

        made: Any = self.course().privacy[0]
        assert all(isinstance(r, Released) for r in made.releases(cohort([0])))

    def test_announcements_are_plain(self) -> None:
        announced = self.make().announce()
        assert all(isinstance(v, bool | int | float | str) for v in announced.values())

    def test_noise_meets_every_group_in_its_shape(self) -> None:
        import torch

        course = self.course()
        sums = {
            n: torch.zeros(g.shape) for n, g in course.site.upload.single.items() if not g.public
        }
        noised = course.privacy[0].privatise(dict(sums), cohort([0]), course.streams.generator("t"))
        assert {n: v.shape for n, v in noised.items()} == {n: v.shape for n, v in sums.items()}


class AttackContract(ComponentContract):
    """For attacks: whom they control, what they may see, poisoned data that fit."""

    def test_it_controls_only_clients_that_exist(self) -> None:
        course = self.course()
        rng = course.streams.generator("test")
        controlled = course.attacks[0].controls(course.population, rng)
        assert all(0 <= client < course.population.size for client in controlled)

    def test_it_sees_only_what_can_be_seen(self) -> None:
        assert self.make().sees <= set(VIEWS)

    def test_the_same_numbers_give_it_the_same_clients(self) -> None:
        course = self.course()
        drawn = [
            course.attacks[0].controls(course.population, course.streams.generator("test"))
            for _ in range(2)
        ]
        assert drawn[0] == drawn[1]

    def test_poisoned_data_have_their_shapes(self) -> None:
        course = self.course()
        unused = ("losses", "outputs", "features", "differentiate", "per_sample")
        for _, clients in course.site.attacks:
            for client in sorted(clients)[:2]:
                data = course.site.data(client, "train")
                job = course.opener.job(Task(client, client, 0))
                poisoned = course.site.context(job, **dict.fromkeys(unused)).data
                assert poisoned.x.shape[1:] == data.x.shape[1:]
                assert poisoned.y.shape[1:] == data.y.shape[1:]
                assert len(poisoned.x) == len(poisoned.y) >= 1


__all__ = [
    "AttackContract",
    "CompressorContract",
    "PathContract",
    "PrivacyContract",
    "StageContract",
]
