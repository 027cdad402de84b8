"""The workloads W0 to W3 as plain torch: what every contender computes. Imports nothing but torch."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import resource
import statistics
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Workload:
    """Clients with `samples` samples each; `cohort` of `clients` train in each round, one epoch of plain SGD."""

    text: str
    clients: int
    cohort: int
    samples: int
    batch_size: int
    lr: float
    shape: tuple[int, ...]
    classes: int
    rounds: int
    """Rounds that one run measures."""


WORKLOADS = {
    "W0": Workload("linear 4 -> 2", 1000, 1000, 1, 1, 0.1, (4,), 2, 8),
    "W1": Workload("softmax 784 -> 10", 1000, 100, 50, 10, 0.1, (784,), 10, 20),
    "W2": Workload("two-layer 5x5 CNN", 60, 20, 100, 20, 0.01, (1, 28, 28), 62, 2),
    "W3": Workload("3x3 CNN on 3x32x32", 100, 50, 50, 10, 0.1, (3, 32, 32), 10, 2),
}


def model(name: str) -> nn.Module:
    """Return the module of a workload, the same for every contender."""
    torch.manual_seed(7)
    if name == "W0":
        return nn.Linear(4, 2)
    if name == "W1":
        return nn.Linear(784, 10)
    return _femnist() if name == "W2" else _cifar()


def _femnist() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5, padding=2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 5, padding=2), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(), hidden=nn.Linear(3136, 2048), relu3=nn.ReLU(),
            linear=nn.Linear(2048, 62),
        )
    )  # fmt: skip


def _cifar() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 32, 3), relu1=nn.ReLU(), conv2=nn.Conv2d(32, 64, 3), relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2), flatten=nn.Flatten(), hidden=nn.Linear(12544, 128),
            relu3=nn.ReLU(), linear=nn.Linear(128, 10),
        )
    )  # fmt: skip


@functools.cache
def clients(name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return x and y of every client, made once per process."""
    work = WORKLOADS[name]
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(work.clients):
        x = torch.randn(work.samples, *work.shape, generator=generator)
        y = torch.randint(work.classes, (work.samples,), generator=generator)
        y[0] = work.classes - 1
        found.append((x, y))
    return found


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Drop what a peer prints and logs below errors, so that its numbers are all that it writes."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


class Clock:
    """Wall-clock and CPU seconds of rounds; the first ones are warm-up."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """A round begins or ends."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        self.marks.append((time.perf_counter(), own.ru_utime + own.ru_stime))

    def report(self, clients: int, warm: int = 1) -> None:
        """Print microseconds per client, of the median round."""
        pairs = list(zip(self.marks[warm:], self.marks[warm + 1 :], strict=False))
        wall = statistics.median(b[0] - a[0] for a, b in pairs)
        cpu = statistics.median(b[1] - a[1] for a, b in pairs)
        print(json.dumps({"wall_us": 1e6 * wall / clients, "cpu_us": 1e6 * cpu / clients}))
