"""Bars of speed and of memory: a group per case, a bar per implementation, losses drawn like wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.harness.contenders import EAGER
from bench.harness.result import Result, Row
from bench.harness.table import megabytes, speed_up
from bench.plots.svg import INK, LINE, SOFT, Drawing, colours_of, shortened, text_width

WIDTH, LABELS, NUMBERS, BAR, GAP = 980, 360, 90, 15, 16


@dataclass(frozen=True)
class Bar:
    """One implementation's value in one case, and how it is written."""

    case: str
    name: str
    value: float
    written: str


def speed_bars(results: Sequence[Result]) -> str | None:
    """How many times faster than the eager reference, forward and backward together, on a logarithmic axis around 1."""
    bars = [
        Bar(case["name"], row["name"], speed_up(row, eager), f"×{speed_up(row, eager):.2f}")
        for result in results
        for case in result["cases"]
        for eager in _measured(case["rows"], EAGER)
        for row in _measured(case["rows"])
        if row["name"] != EAGER
    ]
    return _chart(bars, results, "Times as fast as the eager reference (left of ×1 is slower)", _around_one)


def memory_bars(results: Sequence[Result]) -> str | None:
    """Peak memory of a step beside its inputs."""
    bars = [
        Bar(case["name"], row["name"], row["peak_bytes"] / 2**20, megabytes(row["peak_bytes"]))
        for result in results
        for case in result["cases"]
        for row in _measured(case["rows"])
        if row.get("peak_bytes") is not None and not case.get("overhead")
    ]
    return _chart(bars, results, "Peak memory beside the inputs, MB", _from_one)


def _measured(rows: Sequence[Row], name: str | None = None) -> list[Row]:
    return [row for row in rows if row["status"] == "measured" and name in (None, row["name"])]


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: bars grow from `start`."""

    low: float
    high: float
    start: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        share = (math.log(inside) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return LABELS + share * (WIDTH - LABELS - NUMBERS)


def _around_one(values: Sequence[float]) -> Axis:
    low, high = min(min(values), 0.5), max(max(values), 2.0)
    return Axis(low / 1.05, high * 1.05, 1.0, _ticks(low, high))


def _from_one(values: Sequence[float]) -> Axis:
    """From the power of ten below the smallest: a bar of length 0 would say nothing on a logarithmic axis."""
    positive = [value for value in values if value > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(positive)) - 0.01)
    high = max(max(positive), 10 * low)
    return Axis(low, high * 1.05, low, _ticks(low, high))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return tuple(m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high)


def _chart(
    bars: Sequence[Bar], results: Sequence[Result], title: str, axis_of: Callable[[Sequence[float]], Axis]
) -> str | None:
    """None where there is nothing to draw."""
    if not bars:
        return None
    cases = list(dict.fromkeys(bar.case for bar in bars))
    colours = colours_of(list(dict.fromkeys(bar.name for bar in bars)))
    axis = axis_of([bar.value for bar in bars])
    notes = list(dict.fromkeys(result["notice"] for result in results if result["notice"]))
    # Drawn once without a height to learn it, since how many rows the legend takes depends on the names.
    top = Drawing(WIDTH, 0, title).legend(colours, 16, 56 + 18 * len(notes), WIDTH - 32) + 30
    bottom = top + len(bars) * BAR + len(cases) * GAP
    drawing = Drawing(WIDTH, bottom + 26, title)
    drawing.text(16, 28, title, size=16, bold=True)
    for number, note in enumerate(notes):
        drawing.text(16, 50 + 18 * number, shortened(note, 130), colour="#b3261e", size=12)
    drawing.legend(colours, 16, 56 + 18 * len(notes), WIDTH - 32)
    for tick in axis.ticks:
        x = axis(tick)
        drawing.line(x, top - 12, x, bottom, INK if tick == axis.start == 1.0 else LINE)
        drawing.text(x, top - 17, f"{tick:g}", anchor="middle", size=12, colour=SOFT)
    if axis.start not in axis.ticks and axis.low < axis.start < axis.high:
        drawing.line(axis(axis.start), top - 12, axis(axis.start), bottom, INK)
    y = top
    for case in cases:
        of_case = [bar for bar in bars if bar.case == case]
        for line, words in enumerate(_wrapped(case, LABELS - 30)[: max(1, len(of_case))]):
            drawing.text(16, y + 12 + 15 * line, words)
        for bar in of_case:
            x, start = axis(bar.value), axis(axis.start)
            drawing.rectangle(
                min(x, start), y + 2, abs(x - start), BAR - 4, colours[bar.name], f"{bar.name}: {bar.written}"
            )
            drawing.text(max(x, start) + 6, y + 12, bar.written, size=12, colour=SOFT)
            y += BAR
        y += GAP
    return drawing.svg()


def _wrapped(words: str, width: float) -> list[str]:
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
