"""What a graph of autograd is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def accumulates(value: torch.Tensor, known: type) -> bool:
    """Whether somebody's own function stands in the graph of a value.

    Its backward pass may add to parameters that it does not name as its inputs, as checkpoints with `use_reentrant` do;
    that shows in their `.grad`, and never in what `torch.autograd.grad` returns.

    Args:
        known: a function that does no such thing.
    """
    from torch.autograd.function import BackwardCFunction

    todo: list[Any] = [value.grad_fn]
    seen = {None}
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction) and getattr(node, "_forward_cls", None) is not known:
            return True
        todo += [following for following, _ in node.next_functions]
    return False
