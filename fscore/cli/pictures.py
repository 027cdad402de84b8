"""Pictures as one HTML file: inline SVG, no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from attrs import field, frozen

COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8e5ea2", "#e08e0b", "#4c4c4c", "#00a6a6", "#a05195")
STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;color:#222}svg{background:#fff}"
    "text{font:11px system-ui,sans-serif;fill:#333}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}th:first-child,td:first-child{text-align:left}"
)


def page(title: str, parts: Iterable[str]) -> str:
    """Return an HTML document."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


@frozen
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = (math.log10(v) for v in (low, high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        """Return round values inside the range."""
        if self.log:
            powers = range(
                math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1
            )
            return [10.0**p for p in powers]
        step = _step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(rough: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))


@frozen
class Line:
    """A series of a chart."""

    label: str
    points: Sequence[tuple[float, float]]
    steps: bool = False
    """Whether it goes up in steps (a distribution)."""


@frozen
class Chart:
    """Lines over common axes."""

    title: str
    x: str
    y: str
    lines: Sequence[Line] = field(factory=tuple)
    log: bool = False
    """Of the x axis."""
    width: int = 560
    height: int = 360

    def svg(self) -> str:
        """Return the drawing; a line without points is named in the legend only."""
        points = [p for line in self.lines for p in line.points if not self.log or p[0] > 0]
        if not points:
            return f"<p>{escape(self.title)}: nothing to draw.</p>"
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        low = min(xs) if self.log else min(0.0, *xs)
        across = Scale(low, max(xs), 55, self.width - 15, self.log)
        up = Scale(min(ys), max(ys), self.height - 40, 44)
        drawn = [*axes(across, up, self), *self._drawn(across, up)]
        return svg(self.width, self.height, drawn)

    def _drawn(self, across: Scale, up: Scale) -> Iterable[str]:
        for place, line in enumerate(self.lines):
            colour = COLOURS[place % len(COLOURS)]
            known = [p for p in line.points if not self.log or p[0] > 0]
            path = _path([(across(x), up(y)) for x, y in known], steps=line.steps)
            name = line.label if known else f"{line.label} (no data)"
            yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
            at = self.height - 50 - 15 * (len(self.lines) - 1 - place)
            yield f'<text x="{self.width - 20}" y="{at}" text-anchor="end" style="fill:{colour}">{escape(name)}</text>'


def _path(points: Sequence[tuple[float, float]], *, steps: bool) -> str:
    if not points:
        return ""
    moves = [f"M{points[0][0]} {points[0][1]}"]
    for x, y in points[1:]:
        moves.append(f"H{x}V{y}" if steps else f"L{x} {y}")
    return "".join(moves)


def axes(across: Scale, up: Scale, chart: Chart) -> Iterable[str]:
    """Yield title, axes and ticks."""
    yield f'<text x="{across.start}" y="16" style="font-weight:bold">{escape(chart.title)}</text>'
    for value in across.ticks():
        x = across(value)
        yield f'<path d="M{x} {up.end}V{up.start}" stroke="#e5e5e5"/>'
        yield f'<text x="{x}" y="{up.start + 14}" text-anchor="middle">{value:g}</text>'
    for value in up.ticks():
        y = up(value)
        yield f'<path d="M{across.start} {y}H{across.end}" stroke="#e5e5e5"/>'
        yield f'<text x="{across.start - 5}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    middle = (across.start + across.end) / 2
    yield f'<text x="{middle}" y="{up.start + 30}" text-anchor="middle">{escape(chart.x)}</text>'
    yield f'<text x="12" y="{up.end - 8}">{escape(chart.y)}</text>'


def svg(width: float, height: float, parts: Iterable[str]) -> str:
    """Return a drawing."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table."""
    cells = ["".join(f"<th>{escape(h)}</th>" for h in head)]
    cells += ["".join(f"<td>{escape(c)}</td>" for c in row) for row in rows]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"
