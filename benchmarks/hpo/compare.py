"""Error against budget of tuners on digits: 60 clients, Dirichlet 0.3, ten per version, 27 versions, 270 in all.

    python benchmarks/hpo/compare.py                      # 6 tuners, 5 seeds
    python benchmarks/hpo/compare.py --seeds 1 random asha

A search sees validation accuracy only. After each of its results the incumbent is the best of the longest trials so far;
what is printed is the incumbent's test error (per cent, pooled over all clients), mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from attrs import define

from fscore.builtin.tuning.search import Tuning
from fscore.component import Component
from fscore.hookspecs import hookimpl

LOCAL = {
    "trainer.lr": {"low": 1e-3, "high": 1.0, "log": True},
    "trainer.momentum": {"low": 0.0, "high": 0.95},
    "trainer.weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "trainer.epochs": [1.0, 2.0, 3.0, 4.0, 5.0],
    "trainer.batch_size": [4, 8, 16, 32],
}
SPACE = {**LOCAL, "server_optimizer.lr": {"low": 0.1, "high": 3.0, "log": True}}
FEDEX = [{"use": "fedex", "around": LOCAL, "count": 9, "metric": "accuracy", "cutoff": 0.1}]
METHODS = {
    "random": {"use": "random", "trials": 10},
    "tpe": {"use": "tpe", "trials": 10, "startup": 5},
    "successive_halving": {"use": "successive_halving", "trials": 81},
    "hyperband": {"use": "hyperband"},
    "asha": {"use": "asha", "trials": 81, "slots": 4},
    "bohb": {"use": "bohb"},
    "pbt": {"use": "pbt", "population": 10, "interval": 3, "space": LOCAL},
    "fedex_in_halving": {"use": "successive_halving", "trials": 81},
}
DEFAULT = ("random", "tpe", "successive_halving", "hyperband", "pbt", "fedex_in_halving")
BUDGETS = (54, 108, 162, 216, 270)


@define(eq=False)
class TestErrors(Component):
    """Notes the test error beside the run; no tuner reads it."""

    name = "test_errors"

    @hookimpl
    def fscore_evaluated(self, course, version, metrics):
        if course.record is not None and "test_accuracy" in metrics:
            error = 100 * (1 - metrics["test_accuracy"])
            with (course.record.path / "test.jsonl").open("a") as file:
                file.write(json.dumps([version, error]) + "\n")


def tables(method: str, seed: int) -> dict:
    made = {
        "course": {"name": method, "seed": seed, "until": {"versions": 27}},
        "plugins": {"hpo": {}},
        "data": {
            "use": "digits", "val": 0.2, "test": 0.2,
            "partition": {"use": "dirichlet", "clients": 60, "alpha": 0.3},
        },
        "model": {"use": "mlp", "hidden": [32]},
        "trainer": {"use": "sgd"},
        "sampler": {"use": "uniform", "clients": 10},
        "evaluation": {"every": 0},
        "executor": {"use": "serial"},
        "tune": {
            "metric": "val_accuracy", "direction": "maximize", "versions": 27, "space": SPACE,
            "budget": {"versions": 270}, "seed": seed, **METHODS[method],
        },
    }  # fmt: skip
    return {**made, "policy": FEDEX} if method == "fedex_in_halving" else made


def curve(method: str, seed: int, workers: int) -> dict[int, float]:
    """Return the incumbent's test error once each budget is spent."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-"))
    found: dict[int, float] = {}
    try:
        tuning = Tuning(tables(method, seed), folder, [TestErrors], workers)
        for _ in tuning.run():
            spent = tuning.spent()["versions"]
            best = tuning.best() if any(d.report for d in tuning.finished) else None
            if best is not None:
                error = errors(folder / f"trials/{best.trial.id:04d}")[best.trial.versions]
                for budget in BUDGETS:
                    if spent <= budget:
                        found[budget] = error
    finally:
        shutil.rmtree(folder)
    last = None
    for budget in BUDGETS:  # a budget within a rung is what was known before it
        last = found.setdefault(budget, last)
    return found


def errors(folder: Path) -> dict[int, float]:
    lines = (folder / "test.jsonl").read_text().splitlines()
    return dict(json.loads(line) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=DEFAULT)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    print("| tuner | " + " | ".join(f"{b} versions" for b in BUDGETS) + " | seconds |")
    print("|---|" + "---|" * (len(BUDGETS) + 1))
    for method in arguments.methods:
        began = time.perf_counter()
        curves = [curve(method, seed, arguments.workers) for seed in range(arguments.seeds)]
        cells = []
        for budget in BUDGETS:
            values = [c[budget] for c in curves if c[budget] is not None]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        seconds = time.perf_counter() - began
        print(f"| {method} | " + " | ".join(cells) + f" | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
