"""Gradients that are products of matrices and are not computed until somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Product:
    """Stands for the tensor (K, m n) of K products (m, k) (k, n), laid out row after row.

    Adding it to a tensor in place takes one operation, and the product is never written. Anything else that is asked of
    it computes the tensor first. It lasts as long as its factors do: until the next batch is gathered.
    """

    __slots__ = ("_left", "_right", "_tensor")

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        self._left, self._right = left, right
        self._tensor: torch.Tensor | None = None

    def tensor(self) -> torch.Tensor:
        """Compute it."""
        if self._tensor is None:
            self._tensor = torch.bmm(self._left, self._right).flatten(1)
        return self._tensor

    def add_to(self, values: torch.Tensor, alpha: float) -> torch.Tensor:
        """Add `alpha` times the product to values (K, m n) in place."""
        clients, m, _ = self._left.shape
        n = self._right.shape[2]
        if (
            self._tensor is not None
            or values.shape != (clients, m * n)
            or not values.is_contiguous()
        ):
            return values.add_(self.tensor(), alpha=alpha)
        values.view(clients, m, n).baddbmm_(self._left, self._right, alpha=alpha)
        return values

    def __getitem__(self, key: Any) -> Any:
        """Return itself where all of it is asked for, as `flat[..., start:stop]` does."""
        size = self._left.shape[1] * self._right.shape[2]
        return self if key == (Ellipsis, slice(0, size)) else self.tensor()[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor(), name)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.add_ and len(args) == 2 and type(args[0]) is torch.Tensor:
            return args[1].add_to(args[0], kwargs.get("alpha", 1))
        return func(*map(_computed, args), **{n: _computed(v) for n, v in kwargs.items()})


def _computed(value: Any) -> Any:
    if isinstance(value, Product):
        return value.tensor()
    return type(value)(map(_computed, value)) if type(value) in (list, tuple) else value


def _through(name: str) -> Callable[..., Any]:
    def operator(self: Product, *others: Any) -> Any:
        return getattr(self.tensor(), name)(*map(_computed, others))

    return operator


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "matmul", "neg", "abs",
              "lt", "le", "gt", "ge", "eq", "ne", "bool", "float", "len", "iter"):  # fmt: skip
    setattr(Product, f"__{_name}__", _through(f"__{_name}__"))
