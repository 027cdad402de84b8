"""Single random draws that are pure functions of a key, cheaper than making a generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fscore.rng import Streams


def normal(streams: Streams, purpose: str, *key: int) -> float:
    """Return one standard normal number of the stream (Box and Muller, 1958)."""
    radius, angle = streams.uniform(purpose, *key, count=2)
    return math.sqrt(-2.0 * math.log1p(-radius)) * math.cos(2.0 * math.pi * angle)
