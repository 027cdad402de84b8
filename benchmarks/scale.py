"""Clients per second and peak memory by size of population and cohort: `python benchmarks/scale.py [--quick]`.

Each row is a fresh process: W1 (softmax 784 -> 10, 50 samples, batch 10) with the executor that `auto` chooses, or with
`--executor` and `--device`. Clients' samples are views of one pool, so that the numbers are of fscore and not of making data.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from attrs import define

import fscore
from fscore.component import Component, option
from fscore.context import Samples
from fscore.course import Course
from fscore.hookspecs import hookimpl
from fscore.kinds.dataset import Dataset

POPULATIONS = (1_000, 10_000, 100_000, 1_000_000)
COHORTS = (10, 100, 1_000, 10_000)


@define(eq=False, slots=False)
class Pool(Dataset):
    """Clients whose 50 samples are a window of one pool of 5,000."""

    name = "pool"
    clients: int = option(doc="Number of clients.")

    def bind(self, course: Course) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(5_000, 784, generator=generator)
        self.y = torch.randint(10, (5_000,), generator=generator)

    def size(self) -> int:
        return self.clients

    def samples(self, client: int) -> int:
        return 50

    def classes(self) -> int:
        return 10

    def client(self, client: int, part: str) -> Samples:
        start = (client * 7919) % 4_950
        stop = start + (50 if part == "train" else 0)
        return Samples(self.x[start:stop], self.y[start:stop])


@define(eq=False)
class PoolPlugin(Component):
    """Registers the data set."""

    name = "pools"

    @hookimpl
    def fscore_register_datasets(self):
        return [Pool]


def tables(population: int, cohort: int, executor: dict[str, object]) -> dict[str, object]:
    """Return the course of one row: three versions, nothing evaluated."""
    return {
        "course": {"name": "scale", "seed": 1, "until": {"versions": 3}},
        "data": {"use": "pool", "clients": population},
        "model": {"use": "softmax"},
        "trainer": {"use": "sgd", "lr": 0.1, "batch_size": 10},
        "sampler": {"use": "uniform", "clients": cohort},
        "evaluation": {"every": 0, "parts": []},
        "executor": executor,
    }  # fmt: skip


def row(population: int, cohort: int, executor: dict[str, object]) -> None:
    """Run one course and print its numbers as JSON."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    course = fscore.load(tables(population, cohort, executor), plugins=[PoolPlugin]).course()
    set_up = time.perf_counter() - began
    marks: list[float] = []

    def watch(running) -> bool:
        if len(marks) <= running.book.version:
            marks.append(time.perf_counter())
        return False

    result = course.run(watch)
    assert result is not None
    assert result.status == "complete", result.reason
    seconds = marks[3] - marks[1] if len(marks) > 3 else time.perf_counter() - marks[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "population": population, "cohort": cohort, "executor": course.executor.name,
                "set_up": round(set_up, 3),
                "clients_per_second": round(2 * cohort / seconds), "peak_mb": round(peak),
            }
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smaller half")
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    executor: dict[str, object] = {"use": options.executor}
    if options.device != "cpu":
        executor["device"] = options.device
    if options.row:
        row(*options.row, executor)
        return
    most = 2 if options.quick else None
    print(
        "| population | cohort | set-up, s | clients per second | peak, MB | executor |\n|---|---|---|---|---|---|"
    )
    for population in POPULATIONS[:most]:
        for cohort in (c for c in COHORTS[:most] if c <= population):
            print(line(population, cohort, options), flush=True)
    print(f"\n{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")


def line(population: int, cohort: int, options: argparse.Namespace) -> str:
    """Measure one row in a fresh process and return it as Markdown."""
    words = [sys.executable, __file__, "--executor", options.executor, "--device", options.device]
    words += ["--row", str(population), str(cohort)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"| {population:,} | {cohort:,} | failed: {last} | | | |"
    found = json.loads(done.stdout.splitlines()[-1])
    return (
        f"| {population:,} | {cohort:,} | {found['set_up']:.2f} | {found['clients_per_second']:,} "
        f"| {found['peak_mb']} | {found['executor']} |"
    )


if __name__ == "__main__":
    main()
