"""What all attacks of this package share: whom they control, when they act, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from attrs import define, field

from fscore.component import ge, option
from fscore.kinds.attack import Attack
from fscore.paths import Stage

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fscore.context import Context
    from fscore.course import Course
    from fscore.kinds.population import Population
    from fscore.params import Layout, Tensors

Forge = Callable[["torch.Tensor", "Context", int], "torch.Tensor"]
"""(honest values of a group, context, the group's place) -> what is sent."""


@define(eq=False, slots=False)
class Byzantine(Attack):
    """Clients that deviate from the protocol, in some versions."""

    clients: int | float | list[int] = option(
        doc="Clients that it controls: a number, a share of the participants, or a list of ids; 0: nobody."
    )
    start: int = option(0, doc="First version that it attacks.", validator=ge(0))
    stop: int | None = option(
        None, doc="First version that it attacks no more; default: never.", validator=ge(1)
    )
    every: int = option(1, doc="It attacks every so many versions.", validator=ge(1))
    controlled: frozenset[int] = field(factory=frozenset, init=False)

    def acts(self, version: int) -> bool:
        """Return whether it attacks with tasks on this version."""
        ended = self.stop is not None and version >= self.stop
        return version >= self.start and not ended and (version - self.start) % self.every == 0

    def controls(self, population: Population, rng: np.random.Generator) -> frozenset[int]:
        if isinstance(self.clients, list):
            self.controlled = frozenset(self.clients)
        else:
            count = self.count(population)
            able = range(population.size) if count else range(0)
            seen = [client for client in able if client not in population.unseen]
            self.controlled = frozenset(seen[i] for i in rng.permutation(len(seen))[:count])
        return self.controlled

    def count(self, population: Population) -> int:
        """Return how many clients it controls."""
        if isinstance(self.clients, list):
            return len(self.clients)
        if isinstance(self.clients, int):
            return self.clients
        return round(self.clients * population.participants)

    def bind(self, course: Course) -> None:
        """Remember where it stands in the file."""
        places = [i for i, attack in enumerate(course.attacks) if attack is self]
        self.key = f"attack.{places[0] if places else 0}"

    def check(self, course: Course) -> Iterable[str]:
        """Refuse clients that do not exist or never take part, and more of them than there are."""
        population = course.population
        if isinstance(self.clients, list):
            yield from self._check_ids(self.clients, population)
        elif isinstance(self.clients, int) and self.clients < 0:
            yield f"{self.key}.clients: must be at least 0, got {self.clients}"
        elif isinstance(self.clients, float) and not 0 <= self.clients <= 1:
            yield f"{self.key}.clients: a share must be between 0 and 1, got {self.clients!r}"
        elif not 0 <= (count := self.count(population)) <= population.participants:
            yield (
                f"{self.key}.clients: {count} attackers, but {population.participants} clients take part. "
                "Remedy: lower it."
            )
        if self.stop is not None and self.stop <= self.start:
            yield f"{self.key}.stop: version {self.stop} is not after start, {self.start}. Remedy: raise it."

    def advise(self, course: Course) -> Iterable[str]:
        """Say where it will do nothing."""
        last = course.config.course.until.versions
        if last is not None and self.start >= last:
            yield f"{self.key}.start: it never acts, since the course ends with version {last}. Remedy: lower it."
        if isinstance(self.clients, float) and self.clients and not self.count(course.population):
            yield (
                f"{self.key}.clients: a share of {self.clients:g} of {course.population.participants} clients is nobody. "
                "Remedy: raise it."
            )

    def _check_ids(self, clients: list[int], population: Population) -> Iterable[str]:
        for client in sorted({client for client in clients if clients.count(client) > 1}):
            yield f"{self.key}.clients: client {client} is named twice. Remedy: name it once."
        for client in clients:
            if not 0 <= client < population.size:
                yield (
                    f"{self.key}.clients: there is no client {client}, ids are 0 to {population.size - 1}"
                )
            elif client in population.unseen:
                yield (
                    f"{self.key}.clients: client {client} never takes part in training. "
                    "Remedy: choose another, or lower data.unseen_clients."
                )


def whole_models(course: Course) -> bool:
    """Return whether each client receives one whole model, trains all of it, and sends how that changed."""
    trainer, space = course.trainer, course.space
    sent, update = (
        layout.get("model") for layout in (trainer.downloads(space), trainer.groups(space))
    )
    return (
        sent is not None
        and update is not None
        and sent.shape == update.shape == (space.size,)
        and not update.at
        and trainer.parts(space)["shared"] == space.whole
    )


class Forged(Stage):
    """Puts forged values in the place of every group that is averaged, at the clients that an attack controls."""

    name = "forged"

    def __init__(self, attack: Byzantine, forge: Forge, rank: int) -> None:
        self.attack, self.forge, self.rank = attack, forge, rank  # type: ignore[misc]

    def layout(self, before: Layout) -> Layout:
        self.names = [n for n, g in before.items() if g.reduce == "mean" and not g.public]
        return before

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        if not self.attack.acts(context.task.version):
            return values, {}
        forged = {n: self.forge(values[n], context, i) for i, n in enumerate(self.names)}
        return {**values, **forged}, {}


@define(eq=False, slots=False)
class Forger(Byzantine):
    """An attack that makes each update of its own client's alone."""

    path: Literal["obey", "skip"] = option(
        "obey",
        doc="'obey': what it sends is compressed, clipped and noised as honest updates are; 'skip': it is not.",
    )

    def forge(self, values: torch.Tensor, context: Context, place: int) -> torch.Tensor:
        """Return what is sent in the place of an honest group, of the same shape; `place` is the group's among all."""
        raise NotImplementedError

    def advise(self, course: Course) -> Iterable[str]:
        """Say where nothing that is sent would be forged."""
        yield from super().advise(course)
        if all(group.reduce != "mean" for group in course.trainer.groups(course.space).values()):
            yield (
                f"{self.key}.use: '{self.name}' forges what is averaged, but trainer '{course.trainer.name}' sends nothing "
                "of the kind. Remedy: remove the attack, or choose another trainer."
            )

    def stages(self) -> Iterable[Stage]:
        """Return the step that forges: before the lossy ones (rank 35), or after them (rank 75)."""
        return (Forged(self, self.forge, 35 if self.path == "obey" else 75),)
