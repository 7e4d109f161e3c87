"""Line charts as SVG: inline ones coloured by the page's style sheet (classes series-0, …), and files of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from adu_depth.inference.colour import nice_step
from adu_depth.report.style import PICTURE_STYLE

SERIES_COLOURS = 6
"""How many classes series-N the style sheet colours; more lines repeat them, dashed."""

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 26, 14, 42
_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """A line: finite values at increasing steps."""

    steps: np.ndarray
    values: np.ndarray


def series_of(history: Sequence[Mapping[str, float]], term: str) -> Series | None:
    """The term's course over a run's history rows ({"step": …, term: …}), without NaN and inf; None if none is left."""
    points = [(row["step"], row[term]) for row in history if "step" in row and math.isfinite(row.get(term, math.nan))]
    if not points:
        return None
    steps, values = np.array(points, dtype=np.float64).T
    return Series(steps, values)


def smooth(values: np.ndarray, share: float = 0.08) -> np.ndarray:
    """Exponential moving average over about `share` of the points, without the bias towards its start."""
    keep = 1.0 - 1.0 / max(1.0, share * len(values))
    smoothed = np.empty_like(values)
    total = weight = 0.0
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1.0
        smoothed[i] = total / weight
    return smoothed


def line_chart(series: Mapping[str, Series], title: str, colours: Mapping[str, int] | None = None) -> str:
    """One chart of several lines with axes, grid and legend: the smoothed course, the raw one faint behind it.

    series: by the name shown in the legend. colours: the number of each line's colour; by default their order.
    """
    if not series:
        raise ValueError(f"chart {title!r} has no line to draw")
    smoothed = {name: smooth(s.values) for name, s in series.items()}
    first = min(float(s.steps[0]) for s in series.values())
    last = max(float(s.steps[-1]) for s in series.values())
    low, high = _value_range(smoothed.values())
    across = _Axis(first, max(last, first + 1.0), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(across, up)]
    for order, (name, line) in enumerate(series.items()):
        number = order if colours is None else colours[name]
        css = f"series-{number % SERIES_COLOURS}" + (" dashed" if number >= SERIES_COLOURS else "")
        parts.append(f'<polyline class="raw {css}" points="{_points(line.steps, line.values, across, up)}"/>')
        parts.append(f'<polyline class="line {css}" points="{_points(line.steps, smoothed[name], across, up)}"/>')
    legend = "".join(
        f'<span class="key"><i class="swatch series-{(i if colours is None else colours[n]) % SERIES_COLOURS}"></i>'
        f"{escape(n)}</span>"
        for i, n in enumerate(series)
    )
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b><span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} over the training steps">'
        f"{''.join(parts)}</svg></figure>"
    )


@dataclass(frozen=True)
class Panel:
    """One chart of a picture: lines by the name its legend shows; `about` stands below the title."""

    title: str
    lines: Mapping[str, Series]
    across: str
    up: str
    about: str = ""


def picture(panels: Sequence[Panel]) -> str:
    """A whole SVG file of charts side by side: lines as they are, on white, in the report's colours."""
    if not panels or not all(panel.lines for panel in panels):
        raise ValueError("picture: expected at least one panel, and a line in each")
    head = 62
    height = head + _HEIGHT
    drawn = "".join(
        f'<g transform="translate({i * _WIDTH} 0)">{_head(panel)}<g transform="translate(0 {head})">'
        f"{_drawing(panel)}</g></g>"
        for i, panel in enumerate(panels)
    )
    width = _WIDTH * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{PICTURE_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n'
    )


def _head(panel: Panel) -> str:
    """Title, what is said of it, and the legend."""
    parts = [
        f'<text class="title" x="{_LEFT}" y="22">{escape(panel.title)}</text>',
        f'<text class="tick" x="{_LEFT}" y="41">{escape(panel.about)}</text>',
    ]
    x = float(_LEFT)
    for number, name in enumerate(panel.lines):
        css = f"series-{number % SERIES_COLOURS}"
        parts.append(f'<polyline class="line {css}" points="{x:.0f},56 {x + 16:.0f},56"/>')
        parts.append(f'<text class="tick" x="{x + 21:.0f}" y="60">{escape(name)}</text>')
        x += 40 + 7.2 * len(name)
    return "".join(parts)


def _drawing(panel: Panel) -> str:
    lines = panel.lines.values()
    across = _Axis(min(s.steps[0] for s in lines), max(s.steps[-1] for s in lines), _LEFT, _WIDTH - _RIGHT)
    low, high = min(s.values.min() for s in lines), max(s.values.max() for s in lines)
    up = _Axis(min(0.0, float(low)), float(high) * 1.04 if high > 0 else 1.0, _HEIGHT - _BOTTOM, _TOP)
    drawn = "".join(
        f'<polyline class="line series-{number % SERIES_COLOURS}" points="{_points(s.steps, s.values, across, up)}"/>'
        for number, s in enumerate(lines)
    )
    name = f'<text class="tick" x="12" y="{_TOP + 4}" transform="rotate(-90 12 {_TOP + 4})" text-anchor="end">'
    return f"{_grid(across, up, panel.across)}{name}{escape(panel.up)}</text>{drawn}"


@dataclass(frozen=True)
class _Axis:
    """Values from low to high at drawing coordinates start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        step = nice_step((self.high - self.low) / about)
        return [step * k for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _value_range(lines: Iterable[np.ndarray]) -> tuple[float, float]:
    """A range that holds the lines but for the first steps' peak, which would flatten all that follows."""
    arrays = list(lines)
    low = min(float(a.min()) for a in arrays)
    high = max(float(np.quantile(a, 0.98)) for a in arrays)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return (0.0 if 0.0 <= low < 0.4 * high else low - margin), high + margin


def _grid(across: _Axis, up: _Axis, name: str = "step") -> str:
    parts = []
    for value in up.ticks(5):
        y = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    base = _HEIGHT - _BOTTOM
    for value in across.ticks(6):
        x = across(value)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 5}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{base + 19}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{escape(name)}</text>')
    return "".join(parts)


def _points(steps: np.ndarray, values: np.ndarray, across: _Axis, up: _Axis) -> str:
    every = max(1, math.ceil(len(steps) / _MOST_POINTS))
    chosen = [*range(0, len(steps) - 1, every), len(steps) - 1]
    clipped = np.clip(values, up.low, up.high)
    return " ".join(f"{across(float(steps[i])):.1f},{up(float(clipped[i])):.1f}" for i in chosen)


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{0.0 if abs(value) < 1e-12 else value:.6g}".replace("-", "−")
