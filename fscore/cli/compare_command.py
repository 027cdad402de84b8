"""`fscore compare RUN_DIR...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from fscore.builtin.metrics import MAE, MSE, Loss
from fscore.builtin.record.directory import RunDirectory
from fscore.cli.pictures import Chart, Line, page, table
from fscore.cli.timeline_command import read_trace
from fscore.errors import ConfigError


@frozen
class Found:
    """What is known of one run."""

    label: str
    lines: list[dict[str, Any]]
    seconds: list[float]
    """Response times of its tasks, ascending; empty without a trace."""

    def metric(self, name: str) -> list[tuple[float, float]]:
        """Return (virtual seconds, value) of every line that has the metric."""
        return [(n["virtual_time"], n[name]) for n in self.lines if n.get(name) is not None]


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric", default="test_accuracy", show_default=True, help="Field of metrics.jsonl."
)
@click.option("--target", type=float, help="Value of the metric whose virtual time is tabled.")
@click.option(
    "--lower", is_flag=True, help="Smaller is better, as it is taken to be of losses and errors."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("compare.html"), show_default=True
)
def command(
    runs: tuple[Path, ...], metric: str, target: float | None, lower: bool, out: Path
) -> None:
    """Draw a metric of several runs against virtual time, with the distribution of response times beside it.

    Response times are those of runs whose course file has [[reporter]] use = "timeline".
    """
    found = [read(run, label) for run, label in zip(runs, labels(runs), strict=True)]
    if not any(run.metric(metric) for run in found):
        known = sorted({name for run in found for line in run.lines for name in line})
        raise ConfigError(f"--metric: no run has '{metric}' (known: {', '.join(known) or 'none'})")
    charts = [
        Chart(metric, "virtual seconds", metric, [Line(r.label, r.metric(metric)) for r in found]),
        Chart(
            "response times of tasks", "virtual seconds (logarithmic)", "share of tasks",
            [Line(r.label, distribution(r.seconds), steps=True) for r in found], log=True,
        ),
    ]  # fmt: skip
    sign = -1.0 if lower or falls(metric) else 1.0
    parts = [*(chart.svg() for chart in charts), rows(found, metric, target, sign)]
    try:
        out.write_text(page(f"{metric} of {len(found)} runs", parts))
    except OSError as error:
        raise ConfigError(f"--out: {out}: {error.strerror}") from error
    click.echo(f"{out}: {', '.join(run.label for run in found)}")


def labels(runs: Sequence[Path]) -> list[str]:
    """Return the names of run directories, or whole paths where two have one name."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def falls(metric: str) -> bool:
    """Whether a field of metrics.jsonl is of a built-in metric of which smaller is better: `test_loss`, `val_mae_worst`."""
    return not {Loss.name, MAE.name, MSE.name}.isdisjoint(metric.split("_"))


def read(run: Path, label: str) -> Found:
    """Return what a run directory has."""
    directory = RunDirectory(run)
    directory.read_run()
    spans = read_trace(run) if (run / "trace.jsonl").is_file() else []
    seconds = sorted(s["arrived"] - s["issued"] for s in spans if "arrived" in s)
    return Found(label, list(directory.lines()), seconds)


def distribution(seconds: list[float]) -> list[tuple[float, float]]:
    """Return the points of the empirical distribution function."""
    return [(value, (place + 1) / len(seconds)) for place, value in enumerate(seconds)]


def rows(found: list[Found], metric: str, target: float | None, sign: float) -> str:
    """Return a table: last value, virtual time to the target, versions, quantiles of response times.

    Args:
        sign: 1 where larger values are better, -1 where smaller ones are.
    """
    head = ["run", f"last {metric}", "best", "versions", "virtual seconds"]
    head += [f"seconds to {target:g}"] if target is not None else []
    head += ["response time 50%", "90%", "99%"]
    body = []
    for run in found:
        points = run.metric(metric)
        values = [value for _, value in points]
        cells = [
            run.label,
            _number(values[-1:]),
            _number(sorted(values, key=lambda v: sign * v)[-1:]),
        ]
        cells += [str(len(run.lines)), _number([n["virtual_time"] for n in run.lines[-1:]])]
        if target is not None:
            cells.append(
                _number([at for at, value in points if sign * value >= sign * target][:1])
                or "not reached"
            )
        cells += [_number(quantile(run.seconds, q)) for q in (0.5, 0.9, 0.99)]
        body.append(cells)
    return table(head, body)


def quantile(ordered: list[float], share: float) -> list[float]:
    """Return the quantile of ascending values, in a list; none of none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1) :][:1] if ordered else []


def _number(values: list[float]) -> str:
    return f"{values[0]:.4g}" if values else ""
