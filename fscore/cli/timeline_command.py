"""`fscore timeline RUN_DIR`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import click

from fscore.builtin.record.directory import RunDirectory
from fscore.cli.pictures import Scale, page, svg
from fscore.errors import ConfigError, SnapshotError

Span = Mapping[str, Any]
ENDS = {
    "used": ("#3a7d44", "used"),
    "wasted": ("#b0b0b0", "arrived, not used"),
    "aborted": ("#a88ac4", "given up under way"),
    "failed": ("#d1495b", "failed"),
}
DOWN, UP, WAIT = "#8ec6e6", "#1b6ca8", "#e0c36c"
ROW, LEFT, TOP = 12, 70, 40


@click.command("timeline")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="HTML file; default: RUN_DIR/timeline.html."
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Clients drawn, those with most tasks.",
)
@click.option("--until", type=float, help="Virtual seconds drawn; default: all.")
@click.option(
    "--width", type=click.IntRange(min=200), default=1200, show_default=True, help="Pixels."
)
def command(run_dir: Path, out: Path | None, clients: int, until: float | None, width: int) -> None:
    """Draw when each client downloaded, computed and uploaded, and when versions were made.

    The course file needs [[reporter]] use = "timeline".
    """
    if until is not None and not 0 < until < math.inf:
        raise ConfigError(f"--until: expected virtual seconds above 0, got {until}")
    spans = read_trace(run_dir)
    versions = [line["virtual_time"] for line in RunDirectory(run_dir).lines()]
    end = until if until is not None else max([*versions, *(s["at"] for s in spans)], default=0.0)
    shown = [span for span in spans if span["issued"] <= end]
    target = out or run_dir / "timeline.html"
    parts = [legend(shown), draw(shown, [v for v in versions if v <= end], end, clients, width)]
    try:
        target.write_text(page(f"Timeline of {run_dir.name}", parts))
    except OSError as error:
        raise ConfigError(f"--out: {target}: {error.strerror}") from error
    drawn = sum(version <= end for version in versions)
    click.echo(f"{target}: {len(shown)} tasks, {drawn} versions")


def read_trace(run_dir: Path) -> list[Span]:
    """Return the lines of a run's `trace.jsonl`; a last one that was cut off is left out.

    Raises:
        SnapshotError: there is none, or a line is not as it should be.
    """
    path = run_dir / "trace.jsonl"
    if not path.is_file():
        raise SnapshotError(
            f'{path}: no such file. Remedy: add [[reporter]] use = "timeline" to the course file.'
        )
    spans: list[Span] = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            spans.append(_span(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise SnapshotError(f"{path}: line {number} is no task of a timeline") from error
    return spans


def _span(found: dict[str, Any]) -> Span:
    if found["end"] not in ENDS:
        raise ValueError(found["end"])
    known = {name: int(found[name]) for name in ("task", "client", "version")}
    return {**found, **known, "issued": float(found["issued"]), "at": float(found["at"])}


def legend(spans: Sequence[Span]) -> str:
    """Return what the colours mean, with numbers of tasks."""
    counts = Counter(span["end"] for span in spans)
    entries = [(DOWN, "download"), (UP, "upload"), (WAIT, "waits for its version")]
    entries += [
        (colour, f"computing, or where it ended: {text} ({counts[end]})")
        for end, (colour, text) in ENDS.items()
    ]
    boxes = (
        f'<span style="color:{colour}">&#9632;</span> {escape(text)}' for colour, text in entries
    )
    return f"<p>{' &nbsp; '.join(boxes)} &nbsp; vertical lines: versions</p>"


def draw(
    spans: Sequence[Span], versions: Sequence[float], end: float, clients: int, width: int
) -> str:
    """Return the drawing: a row per client, seconds from left to right."""
    most = Counter(span["client"] for span in spans).most_common(clients)
    rows = {client: place for place, client in enumerate(sorted(client for client, _ in most))}
    height = TOP + ROW * len(rows) + 30
    scale = Scale(0.0, end, LEFT, width - 20)
    parts = [
        f'<path d="M{scale(v)} {TOP - 6}V{height - 26}" stroke="#888" stroke-width=".6"/>'
        for v in versions
    ]
    for client, place in rows.items():
        parts.append(
            f'<text x="{LEFT - 6}" y="{TOP + ROW * place + 9}" text-anchor="end">{client}</text>'
        )
    parts.append(f'<text x="{LEFT - 6}" y="{TOP - 10}" text-anchor="end">client</text>')
    for span in spans:
        if span["client"] in rows:
            parts += bars(span, TOP + ROW * rows[span["client"]], scale)
    for value in scale.ticks():
        parts.append(
            f'<text x="{scale(value)}" y="{height - 12}" text-anchor="middle">{value:g} s</text>'
        )
    return svg(width, height, parts)


def bars(span: Span, y: float, scale: Scale) -> Iterable[str]:
    """Yield a task's pieces: download, computing, upload, waiting; the one in which it ended early has its end's colour."""
    stops = [
        span["issued"],
        *(span.get(k) for k in ("received", "computed", "arrived")),
        span["at"],
    ]
    colour, text = ENDS[span["end"]]
    words = f"task {span['task']} on version {span['version']}: {span.get('why', text)}"
    pieces = zip((DOWN, colour, UP, WAIT), (ROW - 8, ROW - 3, ROW - 8, 2), strict=True)
    begin = stops[0]
    for (fill, thick), stop in zip(pieces, stops[1:], strict=True):
        until = span["at"] if stop is None else stop
        x, x2 = scale(min(begin, scale.high)), scale(min(until, scale.high))
        if stop is None and span["end"] == "failed" and begin <= scale.high:
            x2 = max(x2, x + 2)  # also what failed at once is seen
        if x2 > x:
            yield (
                f'<rect x="{x}" y="{y + (ROW - thick) / 2}" width="{round(x2 - x, 2)}" height="{thick}" '
                f'fill="{colour if stop is None else fill}"><title>{escape(words)}, {begin:.3g} to {until:.3g} s</title></rect>'
            )
        if stop is None:
            return
        begin = stop
