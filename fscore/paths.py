"""The upload and download paths: pure steps sorted by rank, never by the order of registration.

Upload: select the shared part 10, difference 20, algorithm groups 30, crafted updates that obey the later stages 35, lossy
compression and error feedback 40, joint clip 50, weight 60, local noise 70, crafted updates that obey nothing 75,
fixed-point encoding 80, mask 90, lossless coding 95. Download: compose 10, noise 30, tamper 35, compress 40, code 95.

The server undoes the upload stages in reverse: one update at a time down to the first stage that can only be undone on
the sum (a mask), the rest on the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from fscore.params import Layout, Tensors, layout_nbytes

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.tasks import Cohort, Task

CLIP_RANK = 50
"""Rank of the joint clip: central noise meets the sum in the form that updates have behind it."""


class Stage:
    """One step of a path, made by a component's `stages()`. It holds no state; what it keeps per client is its row."""

    name: ClassVar[str] = ""
    """How `fscore check` prints it."""
    rank: ClassVar[int] = 50
    """Its place on the path; equal ranks go by the order of the file."""
    down: ClassVar[bool] = False
    """On the way down to the client, rather than up to the server."""
    on_sum: ClassVar[bool] = False
    """Undone on the sum of the updates, and so is every stage of lower rank."""
    per_client: ClassVar[bool] = False
    """On the way down: what it makes depends on the task, not on the version alone."""

    lifts: ClassVar[bool] = False
    """Whether `apply` and `undo` also serve many clients at once: values and rows (clients, ...), a context of many."""

    moves: float = 0.0
    """Largest Euclidean distance by which `apply` may move an update behind the joint clip (rounding); known after `layout`."""

    def layout(self, before: Layout) -> Layout:
        """Return the form that this stage makes of `before`; wire bytes follow from it."""
        return before

    def row(self, before: Layout) -> Layout:
        """Return the client state that it keeps (error feedback)."""
        return {}

    def prepare(self, task: Task) -> Any:
        """Return plain data for this task, made in the course's process; `apply` on the way up finds it in `context.prepared`."""
        return None

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        """Return the new values and the changed rows. Never write into a tensor of `values` in place."""
        raise NotImplementedError

    def undo(self, values: Tensors, context: Context | Cohort) -> Tensors:
        """Undo on the server: on one update (with its context), or on the sum (with the cohort)."""
        return values


@frozen
class Placed:
    """A stage at its place, and the clients that it holds for: all (None), or the controlled ones of an attack."""

    stage: Stage
    owner: str
    only: frozenset[int] | None = None


@frozen
class Path:
    """One direction's stages in order, with the layout before the first and after each."""

    placed: tuple[Placed, ...]
    layouts: tuple[Layout, ...]
    rows: Layout = field(factory=dict)

    @classmethod
    def of(cls, placed: Iterable[Placed], first: Layout) -> Path:
        """Sort stages by rank and follow the layout through them."""
        ordered = tuple(sorted(placed, key=lambda p: p.stage.rank))
        layouts, rows = [first], {}
        for place in ordered:
            rows.update({f"{place.owner}/{n}": g for n, g in place.stage.row(layouts[-1]).items()})
            layouts.append(place.stage.layout(layouts[-1]))
        return cls(ordered, tuple(layouts), rows)

    @cached_property
    def _single(self) -> int:
        """How many stages are undone on the sum."""
        return 1 + max((i for i, p in enumerate(self.placed) if p.stage.on_sum), default=-1)

    @cached_property
    def _prepares(self) -> bool:
        return any(type(p.stage).prepare is not Stage.prepare for p in self.placed)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of one update on the wire."""
        return layout_nbytes(self.wire)

    @cached_property
    def per_client(self) -> bool:
        """Whether what it makes depends on the client, rather than on the version alone."""
        return any(p.stage.per_client or p.only for p in self.placed)

    @property
    def wire(self) -> Layout:
        """The layout that travels."""
        return self.layouts[-1]

    @property
    def single(self) -> Layout:
        """The layout that is summed, after undoing what can be undone on one update, and all public groups."""
        public = {name: group for name, group in self.wire.items() if group.public}
        return {**self.layouts[self._single], **public}

    @property
    def clipped(self) -> Layout:
        """The layout behind the joint clip, in which the server adds noise and divides."""
        behind = sum(1 for p in self.placed if p.stage.rank <= CLIP_RANK)
        return self.layouts[min(self._single, behind)]

    def before(self, rank: float) -> Layout:
        """The layout before the stages of a rank."""
        return self.layouts[sum(1 for p in self.placed if p.stage.rank < rank)]

    def prepare(self, task: Task) -> dict[int, Any]:
        """Return what the stages prepare for a task, by place."""
        if not self._prepares:
            return {}
        made = ((i, p.stage.prepare(task)) for i, p in enumerate(self.placed) if _holds(p, task))
        return {i: value for i, value in made if value is not None}

    def apply(
        self, values: Tensors, context: Context, upto: float | None = None
    ) -> tuple[Tensors, Tensors]:
        """Send values up (or down) the path, as far as before rank `upto`: their form there, and the changed rows."""
        rows: Tensors = {}
        for index, place in enumerate(self.placed):
            if upto is not None and place.stage.rank >= upto:
                break
            if place.only is not None and context.task.client not in place.only:
                continue
            context.enter_stage(index, place.owner)
            values, changed = place.stage.apply(values, context)
            for name, row in changed.items():
                rows[f"{place.owner}/{name}"] = row
        return values, rows

    def undo_single(self, values: Tensors, context: Context) -> Tensors:
        """Undo on one update what can be undone there."""
        for index in range(len(self.placed) - 1, self._single - 1, -1):
            place = self.placed[index]
            if place.only is None or context.task.client in place.only:
                context.enter_stage(index, place.owner)
                values = place.stage.undo(values, context)
        return values

    def undo_sum(
        self, values: Tensors, cohort: Cohort, *, above: float = -1, upto: float = 1000
    ) -> Tensors:
        """Undo on the sum the rest of the stages whose rank is greater than `above` and at most `upto`."""
        for place in reversed(self.placed[: self._single]):
            if place.only is None and above < place.stage.rank <= upto:
                values = place.stage.undo(values, cohort)
        return values

    def describe(self) -> Sequence[str]:
        """Return one line per stage: rank, name, owner."""
        return [f"{p.stage.rank:>3}  {p.stage.name:<16} {p.owner}" for p in self.placed]


def _holds(place: Placed, task: Task) -> bool:
    return place.only is None or task.client in place.only


def elementwise(
    layout: Layout, values: Tensors, transform: Callable[[Any], Any], *, public: bool = False
) -> Tensors:
    """Return values with `transform` applied to every group that is not public (or to all of them)."""
    return {n: transform(v) if public or not layout[n].public else v for n, v in values.items()}
