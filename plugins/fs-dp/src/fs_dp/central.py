"""Client-level differential privacy at a trusted server: clip at the client, noise on the sum."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fs_dp.accounting import Release
from fs_dp.clipping import BIT, JointClip
from fs_dp.mechanism import Accounted
from fscore.component import between, gt, option, state
from fscore.errors import CourseError
from fscore.events import Released
from fscore.params import Tensors, intersect, zeros
from fscore.paths import CLIP_RANK

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fs_dp.noise import Source
    from fscore.course import Course
    from fscore.paths import Stage
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class Gaussian(Accounted):
    """DP-FedAvg with fixed clipping (McMahan et al., ICLR 2018, algorithm 1).

    Each update is clipped to the joint L2 norm C that was announced with its version. The sum over the cohort gets
    Gaussian noise of standard deviation z C and is divided by a public number. Clients that drop out leave the noise as
    it is.
    """

    name = "gaussian"
    needs = frozenset({"fixed_denominator"})
    provides = frozenset({"bounded_norm"})
    removes = frozenset({"single_decode"})
    clip_norm: float = option(1.0, doc="C: largest L2 norm of an update.", validator=gt(0))

    def stages(self) -> Iterable[Stage]:
        self.stage = JointClip(self.key, central=True)
        return (self.stage,)

    def announce(self) -> Mapping[str, float]:
        return {"clip_norm": self.norm}

    @property
    def norm(self) -> float:
        """The clip norm of the next version."""
        return self.clip_norm

    # ------------------------------------------------------------------------ accounting

    @property
    def common(self) -> bool:
        """Whether everybody is charged: on a Poisson sample, or where private values may say who takes part."""
        return self.ledger.amplified or self.course.sampler.scheme == "other"

    def charged(self, multiplier: float, client: int) -> tuple[Release, float]:
        rate = self.course.sampler.rate(self.course.population) if self.ledger.amplified else 1.0
        return Release(multiplier, float(rate)), 1.0

    def releases(self, cohort: Cohort) -> Iterable[Released]:
        """Charge what was realised: a cohort of several waves is no Poisson sample, and who is in it twice counts twice."""
        times = Counter(task.client for task in cohort.tasks)
        release, _ = self.cost(0)
        if self.common:
            most = max(times.values(), default=1)
            waves = len({task.wave for task in cohort.tasks})
            release = Release(
                release.noise_multiplier / most, release.rate if waves <= 1 and most == 1 else 1.0
            )
            self.ledger.charge(self.unit, release)
        else:
            for client, often in times.items():
                self.ledger.charge(self.unit, release, often**2, client)
        yield Released(
            "version",
            (
                ("mechanism", self.name), ("unit", self.unit), ("to", "everybody"),
                ("noise_multiplier", release.noise_multiplier), ("rate", release.rate),
                ("adjacency", self.ledger.adjacency), ("clients", len(times)),
            ),
        )  # fmt: skip

    def guarantee(self) -> str:
        return "every version of the model may be published; the server is trusted with clipped updates"

    def sampling(self) -> str:
        if not self.ledger.amplified:
            return super().sampling()
        rate = self.course.sampler.rate(self.course.population)
        return (
            f"Poisson: each client with probability {rate:g} per version, by itself and in secret"
        )

    # ------------------------------------------------------------------------ noise

    def privatise(self, sums: Tensors, cohort: Cohort, rng: np.random.Generator) -> Tensors:
        """Add noise to the sum of clipped updates; an empty cohort is noise alone."""
        whole = {**self._zeros(), **sums}
        names, source = list(self.stage.names), self.ledger.source(rng)
        made = self._noised(
            [whole[n] for n in names], self.update_multiplier, self._largest(cohort), source
        )
        return {**whole, **dict(zip(names, made, strict=True))}

    @property
    def update_multiplier(self) -> float:
        """The noise multiplier of the updates."""
        return self.multiplier

    @staticmethod
    def _noised(
        values: Sequence[torch.Tensor], multiplier: float, sensitivity: float, source: Source
    ) -> list[torch.Tensor]:
        from fs_dp.noise import noised

        return noised(values, multiplier, sensitivity, source)

    def _zeros(self) -> Tensors:
        layout = self.course.site.upload.clipped
        return zeros({n: g for n, g in layout.items() if not g.public})

    def _largest(self, cohort: Cohort) -> float:
        """Return the largest norm of an update: what was announced with its version, and what is rounded behind the clip."""
        versions = {task.version for task in cohort.tasks} | {self.course.book.version}
        norm = max(float(self.course.announced(v)["clip_norm"]) for v in versions)
        return norm + rounding(self.course)

    # ------------------------------------------------------------------------ checks

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a second central mechanism, a cohort of one, and variances that noise would make negative."""
        yield from super().check(course)
        others = [m for m in course.privacy if "clip_norm" in m.announce()]
        if len(others) > 1 and others[0] is not self:
            yield (
                f"{self.key}.use: '{others[0].name}' clips already, and one course has one announced clip norm. "
                "Remedy: remove one of them."
            )
        if getattr(course.aggregator, "expected", 2) < 2:
            yield (
                f"{self.key}.use: '{self.name}' hides a client among others, but a version is made of one. "
                "Remedy: more clients per version, or use = 'local_dp'."
            )
        yield from self._buffers(course)

    def _buffers(self, course: Course) -> Iterable[str]:
        shared = course.trainer.parts(course.space)["shared"]
        for entry in course.space.entries:
            if entry.name.endswith("running_var") and intersect(
                ((entry.start, entry.stop),), shared
            ):
                yield (
                    f"{self.key}.use: noise makes variances of the batch norm layer '{entry.module}' negative. "
                    f"Remedy: group norm, or trainer.private = ['{entry.kind}*']."
                )


FARTHEST = 50.0
"""How far the logarithm of an adaptive clip norm may go from the first one."""


def rounding(course: Course) -> float:
    """Return by how much the stages behind the joint clip may lengthen an update: fixed point rounds up or down."""
    behind = [p.stage for p in course.site.upload.placed if p.stage.rank > CLIP_RANK]
    return float(sum(stage.moves for stage in behind))


def _at_least_noise(multiplier: float, deviation: float) -> float | None:
    """Return z_Delta = (z^-2 - (2 sigma_b)^-2)^(-1/2), None where the bits alone cost more."""
    square = multiplier**-2 - (2 * deviation) ** -2
    return square**-0.5 if square > 0 else None


@define(eq=False, slots=False)
class AdaptiveClipping(Gaussian):
    """DP-FedAvg with adaptive clipping (Andrew et al., NeurIPS 2021, algorithm 1).

    The clip norm follows a quantile of the update norms: C <- C exp(-eta (b - gamma)), where b is the noised share of
    updates whose norm is at most C. Updates and bits together cost what one Gaussian of multiplier z costs: updates get
    z_Delta = (z^-2 - (2 sigma_b)^-2)^(-1/2) (theorem 1). A version's noise belongs to the norm that its clients clipped to;
    the norm changes afterwards.
    """

    name = "adaptive_clipping"
    clip_norm: float = option(0.1, doc="C of the first version.", validator=gt(0))
    quantile: float = option(
        0.5, doc="gamma: share of updates that are not clipped.", validator=between(0, 1)
    )
    clip_lr: float = option(0.2, doc="eta: learning rate of the clip norm.", validator=gt(0))
    bit_noise: float | None = option(
        None,
        doc="sigma_b: standard deviation on the sum of bits; default: a twentieth of the clients wanted, at least z.",
        validator=gt(0),
    )
    logarithm: float = state(float)

    def stages(self) -> Iterable[Stage]:
        self.stage = JointClip(self.key, central=True, bit=True)
        return (self.stage,)

    @property
    def norm(self) -> float:
        return self.clip_norm * math.exp(self.logarithm)

    @property
    def bit_deviation(self) -> float:
        """sigma_b."""
        if self.bit_noise is not None:
            return self.bit_noise
        return max(self._expected / 20, self.multiplier)

    @property
    def _expected(self) -> float:
        return float(self.course.aggregator.expected)

    @property
    def update_multiplier(self) -> float:
        found = _at_least_noise(self.multiplier, self.bit_deviation)
        if found is None:
            raise CourseError(self._too_quiet())
        return found

    def _too_quiet(self) -> str:
        return (
            f"{self.key}.bit_noise: {self.bit_deviation:g}, but the bits alone cost more than a noise multiplier of "
            f"{self.multiplier:g} unless it is greater than {self.multiplier / 2:g}. Remedy: raise it."
        )

    def check(self, course: Course) -> Iterable[str]:
        """Refuse noise on the bits that alone costs more than the whole may."""
        problems = [*super().check(course)]
        yield from problems
        if problems or not hasattr(course.aggregator, "expected"):
            return
        if _at_least_noise(self.multiplier, self.bit_deviation) is None:
            yield self._too_quiet()

    def privatise(self, sums: Tensors, cohort: Cohort, rng: np.random.Generator) -> Tensors:
        """Add noise to updates and bits, then move the clip norm."""
        noised = super().privatise(sums, cohort, rng)
        source = self.ledger.source(rng)
        (bits,) = self._noised([noised[BIT]], 2 * self.bit_deviation, 0.5, source)
        self._move(float(bits) / self._expected + 0.5)
        return {**noised, BIT: bits}

    def _move(self, share: float) -> None:
        """Move the clip norm for the next version.

        Raises:
            CourseError: it left all bounds.
        """
        self.logarithm -= self.clip_lr * (share - self.quantile)
        if not abs(self.logarithm) <= FARTHEST:
            raise CourseError(
                f"{self.key}.clip_lr: the clip norm ran away to exp({self.logarithm:.4g}) of the first one. "
                "Remedy: lower clip_lr, or bit_noise."
            )
