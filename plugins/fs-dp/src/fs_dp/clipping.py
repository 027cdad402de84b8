"""The joint clip of differential privacy: one L2 bound over everything that an update holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fscore.errors import ConfigError
from fscore.params import Group, Layout, Tensors
from fscore.paths import CLIP_RANK, Stage

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.tasks import Cohort

BIT = "clip_bit"
"""Group of the bit of adaptive clipping: 1/2 where the update was not clipped, else -1/2."""


class JointClip(Stage):
    """Scales an update down to the announced L2 norm, jointly over all groups that are neither public nor bounded.

    A zero update stays zero. An update that is not finite stays so, and the kernel rejects it. Whatever lies before the
    clip on the path is undone on the sum, behind the noise, where `central`.

    Args:
        key: the table of the mechanism, for messages.
        norm: the norm; None: what is announced as `clip_norm` with the version that a task started from.
        central: whether noise is added to the sum, rather than to each update.
        bit: whether to send along if the norm was within the bound.
    """

    name = "joint clip"
    rank = CLIP_RANK
    lifts = True

    def __init__(
        self, key: str, norm: float | None = None, *, central: bool = False, bit: bool = False
    ) -> None:
        self.key, self.norm, self.bit, self.on_sum = key, norm, bit, central  # type: ignore[misc]
        self.names: Sequence[str] = ()
        self.axes: dict[str, int] = {}

    def layout(self, before: Layout) -> Layout:
        """Return the form behind the clip.

        Raises:
            ConfigError: a group that cannot be clipped and noised.
        """
        self.names = [n for n, g in before.items() if not (g.public or g.bounded)]
        self.axes = {name: len(before[name].shape) for name in self.names}
        for name in self.names:
            self._require(name, before[name])
        return {**before, BIT: Group((1,), "float64", "sum", bounded=True)} if self.bit else before

    def _require(self, name: str, group: Group) -> None:
        if group.dtype not in ("float32", "float64"):
            raise ConfigError(
                f"{self.key}.use: group '{name}' of the upload is {group.dtype}; only float32 and float64 can be "
                "clipped and noised. Remedy: switch off what makes it so (a compressor)."
            )
        if group.at:
            raise ConfigError(
                f"{self.key}.use: group '{name}' of the upload moves the row that its client chooses ('{group.at}', in the "
                "clear) and is divided by the private number of clients of that row. Remedy: another trainer."
            )
        if group.count:
            raise ConfigError(
                f"{self.key}.use: group '{name}' of the upload is divided by the private count '{group.count}', for "
                "which there is no mechanism. Remedy: another trainer."
            )

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        joint = joint_norm([values[n] for n in self.names], self.lead(values))
        norm = context.announced["clip_norm"] if self.norm is None else self.norm
        bound = torch.as_tensor(norm, dtype=torch.float64).squeeze(-1)
        within = joint <= bound
        scale = torch.where(within, 1.0, bound / joint)
        made = {n: v * along(scale, v) if n in self.names else v for n, v in values.items()}
        if self.bit:
            made[BIT] = torch.where(within, 0.5, -0.5).double().unsqueeze(-1)
        return made, {}

    def lead(self, values: Tensors) -> int:
        """Return the number of axes before those of the layout: 1 where many clients are clipped at once, else 0."""
        name = self.names[0]
        return values[name].dim() - self.axes[name]

    def undo(self, values: Tensors, context: Context | Cohort) -> Tensors:
        return {n: v for n, v in values.items() if n != BIT}


def joint_norm(values: Sequence[torch.Tensor], lead: int = 0) -> torch.Tensor:
    """Return the L2 norm over all of some tensors, in double precision: one for each place of the first `lead` axes."""
    import torch

    flat = [v.reshape(*v.shape[:lead], -1) for v in values]
    norms = [torch.linalg.vector_norm(v, dim=-1, dtype=torch.float64) for v in flat]
    joint: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return joint


def along(scale: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a scale (K,) or () in the type of `value` (K, ...), so that the two can be multiplied."""
    return scale.to(value.dtype).reshape(*scale.shape, *[1] * (value.dim() - scale.dim()))
