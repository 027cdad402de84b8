"""Samples of many clients, addressed as one tensor, so that a step's batches are one gather from it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import define, field

from fscore.builtin.executors.feed import Data, Rows
from fscore.builtin.executors.many import NotLifted
from fscore.context import Samples

if TYPE_CHECKING:
    from fscore.site import Site

Key = tuple[int, str]
"""A client and a part of its data."""
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@define(eq=False)
class Span:
    """Tensors of one type and row shape, anywhere in this process's memory, addressed as one tensor.

    Rows are asked for by addresses of tensors that the caller keeps; what lies between those is never read.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    _first: int = field(default=0, init=False)
    _end: int = field(default=0, init=False)
    _memory: torch.Tensor = field(init=False)

    @property
    def width(self) -> int:
        """Elements of a row."""
        return math.prod(self.shape)

    def rows(self, addresses: Numbers, counts: Numbers) -> Rows:
        """Return the rows of tensors that begin at `addresses` (K,), which have `counts` (K,) rows."""
        some = counts > 0
        if not some.any():
            blank = torch.empty(0, *self.shape, dtype=self.dtype)
            return Rows(blank, counts, 1, self.shape)
        addresses = np.where(
            some, addresses, addresses[some.argmax()]
        )  # of nothing: never looked at
        ends = addresses + counts * (self.width * self.dtype.itemsize)
        self._cover(int(addresses.min()), int(ends.max()))
        return Rows(
            self._memory, (addresses - self._first) // self.dtype.itemsize, self.width, self.shape
        )

    def _cover(self, first: int, end: int) -> None:
        """Address all memory between the lowest and the highest byte asked for so far."""
        if self._end:
            if self._first <= first and end <= self._end:
                return
            first, end = min(first, self._first), max(end, self._end)
        self._first, self._end = first, end
        memory = (ctypes.c_char * (end - first)).from_address(first)
        flat = torch.frombuffer(memory, dtype=self.dtype)
        rows = max(flat.numel() - self.width + 1, 0)
        self._memory = flat if self.width == 1 else flat.as_strided((rows, self.width), (1, 1))


@define(eq=False)
class InPlace:
    """Reads samples where the data set left them, in this process's memory: nothing is copied.

    References to samples are kept until those have `limit` bytes; then it begins anew.
    """

    site: Site
    limit: int
    _kept: list[Samples] = field(factory=list, init=False)
    _places: dict[Key, int] = field(factory=dict, init=False)
    _where: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)
    """(kept, 3): addresses of x and y, and the number of samples; longer than what is kept."""
    _bytes: int = field(default=0, init=False)
    _x: Span = field(init=False)
    _y: Span = field(init=False)

    def data(self, wanted: Sequence[Key]) -> Data:
        """Return the samples of each (client, part).

        Raises:
            NotLifted: clients have samples of different shapes or types.
        """
        try:
            places = [self._places[key] for key in wanted]
        except KeyError:
            self._find(wanted)
            places = [self._places[key] for key in wanted]
        x, y, counts = self._where[places].T
        return Data(self._x.rows(x, counts), self._y.rows(y, counts), counts, self._kept)

    def _find(self, wanted: Sequence[Key]) -> None:
        if self._bytes > self.limit:  # whoever still reads has the list of what is kept
            self._kept, self._places, self._bytes = [], {}, 0
        for key in wanted:
            if key not in self._places:
                self._keep(key, self.site.data(*key))

    def _keep(self, key: Key, samples: Samples) -> None:
        place = len(self._kept)
        if not place:
            self._x, self._y = (Span(v.dtype, tuple(v.shape[1:])) for v in samples[:2])
            self._where = np.empty((64, 3), dtype=np.int64)
        _alike(samples, self._x.dtype, self._y.dtype)
        x, y = (
            _plain(v, span.dtype) for v, span in zip(samples[:2], (self._x, self._y), strict=True)
        )
        if x.shape[1:] != self._x.shape or y.shape[1:] != self._y.shape:
            raise NotLifted("clients have samples of different shapes")
        if place == len(self._where):
            self._where = np.concatenate([self._where, np.empty_like(self._where)])
        self._kept.append(Samples(x, y))
        self._where[place] = x.data_ptr(), y.data_ptr(), y.shape[0]
        self._places[key] = place
        self._bytes += x.nbytes + y.nbytes


def _alike(samples: Samples, x: torch.dtype, y: torch.dtype) -> None:
    """Refuse samples of another type than those that are there, unless a model and an objective make the same of both.

    Raises:
        NotLifted: they are.
    """
    if not _serves(samples.x.dtype, x) or not (
        _serves(samples.y.dtype, y) or (samples.y.is_floating_point() and y.is_floating_point)
    ):
        raise NotLifted("clients have samples of different types")


def _serves(one: torch.dtype, other: torch.dtype) -> bool:
    return one == other or {one, other} == {torch.int32, torch.int64}


def _plain(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return values in main memory, row after row, at a multiple of their size."""
    plain = values.detach().to("cpu", dtype).resolve_neg().contiguous()
    return plain.clone() if plain.data_ptr() % dtype.itemsize else plain


@define(eq=False)
class Arena:
    """Keeps copies of clients' samples on the device that computes, until `limit` bytes are full; then it begins anew."""

    site: Site
    device: torch.device
    limit: int
    x: torch.Tensor = field(init=False)
    y: torch.Tensor = field(init=False)
    _used: int = field(default=0, init=False)
    _where: dict[Key, tuple[int, int]] = field(factory=dict, init=False)

    def data(self, wanted: Sequence[Key]) -> Data:
        """Return the samples of each (client, part), after loading what is missing.

        Raises:
            NotLifted: clients have samples of different shapes or types.
        """
        missing = [key for key in dict.fromkeys(wanted) if key not in self._where]
        if missing:
            self._load(missing, wanted)
        first, counts = np.array([self._where[key] for key in wanted], dtype=np.int64).T
        return Data(Rows.of(self.x, first), Rows.of(self.y, first), counts)

    def _load(self, missing: Sequence[Key], wanted: Sequence[Key]) -> None:
        data = [self.site.data(*key) for key in missing]
        if self._used and self._bytes(data) > self.limit:
            self._used = 0
            self._where.clear()
            missing = list(dict.fromkeys(wanted))
            data = [self.site.data(*key) for key in missing]
        self._reserve(data)
        for key, samples in zip(missing, data, strict=True):
            start, stop = self._used, self._used + len(samples.y)
            _alike(samples, self.x.dtype, self.y.dtype)
            if samples.x.shape[1:] != self.x.shape[1:] or samples.y.shape[1:] != self.y.shape[1:]:
                raise NotLifted("clients have samples of different shapes")
            self.x[start:stop].copy_(samples.x)
            self.y[start:stop].copy_(samples.y)
            self._where[key] = start, stop - start
            self._used = stop

    def _bytes(self, data: Sequence[Samples]) -> int:
        """Return the bytes in use once `data` are loaded."""
        new = sum(samples.x.nbytes + samples.y.nbytes for samples in data)
        rows = max(1, sum(len(samples.y) for samples in data))
        return int((self._used + rows) * new / rows)

    def _reserve(self, data: Sequence[Samples]) -> None:
        """Make room, by doubling as far as the limit goes."""
        rows = self._used + sum(len(samples.y) for samples in data)
        there = len(self.y) if hasattr(self, "y") else 0
        if rows <= there:
            return
        most = self.limit * len(data[0].y) // max(1, data[0].x.nbytes + data[0].y.nbytes)
        rows = max(rows, min(2 * there, most))
        for name, like in (("x", data[0].x), ("y", data[0].y)):
            new = torch.empty(rows, *like.shape[1:], dtype=like.dtype, device=self.device)
            if self._used:
                new[: self._used] = getattr(self, name)[: self._used]
            setattr(self, name, new)


def store(site: Site, device: torch.device, limit: int) -> InPlace | Arena:
    """Return what a device reads samples from, of which it keeps `limit` bytes."""
    return InPlace(site, limit) if device.type == "cpu" else Arena(site, device, limit)
