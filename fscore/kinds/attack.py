"""Attacks: adversaries inside a course, given exactly what their threat model lets them see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    import numpy as np

    from fscore.context import Context, Samples
    from fscore.kinds.population import Population


@define(eq=False, slots=False)
class Attack(Component):
    """An adversary; `[[attack]] use = "..."`.

    What it crafts or tampers with is a stage: rank 35 obeys the later stages of the path, rank 75 does not. Its stages
    hold for the clients that it controls, or for all where it controls none (a malicious server's download stage).
    """

    sees: ClassVar[frozenset[str]] = frozenset()
    """Of `wire` (each update as it travelled), `sum` (the summed update), `released` (each version of the model),
    `settings` (the announced settings). The kernel refuses the course where something of it does not exist."""

    def controls(self, population: Population, rng: np.random.Generator) -> frozenset[int]:
        """Return the clients that it controls; none for a server or an observer."""
        return frozenset()

    def poison(self, data: Samples, context: Context) -> Samples:
        """Return the training data of a controlled client; same shapes."""
        return data

    def observe(self, view: Mapping[str, Any]) -> Mapping[str, Any]:
        """Watch one cohort; return claims that the kernel hands to `score`.

        Args:
            view: `version`, `cohort`, and of `wire` {client: tensors}, `sum` tensors, `released` tensors and `settings`
                what `sees` names.
        """
        return {}

    def score(self, claims: Mapping[str, Any], truth: Mapping[int, Samples]) -> Mapping[str, float]:
        """Return metrics of the claims against the truth, which the attack itself never sees.

        Args:
            truth: the training data of the cohort's clients.
        """
        return {}
