"""Cost of each robust rule for n updates of d values, as a ratio to the plain mean of the same matrix.

python benchmarks/robust/cost.py [--clients 50] [--values 1000000] [--repeat 3]
"""

from __future__ import annotations

import argparse
import time

import torch
from fs_robust.base import Robust
from fs_robust.centres import CentredClipping, GeometricMedian
from fs_robust.coordinates import TrimmedMean
from fs_robust.dnc import DnC
from fs_robust.fltrust import trusted
from fs_robust.krum import Bulyan, Krum, MultiKrum
from fs_robust.norm_bound import NormBound


def best_of(repeat, function, rows):
    """Seconds of processor time of the fastest of some calls, each with a copy of the rows, which it may overwrite."""
    seconds = []
    for _ in range(repeat):
        own = rows.clone()
        start = time.process_time()
        function(own)
        seconds.append(time.process_time() - start)
    return min(seconds)


def rules(f: int) -> dict[str, Robust]:
    return {
        "trimmed_mean": TrimmedMean(byzantine=f),
        "krum": Krum(byzantine=f),
        "multi_krum": MultiKrum(byzantine=f),
        "bulyan": Bulyan(byzantine=f),
        "geometric_median": GeometricMedian(),
        "geometric_median, 10 iterations": GeometricMedian(iterations=10, tolerance=0.0),
        "centred_clipping, 3 iterations": CentredClipping(clip_norm=100.0, iterations=3),
        "norm_bound": NormBound(clip_norm=100.0),
        "dnc": DnC(byzantine=f),
        "nnm -> trimmed_mean": TrimmedMean(byzantine=f, before=["nnm"]),
        "bucketing -> krum": Krum(byzantine=f, before=["bucketing"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = torch.randn(given.clients, given.values, generator=torch.Generator().manual_seed(0))
    f = (given.clients - 3) // 4
    mean = best_of(3 * given.repeat, lambda own: own.mean(dim=0), rows)
    print(f"n = {given.clients}, d = {given.values}, f = {f}, one thread")
    print(f"{'rule':<34}{'seconds':>10}{'x mean':>10}")
    print(f"{'mean':<34}{mean:>10.3f}{1.0:>10.1f}")
    weights = torch.ones(given.clients)
    timed = {
        name: best_of(given.repeat, lambda own, rule=rule: rule.reduce(own, weights), rows)
        for name, rule in rules(min(f, (given.clients // 2 - 3) // 2)).items()
    }
    timed["fltrust"] = best_of(given.repeat, lambda own: trusted(own, own[0]), rows)
    for name, seconds in timed.items():
        print(f"{name:<34}{seconds:>10.3f}{seconds / mean:>10.1f}")


if __name__ == "__main__":
    main()
