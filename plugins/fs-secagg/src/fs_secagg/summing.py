"""What mechanisms have in common that show the server nothing but a sum: integers of a ring, and closed cohorts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define, validators

from fs_secagg.fixed_point import Budget, FixedPoint
from fs_secagg.keys import derive, digest
from fscore.builtin.stages import Weight
from fscore.component import ge, gt, option, state
from fscore.errors import PluginError
from fscore.kinds.privacy import PrivacyMechanism

if TYPE_CHECKING:
    from fs_secagg.ring import Mask
    from fscore.course import Course
    from fscore.params import Layout
    from fscore.paths import Stage
    from fscore.tasks import Cohort, Task

Key = tuple[int, int]
"""A session: its wave, and its place in the wave."""
SLACK = 1e-3
"""Part of the clip norm by which rounding may lengthen an update under central noise."""
LEAST_BITS = 8
"""Bits of a value with its sign below which training is not worth while."""


def ring_bits(instance: Any, attribute: Any, value: Any) -> None:
    """Refuse rings of other than 32 or 64 bits."""
    if value not in (32, 64):
        raise ValueError(f"must be 32 or 64, got {value!r}")


@define(eq=False, slots=False)
class RingSum(PrivacyMechanism):
    """Options and sessions of `secagg` and `secret_sharing`.

    A *session* is a closed cohort: tasks that were issued together and are summed together. What is late for its
    session is given up.
    """

    removes = frozenset({"individual_updates", "public_weights", "plain_metrics", "single_decode"})
    provides = frozenset({"closed_cohort", "secure_sum"})
    every: ClassVar[bool] = False
    """Whether a sum needs the vector of every client of its session."""

    clip_range: float = option(
        1.0, doc="Changes of the model are clamped to [-clip_range, clip_range].", validator=gt(0)
    )
    ranges: dict[str, float] = option(
        factory=dict,
        doc="Ranges of further groups, by name (control variates, prototypes), above 0.",
        validator=validators.deep_mapping(validators.instance_of(str), gt(0)),
    )
    bits: int | None = option(
        None, doc="Bits of a value with its sign; default: all that the ring has room for.",
        validator=ge(2),
    )  # fmt: skip
    max_weight: int | None = option(
        None, doc="Largest weight of a client in samples; larger ones count as it.", validator=ge(1)
    )
    ring: int = option(
        32,
        doc="Bits of the ring, 32 or 64: bytes of a value on the wire times 8.",
        validator=ring_bits,
    )
    session: int | None = option(
        None,
        doc="Clients of a session; default: all tasks that are issued together.",
        validator=ge(2),
    )
    sessions: dict[Key, Any] = state(dict)

    # ------------------------------------------------------------------------ configuration

    def bind(self, course: Course) -> None:
        """Remember the course, and where this table stands in its file."""
        self.course = course
        self.where = next((t for t, c in course.components.items() if c is self), "privacy")

    @property
    def largest(self) -> int:
        """Clients of a session, at most."""
        if self.varies:
            return self.course.population.participants
        return self.session or int(self.course.protocol.tasks_at_once(self.course))

    @property
    def varies(self) -> bool:
        """Whether any number of clients may be issued together."""
        return self.session is None and self.course.sampler.scheme == "poisson"

    @property
    def budget(self) -> Budget:
        """What the ring has room for."""
        weight = (self.max_weight or 1) if self._weighted else 1
        return Budget(self.ring, self.largest, weight)

    @property
    def _weighted(self) -> bool:
        """Whether clients state a weight on the path."""
        return any(isinstance(stage, Weight) for stage in self.course.aggregator.stages())

    @property
    def least(self) -> int:
        """Vectors that a sum needs."""
        return self.largest

    def check(self, course: Course) -> Iterable[str]:
        """Refuse courses whose cohorts are not closed, and rings that are too small."""
        from fscore.builtin.rounds import Rounds

        if not isinstance(course.protocol, Rounds):
            yield f"{self.where}.use: '{self.name}' works in protocol 'rounds', not in '{course.protocol.name}'."
            return
        others = [m.name for m in course.privacy if isinstance(m, RingSum) and m is not self]
        if others:
            yield (
                f"{self.where}.use: '{self.name}' and '{others[0]}' both hide updates in a sum. "
                "Remedy: keep one of them."
            )
        yield from self._open_problems(course)
        yield from self._size_problems(course)
        found = list(self._ring_problems())
        yield from found or self._norm_problems(course)

    def _open_problems(self, course: Course) -> Iterator[str]:
        if course.protocol.broadcast == "after_receiving":
            yield (
                f"protocol.broadcast: 'after_receiving' issues tasks one by one, but '{self.name}' sums tasks that "
                "were issued together. Remedy: 'after_aggregating'; for an asynchronous course set "
                f"{self.where}.session, and "
                "protocol.concurrency to a multiple of it."
            )

    def _size_problems(self, course: Course) -> Iterator[str]:
        issued = course.protocol.tasks_at_once(course)
        if self.session and course.sampler.scheme == "poisson":
            yield (
                f"{self.where}.session: 'poisson' draws any number of clients, and those beyond a multiple would be "
                "given up. Remedy: remove the line."
            )
        elif self.session and (self.session > issued or issued % self.session):
            yield (
                f"{self.where}.session: {issued} tasks are in flight, which is no multiple of {self.session}. "
                f"Remedy: set protocol.concurrency to {self.session}, or to a multiple."
            )

    def _ring_problems(self) -> Iterator[str]:
        if self._weighted and self.max_weight is None:
            yield (
                f"{self.where}.max_weight: weights are numbers of samples, and '{self.name}' sums them with the updates, "
                "so that they need a bound. Remedy: set max_weight, or aggregator.weighting = 'uniform'."
            )
            return
        budget, least = self.budget, 2 ** (LEAST_BITS - 1) - 1
        wanted = least if self.bits is None else 2 ** (self.bits - 1) - 1
        if wanted > budget.levels:
            fits = (budget.levels + 1).bit_length()
            yield (
                f"{self.where}.{'ring' if self.bits is None else 'bits'}: the sum of {budget.clients} clients with "
                f"weights up to {budget.max_weight} and {self.bits or LEAST_BITS} bits a value can overflow "
                f"2^{self.ring}, there is room for {fits}. Remedy: lower bits or max_weight, sum fewer clients, "
                "or set ring = 64."
            )

    def _norm_problems(self, course: Course) -> Iterator[str]:
        """Refuse rounding that lengthens an update beyond the norm that central noise was made for."""
        levels = self.budget.levels if self.bits is None else 2 ** (self.bits - 1) - 1
        longer = self.clip_range / levels * math.sqrt(course.space.size)
        for mechanism in course.privacy:
            norm = float(mechanism.announce().get("clip_norm", math.inf))
            noisy = type(mechanism).privatise is not PrivacyMechanism.privatise
            if noisy and longer > SLACK * norm:
                yield (
                    f"{self.where}.{'ring' if self.bits is None else 'bits'}: rounding can add {longer / norm:.2g} "
                    f"of clip_norm to the norm of an update, for which the noise of '{mechanism.name}' is not made. "
                    "Remedy: raise bits, lower clip_range to the clip norm, or set ring = 64."
                )

    # ------------------------------------------------------------------------ the path

    def stages(self) -> Iterable[Stage]:
        """Encode and mask; a checksum goes on the wire with the vector."""
        from fs_secagg.stages import Checksum, Encode, Mask

        return Encode(self), Mask(self), Checksum()

    def fixed_point(self, layout: Layout) -> FixedPoint:
        """Return how the groups of an update become integers."""
        return FixedPoint.of(layout, self.budget, self.clip_range, self.ranges, self.bits)

    def factor(self, cohort: Cohort) -> float:
        """Return the public factor of a cohort (staleness), which is the same for all of a session."""
        factors = {float(f) for f in self.course.aggregator.factors(cohort)}
        if len(factors) != 1:
            raise PluginError(
                f"aggregator '{self.course.aggregator.name}': factors() differ within a session of '{self.name}'"
            )
        return factors.pop()

    def entropy(self, client: int, wave: int) -> bytes:
        """Return the 32 bytes that all secrets of a client in one wave come from; in simulation, of the course's seed.

        They are stored nowhere. A deployed client draws them from its operating system, and drops out if it restarts.
        """
        seed = str(self.course.streams.seed).encode()
        return digest(b"simulated", seed, client.to_bytes(8, "little"), wave.to_bytes(8, "little"))

    def rounding(self, task: Task) -> bytes:
        """Return the seed of a task's rounding."""
        return derive(self.entropy(task.client, task.wave), b"rounding")

    def masking(self, task: Task) -> Any:
        """Return an object of plain data whose `masks()` are what a task's vector is masked with."""
        raise NotImplementedError

    def left(self, cohort: Cohort) -> list[Mask]:
        """Return the masks that are left in the sum of a cohort, with the signs that remove them."""
        return []

    # ------------------------------------------------------------------------ sessions

    def find(self, wave: int, client: int) -> Key | None:
        """Return the session of a client in a wave; None: it has none."""
        places = (k for k, s in self.sessions.items() if k[0] == wave and client in s["tasks"])
        return next(places, None)

    def key_of(self, task: Task) -> Key | None:
        """Return the session of a task; None: it has none."""
        return self.find(task.wave, task.client)

    def forget(self, key: Key, members: Iterable[int]) -> None:
        """Forget what was kept of a session that is over, and of its clients."""

    def split(self, tasks: Sequence[Task]) -> tuple[list[list[Task]], list[Task]]:
        """Return the sessions of tasks that were issued together, and the tasks that are too few for one.

        Who is in a session with whom is drawn anew for each wave.
        """
        size = self.session or len(tasks)
        rng = self.course.streams.generator("sessions", tasks[0].wave)
        mixed = [tasks[i] for i in rng.permutation(len(tasks))]
        whole = len(mixed) // size * size
        return [mixed[i : i + size] for i in range(0, whole, size)], mixed[whole:]


__all__ = ["Key", "RingSum", "ring_bits"]
