"""What the mechanisms of this package have in common: a noise multiplier, given or calibrated, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

from fs_dp.accounting import Release, UnsupportedError, calibrated
from fs_dp.ledger import Ledger, Unit, ledger_of
from fscore.component import option
from fscore.kinds.privacy import PrivacyMechanism

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.tasks import Cohort, Task


def _noise(instance: Any, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(
            f"must be greater than 0, got {value!r}: without noise nothing is guaranteed. "
            "Remedy: raise it, or use = 'clip' to bound norms only"
        )


@define(eq=False, slots=False)
class Accounted(PrivacyMechanism):
    """A mechanism that the ledger accounts for."""

    unit: ClassVar[Unit] = "client"
    """Whose data two neighbouring courses differ in."""
    at_issue: ClassVar[bool] = False
    """Charged when a task is issued, rather than when its update is released."""

    noise_multiplier: float | None = option(
        None,
        doc="Standard deviation of the noise over the clip norm; default: what plugins.dp.epsilon needs.",
        validator=_noise,
    )

    def bind(self, course: Course) -> None:
        """Remember the course and its ledger."""
        self.course = course
        self.ledger: Ledger = ledger_of(course)

    @property
    def common(self) -> bool:
        """Whether everybody is charged, rather than those who took part."""
        return False

    def guarantee(self) -> str:
        """Return in words what is released, and to whom."""
        raise NotImplementedError

    def sampling(self) -> str:
        """Return in words which sampling the guarantee relies on."""
        return "none is relied on: a client that takes part in every version"

    def consequence(self) -> str:
        """Return in words what happens before the budget is exceeded."""
        return "ends the course" if self.common else "ends a client's part in the course"

    @property
    def key(self) -> str:
        """This mechanism's table, as messages name it."""
        return f"privacy.{self.course.privacy.index(self)}"

    def figures(self) -> Mapping[str, float]:
        """Return epsilon so far: the largest over everybody."""
        return self.ledger.reports()

    def admits(self, cohort: Cohort) -> str:
        """Return why no further version may be made; empty while the budget allows it."""
        return self.ledger.exhausted() if self.common else ""

    def charged(self, multiplier: float, client: int) -> tuple[Release, float]:
        """Return what one more participation of a client costs with this noise multiplier, and how often."""
        raise NotImplementedError

    def cost(self, client: int) -> tuple[Release, float]:
        """Return what one more participation of a client costs, and how often."""
        return self.charged(self.multiplier, client)

    def price(self, task: Task) -> tuple[Release, float]:
        """Return what this task costs its client."""
        return self.cost(task.client)

    def costliest(self) -> Sequence[int]:
        """Return clients of whom one has the largest cost."""
        return (0,)

    def worst(self, versions: int, multiplier: float | None = None) -> float:
        """Return epsilon of a client that takes part in so many versions, whoever it is."""
        z = self.multiplier if multiplier is None else multiplier
        costs = (self.charged(z, client) for client in self.costliest())
        return max(self.ledger.of({release: count * versions}) for release, count in costs)

    @cached_property
    def multiplier(self) -> float:
        """The noise multiplier of the file, or the least that keeps the course within `plugins.dp.epsilon`."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        versions, target = self.course.config.course.until.versions, self.ledger.epsilon
        if not versions or not target:
            raise UnsupportedError("there is nothing to calibrate the noise by")
        return calibrated(lambda z: self.worst(versions, z), target)

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a missing noise multiplier, an accountant without a bound, a budget below one version."""
        if self.noise_multiplier is None and not self.ledger.epsilon:
            yield (
                f"{self.key}.noise_multiplier: missing. Remedy: set it, or plugins.dp.epsilon, from which it is computed."
            )
        elif self.noise_multiplier is None and not course.config.course.until.versions:
            yield (
                "course.until: noise for plugins.dp.epsilon follows from the number of versions. "
                f"Remedy: until = {{ versions = N }}, or set {self.key}.noise_multiplier."
            )
        else:
            yield from self._unrounded(course)
            yield from self._affordable()

    def _unrounded(self, course: Course) -> Iterable[str]:
        """Refuse noise so large that the grid which goes with it is coarser than an update."""
        from fs_dp.noise import fits

        given, size = self.noise_multiplier, course.space.size
        if given is not None and not fits(given, size):
            yield (
                f"{self.key}.noise_multiplier: {given:g} is too large for {size} parameters, which are rounded to a "
                "grid that goes with the noise. Remedy: lower it."
            )

    def _affordable(self) -> Iterable[str]:
        if self.ledger.accountant == "pld" and self.ledger.budget is None:
            return
        try:
            one = self.worst(1)
        except UnsupportedError as error:
            yield f"plugins.dp.accountant: {error}"
            return
        if self.ledger.budget is not None and one > self.ledger.budget:
            yield (
                f"plugins.dp.budget: {self.ledger.budget:g}, but one version already costs epsilon {one:.4g}. "
                f"Remedy: raise it, or {self.key}.noise_multiplier."
            )
