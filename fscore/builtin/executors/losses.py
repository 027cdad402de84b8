"""What a loss must give, whoever computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fscore.errors import PluginError
from fscore.kinds.trainer import Trainer

if TYPE_CHECKING:
    import torch

    from fscore.site import Site


def one_per_sample(each: torch.Tensor, samples: int, site: Site) -> torch.Tensor:
    """Return the losses (samples,) of one client's batch.

    Raises:
        PluginError: they have another shape; it names the trainer's loss, or the objective's where the trainer has none.
    """
    if each.shape != (samples,):
        own = type(site.trainer).loss is not Trainer.loss
        whose = (
            f"trainer '{site.trainer.name}': loss()"
            if own
            else f"objective '{site.objective.name}': losses()"
        )
        raise PluginError(
            f"{whose} gave shape {tuple(each.shape)}, expected one loss per sample ({samples},)"
        )
    return each
