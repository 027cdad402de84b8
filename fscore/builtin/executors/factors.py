"""Gradients of large linear layers, kept as two factors: a step that adds them never writes the gradient itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

from fscore.builtin.executors.products import Product

WIDE = 1 << 16
"""Values of a weight from which writing its gradient costs more than the calls that avoid it."""

Pairs = list[tuple[torch.Tensor, torch.Tensor]]


class Factors:
    """What the backward pass of a lane's linear layers left: by weight, slopes (rows, out) and inputs (rows, in)."""

    def __init__(self) -> None:
        self._found: dict[int, Pairs] = {}
        self._wanted = False

    def watch(self, module: torch.nn.Module) -> None:
        """Let the large linear layers of a module leave factors; those of a class of their own compute as ever."""
        for part in module.modules():
            if type(part) is torch.nn.Linear and part.weight.numel() >= WIDE:
                part.forward = partial(_forward, part, self)  # type: ignore[method-assign]

    @contextlib.contextmanager
    def wanted(self) -> Iterator[None]:
        """Take factors, rather than gradients, in the backward pass inside of this."""
        self._wanted = True
        self._found.clear()
        try:
            yield
        finally:
            self._wanted = False

    def takes(self) -> bool:
        """Whether this backward pass leaves factors; one inside of the forward pass, or that is differentiated, does not."""
        return self._wanted and not torch.is_grad_enabled()

    def leave(self, weight: torch.Tensor, slope: torch.Tensor, x: torch.Tensor) -> None:
        """Note one use of a weight."""
        self._found.setdefault(id(weight), []).append((slope.flatten(0, -2), x.flatten(0, -2)))

    def product(self, weight: torch.Tensor) -> Product | None:
        """Return the gradient (1, P) of a weight with P values, of all its uses; None: no factors were left."""
        pairs = self._found.pop(id(weight), None)
        if pairs is None:
            return None
        slopes, inputs = (v[0] if len(v) == 1 else torch.cat(v) for v in zip(*pairs, strict=True))
        return Product(slopes.t().unsqueeze(0), inputs.unsqueeze(0))


class Linear(torch.autograd.Function):
    """A linear layer that leaves factors of its weight's gradient, where they are wanted."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, factors: Factors) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.factors, ctx.weight = factors, weight
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Any) -> Any:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        down = slope.matmul(weight) if for_x else None
        own = None
        if for_weight and ctx.factors.takes() and not _of_parameters(weight, slope, x):
            ctx.factors.leave(ctx.weight, slope, x)
        elif for_weight:
            own = slope.flatten(0, -2).t().mm(x.flatten(0, -2))
        return down, own, slope.flatten(0, -2).sum(0) if for_bias else None, None


def _of_parameters(weight: torch.Tensor, *factors: torch.Tensor) -> bool:
    """Whether a factor lies among the parameters, which are stepped before it is used."""
    own = weight.untyped_storage().data_ptr()
    return any(factor.untyped_storage().data_ptr() == own for factor in factors)


def _forward(part: torch.nn.Linear, factors: Factors, x: torch.Tensor) -> torch.Tensor:
    weight = part.weight
    if x.ndim < 2 or not (torch.is_grad_enabled() and weight.is_leaf and weight.requires_grad):
        return linear(x, weight, part.bias)
    return Linear.apply(x, weight, part.bias, factors)  # type: ignore[no-any-return,no-untyped-call]
