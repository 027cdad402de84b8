"""Sample-level differential privacy inside each client: DP-SGD."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrs import define

from fs_dp.accounting import Release, undominated
from fs_dp.guards import extended
from fs_dp.ledger import Unit
from fs_dp.mechanism import Accounted
from fscore.builtin.local import LocalTrainer
from fscore.component import gt, option
from fscore.context import Order
from fscore.errors import CourseError, PluginError
from fscore.events import Released
from fscore.kinds.trainer import Trainer

if TYPE_CHECKING:
    from fscore.context import Context, Samples
    from fscore.course import Course
    from fscore.kinds.trainer import Loss
    from fscore.params import Tensors
    from fscore.tasks import Cohort, Task


@define(eq=False, slots=False)
class DPSGD(Accounted):
    """DP-SGD (Abadi et al., CCS 2016, algorithm 1) inside each client, around any trainer.

    Each step takes every sample of the client with probability q = batch_size / samples, by itself; the batch may be empty.
    Gradients of single samples are clipped to C, summed, noised with z C and divided by the expected batch q n, whatever was
    drawn. What the trainer makes of the gradient afterwards (momentum, proximal terms) is post-processing. Each client has
    its own ledger, charged when a task is issued.
    """

    name = "dp_sgd"
    unit: ClassVar[Unit] = "sample"
    at_issue = True
    clip_norm: float = option(
        1.0, doc="C: largest L2 norm of a sample's gradient.", validator=gt(0)
    )
    mode: Literal["auto", "hooks", "ghost", "vectorised"] = option(
        "auto",
        doc="Gradients of samples by opacus' hooks, its ghost norms (none is stored), or the executor; auto: hooks, or "
        "vectorised where many clients, or several models of a client, are trained at once.",
    )

    def bind(self, course: Course) -> None:
        """Put `Private` around the course's trainer."""
        super().bind(course)
        self._own = threading.local()
        if not isinstance(course.trainer, Private):
            self.wrapped = type(course.trainer)
            made = extended(course.trainer, Private, mechanism=self)
            course.trainer = course.components["trainer"] = made

    # ------------------------------------------------------------------------ accounting

    def options(self, client: int) -> dict[str, Any]:
        """Return the trainer's options as `[[override]]` gives them to a client."""
        trainer = self.course.trainer
        found = {key: getattr(trainer, key) for key in ("batch_size", "epochs")}
        for override in self.course.config.overrides:
            if client in override.clients:
                own = {k[8:]: v for k, v in override.values.items() if k.startswith("trainer.")}
                found.update({k: v for k, v in own.items() if k in found})
        return found

    def plan(self, client: int, options: Mapping[str, Any]) -> tuple[float, int]:
        """Return the sampling rate and the number of steps of a task."""
        samples = self.course.dataset.samples(client)
        batch = min(options["batch_size"] or samples, samples)
        work = self.course.trainer.work(samples, options)
        return batch / samples, math.ceil(work / batch - 1e-9)

    def charged(self, multiplier: float, client: int) -> tuple[Release, float]:
        rate, steps = self.plan(client, self.options(client))
        return Release(multiplier, rate), float(steps)

    def guarantee(self) -> str:
        return "every single update may be published, as to one sample of its client; nobody is trusted"

    def sampling(self) -> str:
        rates = [self.plan(c, self.options(c))[0] for c in self.costliest()]
        return (
            f"Poisson inside the client, rate {max(rates):.4g} for the one with the largest epsilon, "
            "who takes part in every version"
        )

    def price(self, task: Task) -> tuple[Release, float]:
        rate, steps = self.plan(task.client, self.course.site.options(task))
        return Release(self.multiplier, rate), float(steps)

    def costliest(self) -> Sequence[int]:
        return self._costliest

    @cached_property
    def _costliest(self) -> Sequence[int]:
        unseen = self.course.population.unseen
        found: dict[tuple[float, int], int] = {}
        for client in (c for c in range(self.course.population.size) if c not in unseen):
            found.setdefault(self.plan(client, self.options(client)), client)
        kept = undominated([((1.0, rate, steps),) for rate, steps in found])
        return [found[rate, steps] for ((_, rate, steps),) in kept]

    def releases(self, cohort: Cohort) -> Iterable[Released]:
        """Name what was released; it was charged when the tasks were issued."""
        yield Released(
            "updates",
            (
                ("mechanism", self.name), ("unit", self.unit), ("to", "server"),
                ("noise_multiplier", self.multiplier), ("adjacency", self.ledger.adjacency),
                ("clients", len({task.client for task in cohort.tasks})),
            ),
        )  # fmt: skip

    # ------------------------------------------------------------------------ gradients

    def gradients(self, *, lifted: bool, several: bool) -> Any:
        """Return how gradients of single samples are made and clipped.

        Args:
            lifted: whether many clients are trained at once.
            several: whether a client trains several variables together.

        Raises:
            CourseError: opacus cannot serve many clients at once.
        """
        if lifted and self.mode in ("hooks", "ghost"):
            raise CourseError(self._one_at_a_time())
        together = self.mode == "auto" and (lifted or several)
        return self._vectorised if together or self.mode == "vectorised" else self._hooked

    def _one_at_a_time(self) -> str:
        return (
            f"{self.key}.mode: '{self.mode}' serves one client at a time, but the executor trains many at once. "
            "Remedy: mode = 'vectorised', or executor.use = 'serial'."
        )

    @cached_property
    def _vectorised(self) -> Any:
        from fs_dp.gradients import Vectorised

        return Vectorised(self.clip_norm)

    @property
    def _hooked(self) -> Any:
        """The model with hooks, of each thread its own: while a thread uses it, it holds one client's parameters."""
        from fs_dp.gradients import Ghost, Hooks

        if not hasattr(self._own, "hooked"):
            course, kind = self.course, Ghost if self.mode == "ghost" else Hooks
            made = kind(self.clip_norm, course.module, course.objective, course.space)
            self._own.hooked = made
        return self._own.hooked

    def check(self, course: Course) -> Iterable[str]:
        """Refuse layers through which one sample reaches another's gradient, and trainers without batches."""
        from fs_dp.gradients import problems

        if not hasattr(course.trainer, "batch_size"):
            yield (
                f"{self.key}.use: trainer '{course.trainer.name}' has no batch_size, from which 'dp_sgd' takes its "
                "sampling rate. Remedy: another trainer."
            )
            return
        yield from super().check(course)
        others = [m for m in course.privacy if isinstance(m, DPSGD)]
        if others[0] is not self:
            yield f"{self.key}.use: 'dp_sgd' is there twice. Remedy: remove one of them."
            return
        yield from self._trainer_problems(course)
        promised = self.ledger.budget is not None or self.noise_multiplier is None
        for policy in course.policies if promised else ():
            yield (
                f"{self.key}.use: policy '{policy.name}' may choose batch sizes, so that no epsilon is known beforehand. "
                "Remedy: switch one of them off."
            )
        if self.mode in ("hooks", "ghost") and course.executor.name == "cohort":
            yield self._one_at_a_time()
        for text in problems(course.module, self.mode):
            yield f"{self.key}.use: {text}"

    def _trainer_problems(self, course: Course) -> Iterable[str]:
        """Refuse pieces of the trainer that `Private` would replace, or that read samples besides it."""
        for piece, own in (("gradient", Trainer.gradient), ("batches", LocalTrainer.batches)):
            if getattr(self.wrapped, piece) is not own:
                yield (
                    f"{self.key}.use: trainer '{course.trainer.name}' has its own {piece}, which 'dp_sgd' would replace. "
                    "Remedy: another trainer."
                )
        for piece in ("survey", "summary"):
            if getattr(type(course.trainer), piece) is not getattr(Trainer, piece):
                yield (
                    f"{self.key}.use: trainer '{course.trainer.name}' measures samples outside its gradient ({piece}), "
                    "which 'dp_sgd' does not protect. Remedy: another trainer."
                )


class Private:
    """What `dp_sgd` puts around the course's trainer, whichever it is: Poisson batches and a noised gradient."""

    mechanism: DPSGD

    def batches(self, context: Context) -> Order:
        """Return Poisson batches."""
        return poisson_batches(context, self.mechanism)

    def gradient(self, loss: Loss, variables: Tensors, batch: Samples, context: Context) -> Tensors:
        """Return the noised mean of clipped gradients."""
        return private_gradient(loss, variables, batch, context, self.mechanism)


def poisson_batches(context: Context, mechanism: DPSGD) -> Order:
    """Return batches that hold each sample with probability batch_size / samples, by itself.

    Raises:
        PluginError: a task takes more steps than its ledger was charged.
    """
    import torch

    client, samples = context.task.client, context.samples
    batch = min(context.options["batch_size"] or samples, samples)
    epochs = context.options["epochs"] if context.phase.epochs is None else context.phase.epochs
    steps = _steps(context, mechanism, client, epochs * samples / batch)
    before = context.passes
    context.passes += steps
    source = mechanism.ledger.source(context.rng("poisson batches", before))
    drawn = (source.uniform(steps * samples) < batch / samples).reshape(steps, samples)
    index = torch.from_numpy(drawn.nonzero()[1])
    return Order(index, tuple(int(size) for size in drawn.sum(axis=1)))


def _steps(context: Context, mechanism: DPSGD, client: int, wanted: float) -> int:
    """Return the steps of a phase: rounded up, but no more in all phases than the ledger was charged."""
    steps = math.ceil(wanted - 1e-9)
    if context.task.kind != "train":
        return steps
    _, charged = mechanism.plan(client, context.options)
    left = charged - context.passes
    if left < math.floor(wanted + 1e-9):
        raise PluginError(
            f"trainer: a task of client {client} takes {context.passes + steps} steps, but its ledger was charged "
            f"{charged}, after what work() says"
        )
    return min(steps, left)


def private_gradient(
    loss: Loss, variables: Tensors, batch: Samples, context: Context, mechanism: DPSGD
) -> Tensors:
    """Return (sum of clipped gradients + noise) / expected batch, on the ranges that the phase trains.

    Serves one client, (P,), and many, (K, P).
    """
    from fs_dp.noise import noised
    from fscore.params import place, take

    first = variables[context.phase.train[0]]
    lifted = first.dim() > 1
    phase = context.phase
    way = mechanism.gradients(lifted=lifted, several=len(phase.train) > 1)
    sums = way.sums(loss, variables, batch, context)
    purpose = f"dp_sgd {'+'.join(phase.train)} {phase.part} {phase.epochs}"
    source = mechanism.ledger.source(context.rng(purpose, int(context.step)))
    parts = [take(sums[name], context.ranges) for name in sums]
    clients = len(first) if lifted else 1
    made = noised(parts, mechanism.multiplier, mechanism.clip_norm, source, clients)
    expected = _expected(context)
    return {
        name: place(sums[name].new_zeros(sums[name].shape), context.ranges, value / expected)
        for name, value in zip(sums, made, strict=True)
    }


def _expected(context: Context) -> Any:
    """Return the expected batch: a number, or a column (K, 1)."""
    import torch

    samples, size = context.samples, context.options["batch_size"]
    if not isinstance(samples, torch.Tensor):
        return min(size or samples, samples)
    sizes = torch.as_tensor(size, dtype=torch.float64)
    return torch.where(sizes > 0, torch.minimum(sizes, samples), samples).float()
