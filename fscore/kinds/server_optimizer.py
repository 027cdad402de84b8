"""Server optimizers: how a version follows from the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from fscore.component import Component, gt, option

if TYPE_CHECKING:
    from fscore.params import Tensors


@define(eq=False, slots=False)
class ServerOptimizer(Component):
    """Moves the model along the aggregated update; `[server_optimizer] use = "..."`.

    The direction is the mean of the clients' changes, so that `new = old + lr * direction` is FedAvg at lr 1 (the
    pseudo-gradient of Reddi et al., ICLR 2021, is its negative).
    """

    lr: float = option(1.0, doc="Server learning rate.", validator=gt(0), per_client=False)

    def step(self, slots: Tensors, directions: Tensors) -> Tensors:
        """Return new tensors for the slots that have a direction; old versions stay in use, so never in place."""
        raise NotImplementedError
