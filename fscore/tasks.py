"""Tasks and what travels with them.

A task is one client's work on one version of the model. Dispatching a task computes nothing: its inputs are fixed when it
is issued, its size and duration follow from layouts, and its output is computed when an aggregate opens it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

from fscore.component import Scalar

if TYPE_CHECKING:
    import torch

    from fscore.params import Tensors

ClientId = int
SERVER: ClientId = -1
Resolution = Literal["used", "unused", "failed", "expired", "aborted"]
RESOLUTIONS: tuple[Resolution, ...] = ("used", "unused", "failed", "expired", "aborted")
_NOTHING: Mapping[str, Any] = {}


@frozen
class Deferred:
    """Names a result that may not exist yet; only opening its task shows values.

    nbytes: size of the result on the wire, in bytes. seconds: how long computing it takes, in virtual seconds.
    """

    task: int
    nbytes: int
    seconds: float


@frozen
class Task:
    """One client's work and everything that it is computed from, by reference."""

    id: int
    client: ClientId
    version: int
    kind: str = "train"
    """`train`, `evaluate`, or a plugin's own."""
    wave: int = 0
    """Tasks issued together share it; a closed cohort lies in one wave."""
    hparams: Mapping[str, Scalar] = _NOTHING
    """Options that differ from the file's for this task, by dotted key ([[override]], policies)."""
    inputs: tuple[Deferred, ...] = ()
    """Results of other tasks that it starts from (gossip)."""
    memo: Mapping[str, Any] = _NOTHING
    """What the server remembers with it; never sent to the client."""
    issued_at: float = 0.0
    """Virtual time of its issue."""


@frozen
class Cohort:
    """Tasks that are aggregated together, ordered by (client, version); staleness as of claiming."""

    id: int
    tasks: tuple[Task, ...]
    staleness: tuple[int, ...]
    key: str = ""
    """Tier or cluster that it belongs to, where there are several."""


@define(eq=False)
class Job:
    """A task made ready for an executor: all its inputs by value, or by a reference that workers share."""

    task: Task
    sent: Tensors
    """What the client received: the model after the download path."""
    announced: Mapping[str, Scalar] = _NOTHING
    """What the components published with the task's version."""
    row: Tensors = field(factory=dict)
    """The client's own state, empty for stateless trainers."""
    inputs: tuple[Tensors, ...] = ()
    """Values of `task.inputs`."""
    prepared: Mapping[int, Any] = field(factory=dict)
    """What stages prepared for this task in the course's process, by place in the path."""
    factor: float = 1.0
    """Public factor of its update in the sum (staleness), where the batch is summed."""
    part: str = "train"
    """Which part of the client's data it uses: train, val or test; `probe.0`: what the first attack would show."""
    upto: float | None = None
    """Give the update as it is before the stages of this rank, and undo nothing."""


@frozen
class Batch:
    """Jobs that are computed together. Which jobs form one follows from the course's state alone."""

    jobs: tuple[Job, ...]
    sum: bool
    """Whether the updates are summed where they are computed, and not returned one by one."""
    wire: bool = False
    """Whether the wire form of each update is returned as well, for those who watch the wire."""


@define(eq=False)
class Slice(Mapping[str, Any]):
    """One client's part of tensors (clients, ...) that many share, by name; cheaper than a dict of their parts."""

    shared: Tensors
    place: int

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.shared[name][self.place]

    def __contains__(self, name: object) -> bool:
        return name in self.shared

    def __iter__(self) -> Iterator[str]:
        return iter(self.shared)

    def __len__(self) -> int:
        return len(self.shared)


@define(eq=False)
class Output:
    """What a task gave. `error` is set when its client failed; then there are no values."""

    task: int
    values: Tensors = field(factory=dict)
    """Update groups after the path was undone as far as a single update allows; public ones only, if summed."""
    row: Tensors = field(factory=dict)
    """The client's new state."""
    error: str = ""
    wire: Tensors | None = None
    """The update as it travelled, where `Batch.wire` asked for it."""


@frozen
class BatchOutput:
    """One batch's outputs in the order of its jobs and, if it was summed, the sum of its updates."""

    outputs: tuple[Output, ...]
    sums: Tensors | None = None
