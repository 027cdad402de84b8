"""Aggregation: `python benchmarks/aggregation.py [--values N] [--chunk K]` adds 100 updates; time, GB/s and memory.

Two ways: updates that are there already are added K at a time, block by block; a stream of updates is added one by one, each
let go before the next. Both are compared with a plain copy of the same bytes, run in turn (copy, sum, copy, sum, ...), and
their memory with the size of a model. One thread. No update is used twice, so that none comes from a cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from fscore.folding import empty_sums, fold, fold_into
from fscore.params import Group, Layout, Tensors
from fscore.tasks import Output

UPDATES = 100
TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=10_000_000)
    parser.add_argument("--chunk", type=int, default=UPDATES, help="updates that are there at once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first = torch.randn(options.values)
    outputs = [Output(i, {"model": first + i}) for i in range(UPDATES)]
    layout = {"model": Group((options.values,))}
    target = torch.zeros_like(first)
    ways: dict[str, Callable[[], object]] = {
        "copied": lambda: [target.copy_(output.values["model"]) for output in outputs],
        f"added {options.chunk} at a time": lambda: chunks(outputs, options.chunk, layout),
        "added one by one": lambda: stream(outputs, layout),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    grown: dict[str, int] = {}
    for _ in range(TURNS):
        for name, way in ways.items():
            before = peak()
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
            grown.setdefault(name, peak() - before)
    print(f"{UPDATES} updates of {options.values:,} values, one thread, median of {TURNS} turns")
    copying = taken["copied"]
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(a / b for a, b in zip(seconds, copying, strict=True))
        print(
            f"  {name} in {1e3 * middle:.0f} ms: {UPDATES * first.nbytes / middle / 1e9:.1f} GB/s of updates, "
            f"{ratio:.2f} of the time of a copy, {grown[name] / first.nbytes:.1f} model sizes of memory"
        )


def chunks(outputs: list[Output], size: int, layout: Layout) -> None:
    """Sum updates that are there already, `size` of them at a time, as a course sums its chunks."""
    whole: Tensors = {}
    for i in range(0, len(outputs), size):
        some = outputs[i : i + size]
        sums = fold(some, [1.0 + j for j in range(len(some))], layout).sums or {}
        if whole:
            whole["model"].add_(sums["model"])
        else:
            whole = sums


def stream(outputs: list[Output], layout: Layout) -> None:
    """Add updates one by one."""
    sums = empty_sums(layout)
    for i, output in enumerate(outputs):
        fold_into(sums, output, 1.0 + i, layout)


def peak() -> int:
    """Return the largest memory that the process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
