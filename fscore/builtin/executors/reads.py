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
        """Where a flat-space piece read a value; empty: nowhere."""
        self.lifted = ""
        """The same of a lifted piece."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in READS:
            self._note()
        return func(*args, **(kwargs or {}))

    def _note(self) -> None:
        frame = _piece()
        if frame is None:
            return
        code = frame.f_code
        place = f"{code.co_name}() ({Path(code.co_filename).name}, line {frame.f_lineno})"
        if code.co_name in FLAT:
            self.flat = self.flat or place
        else:
            self.lifted = self.lifted or place


def _piece() -> FrameType | None:
    """Return the innermost method of a trainer that is running, unless an executor runs inside it."""
    for frame in _frames():
        if isinstance(frame.f_locals.get("self"), Trainer):
            return frame
        if frame.f_globals.get("__name__", "").startswith("fscore.builtin.executors."):
            return None
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(4)  # noqa: SLF001  # from the caller of __torch_function__ outwards
    while frame is not None:
        yield frame
        frame = frame.f_back
