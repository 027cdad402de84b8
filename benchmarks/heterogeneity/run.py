"""Virtual time to a target accuracy for ten ways to run a course: `python benchmarks/heterogeneity/run.py --help`.

The ways are the files of examples/async, with another data set and other devices; nothing else is changed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tomli
import torch
from attrs import asdict, frozen
from data import SETTINGS, Tables, prepare

import fscore
from fscore.course import Course
from fscore.tasks import Task

EXAMPLES = Path(__file__).parents[2] / "examples" / "async"
WAYS = (
    "sync", "sync_over_selection", "goal_aggr_unif", "goal_aggr_group", "goal_rece_unif", "goal_rece_group",
    "time_aggr_unif", "time_aggr_group", "time_rece_unif", "time_rece_group",
)  # fmt: skip
MORE = ("fedbuff", "fedasync", "fedat", "oort", "safa")
PATIENCE = {"fedat": 10, "safa": 10}
"""How many times the usual number of updates a way may use: these two make quick versions that move the model little."""


@frozen
class Job:
    """One course."""

    setting: str
    way: str
    seed: int
    sigma: float
    tables: Tables
    target: float
    updates: int
    """At most that many."""


@frozen
class Outcome:
    """How one course went."""

    setting: str
    way: str
    seed: int
    sigma: float
    seconds: float | None
    """Virtual seconds to the target; None: not reached."""
    accuracy: float
    updates: int
    versions: int
    staleness: float
    saved: int
    latency: list[float]
    """Quantiles 10, 50, 90, 99% of the clients' response times, in virtual seconds."""


def latencies(course: Course) -> np.ndarray[Any, Any]:
    """Return each client's response time in virtual seconds (clients,)."""
    found = []
    for client in range(course.population.size):
        if client in course.population.unseen:
            continue
        rng = course.streams.generator("probe", client)
        work = course.site.seconds_of_work(Task(0, client, 0))
        found.append(course.devices.seconds(client, work, 0.0, rng))
    return np.array(found)


def assembled(job: Job) -> Course:
    """Return the course of a job; the budget of `time_up` is the median response time."""
    tables = tomli.loads((EXAMPLES / f"{job.way}.toml").read_text())
    tables |= job.tables
    tables["course"] |= {"seed": job.seed, "until": {"client_updates": job.updates}}
    tables["devices"]["sigma"] = job.sigma
    tables["reporter"] = []
    tables["executor"] = {"use": "serial", "chunk": 8}
    if tables["trigger"]["use"] == "time_up":
        probe = fscore.load(json.loads(json.dumps(tables))).course()
        tables["trigger"]["budget"] = float(np.median(latencies(probe)))
    return fscore.load(tables).course()


def run(job: Job) -> Outcome:
    """Run a course until it reaches the target, or its end."""
    torch.set_num_threads(1)
    course = assembled(job)
    quantiles = np.quantile(latencies(course), [0.1, 0.5, 0.9, 0.99]).tolist()
    history = course.reporting.history

    def reached(_: Course) -> bool:
        return bool(history) and history[-1].get("test_accuracy", 0.0) >= job.target

    course.run(reached)
    accuracies = [line["test_accuracy"] for line in history if "test_accuracy" in line]
    return Outcome(
        job.setting, job.way, job.seed, job.sigma,
        seconds=course.loop.now if reached(course) else None,
        accuracy=max(accuracies, default=0.0),
        updates=course.book.counts["used"],
        versions=course.book.version,
        staleness=statistics.fmean(line["staleness"] for line in history) if history else 0.0,
        saved=course.book.saved,
        latency=quantiles,
    )  # fmt: skip


def spread(values: list[float]) -> str:
    """Return mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3g} ± {deviation:.2g}"


def table(outcomes: list[Outcome], target: float) -> str:
    """Return one setting's results as Markdown."""
    first = outcomes[0]
    p10, p50, p90, p99 = (statistics.fmean(o.latency[i] for o in outcomes) for i in range(4))
    lines = [
        f"### {first.setting}, sigma {first.sigma}: virtual hours to accuracy {target}",
        "",
        f"Response times of the clients: 10% {p10:.3g} s, median {p50:.3g} s, 90% {p90:.3g} s, 99% {p99:.3g} s.",
        "",
        "| way | hours | times faster than sync | updates | versions | staleness | not reached |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = [o.seconds for o in outcomes if o.way == "sync" and o.seconds]
    for way in dict.fromkeys(o.way for o in outcomes):
        mine = [o for o in outcomes if o.way == way]
        done = [o for o in mine if o.seconds is not None]
        missed = f"{len(mine) - len(done)} of {len(mine)}" if len(done) < len(mine) else ""
        if not done:
            best = max(o.accuracy for o in mine)
            lines.append(f"| {way} | | | | | | {missed}, best {best:.3f} |")
            continue
        seconds = [o.seconds for o in done if o.seconds is not None]
        factor = f"{statistics.fmean(plain) / statistics.fmean(seconds):.2f}" if plain else ""
        means = [
            statistics.fmean(values)
            for values in zip(*[(o.updates, o.versions, o.staleness) for o in done], strict=True)
        ]
        lines.append(
            f"| {way} | {spread([s / 3600 for s in seconds])} | {factor} | {means[0]:.0f} | {means[1]:.0f} "
            f"| {means[2]:.2f} | {missed} |"
        )
    return "\n".join(lines) + "\n"


def jobs_of(setting: str, arguments: argparse.Namespace, tables: Tables) -> list[Job]:
    """Return the courses of one setting."""
    given = SETTINGS[setting]
    ways = arguments.ways or (WAYS + MORE if arguments.more else WAYS)
    return [
        Job(
            setting,
            way,
            seed,
            sigma,
            tables,
            arguments.target or given.target,
            20 * given.versions * PATIENCE.get(way, 1),
        )
        for sigma in arguments.sigma
        for way in ways
        for seed in range(arguments.seeds)
    ]


def main() -> None:
    """Run everything that was asked for and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    usual = [name for name, setting in SETTINGS.items() if setting.usual]
    parser.add_argument("--data", nargs="+", default=usual, choices=list(SETTINGS))
    parser.add_argument("--ways", nargs="+", help="names of files in examples/async")
    parser.add_argument(
        "--more", action="store_true", help="fedbuff, fedasync, fedat, oort and safa too"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sigma", type=float, nargs="+", default=[1.2], help="latency tail")
    parser.add_argument("--target", type=float, help="accuracy, instead of the setting's own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--out", type=Path, help="write outcomes as JSON lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.data:
            try:
                tables = prepare(SETTINGS[name], Path(folder))
            except FileNotFoundError as error:
                sys.stdout.write(f"{error}\n\n")
                continue
            measure(name, arguments, tables)
    sys.stdout.write(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}\n"
    )


def measure(name: str, arguments: argparse.Namespace, tables: Tables) -> None:
    """Run one setting's courses and print its tables."""
    jobs = jobs_of(name, arguments, tables)
    outcomes = []
    with multiprocessing.get_context("spawn").Pool(min(arguments.jobs, len(jobs))) as pool:
        for outcome in pool.imap_unordered(run, jobs, chunksize=1):
            outcomes.append(outcome)
            if arguments.out:
                with arguments.out.open("a") as stream:
                    stream.write(json.dumps(asdict(outcome)) + "\n")
    ways = list(dict.fromkeys(job.way for job in jobs))
    outcomes.sort(key=lambda o: (ways.index(o.way), o.seed))
    for sigma in arguments.sigma:
        sys.stdout.write(table([o for o in outcomes if o.sigma == sigma], jobs[0].target) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
