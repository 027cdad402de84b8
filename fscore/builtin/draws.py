"""Single random draws that are pure functions of a key, cheaper than making a generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fscore.context import Order
from fscore.rng import GOLDEN, mix

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.rng import Streams


def normal(streams: Streams, purpose: str, *key: int) -> float:
    """Return one standard normal number of the stream (Box and Muller, 1958)."""
    start = streams.key(purpose, *key)
    radius, angle = [(mix(count ^ start) >> 11) * 2.0**-53 for count in (0, GOLDEN)]
    return math.sqrt(-2.0 * math.log1p(-radius)) * math.cos(2.0 * math.pi * angle)


def shuffled(context: Context, epochs: float, batch_size: int) -> Order:
    """Return `epochs` passes over a client's samples in random order, keyed by client, task and epoch.

    A fraction of an epoch takes that share of a pass, rounded up to whole steps.
    """
    import numpy as np
    import torch

    samples = context.samples
    size = min(batch_size or samples, samples)
    if size == samples:  # every step takes all samples: their order is that of the data
        return Order(None, (size,) * math.ceil(epochs))
    index, sizes = [], []
    for epoch in range(math.ceil(epochs)):
        numbers = context.numbers("order", context.passes, count=samples)
        context.passes += 1
        share = min(1.0, epochs - epoch)
        steps = math.ceil(share * samples / size - 1e-9)
        taken = min(steps * size, samples)
        index.append(np.argsort(numbers, kind="stable")[:taken])
        sizes += [size] * (taken // size) + ([taken % size] if taken % size else [])
    joined = np.concatenate(index) if index else np.empty(0, dtype=np.int64)
    return Order(torch.from_numpy(joined), tuple(sizes))
