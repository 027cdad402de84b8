"""How noise in the evaluation spoils a choice: few clients, and the noise of differential privacy.

    python benchmarks/hpo/noisy.py [--configs 48]

Random settings are trained in full on the course of `compare.py`. Random search of 16 of them is then played many times:
each setting is judged by the mean validation error of m clients drawn at random, plus Laplace noise of scale
16 / (epsilon m), which is epsilon-DP for 16 releases by composition; the table shows the test error of what was chosen.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from compare import SPACE, tables

import fscore
from fscore.builtin.tables import put
from fscore.builtin.tuning.space import axes, draw

CLIENTS, EPSILONS = (1, 3, 10, 30, 60), (math.inf, 100, 10, 1)
CHOICES, PLAYS = 16, 2000


def trained(configs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return validation errors (settings, clients), NaN where a client has no data, and test errors (settings,)."""
    rng = np.random.default_rng(0)
    validation, test = [], []
    while len(test) < configs:
        course = tables("random", 0)
        del course["tune"], course["plugins"]
        for key, value in draw(axes(SPACE), rng).items():
            put(course, key, value)
        result = fscore.load({**course, "reporter": []}).run()
        if result.status == "complete":
            own = result.per_client["val"]
            validation.append([1 - own[c]["accuracy"] if c in own else math.nan for c in range(60)])
            test.append(1 - result.metrics["test_accuracy"])
    return np.array(validation), np.array(test)


def played(validation: np.ndarray, test: np.ndarray, clients: int, epsilon: float) -> float:
    """Return the mean test error of what is chosen, per cent."""
    rng = np.random.default_rng(1)
    able = np.flatnonzero(~np.isnan(validation).any(axis=0))
    clients = min(clients, len(able))
    chosen = []
    for _ in range(PLAYS):
        settings = rng.choice(len(test), CHOICES, replace=False)
        judges = rng.choice(able, clients, replace=False)
        scores = validation[np.ix_(settings, judges)].mean(axis=1)
        scale = 0.0 if math.isinf(epsilon) else CHOICES / (epsilon * clients)
        chosen.append(test[settings[np.argmin(scores + rng.laplace(0, 1, CHOICES) * scale)]])
    return 100 * float(np.mean(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=int, default=48)
    validation, test = trained(parser.parse_args().configs)
    print(
        f"{len(test)} settings: mean test error {100 * test.mean():.1f} %, best {100 * test.min():.1f} %"
    )
    print("| clients | " + " | ".join(f"epsilon {e:g}" for e in EPSILONS) + " |")
    print("|---|" + "---|" * len(EPSILONS))
    for clients in CLIENTS:
        row = " | ".join(f"{played(validation, test, clients, e):.1f}" for e in EPSILONS)
        print(f"| {clients} | {row} |")


if __name__ == "__main__":
    main()
