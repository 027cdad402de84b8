"""Clients per second and peak memory by size of population and cohort: `python benchmarks/scale.py [--quick]`.

Each row is a fresh process: W1 (softmax 784 -> 10, 50 samples, batch 10) with the executor that `auto` chooses, or with
`--executor` and `--device`. Clients' samples are views of one pool, so that the numbers are of fscore and not of making data.
The whole table is measured several times; medians count. Under it stands what more clients change.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
LEAST, CLIENTS = 5, 2_000
"""Versions and clients that a row measures at least."""


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
    """Return the course of one row: a first version, those measured, and one more; nothing is evaluated."""
    return {
        "course": {"name": "scale", "seed": 1, "until": {"versions": measured(cohort) + 2}},
        "data": {"use": "pool", "clients": population},
        "model": {"use": "softmax"},
        "trainer": {"use": "sgd", "lr": 0.1, "batch_size": 10},
        "sampler": {"use": "uniform", "clients": cohort},
        "evaluation": {"every": 0, "parts": []},
        "executor": executor,
    }  # fmt: skip


def measured(cohort: int) -> int:
    """Return how many versions a row measures."""
    return max(LEAST, CLIENTS // cohort)


def peak(pid: int | str = "self") -> float:
    """Return the largest resident memory of a process until now, in MB; Linux only.

    Not `ru_maxrss`: a process starts with that of the process that started it.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(words.split()[1]) for words in lines if words.startswith("VmHWM")) / 1024


def row(population: int, cohort: int, executor: dict[str, object]) -> None:
    """Run one course and print its numbers as JSON."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    course = fscore.load(tables(population, cohort, executor), plugins=[PoolPlugin]).course()
    set_up = time.perf_counter() - began
    marks: list[float] = []
    workers: dict[int, float] = {}

    def watch(running: Course) -> bool:
        if len(marks) <= running.book.version:
            marks.append(time.perf_counter())
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    workers[child.pid] = peak(child.pid)
        return False

    result = course.run(watch)
    assert result is not None
    assert result.status == "complete", result.reason
    ends = marks[1 : measured(cohort) + 2]  # marks[0]: before the first version
    seconds = statistics.median(b - a for a, b in itertools.pairwise(ends))
    print(
        json.dumps(
            {
                "population": population, "cohort": cohort, "executor": course.executor.name,
                "set_up": set_up, "clients_per_second": cohort / seconds,
                "peak_mb": peak(), "worker_mb": max(workers.values(), default=0.0),
            }
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smaller half")
    parser.add_argument("--repeats", type=int, default=3, help="of the whole table")
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats: at least 1 is expected, got {options.repeats}")
    executor: dict[str, object] = {"use": options.executor}
    if options.device != "cpu":
        executor["device"] = options.device
    if options.row:
        row(*options.row, executor)
        return
    most = 2 if options.quick else None
    print(
        "| population | cohort | set-up, s | clients per second | peak, MB | largest worker, MB | executor |\n"
        "|---|---|---|---|---|---|---|"
    )
    sizes = [(p, c) for p in POPULATIONS[:most] for c in COHORTS[:most] if c <= p]
    runs: dict[tuple[int, int], list[dict[str, Any] | str]] = {size: [] for size in sizes}
    for _ in range(options.repeats):
        for size in sizes:
            runs[size].append(numbers_of(*size, options))
    found = {size: middle(rows) for size, rows in runs.items()}
    for size, numbers in found.items():
        print(line(*size, numbers))
    print(f"\n{comparison(found)}")
    print(
        f"{platform.machine()}, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def numbers_of(population: int, cohort: int, options: argparse.Namespace) -> dict[str, Any] | str:
    """Measure one row in a fresh process; return its numbers, or the last line of its complaint."""
    words = [sys.executable, __file__, "--executor", options.executor, "--device", options.device]
    words += ["--row", str(population), str(cohort)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    numbers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def middle(runs: list[dict[str, Any] | str]) -> dict[str, Any] | str:
    """Return a row's medians over the repeats, each number by itself, or the complaint of the first that failed."""
    rows = [run for run in runs if not isinstance(run, str)]
    if len(rows) < len(runs):
        return next(run for run in runs if isinstance(run, str))
    return {
        key: statistics.median(row[key] for row in rows) if isinstance(value, float) else value
        for key, value in rows[0].items()
    }


def line(population: int, cohort: int, found: dict[str, Any] | str) -> str:
    """Return the numbers of a row, or its complaint, as Markdown."""
    if isinstance(found, str):
        return f"| {population:,} | {cohort:,} | failed: {found} | | | | |"
    worker = f"{found['worker_mb']:.0f}" if found["worker_mb"] else ""
    return (
        f"| {population:,} | {cohort:,} | {found['set_up']:.2f} | {found['clients_per_second']:,.0f} "
        f"| {found['peak_mb']:.0f} | {worker} | {found['executor']} |"
    )


def comparison(found: dict[tuple[int, int], dict[str, Any] | str]) -> str:
    """Return speed and memory of the largest population relative to the smallest with the same cohort."""
    lines = []
    for cohort in COHORTS:
        rows = [(p, n) for (p, c), n in found.items() if c == cohort and not isinstance(n, str)]
        if len(rows) > 1:
            (small, few), (large, many) = rows[0], rows[-1]
            lines.append(
                f"cohort {cohort:,}: {large:,} clients beside {small:,}: "
                f"{many['clients_per_second'] / few['clients_per_second']:.2f} times the speed, "
                f"{many['peak_mb'] - few['peak_mb']:+.0f} MB"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
