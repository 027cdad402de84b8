"""Built-in device models. A training step costs three forward passes (Lai et al., FedScale, ICML 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, validators

from fscore.builtin.draws import normal
from fscore.component import Validator, finite, ge, gt, option
from fscore.kinds.devices import Devices

if TYPE_CHECKING:
    import numpy as np

    from fscore.course import Course
    from fscore.events import Message
    from fscore.tasks import ClientId

PASSES = 3.0
"""Forward passes that a sample gradient costs."""
_NOT_NEGATIVE: Validator = validators.and_(ge(0), finite())


@define(eq=False, slots=False)
class Constant(Devices):
    """Every client computes and communicates equally fast."""

    name = "constant"
    compute: float = option(
        1.0, doc="Milliseconds of a forward pass per sample.", validator=_NOT_NEGATIVE
    )
    bandwidth: float | None = option(
        None, doc="kbit/s in both directions; default: transfers take no time.", validator=gt(0)
    )
    latency: float = option(
        0.0, doc="Seconds that a message takes beside its bytes.", validator=_NOT_NEGATIVE
    )

    def seconds(self, client: int, work: float, rng: np.random.Generator) -> float:
        return PASSES * work * self.compute / 1000

    def deliver(
        self, message: Message, nbytes: int, now: float, rng: np.random.Generator
    ) -> Sequence[float]:
        if self.bandwidth is None:
            return (now + self.latency,)
        return (now + self.latency + nbytes * 8 / 1000 / self.bandwidth,)


@define(eq=False, slots=False)
class LogNormal(Devices):
    """Speeds of clients are log-normal, each client's own for the whole course."""

    name = "lognormal"
    compute: float = option(
        1.0, doc="Median milliseconds of a forward pass per sample.", validator=_NOT_NEGATIVE
    )
    sigma: float = option(
        0.5, doc="Spread of the logarithm of compute time.", validator=_NOT_NEGATIVE
    )
    jitter: float = option(
        0.0, doc="Spread of the logarithm of each task's own factor.", validator=_NOT_NEGATIVE
    )
    bandwidth: float | None = option(
        None, doc="Median kbit/s; default: transfers take no time.", validator=gt(0)
    )
    bandwidth_sigma: float = option(
        0.5, doc="Spread of the logarithm of bandwidth.", validator=_NOT_NEGATIVE
    )
    latency: float = option(
        0.0, doc="Seconds that a message takes beside its bytes.", validator=_NOT_NEGATIVE
    )

    def bind(self, course: Course) -> None:
        self.streams = course.streams

    def seconds(self, client: int, work: float, rng: np.random.Generator) -> float:
        speed = math.exp(self.sigma * normal(self.streams, "speed", client))
        factor = math.exp(self.jitter * rng.standard_normal()) if self.jitter else 1.0
        return PASSES * work * self.compute / 1000 * speed * factor

    def deliver(
        self, message: Message, nbytes: int, now: float, rng: np.random.Generator
    ) -> Sequence[float]:
        if self.bandwidth is None:
            return (now + self.latency,)
        client: ClientId = max(message.sender, message.receiver)
        factor = math.exp(self.bandwidth_sigma * normal(self.streams, "bandwidth", client))
        return (now + self.latency + nbytes * 8 / 1000 / (self.bandwidth * factor),)
