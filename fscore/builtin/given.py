"""A notebook user's own model and data, as components."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.models.headed import HeadedModel
from fscore.component import option
from fscore.errors import ConfigError, DataError
from fscore.kinds.dataset import Dataset

if TYPE_CHECKING:
    import torch

    from fscore.context import Samples


@define(eq=False, slots=False)
class GivenModel(HeadedModel):
    """A module that was handed over; every course starts from a copy of it as it was then."""

    name = "given"
    digest: str = option("", doc="sha256 of the module's tensors.")
    module: Any = None

    @classmethod
    def of(cls, module: torch.nn.Module) -> GivenModel:
        """Wrap a module."""
        from fscore.params import digest

        made = cls(digest=digest(module.state_dict()))
        try:
            made.module = copy.deepcopy(module)
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"model: the module cannot be copied: {why[:300]}") from error
        return made

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        return copy.deepcopy(self.module)  # type: ignore[no-any-return]


@define(eq=False, slots=False)
class GivenData(Dataset):
    """Clients that were handed over, as (training samples, test samples) each."""

    name = "given"
    digest: str = option("", doc="sha256 of all tensors.")
    clients: Any = None
    bad: frozenset[tuple[int, str]] = frozenset()
    """Clients and parts with values in x that are not finite."""

    @classmethod
    def of(cls, clients: Sequence[tuple[Samples, Samples]]) -> GivenData:
        """Wrap the data of clients; each part has tensors x (samples, ...) and y (samples, ...)."""
        from fscore.params import digest

        named = {
            f"{i}.{j}.{k}": tensor
            for i, parts in enumerate(clients)
            for j, part in enumerate(parts)
            for k, tensor in enumerate(part[:2])
        }
        made = cls(digest=digest(named))
        made.clients = list(clients)
        made.bad = frozenset(
            (i, name)
            for i, parts in enumerate(clients)
            for name, part in zip(("train", "test"), parts, strict=True)
            if not _finite(part[0])
        )
        return made

    def size(self) -> int:
        return len(self.clients)

    def samples(self, client: int) -> int:
        return int(self.clients[client][0][1].shape[0])  # four times as fast as len()

    def client(self, client: int, part: str) -> Samples:
        from fscore.context import Samples

        train, test = self.clients[client]
        samples = {"train": train, "test": test}.get(part)
        if samples is None:
            return Samples(train[0][:0], train[1][:0])
        if (client, part) in self.bad:
            raise DataError(f"data: client {client} has values in x that are not finite")
        return Samples(*samples[:2])

    def classes(self) -> int | None:
        targets = [part[1] for parts in self.clients for part in parts if len(part[1])]
        if targets[0].is_floating_point():
            return None
        return 1 + max(int(y.max()) for y in targets)


def _finite(x: torch.Tensor) -> bool:
    """Whether all entries are finite. Their sum is, unless one is not or it overflows, and takes a sixth of the time."""
    return bool(x.sum().isfinite() or x.isfinite().all())
