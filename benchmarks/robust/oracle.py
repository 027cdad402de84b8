"""Largest difference between fs-robust, fs-byzantine and byzfl 0.0.11 on twenty random inputs of 20 updates, 4 of them off.

python -m pip install --no-deps --target /tmp/byzfl byzfl==0.0.11
PYTHONPATH=/tmp/byzfl python benchmarks/robust/oracle.py

byzfl needs torchvision for its data sets only; what is used here does not. Its Krum counts n - f - 1 neighbours where the
paper counts n - f - 2, so that its scores are those of the paper for f - 1.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from fs_byzantine.colluding import ALIE, IPM
from fs_robust.before import nearest_neighbour_mixing
from fs_robust.centres import CentredClipping, GeometricMedian
from fs_robust.coordinates import TrimmedMean
from fs_robust.gram import squared_distances
from fs_robust.krum import scores

with contextlib.suppress(ModuleNotFoundError):  # its package imports torchvision last
    import byzfl  # noqa: F401
from byzfl.aggregators import aggregators, preaggregators
from byzfl.attacks import attacks

from fscore.tasks import Cohort, Task

N, F = 20, 4


def crafted(attack, rows):
    attack.controlled = frozenset(range(F))
    cohort = Cohort(1, tuple(Task(i, i, 0) for i in range(N)), (0,) * N)
    return attack.craft(rows, range(F), cohort, np.random.default_rng(0))[0]


def pairs(rows):
    """Name, ours, theirs."""
    x, honest, one = rows.double().numpy(), rows.double().numpy()[F:], torch.ones(N)
    order = np.argsort(scores(squared_distances(rows), F - 1))
    clipping = CentredClipping(clip_norm=2.0, iterations=5)
    yield (
        "median",
        TrimmedMean(byzantine=(N - 1) // 2).reduce(rows.clone(), one),
        aggregators.Median()(x),
    )
    yield (
        "trimmed_mean",
        TrimmedMean(byzantine=F).reduce(rows.clone(), one),
        aggregators.TrMean(F)(x),
    )
    yield "krum", rows[order[0]], aggregators.Krum(F)(x)
    yield "multi_krum", rows[order[: N - F]].mean(0), aggregators.MultiKrum(F)(x)
    median = aggregators.GeometricMedian(nu=1e-6, T=1000)
    yield "geometric_median", GeometricMedian(iterations=1000).reduce(rows.clone(), one), median(x)
    theirs = aggregators.CenteredClipping(m=None, L=5, tau=2.0)
    yield "centred_clipping", clipping.reduce(rows.clone(), one), theirs(x)
    yield "nnm", nearest_neighbour_mixing(rows, F), preaggregators.NNM(F)(x)
    alie = attacks.ALittleIsEnough(tau=1.5)
    yield "alie", crafted(ALIE(clients=F, z=1.5), rows), alie(honest)
    ipm = attacks.InnerProductManipulation(tau=2.0)
    yield "ipm", crafted(IPM(clients=F, epsilon=2.0), rows), ipm(honest)


def main() -> None:
    worst: dict[str, float] = {}
    for seed in range(20):
        drawn = np.random.default_rng(seed).standard_normal((N, 50))
        drawn[:F] += seed
        for name, ours, theirs in pairs(torch.from_numpy(drawn).float()):
            apart = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
            worst[name] = max(worst.get(name, 0.0), apart)
    for name, value in worst.items():
        print(f"{name:<18} {value:.1e}")


if __name__ == "__main__":
    main()
