"""What every adversary knows: the architecture, the loss, the shape and range of the data, how clients train."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, fields, frozen
from torch.func import functional_call
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from torch import nn

    from fscore.params import ParamSpace


@frozen
class Training:
    """The announced settings of a client's local SGD."""

    lr: float = 0.0
    epochs: float = 1.0
    batch_size: int = 0
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    @classmethod
    def of(cls, trainer: object) -> Training:
        """Take the options of a trainer; those that it does not have keep their defaults."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: getattr(trainer, name) for name in names if hasattr(trainer, name)})

    def announced(self, settings: Mapping[str, Any]) -> Training:
        """Take what was announced for one task."""
        names = [f.name for f in fields(type(self))]
        return evolve(self, **{name: settings[name] for name in names if name in settings})

    def steps(self, samples: int) -> tuple[int, ...]:
        """Return the samples of each step, as the built-in trainers draw them."""
        size = min(self.batch_size or samples, samples)
        if size == samples:
            return (size,) * math.ceil(self.epochs)
        sizes: list[int] = []
        for epoch in range(math.ceil(self.epochs)):
            steps = math.ceil(min(1.0, self.epochs - epoch) * samples / size - 1e-9)
            taken = min(steps * size, samples)
            sizes += [size] * (taken // size) + ([taken % size] if taken % size else [])
        return tuple(sizes)

    def images(self, samples: int) -> int:
        """Return how many different samples an update is made of."""
        return min(samples, sum(self.steps(samples)))


@frozen
class Target:
    """One update, or the mean of several, that is to be inverted."""

    sent: torch.Tensor
    """(P,) the model that training started from."""
    update: torch.Tensor
    """(P,) the trained model less the sent one, as the adversary has it."""
    training: Training
    images: int
    """How many images it holds, as the adversary knows it."""
    steps: tuple[int, ...]
    """Samples of each local step. Of several clients: all images in each, exact where each takes one step."""
    clients: tuple[int, ...] = ()
    """Whose update it is; several for a mean."""

    @classmethod
    def single(
        cls, sent: torch.Tensor, update: torch.Tensor, training: Training, samples: int, client: int
    ) -> Target:
        """Return the target that one client's update is, of a client with so many samples."""
        steps = training.steps(samples)
        return cls(sent, update, training, training.images(samples), steps, (client,))

    @classmethod
    def mean(
        cls,
        sent: torch.Tensor,
        update: torch.Tensor,
        training: Training,
        samples: Mapping[int, int],
    ) -> Target:
        """Return the target that the mean of several clients' updates is, of {client: samples}."""
        images = sum(training.images(n) for n in samples.values())
        local = max(len(training.steps(n)) for n in samples.values())
        return cls(sent, update, training, images, (images,) * local, tuple(samples))

    def limited(self, most: int) -> Target:
        """Return the target as if it held at most so many images: what is left of a sum of too many."""
        if self.images <= most:
            return self
        return evolve(self, images=most, steps=tuple(min(size, most) for size in self.steps))

    @property
    def gradient(self) -> torch.Tensor:
        """The gradient (P,) that one step shows, or the mean of several steps' gradients along the way."""
        slope = -self.update / (self.training.lr * max(1, len(self.steps)))
        return slope - self.training.weight_decay * self.sent


@frozen
class Known:
    """The public side of a classification course; `module` is the adversary's own copy."""

    module: nn.Module
    space: ParamSpace
    shape: tuple[int, ...]
    """Of one sample: (channels, height, width), or (features,)."""
    classes: int
    visible: torch.Tensor
    """(P,) bool: parameters that are trained and sent."""
    low: float = 0.0
    high: float = 1.0
    _names: frozenset[str] = field(init=False)
    """Tensors of the module that are in the flat vector; running statistics of batch norm are not."""

    def __attrs_post_init__(self) -> None:
        tensors = (*self.module.named_parameters(), *self.module.named_buffers())
        object.__setattr__(self, "_names", frozenset(name for name, _ in tensors))

    @classmethod
    def of(
        cls,
        module: nn.Module,
        space: ParamSpace,
        shape: tuple[int, ...],
        classes: int,
        *,
        hidden: tuple[tuple[int, int], ...] = (),
        low: float = 0.0,
        high: float = 1.0,
    ) -> Known:
        """Copy a model. Batch norm uses the statistics of the batch, as in training; dropout is off.

        Args:
            hidden: ranges of the flat vector that are not sent, or not trained.
        """
        own = copy.deepcopy(module).eval().requires_grad_(False)
        torch.func.replace_all_batch_norm_modules_(own)
        visible = torch.zeros(space.size, dtype=torch.bool)
        for start, stop in space.trainable:
            visible[start:stop] = True
        for start, stop in hidden:
            visible[start:stop] = False
        return cls(own, space, shape, classes, visible, low, high)

    def outputs(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (samples, classes) at params (P,)."""
        views = {n: v for n, v in self.space.views(params).items() if n in self._names}
        return functional_call(self.module, views, (x,))  # type: ignore[no-any-return]

    def gradient(self, params: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the gradient (P,) of the mean loss, itself differentiable in x and y.

        Args:
            y: classes (samples,) int64, or probabilities (samples, classes).
        """
        with torch.enable_grad():
            if not params.requires_grad:
                params = params.detach().requires_grad_()
            loss = cross_entropy(self.outputs(params, x), y)
            (slope,) = torch.autograd.grad(loss, params, create_graph=True)
        return torch.where(self.visible, slope, torch.zeros_like(slope))

    def simulated(
        self, sent: torch.Tensor, x: torch.Tensor, y: torch.Tensor, target: Target
    ) -> torch.Tensor:
        """Return the gradient (P,) that clients with these samples would show; see `Target.gradient`.

        Several local steps are unrolled (Geiping et al., NeurIPS 2020, section 6): step k takes the next samples, again
        from the first on where an epoch ends. The adversary does not know the order of later epochs and takes that one.
        """
        if len(target.steps) <= 1:
            return self.gradient(sent, x, y)
        values, velocity, at, training = sent, torch.zeros_like(sent), 0, target.training
        for number, size in enumerate(target.steps):
            slope = self.gradient(values, x[at : at + size], y[at : at + size])
            slope = slope + training.weight_decay * torch.where(self.visible, values, 0)
            velocity = slope if number == 0 else training.momentum * velocity + slope
            moved = slope + training.momentum * velocity if training.nesterov else velocity
            values = values - training.lr * moved
            at = (at + size) % len(x)
        return (sent - values) / (training.lr * len(target.steps)) - training.weight_decay * sent


def picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width) to show a sample of: flat samples of square length are grey squares."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    length = math.prod(shape)
    side = math.isqrt(length)
    return (1, side, side) if side * side == length else (1, 1, length)
