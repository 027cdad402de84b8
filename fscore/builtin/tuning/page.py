"""The page of a search: one HTML file with plots as SVG, which needs nothing else to be shown."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from fscore.builtin.tuning.search import Finished, Tuning

WIDTH, HEIGHT, MARGIN = 640, 300, 56
STYLE = """
body { font-family: sans-serif; margin: 2em; max-width: 60em; }
table { border-collapse: collapse; } td, th { padding: 0.2em 0.8em; text-align: right; }
th { border-bottom: 1px solid #888; } .failed { color: #a00; } .best { font-weight: bold; }
svg text { font-size: 11px; fill: #444; }
"""
Points = Sequence[tuple[float, float]]


@frozen
class Scale:
    """Maps values from `low` to `high` to pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; the middle where all values are equal."""
        if self.high == self.low:
            return (self.start + self.stop) / 2
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def page(tuning: Tuning) -> str:
    """Return the page of a search that ended."""
    tuner, best = tuning.tuner, tuning.best()
    good = [(i, done) for i, done in enumerate(tuning.finished) if done.report is not None]
    values = [done.outcome.value for _, done in good]
    spent, costs = 0, []
    for _, done in good:
        spent += done.report.versions if done.report else 0
        costs.append(float(spent))
    steps = [float(i) for i, _ in good]
    remark = f"<p><strong>{html.escape(tuning.remark)}</strong></p>" if tuning.remark else ""
    return "\n".join(
        [
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            f"<title>Search: {html.escape(tuner.metric)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{html.escape(tuner.name)}: {html.escape(tuner.metric)}, {tuner.direction}</h1>",
            remark,
            f"<p>Best: trial {best.trial.id}, {best.outcome.value:.5g} &plusmn; {best.outcome.stderr:.2g} "
            f"(standard error over {best.outcome.clients} clients), {best.trial.versions} versions.</p>",
            "<h2>History</h2>",
            chart(steps, values, _running(values, tuner.direction), "step", tuner.metric),
            "<h2>Budget against best</h2>",
            chart(costs, values, _running(values, tuner.direction), "versions", tuner.metric),
            "<h2>Parallel coordinates</h2>",
            "<p>Red is the best, blue the worst.</p>",
            parallel(
                [done for _, done in good],
                tuning.keys(),
                tuner.metric,
                high_is_red=tuner.direction == "maximize",
            ),
            "<h2>Trials</h2>",
            _table(tuning, best),
            "</body></html>\n",
        ]
    )


def chart(xs: Sequence[float], ys: Sequence[float], best: Sequence[float], x: str, y: str) -> str:
    """Return a plot of values as dots and of the best so far as a line of steps."""
    across = Scale(min(xs), max(xs), MARGIN, WIDTH - 10)
    up = Scale(min(ys), max(ys), HEIGHT - MARGIN, 10)
    dots = [
        f"<circle cx='{across(a):.1f}' cy='{up(b):.1f}' r='3' fill='#69c'/>"
        for a, b in zip(xs, ys, strict=True)
    ]
    corners: list[tuple[float, float]] = []
    for a, b in zip(xs, best, strict=True):
        if corners:
            corners.append((across(a), corners[-1][1]))
        corners.append((across(a), up(b)))
    return _svg([*_frame(across, up, x, y), *dots, _line(corners, "#c33", 2)])


def parallel(
    finished: Sequence[Finished], keys: Sequence[str], metric: str, *, high_is_red: bool
) -> str:
    """Return one line per step through its options and its value; words stand in the order in which they occur."""
    columns: list[list[float | None]] = []
    labels: list[tuple[str, str]] = []
    for key in keys:
        raw = [done.trial.params.get(key) for done in finished]
        column, ends = _numbers(raw)
        columns.append(column)
        labels.append(ends)
    values = [done.outcome.value for done in finished]
    columns.append(list(values))
    labels.append((f"{min(values):.4g}", f"{max(values):.4g}"))
    places = Scale(0, max(1, len(columns) - 1), MARGIN, WIDTH - MARGIN)
    parts = []
    for i, (name, (low, high)) in enumerate(zip([*keys, metric], labels, strict=True)):
        at = places(i)
        parts += [
            f"<line x1='{at:.1f}' x2='{at:.1f}' y1='24' y2='{HEIGHT - 40}' stroke='#888'/>",
            _text(at, HEIGHT - 8, name),
            _text(at, HEIGHT - 26, low),
            _text(at, 16, high),
        ]
    hues = (210, 0) if high_is_red else (0, 210)
    shade = Scale(min(values), max(values), *hues)
    scales = [_scale([v for v in column if v is not None]) for column in columns]
    for row, value in zip(zip(*columns, strict=True), values, strict=True):
        points = [(places(i), scales[i](v)) for i, v in enumerate(row) if v is not None]
        parts.append(_line(points, f"hsl({shade(value):.0f} 60% 45%)", 1))
    return _svg(parts)


def _scale(values: Sequence[float]) -> Scale:
    return Scale(min(values, default=0), max(values, default=1), HEIGHT - 44, 24)


def _numbers(raw: Sequence[object]) -> tuple[list[float | None], tuple[str, str]]:
    """Return a column as numbers, logarithms where it spans more than two decades, with the labels of its ends."""
    known = [v for v in raw if v is not None]
    if any(isinstance(v, str | bool) for v in known):
        names = list(dict.fromkeys(str(v) for v in known))
        places = [None if v is None else float(names.index(str(v))) for v in raw]
        return places, (names[0], names[-1])
    numbers = [float(v) for v in known if isinstance(v, int | float)]
    if not numbers:
        return [None] * len(raw), ("", "")
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low > 100
    found = iter([math.log(v) for v in numbers] if log else numbers)
    return [None if v is None else next(found) for v in raw], (f"{low:.4g}", f"{high:.4g}")


def _running(values: Sequence[float], direction: str) -> list[float]:
    better = min if direction == "minimize" else max
    found: list[float] = []
    for value in values:
        found.append(better(found[-1], value) if found else value)
    return found


def _frame(across: Scale, up: Scale, x: str, y: str) -> list[str]:
    bottom, left = HEIGHT - MARGIN + 10, MARGIN - 10
    return [
        f"<path d='M{left} 10V{bottom}H{WIDTH}' fill='none' stroke='#888'/>",
        _text(across.start, bottom + 16, f"{across.low:g}"),
        _text(across.stop - 10, bottom + 16, f"{across.high:g}"),
        _text((across.start + across.stop) / 2, bottom + 32, x),
        _text(24, up.start, f"{up.low:.3g}"),
        _text(24, up.stop + 4, f"{up.high:.3g}"),
        _text(28, (up.start + up.stop) / 2, y),
    ]


def _line(points: Points, colour: str, width: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width}'/>"


def _text(x: float, y: float, text: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='middle'>{html.escape(text)}</text>"


def _svg(parts: Sequence[str]) -> str:
    inner = "\n".join(parts)
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>\n{inner}\n</svg>"
    )


def _table(tuning: Tuning, best: Finished) -> str:
    keys = tuning.keys()
    head = "".join(
        f"<th>{html.escape(k)}</th>"
        for k in ["trial", *keys, "versions", "value", "standard error"]
    )
    rows = [_row(done, keys, best=done is best) for done in tuning.finished]
    return f"<table><tr>{head}</tr>\n" + "\n".join(rows) + "\n</table>"


def _row(done: Finished, keys: Sequence[str], *, best: bool) -> str:
    trial, outcome = done.trial, done.outcome
    cells = [str(trial.id), *(shown(trial.params.get(k, "")) for k in keys), str(trial.versions)]
    if outcome.reason:
        rest = f"<td colspan='2' class='failed'>{html.escape(outcome.reason)}</td>"
    else:
        rest = f"<td>{outcome.value:.5g}</td><td>{outcome.stderr:.2g}</td>"
    named = " class='best'" if best else ""
    return f"<tr{named}>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + rest + "</tr>"


def shown(value: object) -> str:
    """Return a parameter as tables show it: four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
