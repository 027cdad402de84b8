"""Devices: how long things take in virtual time, and who is online."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    import numpy as np

    from fscore.events import Message
    from fscore.tasks import Task


@define(eq=False, slots=False)
class Devices(Component):
    """Compute time, network and availability of the population; `[devices] use = "..."`. Faults wrap it.

    Times are virtual seconds. Answers depend on the arguments only, never on what was asked before.
    """

    @property
    def alike(self) -> bool:
        """Whether times depend on bytes, work and now alone, nothing is lost and nobody leaves; then one answer serves many clients."""
        return False

    def seconds(self, client: int, work: float, now: float, rng: np.random.Generator) -> float:
        """Return how long a client takes that begins `work` sample gradients at `now`; `rng` is the task's own."""
        return 0.0

    def leaves(
        self, task: Task, start: float, end: float, rng: np.random.Generator
    ) -> tuple[float, str] | None:
        """Return when and why a client that computes from start to end goes away, so that its task is lost; None: it stays."""
        return None

    def deliver(
        self, message: Message, nbytes: int, now: float, rng: np.random.Generator
    ) -> Sequence[float]:
        """Return when a message that leaves at `now` arrives: () if it is lost, two times if it is duplicated."""
        return (now,)

    def online(self, clients: Sequence[int], now: float) -> Sequence[bool]:
        """Return which of the clients can take a task at `now`."""
        return [True] * len(clients)

    def next_change(self, now: float) -> float | None:
        """Return when somebody comes online after `now`; None: nobody ever."""
        return None
