"""Data sets: what each client holds."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    from fscore.context import Samples

PARTS = ("train", "val", "test")


@define(eq=False, slots=False)
class Dataset(Component):
    """Data of all clients; `[data] use = "..."`. Its answers are pure functions of the client's id.

    In a deployment a server never calls `client`, and a client calls it only for itself. A data set that lies in one
    pool derives from `fscore.builtin.data.PooledDataset`, which partitions it.
    """

    def size(self) -> int:
        """Return the number of clients, unseen ones included; ids are 0 .. size - 1."""
        raise NotImplementedError

    def unseen(self) -> Collection[int]:
        """Return the clients that never take part in training and are evaluated apart; a set or a range."""
        return ()

    def client(self, client: int, part: str) -> Samples:
        """Return a client's samples of `train`, `val` or `test`; no samples where it has no such part.

        Raises:
            DataError: the data cannot be used; the message names the client.
        """
        raise NotImplementedError

    def samples(self, client: int) -> int:
        """Return how many training samples a client has; override it where that is cheaper than loading them."""
        return len(self.client(client, "train").y)

    def server(self, part: str) -> Samples | None:
        """Return what the server itself owns: `test`, `public` or `root`; None for nothing."""
        return None

    def classes(self) -> int | None:
        """Return the number of classes (or the size of the vocabulary); None for regression."""
        return None
