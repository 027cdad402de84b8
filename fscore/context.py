"""What client-side code may see while it computes one task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from attrs import define, field, frozen

from fscore.component import Scalar

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fscore.params import ParamSpace, Ranges, Tensors
    from fscore.rng import Streams
    from fscore.tasks import Job, Task


class Samples(NamedTuple):
    """Samples of one client: a batch, or a whole part of its data.

    x: (samples, ...). y: (samples, ...). valid: (samples,) of 0 and 1, or None where every row counts; an executor that
    pads batches sets it. numbers: (samples,) int64, the places of a training batch's samples in the client's data.
    """

    x: torch.Tensor
    y: torch.Tensor
    valid: torch.Tensor | None = None
    numbers: torch.Tensor | None = None


@frozen
class Phase:
    """Variables that are trained together."""

    train: tuple[str, ...] = ("model",)
    """Names of the variables that get gradients and steps."""
    epochs: float | None = None
    """Passes over the client's samples; None: the trainer's option `epochs`."""
    part: str = ""
    """Name of a part in `Trainer.parts` that is trained; empty: everything trainable."""


@frozen
class Order:
    """Which samples each step uses.

    index: (sum of sizes,) int64, sample numbers, step after step; None: each step takes all samples in the order of the
    data. sizes: samples of each step; 0 is legal (an empty Poisson batch).
    """

    index: torch.Tensor | None
    sizes: tuple[int, ...]


@frozen
class Passes:
    """What `Trainer.batches` may return instead: passes over the client's samples in random order, keyed by client, task, pass.

    Batches of `batch_size` samples (0: all), the last of each pass short; both are numbers, or columns (clients, 1).
    """

    epochs: Any
    batch_size: Any


class Losses(Protocol):
    """Per-sample losses of a model: `(params (P,), samples) -> (samples,)`."""

    def __call__(self, params: torch.Tensor, batch: Samples) -> torch.Tensor: ...


@define(slots=True)
class Context:
    """One task at the client: nothing of the server, nothing of other clients.

    An executor makes one per task and moves it along (phase, step). Where an executor lifts pieces over many clients,
    `options` hold columns of shape (clients, 1) and `sent`, `row` hold a leading axis of clients.
    """

    job: Job
    space: ParamSpace
    """Layout of the flat parameter vector."""
    parts: Mapping[str, Ranges]
    """Named parts of the model, from `Trainer.parts`."""
    options: Mapping[str, Any]
    """The trainer's per-client options, overrides applied."""
    data: Samples
    """This client's samples of the task's part."""
    streams: Streams
    first_model: torch.Tensor
    """(P,) the initial model, known to everybody."""
    losses: Losses
    """(params, batch) -> (samples,): per-sample losses of the model."""
    outputs: Callable[[torch.Tensor, Samples], torch.Tensor]
    """(params, batch) -> (samples, ...): what the model puts out."""
    features: Callable[[torch.Tensor, Samples], torch.Tensor]
    """(params, batch) -> (samples, d): the input of the model's head."""
    differentiate: Callable[..., Tensors]
    """(loss, variables, batch, context) -> gradient of the mean loss by trained variable."""
    per_sample: Callable[..., Tensors]
    """(loss, variables, batch, context) -> per-sample gradients (samples, P) by trained variable."""
    judge: Callable[..., torch.Tensor] | None = None
    """(variables, part) -> (1 + sums,): count and sums of the course's metrics on another part of this client's data."""
    phase: Phase = field(factory=Phase)
    ranges: Ranges = ()
    """Ranges of the flat vector that the phase trains."""
    step: Any = 0
    """Steps taken so far in this phase."""
    steps: Any = 0
    """Steps taken so far in all phases."""
    loss_sum: float = 0.0
    """Sum over trained samples of their losses."""
    seen: float = 0.0
    """Samples trained on so far, with repetition."""
    measured: Tensors = field(factory=dict)
    """What the trainer's `survey` and `summary` gave."""
    passes: int = 0
    """Passes over the data that were drawn so far; keys the order of the next one."""
    stage: int = -1
    """Place of the stage that is running."""
    owner: str = ""

    @property
    def task(self) -> Task:
        """The task that is computed."""
        return self.job.task

    @property
    def sent(self) -> Tensors:
        """What was received: values of the trainer's slots after the download path."""
        return self.job.sent

    @property
    def row(self) -> Tensors:
        """This client's state."""
        return self.job.row

    @property
    def announced(self) -> Mapping[str, Scalar]:
        """What the server published with the task's version."""
        return self.job.announced

    @property
    def prepared(self) -> Any:
        """What the running stage prepared for this task."""
        return self.job.prepared.get(self.stage)

    @property
    def samples(self) -> int:
        """How many samples the client has in this part."""
        return self.data.y.shape[0]

    def initial(self, like: torch.Tensor) -> torch.Tensor:
        """Return a fresh copy of the initial model (..., P), with the leading axes of `like`."""
        return self.first_model.expand(*like.shape[:-1], -1).clone()

    def enter_stage(self, index: int, owner: str) -> None:
        """Note which stage runs; its `prepared` and `stage_row` follow."""
        self.stage, self.owner = index, owner

    def stage_row(self, name: str) -> torch.Tensor:
        """Return a row of the running stage."""
        return self.job.row[f"{self.owner}/{name}"]

    def rng(self, purpose: str, *key: int) -> np.random.Generator:
        """Return a generator keyed by client and task."""
        return self.streams.generator(purpose, self.task.client, self.task.id, *key)

    def numbers(self, purpose: str, *key: int, count: int) -> np.ndarray[Any, Any]:
        """Return `count` uniform 64-bit numbers keyed by client and task."""
        return self.streams.numbers(purpose, self.task.client, self.task.id, *key, count=count)
