"""Models: any torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from fscore.component import Component, option

if TYPE_CHECKING:
    import torch

    from fscore.context import Samples


@define(eq=False, slots=False)
class Model(Component):
    """Builds the module that is trained; `[model] use = "..."`."""

    head: str = option("", doc="Dotted name of the module whose input are the features.")

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        """Return a fresh module; the kernel seeds torch's generator around the call.

        Args:
            example: a few samples of a client, for shapes.
            classes: number of classes or size of the vocabulary; None for regression.

        Raises:
            ConfigError: the model does not fit such samples.
        """
        raise NotImplementedError
