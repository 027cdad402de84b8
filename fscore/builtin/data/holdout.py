"""What every simulated data set holds out: a part of each client's samples, and whole clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import between, ge, option
from fscore.errors import DataError, nearest
from fscore.kinds.dataset import PARTS, Dataset

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class HoldOut(Dataset):
    """Options and arithmetic of holding out. An unseen client's samples are divided like everybody's."""

    val: float = option(
        0.0, doc="Share of each client's samples for validation.", validator=between(0, 1)
    )
    test: float = option(
        0.2, doc="Share of each client's samples for testing.", validator=between(0, 1)
    )
    unseen_clients: int | float = option(
        0.2,
        doc="Clients that never train and are evaluated apart: a number, or a share of all.",
        validator=ge(0),
    )

    def check(self, course: Course) -> Iterable[str]:
        """Refuse to hold out everything."""
        if self.val + self.test >= 1:
            yield f"data.test: val and test together must be below 1, got {self.val + self.test!r}"
        if isinstance(self.unseen_clients, float) and self.unseen_clients >= 1:
            yield (
                f"data.unseen_clients: a share must be below 1, got {self.unseen_clients!r}. "
                "Remedy: write a number of clients without a decimal point."
            )
        elif (held := self.held_clients()) >= self.size():
            yield (
                f"data.unseen_clients: {held} of {self.size()} clients are unseen, nobody trains. "
                "Remedy: lower data.unseen_clients."
            )

    def held_clients(self) -> int:
        """Return how many clients are held out."""
        if isinstance(self.unseen_clients, int):
            return self.unseen_clients
        return round(self.unseen_clients * self.size())

    def cut(self, samples: int) -> dict[str, slice]:
        """Return where train, val and test lie in a client's shuffled samples; one at least is for training."""
        room = max(samples - 1, 0)
        test = min(round(self.test * samples), room)
        val = min(round(self.val * samples), room - test)
        train = samples - val - test
        return {
            "train": slice(0, train),
            "val": slice(train, train + val),
            "test": slice(train + val, samples),
        }

    def part_of(self, samples: int, part: str) -> slice:
        """Return where a part lies in a client's shuffled samples.

        Raises:
            DataError: there is no such part.
        """
        if part not in PARTS:
            raise DataError(
                f"data: unknown part '{part}', expected 'train', 'val' or 'test'{nearest(part, PARTS)}"
            )
        return self.cut(samples)[part]
