"""Sums of many long vectors at the speed of memory: block by block, so that the sum stays in the cache."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    import torch

    from fscore.params import Tensors

BLOCK = 1 << 17
"""Values of a block: half a megabyte of float32, which a core's second cache holds beside what streams through it."""

Term = tuple[Any, Any, float]
"""What is added: total (in place), values of the same shape, and their factor."""


def add_up(terms: list[Term]) -> None:
    """Add `factor * values` to `total` for each (total, values, factor), in place, a block of all terms before the next.

    Each value of a total gets its terms in their order, as `total.add_(values, alpha=factor)` gives them one after another.
    On some processors a term of a long sum is rounded once there and twice here.
    """
    blocks = []
    for total, values, factor in terms:
        if total.numel() < 2 * BLOCK or not total.is_floating_point() or total.is_cuda:
            total.add_(values, alpha=factor)
        else:  # a product with a column streams faster than `add_`
            column = values.to(total.dtype).reshape(-1, 1).split(BLOCK)
            scale = total.new_tensor([factor])
            blocks.append([(t, v, scale) for t, v in zip(_blocks(total), column, strict=True)])
    for row in zip_longest(*blocks):
        for total, values, scale in filter(None, row):
            total.addmv_(values, scale)


@define(eq=False)
class Later:
    """Stands for a sum: what is added to it is noted, and added when all is known."""

    total: torch.Tensor
    terms: list[Term]

    def __getitem__(self, row: int) -> Later:
        return Later(self.total[row], self.terms)

    def add_(self, values: torch.Tensor, *, alpha: float) -> None:
        """Note a term."""
        self.terms.append((self.total, values, alpha))


@define(eq=False)
class Together:
    """Sums whose terms are added together at the end of a `with`."""

    sums: Tensors
    _terms: list[Term] = field(factory=list, init=False)

    def __enter__(self) -> dict[str, Any]:
        return {name: Later(total, self._terms) for name, total in self.sums.items()}

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            add_up(self._terms)


def add_difference(
    total: torch.Tensor, new: torch.Tensor, old: torch.Tensor, factor: float
) -> None:
    """Add `factor * (new - old)` to `total` (P,) in place; the difference never leaves the cache."""
    import torch

    if not total.shape == new.shape == old.shape:
        total.add_(new - old, alpha=factor)
        return
    room = total.new_empty(min(total.numel(), BLOCK))
    for part, after, before in zip(
        _blocks(total), _blocks(new.reshape(-1)), _blocks(old.reshape(-1)), strict=True
    ):
        change = room[: part.numel()]
        torch.sub(after, before, out=change)
        part.add_(change, alpha=factor)


def _blocks(values: torch.Tensor) -> Any:
    """Return views of the blocks of a tensor, flat.

    Raises:
        RuntimeError: its memory is not in order, so that a flat one would be a copy.
    """
    return values.view(-1).split(BLOCK)  # type: ignore[no-untyped-call]
