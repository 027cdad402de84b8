"""fscore as a contender: `python ours.py WORKLOAD one|two|bf16|cuda|EXECUTOR` prints microseconds per client."""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from workloads import WORKLOADS, Clock, clients, model

import fscore
from fscore.context import Samples
from fscore.course import Course


def course(name: str, executor: dict[str, object], versions: int) -> Course:
    """Assemble a course of the workload; nothing is evaluated."""
    work = WORKLOADS[name]
    data = [(Samples(x, y), Samples(x[:0], y[:0])) for x, y in clients(name)]
    tables = {
        "course": {"name": name, "seed": 1, "until": {"versions": versions}},
        "trainer": {"use": "sgd", "lr": work.lr, "batch_size": work.batch_size},
        "sampler": {"use": "uniform", "clients": work.cohort},
        "evaluation": {"every": 0, "parts": []},
        "executor": executor,
    }
    return fscore.load(tables, data=data, model=model(name)).course()


SMALL = ("W0", "W1")
"""Workloads that many clients at once are faster for."""


def executor_of(name: str, choice: str) -> dict[str, object]:
    """Return the table of an executor: `one` core or `two`, as `auto` chooses it there, or any executor by name."""
    if choice == "one":
        return {"use": "cohort" if name in SMALL else "serial"}
    if choice == "two" and name in SMALL:
        return {"use": "process", "workers": 2, "inside": "cohort"}
    if choice == "two":
        return {"use": "thread", "workers": 2}
    if choice == "cuda":
        return {"use": "cohort", "device": "cuda", "memory": 16_000.0}
    if choice == "bf16":
        return {"use": "serial", "precision": "bfloat16"}
    return {"use": choice}


def main(name: str, choice: str) -> None:
    torch.set_num_threads(1)
    executor = executor_of(name, choice)
    made = course(name, executor, WORKLOADS[name].rounds + 3)
    clock, seen = Clock(), [-1]

    def watch(running: Course) -> bool:
        if running.book.version != seen[0]:
            seen[0] = running.book.version
            clock.mark()
        return False

    result = made.run(watch)
    assert result is not None
    assert result.status == "complete", result.reason
    clock.report(WORKLOADS[name].cohort, warm=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
