"""The built-in privacy stage: a bound on the norm of what a client sends. It adds no noise and guarantees nothing alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import gt, option
from fscore.kinds.privacy import PrivacyMechanism
from fscore.paths import CLIP_RANK, Stage

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.params import Layout, Tensors


class Clip(Stage):
    """Scales an update down to a joint L2 norm over all groups that are neither public nor bounded."""

    name = "clip"
    rank = CLIP_RANK

    def __init__(self, norm: float) -> None:
        self.norm = norm

    def layout(self, before: Layout) -> Layout:
        self.names = [n for n, g in before.items() if not (g.public or g.bounded)]
        return before

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        norms = torch.stack([torch.linalg.vector_norm(values[name]) for name in self.names])
        joint = float(torch.linalg.vector_norm(norms))
        scale = 1.0 if joint <= self.norm else self.norm / joint
        return {n: v * scale if n in self.names else v for n, v in values.items()}, {}


@define(eq=False, slots=False)
class NormClip(PrivacyMechanism):
    """Clips each update to a joint L2 norm (McMahan et al., ICLR 2018, section 2)."""

    name = "clip"
    provides = frozenset({"bounded_norm"})
    clip_norm: float = option(1.0, doc="Largest norm of an update.", validator=gt(0))

    def stages(self) -> Iterable[Stage]:
        return (Clip(self.clip_norm),)

    def announce(self) -> dict[str, float]:
        return {"clip_norm": self.clip_norm}
