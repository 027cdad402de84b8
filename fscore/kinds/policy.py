"""Policies: hyper-parameters chosen task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.component import Component, Scalar

if TYPE_CHECKING:
    import numpy as np

    from fscore.tasks import Cohort, Output


@define(eq=False, slots=False)
class Policy(Component):
    """Chooses per-client options when a task is issued; `[[policy]] use = "..."`. `[[override]]` wins over it."""

    def choose(
        self, client: int, version: int, rng: np.random.Generator
    ) -> tuple[Mapping[str, Scalar], Mapping[str, Any]]:
        """Return options by dotted key, and what the server remembers with the task."""
        raise NotImplementedError

    def learn(self, outputs: Sequence[Output], cohort: Cohort) -> None:
        """Learn from opened results, with each task's own memo; the order is that of the cohort."""
