"""Free riders: clients that take part without training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from attrs import define

from fs_byzantine.base import Byzantine, whole_models
from fscore.component import ge, option, state

if TYPE_CHECKING:
    import torch

    from fscore.course import Course
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class FreeRider(Byzantine):
    """Sends what looks like an update, without training (Lin et al., 2019; Fraboni et al., AISTATS 2021).

    `nothing` returns the model unchanged; `previous` sends how the released model changed last, the delta weights attack, and
    nothing while it knows of one version only. `noise` disguises either.
    """

    name = "free_rider"
    colludes: ClassVar[Literal["", "controlled", "all"]] = "controlled"

    sends: Literal["nothing", "previous"] = option("previous", doc="What it sends.")
    noise: float = option(
        0.0, doc="Standard deviation of Gaussian noise that it adds.", validator=ge(0)
    )
    released: list[Any] = state(list)

    @property
    def sees(self) -> frozenset[str]:  # type: ignore[override]
        """It watches the model where it sends how that changed."""
        return frozenset({"released"} if self.sends == "previous" else ())

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.first: torch.Tensor = course.initial

    def check(self, course: Course) -> Iterable[str]:
        """Refuse to send changes of the model where something else is averaged."""
        yield from super().check(course)
        trainer = course.trainer
        groups = trainer.groups(course.space)
        whole = [n for n, g in groups.items() if g.reduce == "mean"]
        if self.sends == "previous" and (whole != ["model"] or not whole_models(course)):
            yield (
                f"{self.key}.sends: 'previous' needs updates that are whole models, but trainer '{trainer.name}' sends "
                "something else. Remedy: set it to 'nothing'."
            )

    def observe(self, view: Mapping[str, Any]) -> Mapping[str, Any]:
        self.released = [*self.released[-1:], view["released"]["model"]]
        return {}

    def craft(
        self,
        honest: torch.Tensor,
        mine: Sequence[int],
        cohort: Cohort,
        rng: np.random.Generator,
    ) -> torch.Tensor:
        import torch

        sent = honest[list(mine)].clone()
        tasks = [task for task in cohort.tasks if task.client in self.controlled]
        for place, task in enumerate(tasks):
            if self.acts(task.version):
                noise = rng.standard_normal(sent.shape[1], dtype=np.float32) * np.float32(
                    self.noise
                )
                sent[place] = self._change(sent[place]) + torch.from_numpy(noise)
        return sent

    def _change(self, like: torch.Tensor) -> torch.Tensor:
        if self.sends == "nothing" or not self.released:
            return like * 0
        *before, after = self.released
        return after - (before[0] if before else self.first)  # type: ignore[no-any-return]
