"""Buffers of one lane: variables as flat vectors, and modules whose tensors are views of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from fscore.errors import CourseError
from fscore.params import Ranges, Tensors

if TYPE_CHECKING:
    import torch

    from fscore.builtin.executors.factors import Factors
    from fscore.params import Entry
    from fscore.site import Site


class Replica:
    """One variable: a flat vector, its gradient, and a module whose tensors are views of both."""

    def __init__(self, site: Site, module: torch.nn.Module, factors: Factors | None = None) -> None:
        import torch

        self.space = site.space
        self.factors = factors
        self.flat = site.initial.clone().requires_grad_()
        self.values = self.flat.detach()
        self.grad = torch.zeros_like(self.values)
        self.module = module
        self.space.bind(module, self.values)
        kept = {entry.name for entry in self.space.entries}
        loose = [buffer for name, buffer in module.named_buffers() if name not in kept]
        self._loose = [(buffer, buffer.clone()) for buffer in loose]
        self._bound = {n: b for n, b in module.named_buffers() if n in kept}
        self.flat.grad = self.grad
        for entry in self.space.entries:
            if entry.trainable:
                module.get_parameter(entry.name).grad = self.grad[entry.start : entry.stop].view(
                    entry.shape
                )
        if factors:
            factors.watch(module)
        self._ranges: Ranges = site.space.trainable
        self._arrange()

    def begin(self, values: torch.Tensor) -> None:
        """Take over parameters (P,); buffers beside them (whole numbers, as counts of batches) are as in the first model."""
        self._check_buffers()
        self.values.copy_(values)
        for buffer, first in self._loose:
            buffer.copy_(first)

    def _check_buffers(self) -> None:
        """Refuse a model that puts another tensor in a buffer's place, which no vector of parameters would hold.

        Raises:
            CourseError: it did, for the client before.
        """
        for name, buffer in self._bound.items():
            if self.module.get_buffer(name) is not buffer:
                raise CourseError(
                    f"model: buffer '{name}' is replaced while the model computes, so that clients would share it. "
                    "Remedy: write into it (copy_, mul_, add_)."
                )

    def train_only(self, ranges: Ranges) -> None:
        """Ask for gradients of parameters that lie in `ranges`, and of no others."""
        if ranges == self._ranges:
            return
        named = dict(self.module.named_parameters())
        for entry in self.space.entries:
            if entry.trainable:
                inside = any(a < entry.stop and entry.start < b for a, b in ranges)
                named[entry.name].requires_grad_(inside)
        self._ranges = ranges
        self._arrange()

    def _arrange(self) -> None:
        named = dict(self.module.named_parameters())
        self.trained = [
            e for e in self.space.entries if e.trainable and named[e.name].requires_grad
        ]
        self.leaves = [self.flat, *(named[e.name] for e in self.trained)]

    def slopes(self) -> list[torch.Tensor]:
        """Return copies of what was added to the gradient of each trained tensor."""
        return [self.grad[entry.start : entry.stop].clone() for entry in self.trained]

    def joined(self, slopes: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Return the gradient (P,), in memory that is used again, of the gradients of `leaves`."""
        import torch

        whole, *own = slopes
        pieces = [slope.reshape(-1) for slope in own if slope is not None]
        if whole is None and len(pieces) == len(self.space.entries):
            return torch.cat(pieces, out=self.grad)
        self.grad.zero_()
        for entry, slope in zip(self.trained, own, strict=True):
            if slope is not None:
                self.grad[entry.start : entry.stop] = slope.reshape(-1)
        return self.grad if whole is None else self.grad.add_(whole)

    def tensorwise(self, slopes: Sequence[torch.Tensor | None]) -> Iterator[tuple[Entry, Any]]:
        """Yield the trained tensors and their gradients, flat, of the gradients of `leaves`.

        A gradient of which only factors are there is a product (1, P), unless something else adds to it.
        """
        whole, *own = slopes
        for entry, leaf, slope in zip(self.trained, self.leaves[1:], own, strict=True):
            product = self.factors.product(leaf) if self.factors else None
            direct = None if whole is None else whole[entry.start : entry.stop]
            if product is not None and slope is None and direct is None:
                yield entry, product
                continue
            terms = [v.reshape(-1) for v in (slope, direct) if v is not None]
            terms += [] if product is None else [product.tensor().reshape(-1)]
            yield entry, sum(terms[1:], terms[0]) if terms else leaf.new_zeros(leaf.numel())


@define(eq=False)
class Replicas:
    """The replicas of a lane by name of variable, used again from job to job."""

    site: Site
    factors: Factors | None = None
    """Takes gradients of linear layers as factors, where the lane wants it."""
    _named: dict[str, Replica] = field(factory=dict, init=False)
    _bound: dict[int, Replica] = field(factory=dict, init=False)

    def __getitem__(self, name: str) -> Replica:
        if name not in self._named:
            replica = Replica(self.site, copy.deepcopy(self.site.module), self.factors)
            self._named[name] = replica
            self._bound[id(replica.flat)] = replica
        return self._named[name]

    def load(self, start: Tensors) -> Tensors:
        """Copy what `start` gave; vectors (P,) become leaves over a replica, anything else is a plain copy."""
        loaded = {}
        for name, values in start.items():
            if values.shape == self.site.initial.shape:
                self[name].begin(values)
                loaded[name] = self[name].flat
            else:
                loaded[name] = values.clone()
        return loaded

    def holding(self, params: torch.Tensor) -> Replica | None:
        """Return the replica of a variable; other parameters are copied into one, unless they need gradients."""
        import torch

        replica = self._bound.get(id(params))
        if replica is None and not torch.is_grad_enabled():
            replica = self[""]
            replica.begin(params)
        return replica

    def mode(self, *, train: bool) -> None:
        """Set the modules to training or evaluation."""
        for replica in self._named.values():
            replica.module.train(train)
        self.site.module.train(train)

    def owned(self, values: Tensors) -> Tensors:
        """Copy what still lies in these buffers."""
        own = {held.data_ptr() for r in self._named.values() for held in (r.values, r.grad)}
        return {
            n: v.detach().clone() if v.untyped_storage().data_ptr() in own else v.detach()
            for n, v in values.items()
        }
