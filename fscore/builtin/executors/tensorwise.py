"""Variables of many clients tensor by tensor: a gradient is added where it is computed, and none is joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fscore.builtin.executors.feed import Buffers
from fscore.context import Samples
from fscore.params import Tensors

if TYPE_CHECKING:
    from fscore.builtin.executors.lift import Lift
    from fscore.builtin.executors.many import Many
    from fscore.params import ParamSpace
    from fscore.site import Site


class Tensorwise:
    """The vectors (K, P) that a phase trains, as one contiguous piece (K, size) for each tensor of the model."""

    def __init__(
        self, site: Site, lift: Lift, variables: Tensors, pieces: dict[str, list[torch.Tensor]]
    ) -> None:
        self._trainer, self._lift, self._variables = site.trainer, lift, variables
        self._pieces = pieces
        self._memory: dict[str, list[Tensors]] = {n: [{} for _ in own] for n, own in pieces.items()}
        self._now: dict[str, Any] = {**variables, **pieces}
        self._active = len(next(iter(pieces.values()))[0])

    def step(self, batch: Samples, context: Many) -> None:
        """Step each tensor of the clients that are active with its own gradient."""
        if len(context.jobs) != self._active:
            self._keep_first(len(context.jobs))
        slopes = self._lift.slopes(self._trainer.loss, self._now, batch, context)
        ranges = context.ranges
        for name, found in slopes.items():
            own = zip(self._now[name], found, self._memory[name], strict=True)
            for values, slope, memory in own:
                context.ranges = ((0, values.shape[1]),)
                self._trainer.step({name: values}, {name: slope}, memory, context)
        context.ranges = ranges

    def _keep_first(self, clients: int) -> None:
        self._active = clients
        self._now = {
            name: v[:clients] if isinstance(v, torch.Tensor) else [piece[:clients] for piece in v]
            for name, v in self._now.items()
        }
        for own in self._memory.values():
            own[:] = [{n: m[:clients] for n, m in memory.items()} for memory in own]

    def join(self) -> None:
        """Write the pieces back into the vectors."""
        for name, pieces in self._pieces.items():
            torch.cat(pieces, 1, out=self._variables[name])


def pieces_of(
    values: torch.Tensor, space: ParamSpace, name: str, buffers: Buffers
) -> list[torch.Tensor]:
    """Copy vectors (K, P) into one piece (K, size) for each tensor of the model, in memory that is used again."""
    pieces = []
    for entry in space.entries:
        part = values[:, entry.start : entry.stop]
        flat = buffers(f"{name}.{entry.start}", values, part.numel())[: part.numel()]
        pieces.append(flat.view(part.shape).copy_(part))
    return pieces
