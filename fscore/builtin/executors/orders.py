"""Which samples each step of many clients uses, drawn for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fscore.context import Order
    from fscore.rng import Streams


@frozen(eq=False)
class Steps:
    """The steps of K clients, padded: index (K, T, B) sample numbers; counts (K, T) samples of each step, then padding.

    taken: (K,) steps of each client; drawn: (K,) passes that were drawn.
    """

    index: NDArray[np.int64]
    counts: NDArray[np.int64]
    taken: NDArray[np.int64]
    drawn: NDArray[np.int64]

    def reordered(self, order: NDArray[np.int64]) -> Steps:
        """Return the steps with the clients in another order."""
        return Steps(self.index[order], self.counts[order], self.taken[order], self.drawn[order])


def passes(
    streams: Streams,
    keys: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    samples: NDArray[np.int64],
    epochs: NDArray[np.float64],
    batch_size: NDArray[np.int64],
) -> Steps:
    """Return shuffled epochs, the same as `draws.shuffled` gives each client.

    Args:
        keys: (K,) each: client, task, and passes drawn before.
        samples, epochs, batch_size: (K,) each.
    """
    size = np.where(batch_size > 0, np.minimum(batch_size, samples), samples)
    whole = size == samples  # every step takes all samples: their order is that of the data
    rounds = np.ceil(epochs).astype(np.int64)
    each = -(-samples // np.maximum(size, 1))  # steps of a whole epoch
    share = epochs - np.maximum(rounds - 1, 0)
    last = np.ceil(share * samples / np.maximum(size, 1) - 1e-9).astype(np.int64)
    last = np.where(rounds > 0, np.minimum(last, each), 0)
    taken = np.where(whole, rounds, np.maximum(rounds - 1, 0) * each + last)
    drawn = np.where(whole, 0, rounds)
    most = int(taken.max(initial=0))
    wide = int(size.max(initial=0))
    if wide and most and drawn.all() and _all_same(samples, size, taken) and not samples[0] % wide:
        orders = _permutations(streams, keys, samples, drawn)
        position = orders.reshape(len(samples), -1, wide)[:, :most]
        return Steps(position, np.full(position.shape[:2], wide), taken, drawn)
    step = np.arange(most)
    epoch, within = step // np.maximum(each, 1)[:, None], step % np.maximum(each, 1)[:, None]
    left = samples[:, None] - within * size[:, None]
    counts = np.where(step < taken[:, None], np.minimum(size[:, None], left), 0)  # (K, T)
    position = within[:, :, None] * size[:, None, None] + np.arange(wide)  # (K, T, B)
    position[np.arange(wide) >= counts[:, :, None]] = 0
    if drawn.any():
        orders = _permutations(streams, keys, samples, drawn)
        epoch = np.minimum(epoch, orders.shape[1] - 1)
        position = orders[np.arange(len(samples))[:, None, None], epoch[:, :, None], position]
    return Steps(position, counts, taken, drawn)


def _permutations(
    streams: Streams,
    keys: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    samples: NDArray[np.int64],
    drawn: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return (K, passes, samples): each client's own numbers come first in each row; identity where none is drawn."""
    clients, tasks, before = keys
    largest = int(samples.max())
    rounds = range(int(drawn.max()))
    numbers = np.stack(
        [streams.bits("order", clients, tasks, before + i, count=largest) for i in rounds], axis=1
    )
    if not _all_same(samples):
        beyond = np.arange(largest) >= samples[:, None]
        numbers[np.broadcast_to(beyond[:, None, :], numbers.shape)] = np.iinfo(np.uint64).max
    orders = np.argsort(numbers, axis=2)  # 64 bits: numbers of one client do not tie
    if not drawn.all():
        orders[drawn == 0] = np.arange(largest)
    return orders


def _all_same(*columns: NDArray[np.int64]) -> bool:
    """Whether each column holds one value only."""
    return all(bool((column == column[0]).all()) for column in columns)


def joined(orders: Sequence[Order], drawn: NDArray[np.int64]) -> Steps:
    """Return the orders of single clients as one."""
    taken = np.array([len(order.sizes) for order in orders], dtype=np.int64)
    most = int(taken.max(initial=0))
    wide = max((max(order.sizes, default=0) for order in orders), default=0)
    index = np.zeros((len(orders), most, wide), dtype=np.int64)
    counts = np.zeros((len(orders), most), dtype=np.int64)
    for k, order in enumerate(orders):
        start = 0
        for t, size in enumerate(order.sizes):
            piece: Any = np.arange(size)
            if order.index is not None:
                piece = order.index[start : start + size].numpy()
            index[k, t, :size], counts[k, t] = piece, size
            start += size
    return Steps(index, counts, taken, drawn)


def within(order: Order, samples: int) -> None:
    """Refuse an order that names samples which a client does not have.

    Raises:
        IndexError: it does.
    """
    index = order.index
    if index is not None and len(index) and not 0 <= int(index.min()) <= int(index.max()) < samples:
        raise IndexError(
            f"an order names samples {int(index.min())} to {int(index.max())} of {samples}"
        )


def padded(size: int, common: int) -> int:
    """Return the width that a step of `size` samples is padded to: few widths, each at most half as wide again."""
    if size == common or size <= 4:
        return size
    power = 1 << (size.bit_length() - 1)
    wide: int = next(w for w in (power, power * 3 // 2, 2 * power) if w >= size)
    return min(wide, common)


def alike(widths: NDArray[np.int64], least: int = 4) -> list[list[int]]:
    """Group places of clients whose steps are about as wide: widest first, a group ends below half of its first."""
    order = np.argsort(-widths, kind="stable").tolist()
    if 2 * widths.min() >= widths.max():
        return [order]
    groups: list[list[int]] = []
    for i in order:
        if groups and (2 * widths[i] >= widths[groups[-1][0]] or len(groups[-1]) < least):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
