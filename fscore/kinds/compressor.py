"""Compressors: smaller messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import Component

if TYPE_CHECKING:
    from fscore.paths import Stage


@define(eq=False, slots=False)
class Compressor(Component):
    """Lossy or lossless compression of what travels; `[[compressor]] use = "..."`.

    It is its stages: rank 40 for lossy ones, 95 for lossless ones.
    """

    def stages(self) -> Iterable[Stage]:
        """Return the stages that compress on the way up or down and decompress at the other end."""
        raise NotImplementedError(f"compressor '{self.name}' has no stages")
