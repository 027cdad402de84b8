"""Partitions of a pool of samples into clients. Each uses every sample exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import define

from fscore.component import ge, gt, option
from fscore.errors import ConfigError
from fscore.kinds.partition import Partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

Index = Sequence["NDArray[np.int64]"]
TRIES = 1000
"""Draws before a partition with a minimum of samples is given up."""


@define(eq=False)
class Natural(Partition):
    """One client per natural client of the data: a writer, a hospital."""

    name = "natural"

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Index:
        if natural is None:
            raise ConfigError(
                "data.partition.use: 'natural' needs data that say whose each sample is. "
                'Remedy: choose another partition, such as { use = "iid", clients = 10 }.'
            )
        order = np.argsort(natural, kind="stable")
        _, counts = np.unique(natural, return_counts=True)
        return _pieces(order, counts)


@define(eq=False, slots=False)
class Artificial(Partition):
    """What partitions into a given number of clients have in common."""

    clients: int = option(doc="Number of clients.", validator=ge(1))

    def enough(self, samples: int, each: int = 1) -> None:
        """Refuse more clients than samples allow.

        Raises:
            ConfigError: there are fewer than `each` samples per client.
        """
        if samples < each * self.clients:
            raise ConfigError(
                f"data.partition.clients: {self.clients} clients with at least {each} of {samples} samples each "
                "are impossible. Remedy: lower data.partition.clients."
            )


@define(eq=False)
class Iid(Artificial):
    """Samples dealt at random, in equal numbers (one more at most)."""

    name = "iid"

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Index:
        self.enough(len(y))
        return np.array_split(rng.permutation(len(y)), self.clients)


@define(eq=False)
class Dirichlet(Artificial):
    """Label skew: each class is divided over the clients by its own draw from Dirichlet(alpha).

    The form of Yurochkin et al. (ICML 2019, section 4) of the skew of Hsu et al. (arXiv 1909.06335, 2019); small alpha:
    few classes per client; large alpha: iid.
    """

    name = "dirichlet"
    alpha: float = option(0.5, doc="Concentration; smaller is more skewed.", validator=gt(0))
    min_samples: int = option(
        1, doc="Samples of each client at least; drawn again until it holds.", validator=ge(0)
    )

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Index:
        order, sizes = _by_class(y, self.name, rng)
        self.enough(len(y), self.min_samples)

        def draw() -> NDArray[np.int64]:
            shares = rng.dirichlet(np.full(self.clients, self.alpha), size=len(sizes))
            return np.stack([_counts(n, p) for n, p in zip(sizes, shares, strict=True)])

        counts = _until(draw, self.min_samples, self.alpha)  # (classes, clients)
        owners = np.tile(np.arange(self.clients), len(sizes))
        owner = np.repeat(owners, counts.reshape(-1))  # of each sample in `order`
        return _pieces(order[np.argsort(owner, kind="stable")], counts.sum(axis=0))


@define(eq=False)
class Shards(Artificial):
    """Few labels per client: samples sorted by class, cut into equal shards that are dealt at random.

    The pathological partition of McMahan et al. (AISTATS 2017, section 3). A shard may reach over the border of two
    classes.
    """

    name = "shards"
    labels_per_client: int = option(2, doc="Shards that a client gets.", validator=ge(1))

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Index:
        order, _ = _by_class(y, self.name, rng)
        self.enough(len(y), self.labels_per_client)
        shards = np.array_split(order, self.clients * self.labels_per_client)
        deal = rng.permutation(len(shards)).reshape(self.clients, self.labels_per_client)
        return [np.concatenate([shards[i] for i in hand]) for hand in deal]


@define(eq=False)
class Quantity(Artificial):
    """Quantity skew: iid samples, numbers of samples by one draw from Dirichlet(alpha) (Li et al., ICDE 2022, section 4)."""

    name = "quantity"
    alpha: float = option(0.5, doc="Concentration; smaller is more skewed.", validator=gt(0))
    min_samples: int = option(
        1, doc="Samples of each client at least; drawn again until it holds.", validator=ge(0)
    )

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Index:
        self.enough(len(y), self.min_samples)

        def draw() -> NDArray[np.int64]:
            return _counts(len(y), rng.dirichlet(np.full(self.clients, self.alpha)))[None]

        counts = _until(draw, self.min_samples, self.alpha)
        return _pieces(rng.permutation(len(y)), counts[0])


def _pieces(order: NDArray[np.int64], counts: NDArray[np.int64]) -> Index:
    """Cut `order` into consecutive pieces of the given lengths."""
    return np.split(order, np.cumsum(counts)[:-1])


def _counts(samples: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers that add up to `samples`, each within 1 of its share: (clients,)."""
    edges = np.floor(np.cumsum(shares) / shares.sum() * samples + 1e-9).astype(np.int64)
    edges[-1] = samples
    counts: NDArray[np.int64] = np.diff(edges, prepend=0)
    return counts


def _by_class(
    y: NDArray[np.generic], name: str, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sample numbers sorted by class, in random order inside a class, and the size of each class."""
    if y.ndim != 1 or y.dtype.kind != "i":
        raise ConfigError(
            f"data.partition.use: '{name}' needs one class per sample, but the targets are {y.dtype} of shape "
            f"{y.shape[1:]}. Remedy: use 'iid', 'quantity' or 'natural'."
        )
    order = rng.permutation(len(y))
    _, sizes = np.unique(y, return_counts=True)
    return order[np.argsort(y[order], kind="stable")], sizes


def _until(
    draw: Callable[[], NDArray[np.int64]], min_samples: int, alpha: float
) -> NDArray[np.int64]:
    """Draw counts (..., clients) until every client has its minimum."""
    for _ in range(TRIES):
        counts = draw()
        if counts.sum(axis=0).min() >= min_samples:
            return counts
    raise ConfigError(
        f"data.partition.min_samples: no draw of {TRIES} with alpha {alpha} gave every client {min_samples} samples. "
        "Remedy: raise data.partition.alpha, or lower data.partition.min_samples or data.partition.clients."
    )
