"""Where a trainer's piece reads a tensor's value in Python: for many clients at once that is one value for all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fscore.kinds.trainer import Trainer

READS = frozenset(
    {
        torch.Tensor.__bool__,
        torch.Tensor.__float__,
        torch.Tensor.__int__,
        torch.Tensor.__index__,
        torch.Tensor.is_nonzero,
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.equal,
        torch.Tensor.allclose,
        torch.equal,
        torch.allclose,
        torch.is_nonzero,
    }
)
"""What gives Python a number or a truth value of a tensor."""
FLAT = frozenset({"start", "adjust", "step", "finish"})
"""Pieces that see all clients as (K, P) and no sample; lifted ones are refused by torch itself where they read a value."""


class Reads(TorchFunctionMode):
    """Notes the first read of a value in a piece of a trainer, while many clients are computed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = ""
        """Who read a value where all clients are in one tensor, and where; empty: nobody."""
        self.lifted = ""
        """The same of a lifted piece."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in READS:
            self._note()
        return func(*args, **(kwargs or {}))

    def _note(self) -> None:
        running = _pieces()
        if not running:
            return
        inner, code = running[0], running[0].f_code
        place = f"{code.co_name}() ({Path(code.co_filename).name}, line {inner.f_lineno})"
        told = f"trainer '{_owner(inner).name}' reads a tensor's value in {place}"
        if _flat(running[-1]):
            self.flat = self.flat or told
        else:
            self.lifted = self.lifted or told


def _pieces() -> list[FrameType]:
    """Return the methods of trainers that are running, innermost first, as far as an executor called them."""
    found = []
    for frame in _frames():
        if frame.f_globals.get("__name__", "").startswith("fscore.builtin.executors."):
            break
        if _owner(frame) is not None:
            found.append(frame)
    return found


def _owner(frame: FrameType) -> Any:
    """Return the trainer whose method a frame runs; None: no trainer's."""
    first = frame.f_locals.get(frame.f_code.co_varnames[0]) if frame.f_code.co_argcount else None
    return first if isinstance(first, Trainer) else None


def _flat(frame: FrameType) -> bool:
    """Whether a frame is a piece that sees all clients at once, whatever its function is called."""
    pieces = [vars(cls).get(name) for cls in type(_owner(frame)).__mro__ for name in FLAT]
    return frame.f_code in [getattr(piece, "__code__", None) for piece in pieces]


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(4)  # noqa: SLF001  # from the caller of __torch_function__ outwards
    while frame is not None:
        yield frame
        frame = frame.f_back
