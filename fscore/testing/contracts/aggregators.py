"""The suite for aggregators, linear and reducing."""

# ruff: noqa: S101
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import tomli
from attrs import define

from fscore.builtin.trainers import SGD
from fscore.errors import ConfigError
from fscore.params import Group, Layout
from fscore.tasks import Cohort, Output, Task
from fscore.testing.contracts.base import ComponentContract, cohort
from fscore.testing.course import tiny_course

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import ParamSpace, Tensors


@define(eq=False, slots=False)
class Tallying(SGD):
    """Sends a group that is added up, besides the model."""

    name = "tallying"

    def groups(self, space: ParamSpace) -> Layout:
        return {**super().groups(space), "tally": Group((3,), reduce="sum")}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        return _with_zeros(super().finish(variables, context), {"tally": 3})


@define(eq=False, slots=False)
class Counting(SGD):
    """Sends a group whose values are divided by their own counts, besides the model."""

    name = "counting"

    def groups(self, space: ParamSpace) -> Layout:
        counted = {"parts": Group((2,), count="hits"), "hits": Group((2,), reduce="sum")}
        return {**super().groups(space), **counted}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        return _with_zeros(super().finish(variables, context), {"parts": 2, "hits": 2})


def _with_zeros(
    finished: tuple[Tensors, Tensors], sizes: Mapping[str, int]
) -> tuple[Tensors, Tensors]:
    """Return what a trainer sends with groups of zeros, where real updates are computed beside those of the test."""
    groups, rows = finished
    lead = groups["model"].shape[:-1]
    zeros = {name: groups["model"].new_zeros(*lead, size) for name, size in sizes.items()}
    return {**groups, **zeros}, rows


class AggregatorContract(ComponentContract):
    """For aggregators, linear and reducing. What is aggregated goes the way of a course, from updates to the direction."""

    clients = 6
    """Updates of a cohort."""
    width = 5
    """Values of the updates that `reduced` is given."""

    # ------------------------------------------------------------------------ public numbers

    def test_factors_are_finite_and_one_per_task(self) -> None:
        factors = self.make().factors(cohort([0, 1, 5]))
        assert len(factors) == 3
        assert all(math.isfinite(f) and f >= 0 for f in factors)

    def test_a_fresh_update_counts_no_less_than_a_stale_one(self) -> None:
        fresh, stale = self.make().factors(cohort([0, 9]))
        assert fresh >= stale

    def test_the_denominator_is_positive(self) -> None:
        assert self.make().denominator([1.0, 1.0], [3.0, 5.0]) > 0

    # ------------------------------------------------------------------------ values

    def test_equal_updates_give_that_update(self) -> None:
        rows = self._rows().mean(dim=0).repeat(6, 1)
        self._assert_reduces(rows, rows[0])

    def test_the_order_of_clients_does_not_matter(self) -> None:
        rows = self._rows()
        self._assert_reduces(rows.flip(0), self.reduced(rows))

    def test_scaling_all_updates_scales_the_result(self) -> None:
        rows = self._rows()
        self._assert_reduces(4 * rows, 4 * self.reduced(rows))

    def test_one_update_is_possible(self) -> None:
        rows = self._rows()[:1]
        assert self.reduced(rows).shape == (self.width,)

    # ------------------------------------------------------------------------ on the way of a course

    def test_a_weighted_sum_is_the_slow_mean_in_float64_in_any_chunking(self) -> None:
        """sum(factor weight update) / denominator, whichever partial sums it was made of."""
        self._linear()
        rows, weights, staleness = self._cohort()
        for chunk in (1, 2, self.clients):
            course = self.course(**{"executor.chunk": chunk})
            self._close(
                self.direction(course, rows, weights, staleness),
                self.slow(course, rows, weights, staleness),
            )

    def test_weights_and_their_scale(self) -> None:
        """Of a cohort whose weights are all doubled, the same multiple of the slow mean."""
        self._linear()
        rows, weights, staleness = self._cohort()
        course, doubled = self.course(), [2 * w for w in weights]
        self._close(
            self.direction(course, rows, doubled, staleness),
            self.slow(course, rows, doubled, staleness),
        )

    def test_the_chunking_of_a_cohort_changes_no_reduction(self) -> None:
        rows, weights, staleness = self._cohort()
        found = [
            self.direction(self.course(**{"executor.chunk": c}), rows, weights, staleness)
            for c in (1, self.clients)
        ]
        self._close(found[0], found[1])

    def test_a_failed_update_is_left_out(self) -> None:
        rows, weights, staleness = self._cohort()
        if len(rows) < 2:
            raise SkipTest("cohorts of one update")
        course = self.course()
        failed = self.direction(course, rows, weights, staleness, failed={1})
        rest = [i for i in range(len(rows)) if i != 1]
        others = self.direction(
            self.course(),
            rows[rest],
            [weights[i] for i in rest],
            [staleness[i] for i in rest],
            clients=rest,
        )
        self._close(failed, others)

    def test_an_empty_cohort_moves_nothing(self) -> None:
        course = self.course()
        if self.least(course) > 0 and course.sampler.scheme != "poisson":
            course = self._poisson()
        course.executor.start(course.site)
        opened = course.opener.open(Cohort(1, (), ()))
        moved = course.opener.mean(opened, course.streams.generator("test"))
        assert {n: bool(v.any()) for n, v in moved.items()} == dict.fromkeys(moved, False)

    def test_groups_to_be_summed_are_added_up(self) -> None:
        import torch

        rows, weights, staleness = self._cohort()
        tally = torch.arange(3.0 * len(rows)).view(len(rows), 3)
        course = self._with(Tallying())
        moved = self.groups(course, rows, weights, staleness, {"tally": tally})
        torch.testing.assert_close(moved["tally"], tally.sum(dim=0))

    def test_groups_with_a_count_are_divided_by_it(self) -> None:
        import torch

        self._linear()
        rows, weights, staleness = self._cohort()
        parts = torch.rand(len(rows), 2, generator=torch.Generator().manual_seed(5))
        hits = torch.arange(1.0, 1 + 2 * len(rows)).view(len(rows), 2)
        course = self._with(Counting())
        moved = self.groups(course, rows, weights, staleness, {"parts": parts, "hits": hits})
        factors = torch.tensor(self._scales(course, weights, staleness), dtype=torch.float64)
        expected = (factors[:, None] * parts.double()).sum(0) / hits.double().sum(0)
        torch.testing.assert_close(moved["parts"].double(), expected, atol=1e-5, rtol=1e-4)

    def test_the_direction_is_finite_float32_of_the_shape_of_the_model(self) -> None:
        import torch

        rows, weights, staleness = self._cohort()
        course = self.course()
        moved = self.direction(course, rows, weights, staleness)
        assert (moved.dtype, tuple(moved.shape)) == (torch.float32, (course.space.size,))
        assert bool(torch.isfinite(moved).all())

    # ------------------------------------------------------------------------ how it is done

    def slow(
        self,
        course: Course,
        rows: torch.Tensor,
        weights: Sequence[float],
        staleness: Sequence[int],
    ) -> torch.Tensor:
        """Return the expected direction (P,) in float64, update after update.

        Override it where `finish` makes something else of the mean.
        """
        import torch

        total = torch.zeros(rows.shape[1], dtype=torch.float64)
        stated = self._stated(course, weights)
        factors = course.aggregator.factors(cohort(staleness))
        for factor, weight, row in zip(factors, stated, rows, strict=True):
            total += factor * weight * row.double()
        return total / float(course.aggregator.denominator(factors, stated))

    def direction(self, course: Course, *cohort: Any, **how: Any) -> torch.Tensor:
        """Return what a cohort moves the model by (P,); arguments as of `groups`."""
        moved: Tensors = self.groups(course, *cohort, **how)
        return moved["model"]

    def groups(
        self,
        course: Course,
        rows: torch.Tensor,
        weights: Sequence[float],
        staleness: Sequence[int],
        more: Tensors | None = None,
        *,
        failed: Sequence[int] | set[int] = (),
        clients: Sequence[int] | None = None,
    ) -> Tensors:
        """Return the groups that a course makes of a cohort of given updates.

        Args:
            course: one that has not begun.
            rows: (clients, P) updates of the group `model`.
            weights: their weights in the mean, where the path states any.
            staleness: of each update, in versions.
            more: further groups, (clients, ...).
            failed: places of updates that failed.
            clients: their ids; default: 0, 1, 2, ...
        """
        course.executor.start(course.site)
        newest = max(staleness)
        self._publish(course, newest)
        names = clients or range(len(rows))
        tasks = tuple(Task(i, c, newest - staleness[i]) for i, c in enumerate(names))
        for i, task in enumerate(tasks):
            values = self._values(course, rows[i], weights[i])
            values.update({name: v[i] for name, v in (more or {}).items()})
            error = "it failed" if i in failed else ""
            course.opener.outputs[task.id] = Output(task.id, {} if error else values, error=error)
        opened = course.opener.open(Cohort(1, tasks, tuple(staleness)))
        return course.opener.mean(opened, course.streams.generator("test"))

    @staticmethod
    def _publish(course: Course, newest: int) -> None:
        """Make versions that are all the first, and keep them."""
        first = course.bank[0]
        for _ in range(newest):
            course.publish(dict(first), Cohort(0, (), ()))
        course.bank.update(dict.fromkeys(range(newest + 1), first))

    def least(self, course: Course) -> int:
        """Return the fewest updates that a cohort of this course can have."""
        return 0 if course.sampler.scheme == "poisson" else 1

    def _values(self, course: Course, row: torch.Tensor, weight: float) -> Tensors:
        import torch

        values = {"model": row, "metrics": torch.zeros(2, dtype=torch.float64)}
        if "weight" in course.site.upload.single:
            values["weight"] = torch.tensor(weight, dtype=torch.float64)
        return values

    def _cohort(self) -> tuple[torch.Tensor, list[float], list[int]]:
        import torch

        size = self.course().space.size
        rows = torch.randn(self.clients, size, generator=torch.Generator().manual_seed(4))
        weights = [float(5 + 3 * i) for i in range(self.clients)]
        return rows, weights, [i % 3 for i in range(self.clients)]

    @staticmethod
    def _stated(course: Course, weights: Sequence[float]) -> list[float]:
        known = "weight" in course.site.upload.single
        return [float(w) if known else 1.0 for w in weights]

    def _scales(
        self, course: Course, weights: Sequence[float], staleness: Sequence[int]
    ) -> list[float]:
        factors = course.aggregator.factors(cohort(staleness))
        return [f * w for f, w in zip(factors, self._stated(course, weights), strict=True)]

    def _linear(self) -> None:
        if self.make().individual:
            raise SkipTest("it reduces single updates")

    def _with(self, trainer: SGD) -> Course:
        tables = tomli.loads(self.toml)
        given = self.place(self.make(), tables)
        try:
            return tiny_course(tables, given={**given, "trainer": trainer})
        except ConfigError as error:
            raise SkipTest(f"it refuses such groups: {error.problems[0]}") from error

    def _poisson(self) -> Course:
        tables = tomli.loads(self.toml)
        tables["sampler"] = {"use": "poisson", "clients": 0.5}
        try:
            return tiny_course(tables, given=self.place(self.make(), tables))
        except ConfigError as error:
            raise SkipTest(f"its cohorts are never empty: {error.problems[0]}") from error

    @staticmethod
    def _close(one: torch.Tensor, other: torch.Tensor) -> None:
        import torch

        torch.testing.assert_close(one.double(), other.double(), atol=1e-5, rtol=1e-4)

    def _assert_reduces(self, rows: torch.Tensor, expected: torch.Tensor) -> None:
        self._close(self.reduced(rows), expected)

    def reduced(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what it makes of fresh updates (clients, width) of equal weights, outside a course."""
        import torch

        made: Any = self.make()
        weights = torch.ones(len(rows), dtype=torch.float64)
        if made.individual:
            return made.reduce(rows.clone(), weights)  # type: ignore[no-any-return]
        total = made.denominator([1.0] * len(rows), [1.0] * len(rows))
        return torch.sum(rows, dim=0) / float(total)

    def _rows(self) -> torch.Tensor:
        import torch

        return torch.randn(6, self.width, generator=torch.Generator().manual_seed(3))
