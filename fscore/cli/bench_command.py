"""`fscore bench`: what this machine computes, and which executor `auto` would choose on it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

if TYPE_CHECKING:
    from fscore.context import Samples
    from fscore.course import Course


@frozen
class Workload:
    """A course on synthetic data, for measuring."""

    name: str
    text: str
    shape: tuple[int, ...]
    """Of one sample."""
    classes: int
    samples: int
    """Of each client."""
    cohort: int
    """Clients in each version."""
    model: dict[str, Any]
    trainer: dict[str, Any]


WORKLOADS = (
    Workload(
        "W0", "linear 4 -> 2, 1 sample, 1 step", (4,), 2, 1, 1000,
        {"use": "softmax"}, {"use": "sgd", "lr": 0.1},
    ),
    Workload(
        "W1", "softmax 784 -> 10, 50 samples, batch 10", (784,), 10, 50, 100,
        {"use": "softmax"}, {"use": "sgd", "lr": 0.1, "batch_size": 10},
    ),
    Workload(
        "W2", "two-layer 5x5 CNN, 100 samples, batch 20", (1, 28, 28), 62, 100, 20,
        {"use": "femnist_cnn"}, {"use": "sgd", "lr": 0.01, "batch_size": 20},
    ),
    Workload(
        "W3", "CIFAR-10 CNN, 50 samples, batch 10", (3, 32, 32), 10, 50, 50,
        {"use": "cnn"}, {"use": "sgd", "lr": 0.1, "batch_size": 10},
    ),
)  # fmt: skip
"""What benchmarks/peers compares; W0 has 10 parameters, W1 7,850, W2 6.6 million, W3 1.6 million."""


def workload(name: str) -> Workload:
    """Return a workload by name."""
    return next(w for w in WORKLOADS if w.name == name)


def clients_of(work: Workload, count: int) -> list[tuple[Samples, Samples]]:
    """Return the data of `count` clients: normal x, random classes, no test samples."""
    import torch

    from fscore.context import Samples

    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        x = torch.randn(work.samples, *work.shape, generator=generator)
        y = torch.randint(work.classes, (work.samples,), generator=generator)
        y[0] = work.classes - 1  # every client shows how many classes there are
        found.append((Samples(x, y), Samples(x[:0], y[:0])))
    return found


def course_of(
    work: Workload,
    data: Sequence[tuple[Samples, Samples]],
    versions: int,
    cohort: int | None = None,
    **executor: Any,
) -> Course:
    """Assemble a course of a workload that evaluates nothing."""
    from fscore.builtin.api import load

    tables = {
        "course": {"name": work.name, "seed": 1, "until": {"versions": versions}},
        "model": dict(work.model),
        "trainer": dict(work.trainer),
        "sampler": {"use": "uniform", "clients": cohort or min(work.cohort, len(data))},
        "evaluation": {"every": 0, "parts": []},
        "executor": {"use": "auto", **executor},
    }
    return load(tables, data=data).course()


def seconds_per_client(course: Course, warm: int = 1) -> float:
    """Run a course and return its wall-clock seconds per client, after `warm` versions."""
    began: list[float] = []

    def watch(running: Course) -> bool:
        if running.book.version >= warm and not began:
            began.append(time.perf_counter())
        return False

    result = course.run(watch)
    taken = time.perf_counter() - began[0]
    if result is None or result.status != "complete":
        raise click.ClickException("the course of a benchmark failed")
    versions = course.book.version - warm
    return taken / (versions * course.book.wanted)


def aggregation(size: int, count: int) -> tuple[float, float]:
    """Return bytes per second of adding `count` updates of `size` floats, and of plain copies of them."""
    import torch

    from fscore.folding import fold
    from fscore.params import Group
    from fscore.tasks import Output

    updates = torch.randn(count, size)  # different ones, so that none comes from a cache
    outputs = [Output(i, {"model": update}) for i, update in enumerate(updates)]
    fold(outputs[:2], [1.0] * 2, {"model": Group((size,))})
    start = time.perf_counter()
    fold(outputs, [1.0] * count, {"model": Group((size,))})
    adding = time.perf_counter() - start
    target = torch.zeros(size)
    start = time.perf_counter()
    for update in updates:
        target.copy_(update)
    copying = time.perf_counter() - start
    return updates.nbytes / adding, updates.nbytes / copying


@click.command("bench")
@click.option("--quick", is_flag=True, help="Leave out the convolutional workload.")
def command(quick: bool) -> None:
    """Measure this machine: time per client of reference workloads, aggregation, and what `auto` would choose."""
    import torch

    torch.set_num_threads(1)
    click.echo(f"{os.cpu_count()} cores, torch {torch.__version__}, one thread per process")
    for work in WORKLOADS[: 2 if quick else 3]:
        _measure(work)
    added, copied = aggregation(4_000_000, 20)
    click.echo(
        f"aggregation: {added / 1e9:.1f} GB/s of updates (20 of 4 million values); plain copies {copied / 1e9:.1f} GB/s"
    )


def _measure(work: Workload) -> None:
    data = clients_of(work, min(2 * work.cohort, 1000))
    versions = 3 if work.name == "W2" else 8
    cohort = 4 if work.name == "W2" else None
    click.echo(f"{work.name}: {work.text}")
    chosen = course_of(work, data, versions, cohort)
    for use in dict.fromkeys(("serial", chosen.executor.name)):
        course = chosen if use == chosen.executor.name else course_of(
            work, data, versions, cohort, use=use
        )  # fmt: skip
        taken = seconds_per_client(course)
        click.echo(f"  {use:<8} {1e3 * taken:9.3f} ms per client  {1 / taken:10,.0f} clients/s")
    click.echo(f"  auto: {chosen.executor.reason}")
