"""The client side of a course: everything that computing a task needs, and nothing of the server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from fscore.component import Scalar, per_client_options
from fscore.context import Context, Samples
from fscore.errors import DataError
from fscore.params import Group, Layout, ParamSpace, Ranges
from fscore.tasks import SERVER

if TYPE_CHECKING:
    import torch

    from fscore.kinds.attack import Attack
    from fscore.kinds.dataset import Dataset
    from fscore.kinds.metric import Metric
    from fscore.kinds.objective import Objective
    from fscore.kinds.trainer import Trainer
    from fscore.paths import Path
    from fscore.rng import Streams
    from fscore.tasks import Job, Task

METRICS = Group((2,), "float64", "sum", public=True, columns=("loss", "samples"))
"""What every training task reports: sum of losses and number of samples trained on, with repetition."""


@define(eq=False)
class Site:
    """Everything that client-side code may use; one per process, the same in each."""

    streams: Streams
    dataset: Dataset
    module: torch.nn.Module
    """The model; an executor binds it, or a copy of it, to its own flat buffers."""
    space: ParamSpace
    initial: torch.Tensor
    """(P,) the initial model."""
    trainer: Trainer
    objective: Objective
    metrics: Sequence[Metric]
    upload: Path
    download: Path
    rows: Layout
    """Layout of a client's state: the trainer's rows and those of the stages."""
    head: str = ""
    attacks: Sequence[tuple[Attack, frozenset[int]]] = ()
    random_layers: bool = False
    """Whether the model draws random numbers (dropout)."""
    parts: Mapping[str, Ranges] = field(init=False)
    _base: dict[str, Scalar] = field(init=False)
    _cache: OrderedDict[tuple[int, str], Samples] = field(factory=OrderedDict, init=False)

    CACHED = 4096
    """Parts of clients' data that are kept."""

    def __attrs_post_init__(self) -> None:
        self.parts = dict(self.trainer.parts(self.space))
        self._base = per_client_options(self.trainer)

    def data(self, client: int, part: str) -> Samples:
        """Return a client's samples, checked when first used."""
        key = (client, part)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        samples = self._load(client, part)
        x, y = len(samples.x), len(samples.y)
        if x != y:
            raise DataError(f"data: client {client}: x has {x} samples, y has {y}")
        if part == "train" and not y:
            raise DataError(f"data: client {client} has no training samples")
        self._cache[key] = samples
        if len(self._cache) > self.CACHED:
            self._cache.popitem(last=False)
        return samples

    def _load(self, client: int, part: str) -> Samples:
        name, _, place = part.partition(".")
        if name == "probe":
            data = self.data(client, "test")
            return self.attacks[int(place)][0].probe(data) or Samples(data.x[:0], data.y[:0])
        if client != SERVER:
            return self.dataset.client(client, part)
        if (owned := self.dataset.server(part)) is None:
            raise DataError(f"data: the server owns no '{part}' data")
        return owned

    def options(self, task: Task) -> Mapping[str, Any]:
        """Return the trainer's per-client options as this task has them."""
        if not task.hparams:
            return self._base
        own = {k[8:]: v for k, v in task.hparams.items() if k.startswith("trainer.")}
        return {**self._base, **own}

    def seconds_of_work(self, task: Task) -> float:
        """Return the sample gradients of a task."""
        return self.trainer.work(self.dataset.samples(task.client), self.options(task))

    def context(self, job: Job, **callables: Any) -> Context:
        """Return the context of a job; the executor gives the callables that compute losses and gradients."""
        context = Context(
            job=job,
            space=self.space,
            parts=self.parts,
            options=self.options(job.task),
            data=self.data(job.task.client, job.part),
            streams=self.streams,
            first_model=self.initial,
            **callables,
        )
        for attack, controlled in self.attacks if job.part == "train" else ():
            if job.task.client in controlled:
                context.data = attack.poison(context.data, context)
        return context
