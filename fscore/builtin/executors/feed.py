"""The samples of many clients, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import define, field, frozen

from fscore.builtin.executors.orders import Steps, padded
from fscore.context import Samples

WINDOW = 1 << 20
"""Bytes of the batches of several steps that are gathered at once."""


@frozen(eq=False)
class Rows:
    """Rows of K clients: client k's row i has the shape `shape` and is row `first[k] + i * stride` of `tensor`."""

    tensor: torch.Tensor
    first: np.ndarray[Any, np.dtype[np.int64]]
    """(K,)"""
    stride: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor, first: np.ndarray[Any, Any]) -> Rows:
        """Return rows that lie one after another in a tensor (rows, ...)."""
        return cls(tensor, first, 1, tuple(tensor.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.tensor.dtype.itemsize

    def places(self, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor:
        """Return where rows lie in the tensor, on its device; `numbers` (..., K, B) count each client's rows."""
        where = numbers * self.stride if self.stride != 1 else numbers
        return torch.from_numpy(where + self.first[:, None]).to(self.tensor.device)

    def gather(self, places: torch.Tensor, into: torch.Tensor | None = None) -> torch.Tensor:
        """Return rows (..., *shape) of `places`, in the memory of `into` (elements,), if given."""
        flat = places.reshape(-1)
        if into is None:
            found = self.tensor.index_select(0, flat)
        else:
            shape = (len(flat), *self.tensor.shape[1:])
            into = into[: math.prod(shape)].view(shape)
            found = torch.index_select(self.tensor, 0, flat, out=into)
        return found.view(*places.shape, *self.shape)


@frozen(eq=False)
class Data:
    """Samples of K clients, and each client's number of samples (K,)."""

    x: Rows
    y: Rows
    count: np.ndarray[Any, np.dtype[np.int64]]
    kept: Sequence[Samples] = ()
    """Whose memory the rows lie in, where `x` and `y` do not own it."""

    def of(self, clients: Sequence[int] | np.ndarray[Any, Any]) -> Data:
        """Return the data of some clients."""
        x, y = (Rows(r.tensor, r.first[clients], r.stride, r.shape) for r in (self.x, self.y))
        return Data(x, y, self.count[clients], self.kept)


def whole(data: Data, device: torch.device) -> Samples:
    """Return all samples of each client, padded: (K, samples, ...)."""
    most = int(data.count.max(initial=0))
    numbers = np.minimum(np.arange(most), np.maximum(data.count - 1, 0)[:, None])
    x, y = (rows.gather(rows.places(numbers)) for rows in (data.x, data.y))
    places = torch.from_numpy(numbers).to(device)
    if (data.count == most).all():
        return Samples(x, y, None, places)
    inside = torch.from_numpy((np.arange(most) < data.count[:, None]).astype(np.float32))
    return Samples(x, y, inside.to(device), places)


class Buffers:
    """Memory by name that is written again and again."""

    def __init__(self) -> None:
        self._there: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, like: torch.Tensor, elements: int) -> torch.Tensor:
        """Return a vector of the type of `like`, with as many elements or more."""
        there = self._there.get(name)
        if there is None or there.numel() < elements or there.dtype != like.dtype:
            there = self._there[name] = like.new_empty(elements)
        return there


@define(eq=False)
class Feed:
    """The batches of a phase; clients are sorted by their number of steps, the most first.

    Steps that have the same shape are gathered together, as far as they are small.
    """

    steps: Steps
    data: Data
    device: torch.device
    buffers: Buffers
    active: list[int] = field(init=False)
    """Clients that take part in each step: a prefix."""
    _numbers: torch.Tensor = field(init=False)
    _x: Windows = field(init=False)
    _y: Windows = field(init=False)
    _counts: torch.Tensor = field(init=False)
    _widths: list[int] = field(init=False)
    _whole: list[bool] = field(init=False)

    def __attrs_post_init__(self) -> None:
        steps = self.steps
        _, most, wide = steps.index.shape
        inside = np.arange(most) < steps.taken[:, None]
        self.active = inside.sum(0).tolist()
        numbers = np.ascontiguousarray(steps.index.swapaxes(0, 1))  # (T, K, B)
        self._numbers = torch.from_numpy(numbers).to(self.device)
        self._counts = torch.from_numpy(np.ascontiguousarray(steps.counts.T)).to(self.device)
        self._widths = [padded(n, wide) for n in steps.counts.max(axis=0, initial=0).tolist()]
        short = (steps.counts != np.array(self._widths)) & inside
        self._whole = (~short.any(axis=0)).tolist()
        shapes = list(zip(self.active, self._widths, strict=True))
        self._x = Windows(self.data.x, numbers, shapes, "x", self.buffers)
        self._y = Windows(self.data.y, numbers, shapes, "y", self.buffers)

    def batch(self, step: int) -> Samples:
        """Return the samples (K, B, ...) of a step's active clients; `valid` where some are padding."""
        clients, wide = self.active[step], self._widths[step]
        numbers = self._numbers[step, :clients, :wide]
        x, y = self._x.batch(step), self._y.batch(step)
        if self._whole[step]:
            return Samples(x, y, None, numbers)
        inside = torch.arange(wide, device=self.device) < self._counts[step, :clients, None]
        return Samples(x, y, inside.float(), numbers)


class Windows:
    """The rows of each step, gathered for several steps at once where those are alike and small."""

    def __init__(
        self,
        rows: Rows,
        numbers: np.ndarray[Any, Any],
        shapes: Sequence[tuple[int, int]],
        name: str,
        buffers: Buffers,
    ) -> None:
        self._rows, self._places = rows, rows.places(numbers)  # (T, K, B)
        self._shapes, self._name, self._buffers = shapes, name, buffers
        self._begin = self._end = 0
        self._window: torch.Tensor

    def batch(self, step: int) -> torch.Tensor:
        """Return the rows (clients, width, ...) of a step; steps are asked for in order."""
        if step >= self._end:
            self._window = self._gather(step)
        return self._window[step - self._begin]

    def _gather(self, step: int) -> torch.Tensor:
        clients, wide = shape = self._shapes[step]
        most = max(1, WINDOW // max(1, self._rows.nbytes * clients * wide))
        end = step + 1
        while end < len(self._shapes) and end - step < most and self._shapes[end] == shape:
            end += 1
        self._begin, self._end = step, end
        places = self._places[step:end, :clients, :wide]
        elements = places.numel() * math.prod(self._rows.shape)
        into = self._buffers(self._name, self._rows.tensor, elements)
        return self._rows.gather(places, into)
