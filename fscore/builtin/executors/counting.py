"""Counted operations and bytes of a model: what the choice of an executor goes by, never time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from fscore.course import Course

aten = torch.ops.aten
BACKWARD = 3
"""Operations of forward and backward together, in those of forward."""
_PRODUCTS = {
    aten.mm.default: 0,
    aten.addmm.default: 1,
    aten.bmm.default: 0,
    aten.baddbmm.default: 1,
}
"""Products of matrices, and the place of the left one."""


@frozen
class Cost:
    """What one client costs."""

    operations: float
    """Floating point operations of one step, forward and backward."""
    steps: float
    """Steps of a task."""
    bytes: float
    """Bytes that one client of a cohort takes while it trains."""


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations of a forward pass: products by their sizes, anything else by the elements of its result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0.0
        self.elements = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, a second of start-up."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, list | tuple) and result else result
        counts = isinstance(first, torch.Tensor) and not func.is_view
        elements = first.numel() if counts else 0
        self.elements += elements
        self.operations += _operations(func, args, elements)
        return result


def _operations(func: Any, args: Any, elements: int) -> float:
    if func in _PRODUCTS:
        left: torch.Tensor = args[_PRODUCTS[func]]
        return 2.0 * elements * left.shape[-1]
    if "convolution" in str(func):
        weight: torch.Tensor = args[1]
        return 2.0 * elements * math.prod(weight.shape[1:])
    if "rnn" in str(func) or "lstm" in str(func) or "gru" in str(func):
        x: torch.Tensor = args[0]
        weights = sum(w.numel() for w in _tensors(args[1:]) if w.ndim == 2)
        return 2.0 * x.numel() / x.shape[-1] * weights
    return float(elements)


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def cost(course: Course) -> Cost:
    """Count what one client of a course costs, by the example of the course's first client."""
    site, example = course.site, course.example
    options = {**_options(course)}
    unseen = course.population.unseen
    clients = list(islice((c for c in range(course.population.size) if c not in unseen), 32))
    samples = sum(course.dataset.samples(c) for c in clients) / len(clients)
    size = min(float(options["batch_size"]) or samples, samples)
    steps = float(options["epochs"]) * math.ceil(samples / max(size, 1.0))
    training = site.module.training
    site.module.eval()
    with torch.no_grad(), Counter() as counter:
        site.objective.losses(site.module(example.x), example.y)
    site.module.train(training)
    share = size / len(example.y)
    vectors = 5 + (float(options["momentum"]) != 0) + len(course.trainer.row(course.space))
    row = example.x[0].nbytes + example.y[0].nbytes
    wanted = 4.0 * course.space.size * vectors + 8.0 * counter.elements * share + 2.0 * row * size
    return Cost(BACKWARD * counter.operations * share, steps, wanted)


def _options(course: Course) -> dict[str, Any]:
    trainer = course.trainer
    names = {"batch_size": 0, "epochs": 1.0, "momentum": 0.0}
    return {name: getattr(trainer, name, default) for name, default in names.items()}
