"""Flat parameter vectors, their layout, and update groups.

A model's floating point parameters and buffers lie in one flat float32 vector of length P; the module's tensors are views
into it, so that loading a version is one copy. A *part* of a model is a tuple of ranges of that vector.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from fscore.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
"""Tensors by name of slot, group, variable or row."""
Ranges = tuple[tuple[int, int], ...]
"""Half-open, ascending, disjoint ranges of a flat vector."""

ITEM_BYTES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint32": 4, "uint64": 8, "bool": 1,
}  # fmt: skip


@frozen
class Group:
    """One named tensor of an update, declared before the course so that sizes are known beforehand."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    reduce: Literal["mean", "sum"] = "mean"
    """`mean`: weighted by the client's weight and the aggregator's factor; `sum`: added up as it is."""
    slot: str = ""
    """Slot of the model bank that it moves; empty: it moves none."""
    count: str = ""
    """Group that divides its sum, element by element (prototypes, coordinate counts)."""
    public: bool = False
    """Travels beside the path: not clipped, noised or masked, returned one by one."""
    bounded: bool = False
    """Has a sensitivity of its own: outside the joint clip."""
    at: str = ""
    """Public int64 group of shape (): the row of the slot's first axis that it moves (a cluster, a client).

    Such a group is the change itself: no difference is taken on the path."""
    rows: int = 0
    """Length of that axis, where `at` is set."""
    columns: tuple[str, ...] = ()
    """Names of the entries along the last axis, for metrics."""

    @property
    def summed(self) -> tuple[int, ...]:
        """Shape of the sum over clients."""
        return (self.rows, *self.shape) if self.at else self.shape

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes on the wire."""
        return self.numel * ITEM_BYTES[self.dtype]


Layout = Mapping[str, Group]


def layout_nbytes(layout: Layout) -> int:
    """Return the bytes that values of this layout take on the wire."""
    return sum(group.nbytes for group in layout.values())


def zeros(layout: Layout) -> Tensors:
    """Return fresh zero tensors of a layout."""
    import torch

    return {n: torch.zeros(g.shape, dtype=getattr(torch, g.dtype)) for n, g in layout.items()}


@frozen
class Entry:
    """One tensor of a model inside the flat vector."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    trainable: bool
    """False for buffers and frozen parameters: no gradient, no weight decay."""
    module: str
    """Dotted name of the module that owns it."""
    kind: str
    """Class name of that module."""


@frozen
class ParamSpace:
    """Where each tensor of a model lies in its flat vector."""

    entries: tuple[Entry, ...]
    size: int
    """P, the length of the flat vector."""

    @classmethod
    def of(cls, module: torch.nn.Module) -> ParamSpace:
        """Lay out the floating point parameters and buffers of a module, in the module's own order.

        Raises:
            ConfigError: a floating point tensor is not float32, or the model has none.
        """
        entries, start = [], 0
        for name, tensor, trainable in _floating(module):
            owner, _, _ = name.rpartition(".")
            stop = start + tensor.numel()
            kind = type(module.get_submodule(owner)).__name__
            entries.append(Entry(name, tuple(tensor.shape), start, stop, trainable, owner, kind))
            start = stop
        if not any(entry.trainable for entry in entries):
            raise ConfigError("model: it has no trainable parameters")
        return cls(tuple(entries), start)

    @property
    def trainable(self) -> Ranges:
        """The ranges that training may change by gradients."""
        return merge((e.start, e.stop) for e in self.entries if e.trainable)

    @property
    def whole(self) -> Ranges:
        """The range of everything."""
        return ((0, self.size),)

    def bind(self, module: torch.nn.Module, flat: torch.Tensor) -> None:
        """Make the module's tensors views of `flat` (P,)."""
        tensors = {name: tensor for name, tensor, _ in _floating(module)}
        for entry in self.entries:
            tensor = tensors[entry.name]
            tensor.data = flat.detach()[entry.start : entry.stop].view(entry.shape)

    def views(self, flat: torch.Tensor) -> Tensors:
        """Return the model's tensors as views of `flat` (P,), by name; gradients flow back to it."""
        pieces = flat.split([e.stop - e.start for e in self.entries])  # type: ignore[no-untyped-call]
        return {e.name: piece.view(e.shape) for e, piece in zip(self.entries, pieces, strict=True)}

    def read(self, module: torch.nn.Module) -> torch.Tensor:
        """Return a fresh flat copy (P,) of a module's tensors."""
        import torch

        return torch.cat([tensor.detach().reshape(-1) for _, tensor, _ in _floating(module)])

    def part(self, *, kinds: Iterable[str] = (), names: Iterable[str] = ()) -> Ranges:
        """Return the ranges of all tensors, buffers included, of some module classes or name patterns.

        Args:
            kinds: class names of modules, matched as patterns (`BatchNorm*`).
            names: dotted names of modules or tensors, matched as patterns (`fc2`, `head.*`); never by substring.
        """
        kinds, names = tuple(kinds), tuple(names)
        return merge(
            (entry.start, entry.stop)
            for entry in self.entries
            if any(fnmatch.fnmatchcase(entry.kind, kind) for kind in kinds)
            or any(_lies_in(entry, name) for name in names)
        )

    def complement(self, ranges: Ranges) -> Ranges:
        """Return everything outside `ranges`."""
        edges = [0, *(edge for pair in ranges for edge in pair), self.size]
        return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)

    def modules(self) -> tuple[str, ...]:
        """Return the dotted names of the modules that own tensors, in order."""
        return tuple(dict.fromkeys(entry.module for entry in self.entries))

    def require(self, key: str, name: str, ranges: Ranges) -> None:
        """Refuse a part that is empty or everything.

        Raises:
            ConfigError: naming the option `key` and the pattern `name`.
        """
        if not ranges:
            hint = nearest(name, self.modules())
            raise ConfigError(
                f"{key}: '{name}' matches no module of the model{hint} (modules: {', '.join(self.modules())})"
            )
        if ranges == self.whole:
            raise ConfigError(f"{key}: '{name}' matches the whole model")


def _lies_in(entry: Entry, pattern: str) -> bool:
    """Whether a tensor, its module or a module around it has a name of that pattern."""
    pieces = entry.name.split(".")
    prefixes = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
    return any(fnmatch.fnmatchcase(prefix, pattern) for prefix in prefixes)


def _floating(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Yield (name, tensor, trainable) in module order; a module's parameters before its buffers."""
    import torch

    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        own = [(n, p, p.requires_grad) for n, p in owner.named_parameters(recurse=False)]
        own += [(n, b, False) for n, b in owner.named_buffers(recurse=False)]
        for name, tensor, trainable in own:
            if id(tensor) in seen or not tensor.is_floating_point():
                continue
            seen.add(id(tensor))
            full = f"{prefix}.{name}" if prefix else name
            if tensor.dtype != torch.float32:
                raise ConfigError(f"model: '{full}' is {tensor.dtype}, expected torch.float32")
            yield full, tensor, trainable


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Join ranges that touch or overlap; the input is ascending."""
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        elif start < stop:
            joined.append((start, stop))
    return tuple(joined)


def intersect(one: Ranges, other: Ranges) -> Ranges:
    """Return what lies in both."""
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return merge(pair for pair in pairs if pair[0] < pair[1])


def length(ranges: Ranges) -> int:
    """Return how many elements the ranges cover."""
    return sum(stop - start for start, stop in ranges)


def take(flat: torch.Tensor, ranges: Ranges) -> torch.Tensor:
    """Return the elements of `ranges` along the last axis: (..., P) -> (..., length)."""
    import torch

    if not ranges:
        return flat[..., :0]
    if len(ranges) == 1:
        start, stop = ranges[0]
        return flat[..., start:stop]
    return torch.cat([flat[..., a:b] for a, b in ranges], dim=-1)


def place(flat: torch.Tensor, ranges: Ranges, values: torch.Tensor) -> torch.Tensor:
    """Write `values` (..., length) into the ranges of `flat` (..., P), in place; return `flat`."""
    offset = 0
    for start, stop in ranges:
        flat[..., start:stop] = values[..., offset : offset + stop - start]
        offset += stop - start
    return flat


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a sha256 over names, shapes, types and bytes of tensors, in order of name."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().resolve_neg().contiguous()
        hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        hasher.update(as_bytes(tensor))
    return hasher.hexdigest()


def as_bytes(tensor: torch.Tensor) -> Any:
    """Return a contiguous CPU tensor's memory as a buffer of bytes."""
    import torch

    flat: Any = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()
    return memoryview(flat)
