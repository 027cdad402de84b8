"""Device models with a formula: constant, and by distribution, with the constants of measurements."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.bounds import NOT_NEGATIVE, POSITIVE
from fscore.builtin.devices.base import Timed
from fscore.builtin.draws import normal
from fscore.component import between, option

if TYPE_CHECKING:
    import numpy as np

    from fscore.course import Course


KEPT = 1 << 16
"""Speeds that are kept; others are drawn again."""
SPREAD = between(0, 20)
"""Of logarithms: exp(20) is half a milliard."""


@define(eq=False, slots=False)
class Constant(Timed):
    """Every client computes and communicates equally fast."""

    name = "constant"
    compute: float = option(
        1.0, doc="Milliseconds of a forward pass per sample.", validator=NOT_NEGATIVE
    )
    bandwidth: float | None = option(
        None, doc="kbit/s in both directions; default: transfers take no time.", validator=POSITIVE
    )

    @property
    def alike(self) -> bool:
        return type(self) is Constant and self.availability is None

    def milliseconds(self, client: int, rng: np.random.Generator) -> float:
        return self.compute

    def kbits(self, client: int) -> float | None:
        return self.bandwidth


@define(eq=False, slots=False)
class Exponential(Constant):
    """Compute time is exponential, drawn for each task.

    The slowest of M then takes c H_M in the mean, the sum of 1/i up to M (Wang et al., FedHPO-Bench, ICML 2023, cost model).
    """

    name = "exponential"

    def milliseconds(self, client: int, rng: np.random.Generator) -> float:
        return self.compute * rng.exponential()


@define(eq=False, slots=False)
class HalfNormal(Constant):
    """Compute time is compute |N(0, 1)|, drawn for each task: the distribution of FedBuff's simulations (AISTATS 2022)."""

    name = "half_normal"

    def milliseconds(self, client: int, rng: np.random.Generator) -> float:
        return self.compute * abs(rng.standard_normal())


@define(eq=False, slots=False)
class LogNormal(Timed):
    """Speeds of clients are log-normal, each client's own for the whole course."""

    name = "lognormal"
    compute: float = option(
        1.0, doc="Median milliseconds of a forward pass per sample.", validator=NOT_NEGATIVE
    )
    sigma: float = option(0.5, doc="Spread of the logarithm of compute time.", validator=SPREAD)
    jitter: float = option(
        0.0, doc="Spread of the logarithm of each task's own factor.", validator=SPREAD
    )
    bandwidth: float | None = option(
        None, doc="Median kbit/s; default: transfers take no time.", validator=POSITIVE
    )
    bandwidth_sigma: float = option(
        0.5, doc="Spread of the logarithm of bandwidth.", validator=SPREAD
    )

    def bind(self, course: Course) -> None:
        super().bind(course)
        self._own = lru_cache(KEPT)(lambda name, client: normal(self.streams, name, client))

    def milliseconds(self, client: int, rng: np.random.Generator) -> float:
        speed = math.exp(self.sigma * self._own("speed", client))
        factor = math.exp(self.jitter * rng.standard_normal()) if self.jitter else 1.0
        return self.compute * speed * factor

    def kbits(self, client: int) -> float | None:
        if self.bandwidth is None:
            return None
        factor = math.exp(self.bandwidth_sigma * self._own("bandwidth", client))
        return self.bandwidth * factor


@define(eq=False, slots=False)
class Phones(LogNormal):
    """Phones: `lognormal` with the spreads of measurements.

    Compute: 978 phones that trained a ResNet, median 172 ms a sample, that is 57 ms a pass; the logarithm has spread 0.74
    (FLHetBench, Zhang et al., CVPR 2024). Bandwidth: log-normal of median 6.07 Mbit/s and spread 1.10, which has the two
    figures that are published of FedScale's 500,000 devices (Lai et al., ICML 2022: that median, and 26% below 3 Mbit/s).
    """

    name = "phones"
    compute: float = option(
        57.3, doc="Median milliseconds of a forward pass per sample.", validator=NOT_NEGATIVE
    )
    sigma: float = option(0.74, doc="Spread of the logarithm of compute time.", validator=SPREAD)
    bandwidth: float | None = option(6070.0, doc="Median kbit/s.", validator=POSITIVE)
    bandwidth_sigma: float = option(
        1.10, doc="Spread of the logarithm of bandwidth.", validator=SPREAD
    )
