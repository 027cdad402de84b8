"""Mimic: all controlled clients copy one honest client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import define

from fs_byzantine.colluding import Colluding
from fscore.component import ge, option, state

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from fscore.course import Course
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Mimic(Colluding):
    """Copies an honest client, so that what others know is lost (Karimireddy et al., ICLR 2022, the mimic attack).

    Without a `target` it learns, in its first versions, the direction z along which honest updates vary most (Oja's rule),
    and then copies the client of the cohort whose update lies farthest along z.
    """

    name = "mimic"
    target: int | None = option(
        None, doc="Client that is copied; default: learned.", validator=ge(0)
    )
    warmup: int = option(10, doc="Versions in which the direction is learned.", validator=ge(1))
    seen: int = state(int)
    learned: dict[str, Any] = state(dict)

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        population = course.population
        if self.target is None:
            return
        if self.target >= population.size:
            yield (
                f"{self.key}.target: there is no client {self.target}, ids are 0 to {population.size - 1}"
            )
        elif self.target in population.unseen:
            yield (
                f"{self.key}.target: client {self.target} never takes part in training. "
                "Remedy: choose another, or lower data.unseen_clients."
            )
        elif isinstance(self.clients, list) and self.clients:
            own = self.knowledge == "controlled"
            if (self.target in self.clients) is not own:
                yield (
                    f"{self.key}.target: with knowledge = {self.knowledge!r} it copies "
                    f"{'one of its own clients' if own else 'a client of the others'}, which client {self.target} is not. "
                    "Remedy: choose another."
                )

    def agreed(self, known: torch.Tensor, cohort: Cohort, rng: np.random.Generator) -> torch.Tensor:
        if self.target is not None:
            own = self.knowledge == "controlled"
            clients = [t.client for t in cohort.tasks if (t.client in self.controlled) is own]
            place = clients.index(self.target) if self.target in clients else 0
            return known[place]
        if self.seen < self.warmup:
            self._learn(known, rng)
        way: torch.Tensor = self.learned["direction"]
        return known[int((known @ way).argmax())]

    def _learn(self, known: torch.Tensor, rng: np.random.Generator) -> None:
        """Take one step of Oja's rule, with the running mean of honest updates as centre."""
        import torch

        self.seen += 1
        old = 1 - 1 / self.seen
        if not self.learned:
            first = torch.from_numpy(rng.standard_normal(known.shape[1], dtype=np.float32))
            self.learned = {"mean": torch.zeros_like(first), "direction": first}
        mean = old * self.learned["mean"] + (1 - old) * known.mean(dim=0)
        way, apart = self.learned["direction"], known - mean
        way = way / torch.linalg.vector_norm(way)
        way = old * way + (1 - old) * ((apart @ way) @ apart)
        self.learned = {
            "mean": mean,
            "direction": way / torch.linalg.vector_norm(way).clamp(min=1e-30),
        }
