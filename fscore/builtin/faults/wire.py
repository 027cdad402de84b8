"""Faults of messages: late, twice, slow, damaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import define

from fscore.builtin.bounds import MOST, NOT_NEGATIVE
from fscore.builtin.faults.base import ClientFault, RandomFault
from fscore.component import between, ge, option
from fscore.paths import Stage, elementwise

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fscore.context import Context
    from fscore.events import Message
    from fscore.params import Layout, Tensors


@define(eq=False, slots=False)
class Delay(RandomFault):
    """Messages arrive later."""

    name = "delay"
    seconds: float = option(doc="Seconds added.", validator=NOT_NEGATIVE)

    def deliver(self, arrivals: Sequence[float], message: Message, now: float) -> Sequence[float]:
        if not self.strikes_message(message, now):
            return arrivals
        return [at + self.seconds for at in arrivals]


@define(eq=False, slots=False)
class Duplicate(RandomFault):
    """Messages arrive twice."""

    name = "duplicate"
    seconds: float = option(1.0, doc="Seconds between the two.", validator=NOT_NEGATIVE)

    def deliver(self, arrivals: Sequence[float], message: Message, now: float) -> Sequence[float]:
        if not self.strikes_message(message, now):
            return arrivals
        return [*arrivals, *(at + self.seconds for at in arrivals)]


@define(eq=False, slots=False)
class SlowLink(ClientFault):
    """Transfers of some clients take longer."""

    name = "slow_link"
    factor: float = option(10.0, doc="How many times as long.", validator=between(1, MOST))

    def deliver(self, arrivals: Sequence[float], message: Message, now: float) -> Sequence[float]:
        if not self.active(now) or not self.prone(max(message.sender, message.receiver)):
            return arrivals
        return [now + self.factor * (at - now) for at in arrivals]


@define(eq=False, slots=False)
class Corrupt(RandomFault):
    """An update is damaged on its way up, as by a transport without a checksum.

    Flipped bits make values wrong, huge, or no numbers at all. An update that is not finite fails its task; any other is
    aggregated, and may make a version that is not finite, which fails the course.
    """

    name = "corrupt"
    how: Literal["bits", "nan"] = option(
        "bits", doc="Random bits are flipped, or one value becomes NaN."
    )
    bits: int = option(
        8,
        doc="Different bits flipped in each group of tensors; all, if it has fewer.",
        validator=ge(1),
    )

    def stages(self) -> Iterable[Stage]:
        return (Flip(self),)


class Flip(Stage):
    """Flips bits of updates that a fault strikes."""

    name = "corrupt"
    rank = 96

    def __init__(self, fault: Corrupt) -> None:
        self.fault = fault

    def layout(self, before: Layout) -> Layout:
        self.before = before
        return before

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        fault, task = self.fault, context.task
        if not fault.strikes_task(task, task.issued_at):
            return values, {}
        rng = fault.streams.generator(f"{fault.purpose} bits", task.client, task.id)
        if fault.how == "nan":
            return elementwise(self.before, values, lambda v: broken(v, rng)), {}
        return elementwise(self.before, values, lambda v: flipped(v, fault.bits, rng)), {}


def broken(values: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return a copy of a tensor with a NaN at a random place, if it is of floats."""
    found = values.clone()
    if found.numel() and found.is_floating_point():
        found.reshape(-1)[int(rng.integers(found.numel()))] = float("nan")
    return found


def flipped(values: torch.Tensor, bits: int, rng: np.random.Generator) -> torch.Tensor:
    """Return a copy of a tensor with so many different random bits flipped, or all that it has."""
    import numpy as np
    import torch

    if not values.numel():
        return values.clone()
    flat = values.contiguous().clone().reshape(-1).view(torch.uint8)
    size = 8 * flat.numel()
    places = rng.choice(size, size=min(bits, size), replace=False)
    np.bitwise_xor.at(flat.numpy(), places // 8, (1 << (places % 8)).astype(np.uint8))
    return flat.view(values.dtype).reshape(values.shape)
