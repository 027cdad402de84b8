"""Attacks in which each client acts alone: sign flip, noise, values that are no numbers, flipped labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import define

from fs_byzantine.base import Byzantine, Forger
from fscore.component import ge, gt, option
from fscore.context import Samples

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.course import Course


@define(eq=False, slots=False)
class SignFlip(Forger):
    """Sends the honest update times -scale (Li et al., RSA, AAAI 2019, the sign-flipping attack)."""

    name = "sign_flip"
    scale: float = option(1.0, doc="Length, relative to the honest update.", validator=gt(0))

    def forge(self, values: torch.Tensor, context: Context, place: int) -> torch.Tensor:
        return values * -self.scale


@define(eq=False, slots=False)
class Gaussian(Forger):
    """Sends Gaussian noise around zero (Blanchard et al., NeurIPS 2017, the experiments: standard deviation 200)."""

    name = "gaussian"
    std: float = option(200.0, doc="Standard deviation of each value.", validator=gt(0))

    def forge(self, values: torch.Tensor, context: Context, place: int) -> torch.Tensor:
        import torch

        rng = context.rng("gaussian attack", place)
        noise = rng.standard_normal(values.shape, dtype=np.float32)
        return torch.from_numpy(noise).mul_(self.std).to(values.dtype)


@define(eq=False, slots=False)
class RandomUpdate(Forger):
    """Sends values drawn uniformly from [-scale, scale]."""

    name = "random_update"
    scale: float = option(1.0, doc="Largest absolute value.", validator=gt(0))

    def forge(self, values: torch.Tensor, context: Context, place: int) -> torch.Tensor:
        import torch

        uniform = context.rng("random attack", place).random(values.shape, dtype=np.float32)
        return torch.from_numpy(2 * uniform - 1).mul_(self.scale).to(values.dtype)


@define(eq=False, slots=False)
class NonFinite(Forger):
    """Sends NaN or an infinity in every value, or 1e30, which is finite."""

    name = "non_finite"
    value: Literal["nan", "inf", "-inf", "1e30"] = option("nan", doc="What each value is.")

    def forge(self, values: torch.Tensor, context: Context, place: int) -> torch.Tensor:
        import torch

        return torch.full_like(values, float(self.value))


@define(eq=False, slots=False)
class LabelFlip(Byzantine):
    """Trains on flipped labels: y becomes classes - 1 - y (Allen-Zhu et al., ICLR 2021), or one class becomes another.

    With `source` and `target` it is the targeted attack of Tolpegin et al., ESORICS 2020.
    """

    name = "label_flip"
    source: int | None = option(None, doc="Class that is changed; default: all.", validator=ge(0))
    target: int | None = option(
        None, doc="What it becomes; default: classes - 1 - y.", validator=ge(0)
    )

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.classes: int | None = course.dataset.classes()

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from check_class(self.key, "source", self.source, self.classes)
        yield from check_class(self.key, "target", self.target, self.classes)
        if self.source is not None and self.source == self.target:
            yield f"{self.key}.target: class {self.target} stays what it is. Remedy: choose another than source."
        if self.classes is None:
            yield f"{self.key}.use: '{self.name}' needs classes, but '{course.dataset.name}' has none"

    def poison(self, data: Samples, context: Context) -> Samples:
        import torch

        if not self.acts(context.task.version):
            return data
        y: torch.Tensor = data.y
        last: Any = (self.classes or 0) - 1
        flipped = last - y if self.target is None else torch.full_like(y, self.target)
        chosen = torch.ones_like(y, dtype=torch.bool) if self.source is None else y == self.source
        return Samples(data.x, torch.where(chosen, flipped, y), data.valid)


def check_class(
    key: str, option_name: str, value: int | None, classes: int | None
) -> Iterable[str]:
    """Refuse a class that does not exist."""
    if value is not None and classes is not None and value >= classes:
        yield f"{key}.{option_name}: there is no class {value}, classes are 0 to {classes - 1}"
