"""Line charts as inline SVG, coloured by the page's style sheet (classes series-0, series-1, …)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from adu_depth.inference.colour import nice_step

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


def _grid(across: _Axis, up: _Axis) -> str:
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
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">step</text>')
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
