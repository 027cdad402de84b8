"""Tensors in memory that processes of one machine share; what goes through a pipe names their places."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field, frozen

from fscore.tasks import Batch, BatchOutput, Job, Output, Slice, Task

if TYPE_CHECKING:
    import torch

ALIGNMENT = 64
PLAIN = frozenset({int, float, bool, str, type(None)})
"""Types that hold no tensor."""
TABLES = {cls.__name__: cls for cls in (Job, Output, Slice, Task)}
"""Classes whose objects come in numbers."""


@frozen
class Same:
    """One value for all."""

    count: int
    value: Any


@frozen
class Plain:
    """Values that hold no tensor, all of one type."""

    values: list[Any]


@frozen
class Table:
    """Objects of one class, field by field."""

    name: str
    columns: tuple[Any, ...]


FIELDS = {
    cls: tuple(a.name for a in attrs.fields(cls))
    for cls in (Batch, BatchOutput, Same, Table, *TABLES.values())
}


@frozen
class Ref:
    """Where a tensor lies in a region; it stands for the tensor in what goes through a pipe."""

    region: int
    start: int
    dtype: str
    shape: tuple[int, ...]


@define(eq=False)
class Region:
    """Memory that parent and workers share; whoever writes enlarges it, whoever reads maps it anew."""

    number: int
    _file: int = field(init=False)
    _memory: mmap.mmap | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("fscore")
        else:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())

    def tensor(self, ref: Ref) -> torch.Tensor:
        """Return the tensor at `ref`, as a view of the shared memory."""
        import torch

        dtype = getattr(torch, ref.dtype)
        blank = torch.empty(ref.shape, dtype=dtype, device="meta")
        if not blank.numel():
            return torch.empty(ref.shape, dtype=dtype)
        memory = self._mapped(ref.start + blank.nbytes)
        flat = torch.frombuffer(memory, dtype=dtype, count=blank.numel(), offset=ref.start)
        return flat.view(ref.shape)

    def _mapped(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            there = os.fstat(self._file).st_size
            if there < size:
                there = max(size, 2 * there)
                os.ftruncate(self._file, there)
            self._memory = mmap.mmap(self._file, there)
        return self._memory

    def close(self) -> None:
        """Release it; tensors that still look at it keep their mapping."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._memory = None


@define(eq=False)
class Writer:
    """Writes tensors into a region from its beginning, each once."""

    region: Region
    known: dict[int, Ref] = field(factory=dict)
    _end: int = field(default=0, init=False)

    def __call__(self, tensor: torch.Tensor) -> Ref:
        """Write a tensor, which the caller keeps alive, and return where it lies."""
        if id(tensor) not in self.known:
            dtype = str(tensor.dtype).removeprefix("torch.")
            ref = Ref(self.region.number, self._end, dtype, tuple(tensor.shape))
            self.region.tensor(ref).copy_(tensor.detach())
            self._end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
            self.known[id(tensor)] = ref
        return self.known[id(tensor)]


def packed(values: Sequence[Any]) -> Any:
    """Return values by columns: few objects, whatever the number of clients."""
    if not values:
        return Plain([])
    first = values[0]
    if all(value is first for value in values):
        return Same(len(values), first)
    kind = type(first)
    if all(type(value) is kind for value in values):
        if kind in PLAIN:
            return Plain(list(values))
        if kind is dict and not any(values):
            return Same(len(values), {})
        if kind.__name__ in TABLES:
            columns = (list(map(attrgetter(name), values)) for name in FIELDS[kind])
            return Table(kind.__name__, tuple(map(packed, columns)))
    return list(values)


def unpacked(column: Any) -> list[Any]:
    """Return the values of a column; one value for all is one object, unless it is an empty dict."""
    if isinstance(column, Same):
        if type(column.value) is dict and not column.value:
            return [{} for _ in range(column.count)]
        return [column.value] * column.count
    if isinstance(column, Plain):
        return column.values
    if isinstance(column, Table):
        return list(map(TABLES[column.name], *map(unpacked, column.columns)))
    values: list[Any] = column
    return values


def replaced(value: Any, leaf: type, change: Callable[[Any], Any]) -> Any:
    """Return `value` with every instance of `leaf` inside dicts, lists, tuples, jobs and outputs changed.

    A dict that stands in several places stays one dict: that all clients received the same shows in that.
    """
    known: dict[int, Any] = {}

    def new(value: Any) -> Any:
        if type(value) in PLAIN or (type(value) is dict and not value):
            return value
        if isinstance(value, leaf):
            return change(value)
        if isinstance(value, dict):
            if id(value) not in known:
                known[id(value)] = {key: new(entry) for key, entry in value.items()}
            return known[id(value)]
        if type(value) in (list, tuple):
            return type(value)(new(entry) for entry in value)
        if type(value) in FIELDS:
            return type(value)(*[new(getattr(value, name)) for name in FIELDS[type(value)]])
        return value

    return new(value)
