"""The suites for what lies at the clients: trainers, models, objectives, metrics, data sets, partitions."""

# ruff: noqa: S101
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from fscore.component import Component
from fscore.config import Tables
from fscore.kinds.dataset import PARTS
from fscore.params import ParamSpace
from fscore.tasks import Batch, Task
from fscore.testing.contracts.base import ComponentContract

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from fscore.context import Samples
    from fscore.course import Course

Pair = tuple["torch.Tensor", "torch.Tensor"]


class TrainerContract(ComponentContract):
    """For local algorithms: declared shapes, tasks that change nothing, no move at a learning rate of 0."""

    def test_groups_have_the_declared_shapes(self) -> None:
        course = self.course()
        layout = course.site.upload.single
        outputs = self._outputs(course)
        shapes = {n: tuple(v.shape) for n, v in outputs.values.items()}
        assert shapes == {n: g.shape for n, g in layout.items()}

    def test_rows_have_the_declared_shapes(self) -> None:
        course = self.course()
        row = self._outputs(course).row
        assert {n: tuple(v.shape) for n, v in row.items()} == {
            n: course.site.rows[n].shape for n in row
        }

    def test_computing_a_task_changes_nothing(self) -> None:
        course = self.course()
        before = {n: v.clone() for n, v in course.bank[0].items()}
        first, second = self._outputs(course), self._outputs(course)
        for name, value in before.items():
            assert bool((course.bank[0][name] == value).all())
        for name, value in first.values.items():
            assert bool((value == second.values[name]).all())

    def test_work_does_not_depend_on_values(self) -> None:
        course = self.course()
        assert course.site.seconds_of_work(Task(0, 0, 0)) >= 0

    def test_a_learning_rate_of_zero_moves_nothing(self) -> None:
        course = self.course()
        task = Task(0, 0, 0, hparams={"trainer.lr": 0.0})
        course.opener.compute([task])
        values, layout = course.opener.outputs[0].values, course.site.upload.single
        moved = [n for n, g in layout.items() if g.slot == "model" and bool(values[n].any())]
        assert moved == []

    @staticmethod
    def _outputs(course: Course) -> Any:
        batch = Batch((course.opener.job(Task(0, 0, 0)),), sum=False)
        (done,) = course.executor.compute([batch])
        return done.outputs[0]

    def course(self, **changes: Any) -> Course:
        """Return a tiny course whose executor is ready."""
        course = super().course(**changes)
        course.executor.start(course.site)
        return course


class ModelContract(ComponentContract):
    """For models, on the data of the tiny course or those that `toml` names."""

    def test_the_same_seed_builds_the_same_parameters(self) -> None:
        one, other = self.course().initial, self.course().initial
        assert bool((one == other).all())

    def test_every_module_that_it_builds_is_its_own(self) -> None:
        course = self.course()
        built = [self._built(course) for _ in range(2)]
        addresses = [{p.data_ptr() for p in module.parameters()} for module in built]
        assert addresses[0] & addresses[1] == set()

    def test_each_sample_has_one_output_which_no_other_sample_changes(self) -> None:
        import torch

        course = self.course()
        module, x = course.module.eval(), self._samples(course).x
        with torch.no_grad():
            together = module(x)
            apart = torch.cat([module(x[i : i + 1]) for i in range(len(x))])
        assert len(together) == len(x)
        torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)

    def test_it_is_as_wide_as_there_are_classes(self) -> None:
        course = self.course()
        classes = course.dataset.classes()
        if classes is None:
            raise SkipTest("regression")
        assert course.module.eval()(self._samples(course).x).shape[-1] == classes

    def test_training_reaches_its_parameters(self) -> None:
        course = self.course()
        module, samples = course.module.train(), self._samples(course)
        course.objective.losses(module(samples.x), samples.y).mean().backward()
        with_gradient = [n for n, p in module.named_parameters() if p.grad is not None]
        assert with_gradient == [n for n, p in module.named_parameters() if p.requires_grad]

    def test_its_tensors_lie_in_one_flat_vector(self) -> None:
        course = self.course()
        module, flat = self._built(course), course.initial.clone()
        space = ParamSpace.of(module)
        space.bind(module, flat)
        flat.zero_()
        assert space.size == course.space.size
        assert not any(bool(p.any()) for p in module.parameters())

    def test_its_head_is_one_of_its_modules(self) -> None:
        course = self.course()
        names = [name for name, _ in course.module.named_modules() if name]
        assert course.model.head in ("", *names)

    @staticmethod
    def _built(course: Course) -> torch.nn.Module:
        with course.streams.torch("initialisation"):
            return course.model.build(course.example, course.dataset.classes())  # type: ignore[no-any-return]

    @staticmethod
    def _samples(course: Course) -> Samples:
        return course.site.data(0, "train")


class ObjectiveContract(ComponentContract):
    """For objectives: one loss per sample, each by itself, for many clients at once; `batch` gives outputs and targets."""

    def batch(self, samples: int) -> Pair:
        """Return outputs (samples, ...) of a model and targets (samples, ...); the first ones are always the same."""
        import torch

        numbers = torch.Generator().manual_seed(8)
        outputs = torch.randn(9, 3, generator=numbers)
        return outputs[:samples], torch.randint(3, (9,), generator=numbers)[:samples]

    def test_there_is_one_loss_per_sample(self) -> None:
        for samples in (1, 2, 5):
            losses = self.course().objective.losses(*self.batch(samples))
            assert tuple(losses.shape) == (samples,)

    def test_no_sample_changes_the_loss_of_another(self) -> None:
        import torch

        made = self.course().objective
        outputs, y = self.batch(5)
        apart = [made.losses(outputs[i : i + 1], y[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(made.losses(outputs, y), torch.cat(apart))

    def test_losses_are_finite(self) -> None:
        import torch

        assert bool(torch.isfinite(self.course().objective.losses(*self.batch(5))).all())

    def test_gradients_reach_the_outputs(self) -> None:
        import torch

        outputs, y = self.batch(5)
        outputs = outputs.clone().requires_grad_()
        self.course().objective.losses(outputs, y).sum().backward()
        assert outputs.grad is not None
        assert bool(torch.isfinite(outputs.grad).all())
        assert bool(outputs.grad.any())

    def test_many_clients_at_once_have_the_same_losses(self) -> None:
        """An executor lifts it over clients with `torch.func.vmap`."""
        import torch

        made, (outputs, y) = self.course().objective, self.batch(4)
        lifted = torch.func.vmap(made.losses)(
            torch.stack([outputs, outputs.flip(0)]), torch.stack([y, y.flip(0)])
        )
        expected = torch.stack([made.losses(outputs, y), made.losses(outputs.flip(0), y.flip(0))])
        torch.testing.assert_close(lifted, expected)

    def test_its_metrics_exist(self) -> None:
        course = self.course()
        assert [m.name for m in course.evaluator.judges()] == list(self.make().metrics)


class MetricContract(ComponentContract):
    """For metrics: sums that add up over batches; `batch` gives outputs and targets."""

    def batch(self, samples: int) -> Pair:
        """Return outputs (samples, ...) of a model and targets (samples, ...)."""
        return ObjectiveContract().batch(samples)

    def place(self, made: Component, tables: Tables) -> dict[str, Component]:
        """Put the component into the tables, or return it by the table that it stands in for."""
        tables.setdefault("evaluation", {})["metrics"] = [made]
        return {}

    def test_sums_are_float64_of_its_width(self) -> None:
        import torch

        made = self._bound()
        sums = made.sums(*self.batch(5))
        assert (sums.dtype, tuple(sums.shape)) == (torch.float64, (made.width,))

    def test_sums_add_up_over_batches(self) -> None:
        import torch

        made, (outputs, y) = self._bound(), self.batch(7)
        for cut in (1, 3):
            parts = made.sums(outputs[:cut], y[:cut]) + made.sums(outputs[cut:], y[cut:])
            torch.testing.assert_close(parts, made.sums(outputs, y))

    def test_the_order_of_samples_does_not_matter(self) -> None:
        import torch

        made, (outputs, y) = self._bound(), self.batch(7)
        torch.testing.assert_close(made.sums(outputs.flip(0), y.flip(0)), made.sums(outputs, y))

    def test_its_value_is_a_finite_number(self) -> None:
        made = self._bound()
        value = made.value(made.sums(*self.batch(7)).tolist())
        assert isinstance(value, float)
        assert math.isfinite(value)

    def test_of_no_samples_it_is_nan(self) -> None:
        made = self._bound()
        assert math.isnan(made.value(made.sums(*self.batch(0)).tolist()))

    def test_it_is_in_the_lines_of_metrics(self) -> None:
        line = self.finished(self.course()).history[-1]
        assert f"test_{self.make().name}" in line

    def _bound(self) -> Any:
        (made,) = self.course().evaluator.judges()
        return made


class DatasetContract(ComponentContract):
    """For data sets: pure functions of the client, parts that fit together, classes below their number."""

    def test_answers_are_pure_functions_of_the_client(self) -> None:
        one, other = self.course().dataset, self.course().dataset
        clients = range(min(4, one.size()))
        first = [one.client(c, p) for p in PARTS for c in clients]
        second = [other.client(c, p) for p in reversed(PARTS) for c in reversed(clients)][::-1]
        for a, b in zip(first, second, strict=True):
            assert bool((a.x == b.x).all())
            assert bool((a.y == b.y).all())

    def test_every_client_says_how_many_samples_it_has(self) -> None:
        data = self.course().dataset
        for client in range(min(20, data.size())):
            samples = data.client(client, "train")
            assert data.samples(client) == len(samples.y) == len(samples.x)

    def test_unseen_clients_exist_and_leave_some_to_train_on(self) -> None:
        data = self.course().dataset
        assert all(0 <= client < data.size() for client in data.unseen())
        assert len(data.unseen()) < data.size()

    def test_every_part_is_as_the_first(self) -> None:
        data = self.course().dataset
        kinds = set()
        for part in PARTS:
            samples = data.client(0, part)
            kinds.add((samples.x.dtype, samples.x.shape[1:], samples.y.dtype, samples.y.shape[1:]))
        assert len(kinds) == 1

    def test_values_are_finite(self) -> None:
        import torch

        data = self.course().dataset
        for part in PARTS:
            assert bool(torch.isfinite(data.client(0, part).x).all())

    def test_classes_lie_below_their_number(self) -> None:
        data = self.course().dataset
        classes = data.classes()
        for client in range(min(20, data.size())):
            y = data.client(client, "train").y
            assert (
                y.is_floating_point()
                if classes is None
                else 0 <= int(y.min()) <= int(y.max()) < classes
            )

    def test_what_it_gives_is_the_callers_to_change(self) -> None:
        data = self.course().dataset
        before = data.client(0, "train").x.clone()
        data.client(0, "train").x.zero_()
        assert bool((data.client(0, "train").x == before).all())


class PartitionContract(ComponentContract):
    """For partitions, on the digits of the default data set; `y` and `natural` give other targets."""

    toml = 'data = { use = "digits" }\nsampler = { clients = 2 }\n'

    def place(self, made: Component, tables: Tables) -> dict[str, Component]:
        """Put the component into the tables, or return it by the table that it stands in for."""
        tables["data"]["partition"] = made
        return {}

    def targets(self) -> NDArray[np.generic]:
        """Return the targets (samples, ...) that are split."""
        import numpy as np

        return np.arange(240) * 7 % 10

    def natural(self) -> NDArray[np.int64] | None:
        """Return the client that each sample belongs to by nature (samples,)."""
        import numpy as np

        return np.arange(240) // 30

    def split(self, seed: int = 1) -> list[NDArray[np.int64]]:
        """Return the sample numbers of each client."""
        import numpy as np

        rng = np.random.default_rng(seed)
        return [np.asarray(c) for c in self.make().split(self.targets(), self.natural(), rng)]

    def test_no_sample_is_given_twice(self) -> None:
        given = [int(i) for client in self.split() for i in client]
        assert len(set(given)) == len(given)

    def test_only_samples_that_exist_are_given(self) -> None:
        given = [int(i) for client in self.split() for i in client]
        assert 0 <= min(given) <= max(given) < len(self.targets())

    def test_every_client_has_samples(self) -> None:
        assert min(len(client) for client in self.split()) >= 1

    def test_the_same_numbers_give_the_same_split(self) -> None:
        one, other = self.split(), self.split()
        assert [c.tolist() for c in one] == [c.tolist() for c in other]

    def test_it_changes_no_target(self) -> None:
        import numpy as np

        y = self.targets()
        before = y.copy()
        self.make().split(y, self.natural(), np.random.default_rng(1))
        assert bool((y == before).all())

    def test_a_course_has_the_clients_that_it_makes(self) -> None:
        course = self.course()
        assert course.population.size == len(course.dataset.parts)


__all__ = [
    "DatasetContract",
    "MetricContract",
    "ModelContract",
    "ObjectiveContract",
    "PartitionContract",
    "TrainerContract",
]
