"""Attacks: adversaries inside a course, given exactly what their threat model lets them see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrs import define, field

from fscore.component import Component

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fscore.context import Context, Samples
    from fscore.kinds.population import Population
    from fscore.params import Tensors
    from fscore.paths import Stage
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Attack(Component):
    """An adversary; `[[attack]] use = "..."`.

    What it crafts or tampers with is a stage: rank 35 obeys the later stages of the path, rank 75 does not. Its stages
    hold for the clients that it controls, or for all where it controls none (a malicious server's download stage).
    """

    sees: ClassVar[frozenset[str]] = frozenset()
    """What it is shown of each cohort; a property where it depends on options. Of `wire` (each update as it travelled),
    `update` (each update as the server has it; nothing where the course hides single ones), `sum` (what they add up to),
    `sent` (what each task was sent), `settings` (of each task), `released` (each version of the model)."""
    colludes: ClassVar[Literal["", "controlled", "all"]] = ""
    """Whose honest updates `craft` sees: of its own clients, or of the whole cohort (omniscient). A property where it
    depends on options."""
    crafted: dict[int, Tensors] = field(factory=dict, init=False)
    """What its clients send instead, by task, while a cohort is opened."""

    def controls(self, population: Population, rng: np.random.Generator) -> frozenset[int]:
        """Return the clients that it controls; none for a server or an observer."""
        return frozenset()

    def stages(self) -> Iterable[Stage]:
        """Put what it crafts on the path of its clients."""
        from fscore.builtin.stages import Craft

        return (Craft(self),) if self.colludes else ()

    def craft(
        self, honest: torch.Tensor, mine: Sequence[int], cohort: Cohort, rng: np.random.Generator
    ) -> torch.Tensor:
        """Return (len(mine), values): what the controlled clients send in place of their honest values.

        Args:
            honest: (seen, values) float32, all `mean` groups joined as they are before rank 35, of the tasks that it
                sees, in the cohort's order.
            mine: their places that it controls.
        """
        raise NotImplementedError(f"attack '{self.name}' does not craft updates")

    def confine(self, variables: Tensors, context: Context) -> None:
        """Called after every training step of a controlled client; may move the variables in place."""

    def probe(self, data: Samples) -> Samples | None:
        """Return what it would show a released model, made of evaluation data; metrics on it are reported under its name.

        None: nothing. It may have fewer samples than `data`.
        """
        return None

    def poison(self, data: Samples, context: Context) -> Samples:
        """Return the training data of a controlled client; same shapes."""
        return data

    def observe(self, view: Mapping[str, Any]) -> Mapping[str, Any]:
        """Watch one cohort; return claims that the kernel hands to `score`.

        Args:
            view: `version`, `cohort`, and what `sees` names: of `wire`, `update`, `sent` {client: tensors}, `settings`
                {client: {name: value}}, `released` tensors, `sum` tensors with `total`, what the server divides it by.
        """
        return {}

    def score(self, claims: Mapping[str, Any], truth: Mapping[int, Samples]) -> Mapping[str, float]:
        """Return metrics of the claims against the truth, which the attack itself never sees.

        Args:
            truth: the training data of the cohort's clients.
        """
        return {}
