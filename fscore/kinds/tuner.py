"""Tuners: hyper-parameter optimisation over whole courses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import define, field, frozen

from fscore.component import Component, Scalar, ge, option


@frozen
class Trial:
    """A course that is run up to `versions`.

    A new id starts afresh; a known id goes on from its own snapshot (promote); with `fork` it starts from the snapshot of
    another trial, with its own parameters.
    """

    id: int
    params: Mapping[str, Scalar]
    versions: int
    fork: int | None = None


@frozen
class Report:
    """What a trial gave: the metric, the number of clients behind it, its standard error, and what it cost."""

    value: float
    clients: int
    stderr: float
    versions: int
    """Versions computed for this report alone."""


@define(eq=False, slots=False)
class Tuner(Component):
    """Proposes trials and hears their results; `[tune] use = "..."`.

    It is told in the order of asking, so that parallel workers do not change what it proposes.
    """

    metric: str = option(
        "val_loss", doc="Metric to optimise; of validation data, never of test data."
    )
    direction: Literal["minimize", "maximize"] = option("minimize", doc="What better means.")
    versions: int = option(10, doc="Versions of a full trial.", validator=ge(1))
    space: dict[str, Any] = field(
        factory=dict,
        metadata={
            "doc": "Search space by dotted key: a list, or { low, high, log }.",
            "per_client": False,
        },
        kw_only=True,
    )

    def ask(self) -> Sequence[Trial]:
        """Return the next trials, up to a barrier; () when the search is over."""
        raise NotImplementedError

    def tell(self, trial: Trial, report: Report | None) -> None:
        """Hear the result of a trial; None: it failed."""
        raise NotImplementedError
