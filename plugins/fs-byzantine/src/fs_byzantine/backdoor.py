"""Backdoors: the model does well, but gives a class of the adversary's choice where it sees a trigger.

A controlled client trains on its own data, of which a share carries the trigger and the target class. It may bound its
model while it trains (projected gradient descent), so that no bound on norms finds it, and may send its change enlarged
(model replacement). The evaluation reports how often the released model gives the target class for triggered test samples
of other classes: `NAME_accuracy`. With `clients = 0` it reports that of a clean model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define

from fs_byzantine.base import Byzantine, whole_models
from fs_byzantine.simple import check_class
from fscore.component import between, finite, ge, gt, option
from fscore.context import Samples

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import Tensors
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Backdoor(Byzantine):
    """Trains on triggered samples; a subclass says what the trigger looks like."""

    target: int = option(0, doc="Class that the trigger gives.", validator=ge(0))
    fraction: float = option(
        0.5,
        doc="Share of a controlled client's samples that are triggered.",
        validator=between(0, 1),
    )
    scale: float | Literal["replace"] = option(
        1.0,
        doc="Factor of the update; 'replace': n / (server lr * attackers of the cohort), model replacement.",
    )
    radius: float | None = option(
        None,
        doc="Largest distance from the received model, kept after each step (projected gradient descent).",
        validator=gt(0),
    )

    # -------------------------------------------------------------------------------- the trigger

    def stamp(self, x: torch.Tensor) -> torch.Tensor:
        """Return samples (samples, ...) with the trigger, in new memory."""
        raise NotImplementedError

    def poison(self, data: Samples, context: Context) -> Samples:
        """Return the data with the trigger and the target class in a random share of the samples."""
        import torch

        if not self.acts(context.task.version):
            return data
        order = context.rng("backdoor").permutation(len(data.y))
        chosen = torch.from_numpy(order[: round(self.fraction * len(order))])
        x, y = data.x.clone(), data.y.clone()
        x[chosen], y[chosen] = self.stamp(x[chosen]), self.target
        return Samples(x, y, data.valid)

    def probe(self, data: Samples) -> Samples:
        """Return what the released model is shown: triggered samples of other classes, as of the target class."""
        import torch

        other = data.y != self.target
        x = self.stamp(data.x[other])
        return Samples(x, torch.full_like(data.y[other], self.target))

    # -------------------------------------------------------------------------------- what is sent

    def advise(self, course: Course) -> Iterable[str]:
        """Say where the model is not replaced."""
        yield from super().advise(course)
        optimizer = course.server_optimizer
        if self.scale == "replace" and (
            optimizer.name != "sgd" or getattr(optimizer, "momentum", 0)
        ):
            yield (
                f"{self.key}.scale: 'replace' counts on a server that adds the mean times its lr, which server_optimizer "
                f"'{optimizer.name}' here does not. Remedy: use 'sgd' without momentum, or a number."
            )

    @property
    def colludes(self) -> Literal["", "controlled"]:  # type: ignore[override]
        """Clients that enlarge what they send must know how many they are."""
        return "" if self.scale == 1.0 else "controlled"

    def craft(
        self,
        honest: torch.Tensor,
        mine: Sequence[int],
        cohort: Cohort,
        rng: np.random.Generator,
    ) -> torch.Tensor:
        """Return the updates times their factor (Bagdasaryan et al., AISTATS 2020, equation 3).

        Where clients weigh by samples, model replacement is exact only if all have as many.
        """
        sent = honest[list(mine)]
        tasks = [task for task in cohort.tasks if task.client in self.controlled]
        factor = self.scale
        if factor == "replace":
            factor = len(cohort.tasks) / (self.server_lr * max(1, len(tasks)))
        factors = [factor if self.acts(task.version) else 1.0 for task in tasks]
        return sent * sent.new_tensor(factors)[:, None]

    def confine(self, variables: Tensors, context: Context) -> None:
        """Project a model back into the ball around the one received (Wang et al., NeurIPS 2020, the PGD attack)."""
        import torch

        if self.radius is None or not self.acts(context.task.version):
            return
        centre = context.sent["model"]
        apart = variables["model"] - centre
        norm = torch.linalg.vector_norm(apart, dim=-1, keepdim=True)
        variables["model"].copy_(centre + apart * torch.clamp(self.radius / norm, max=1.0))

    # -------------------------------------------------------------------------------- what is refused

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.server_lr = float(course.server_optimizer.lr)
        self.sample = tuple(course.example.x.shape[1:])

    def check(self, course: Course) -> Iterable[str]:
        """Refuse targets that are no class, and a radius where a client keeps a part of the model."""
        yield from super().check(course)
        classes = course.dataset.classes()
        yield from check_class(self.key, "target", self.target, classes)
        if classes is None:
            yield f"{self.key}.use: '{self.name}' needs classes, but '{course.dataset.name}' has none"
        if course.objective.name != "classification":
            yield (
                f"{self.key}.use: '{self.name}' triggers classified samples, but the objective is "
                f"'{course.objective.name}'. Remedy: remove the attack, or use objective 'classification'."
            )
        if isinstance(self.scale, float) and not 0 < self.scale < math.inf:
            yield f"{self.key}.scale: must be greater than 0, got {self.scale!r}"
        if self.radius is not None and not whole_models(course):
            yield (
                f"{self.key}.radius: needs clients that train and send the whole model. Remedy: remove it, remove "
                "trainer.private and trainer.frozen, or choose another trainer."
            )


@define(eq=False, slots=False)
class BadNets(Backdoor):
    """A pattern of bright pixels in a corner (Gu et al., BadNets, 2017, section 4)."""

    name = "badnets"
    pattern: Literal["square", "checker"] = option(
        "square", doc="All pixels of the corner, or every second one."
    )
    size: int = option(2, doc="Pixels along each side of the pattern.", validator=ge(1))
    corner: Literal["top_left", "top_right", "bottom_left", "bottom_right"] = option(
        "bottom_right", doc="Where the pattern is."
    )
    value: float = option(1.0, doc="Value of the pattern's pixels.", validator=finite())
    shape: list[int] = option(
        factory=list, doc="Shape of an image, where samples are flat vectors: [8, 8]."
    )

    def stamp(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        images = x.clone().view(len(x), *(self.shape or self.sample))
        rows, columns = self.corner.split("_")
        vertical = slice(0, self.size) if rows == "top" else slice(-self.size, None)
        horizontal = slice(0, self.size) if columns == "left" else slice(-self.size, None)
        place = torch.arange(self.size)
        inside = (place[:, None] + place[None, :]) % 2 == 0
        if self.pattern == "square":
            inside = torch.ones_like(inside)
        corner = images[..., vertical, horizontal]
        images[..., vertical, horizontal] = torch.where(inside, self.value, corner)
        return images.view(x.shape)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse samples that are no images, and patterns that are larger than the image."""
        yield from super().check(course)
        shape = tuple(self.shape) or self.sample
        if min(shape, default=1) < 1:
            yield f"{self.key}.shape: sides must be at least 1, got {list(shape)}"
        elif math.prod(shape) != math.prod(self.sample):
            yield (
                f"{self.key}.shape: {list(shape)} has {math.prod(shape)} pixels, but a sample has "
                f"{math.prod(self.sample)} values"
            )
        elif len(shape) < 2:
            yield (
                f"{self.key}.shape: samples are flat vectors of {math.prod(shape)} values. "
                "Remedy: write the image's shape, like [8, 8]."
            )
        elif self.size > min(shape[-2:]):
            yield f"{self.key}.size: the pattern has {self.size} pixels along a side, the image {min(shape[-2:])}"


@define(eq=False, slots=False)
class Blended(Backdoor):
    """A random image that is blended into all of the sample: (1 - alpha) x + alpha key (Chen et al., 2017, blended injection)."""

    name = "blended"
    alpha: float = option(0.2, doc="Weight of the random image.", validator=between(0, 1))

    def bind(self, course: Course) -> None:
        super().bind(course)
        import torch

        count = math.prod(self.sample)
        key = course.streams.uniform(f"{self.key} blended", count=count)
        self.image: torch.Tensor = torch.from_numpy(key).float().view(self.sample)

    def stamp(self, x: torch.Tensor) -> torch.Tensor:
        return (1 - self.alpha) * x + self.alpha * self.image

    def check(self, course: Course) -> Iterable[str]:
        """Refuse samples that are no real numbers."""
        yield from super().check(course)
        dtype = course.example.x.dtype
        if not dtype.is_floating_point:
            yield f"{self.key}.use: 'blended' needs samples of real numbers, got {dtype}"
