"""Batch norm over many clients: each client's statistics are those of its own samples, without padding.

`vmap` has no rule for layers that write their running statistics in place, and padded rows would enter a batch's mean. So
the layers of a lifted model compute their moments under the mask of the batch, and new running statistics are results of the
lifted function, which are then written into the variables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from torch.nn.functional import batch_norm

from fscore.builtin.executors.many import NotLifted
from fscore.params import merge, place, take

if TYPE_CHECKING:
    from fscore.context import Samples
    from fscore.params import ParamSpace, Ranges, Tensors

LIFTED = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
MOMENTS = ("running_mean", "running_var")


def unliftable(module: torch.nn.Module) -> str:
    """Return which layer keeps statistics that cannot be kept for many clients at once, and why; empty: none does."""
    for name, layer in module.named_modules():
        kind = type(layer)
        which = f"layer '{name}' ({kind.__name__})"
        if kind in LIFTED:
            if not layer.track_running_stats:
                return f"{which} judges by its batch (track_running_stats = False)"
            if layer.momentum is None:
                return f"{which} counts its batches (momentum = None)"
        elif "BatchNorm" in kind.__name__ or getattr(layer, "track_running_stats", False):
            return f"{which} keeps statistics, which padded batches would change"
    return ""


@define(eq=False)
class Norms:
    """The batch norms of a lifted model; their forward passes are replaced in `module`."""

    module: torch.nn.Module
    space: ParamSpace
    layers: dict[str, Any] = field(init=False)
    ranges: Ranges = field(init=False)
    """Where running statistics lie in a parameter vector."""
    single: bool = field(default=False, init=False)
    """Whether a layer sees one value per channel and sample, so that a batch of one sample has no variance."""
    _entries: list[tuple[str, int]] = field(init=False)
    _samples: int = field(default=0, init=False)
    _valid: torch.Tensor | None = field(default=None, init=False)
    _found: Tensors = field(factory=dict, init=False)
    _watched: dict[int, Tensors] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        named = self.module.named_modules()
        self.layers = {name: layer for name, layer in named if type(layer) in LIFTED}
        for name, layer in self.layers.items():
            layer.forward = partial(self._forward, f"{name}." if name else "", layer)
        kept = {f"{n}.{m}" if n else m for n in self.layers for m in MOMENTS}
        entries = [e for e in self.space.entries if e.name in kept]
        self._entries = [(e.name, e.stop - e.start) for e in entries]
        self.ranges = merge((e.start, e.stop) for e in entries)

    def __bool__(self) -> bool:
        return bool(self.layers)

    # ------------------------------------------------------------------------ one client

    def outputs(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        """Return what the model puts out for one client: (P,), samples -> (samples, ...)."""
        from torch.func import functional_call

        known = self._watched.get(id(params))
        self._samples, self._valid, self._found = batch.x.shape[0], batch.valid, {}
        views = {**self.space.views(params), **(known or {})}
        out: torch.Tensor = functional_call(self.module, views, (batch.x,))
        if known is not None:
            known.update(self._found)
        return out

    @contextlib.contextmanager
    def watching(self, variables: Tensors) -> Iterator[list[torch.Tensor]]:
        """Note what training passes make of the running statistics of variables (P,).

        The list is filled when the block ends: one vector of running statistics for each of `names(variables)`.
        """
        vectors: list[torch.Tensor] = []
        named = [variables[n] for n in self.names(variables)]
        self._watched = {id(v): {} for v in named}
        try:
            yield vectors
            vectors += [self._vector(v) for v in named]
        finally:
            self._watched = {}

    def _vector(self, params: torch.Tensor) -> torch.Tensor:
        known = self._watched[id(params)]
        sizes = [size for _, size in self._entries]
        before = torch.split(take(params.detach(), self.ranges), sizes)
        pairs = zip(self._entries, before, strict=True)
        return torch.cat([known.get(name, old) for (name, _), old in pairs])

    def _forward(self, prefix: str, layer: Any, x: torch.Tensor) -> torch.Tensor:
        layer._check_input_dim(x)  # noqa: SLF001
        before = (layer.running_mean, layer.running_var)
        if not layer.training:
            return batch_norm(x, *before, layer.weight, layer.bias, False, 0.0, layer.eps)
        if x.shape[0] != self._samples:
            raise NotLifted(f"a batch norm sees {x.shape[0]} rows of {self._samples} samples")
        if x[0, 0].numel() == 1:
            self.single = True
            _refuse_one(self._samples)
        values, own = _normalised(x, self._valid, layer)
        for name, old, new in zip(MOMENTS, before, own, strict=True):
            moved = old * (1 - layer.momentum) + new * layer.momentum
            if self._valid is not None:  # clients without any sample keep what they have
                moved = torch.where(self._valid.sum() > 0, moved, old)
            self._found[f"{prefix}{name}"] = moved.detach()
        return values

    # ------------------------------------------------------------------------ many clients

    def names(self, variables: Tensors) -> list[str]:
        """Return the variables that are parameter vectors, whose running statistics may move."""
        if not self.ranges:
            return []
        return [n for n, v in variables.items() if v.shape[-1:] == (self.space.size,)]

    def write(self, variables: Tensors, vectors: Sequence[torch.Tensor], batch: Samples) -> None:
        """Write new running statistics (K, statistics) into variables (K, P).

        Raises:
            ValueError: a client's batch has one sample, and one value per channel: what torch says to one client.
        """
        if self.single and batch.valid is not None:
            _refuse_one(int(batch.valid.sum(1).min()))
        for name, vector in zip(self.names(variables), vectors, strict=True):
            place(variables[name], self.ranges, vector)


def _refuse_one(samples: int) -> None:
    if samples == 1:
        raise ValueError("Expected more than 1 value per channel when training, got one sample")


def _normalised(
    x: torch.Tensor, valid: torch.Tensor | None, layer: Any
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return the normalised values of x (samples, C, ...), and the mean (C,) and unbiased variance (C,) of those valid."""
    over = (0, *range(2, x.ndim))
    shape = (1, -1, *[1] * (x.ndim - 2))
    each = x[0, 0].numel()
    if valid is None:
        count: Any = x.shape[0] * each
        mean = x.mean(over)
        centred = x - mean.view(shape)
        var = centred.square().mean(over)
        unbiased = var * (count / max(count - 1, 1))
    else:
        weight = valid.view(-1, *[1] * (x.ndim - 1))
        count = (valid.sum() * each).clamp(min=1)
        mean = (x * weight).sum(over) / count
        centred = x - mean.view(shape)
        var = (centred.square() * weight).sum(over) / count
        unbiased = var * (count / (count - 1).clamp(min=1))
    scale = torch.rsqrt(var + layer.eps)
    if layer.weight is not None:
        scale = scale * layer.weight
    values = centred * scale.view(shape)
    if layer.bias is not None:
        values = values + layer.bias.view(shape)
    return values, (mean, unbiased)
