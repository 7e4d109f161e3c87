"""Pictures of results, by matplotlib: bars of speed and of memory, and the roofline. Losses are drawn like wins."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adu_depth import charts
from adu_depth.charts import INK, SOFT, drawing
from bench.harness.implementations import EAGER, OURS
from bench.harness.result import Result, Row
from bench.harness.table import megabytes, speed_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

MISSING = "no pictures: matplotlib is not installed (pip install matplotlib)"
WARNING = "#b3261e"
COLOURS = (charts.COLOURS[2], *charts.COLOURS[:2], *charts.COLOURS[3:], WARNING, "#0b7285")
USUAL = (OURS, EAGER, "compiled reference", "compiled reference, max-autotune")
"""The same colours in every picture."""
STYLE = {"font.size": 8.5, "ytick.labelcolor": INK}
LEGEND: dict[str, Any] = {
    "loc": "outside upper left",
    "ncols": 4,
    "alignment": "left",
    "title_fontproperties": {"weight": "bold", "size": 11},
}
"""Its title is the picture's."""
WIDTH, BAR = 10.0, 0.17
"""Inches: of a picture, and for one bar."""


@dataclass(frozen=True)
class Bar:
    """One implementation's value in one case, and how it is written."""

    case: str
    name: str
    value: float
    written: str


@dataclass(frozen=True)
class Point:
    """An implementation of a case, forward and backward together: least flops and bytes over its own time."""

    case: str
    name: str
    intensity: float
    rate: float
    share: float


def speed_bars(results: Sequence[Result]) -> Figure | None:
    """How many times faster than the eager reference, forward and backward together, on a logarithmic axis around 1."""
    bars = [
        Bar(case["name"], row["name"], speed_up(row, eager), f"×{speed_up(row, eager):.2f}")
        for result in results
        for case in result["cases"]
        for eager in _measured(case["rows"], EAGER)
        for row in _measured(case["rows"])
        if row["name"] != EAGER
    ]
    return _bars(bars, results, "Times as fast as the eager reference (left of ×1 is slower)", 1.0)


def memory_bars(results: Sequence[Result]) -> Figure | None:
    """Peak memory of a step beside its inputs. Bars start at the power of ten below the smallest."""
    bars = [
        Bar(case["name"], row["name"], row["peak_bytes"] / 1e6, megabytes(row["peak_bytes"]))
        for result in results
        for case in result["cases"]
        for row in _measured(case["rows"])
        if row.get("peak_bytes") is not None and not case.get("overhead")
    ]
    smallest = min((bar.value for bar in bars if bar.value > 0), default=1.0)
    return _bars(bars, results, "Peak memory beside the inputs, MB", 10.0 ** math.floor(math.log10(smallest) - 0.01))


def roofline(results: Sequence[Result]) -> Figure | None:
    """None where no peak was measured: on a CPU nothing is compared with one. Numbers name the cases below the plot."""
    measured = [(result, points_of(result)) for result in results if result["roofs"]]
    points = list({(point.case, point.name): point for _, found in measured for point in found}.values())
    if not points:
        return None
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(point.case for point in points))
    names = list(dict.fromkeys(point.name for point in points))
    with drawing(STYLE):
        figure = Figure((WIDTH, 5.6 + 0.17 * math.ceil(len(cases) / 2)), layout="constrained")
        axes, below = figure.subplots(2, height_ratios=(5.2, 0.17 * math.ceil(len(cases) / 2)))
        _peaks(axes, measured[0][0]["roofs"], points)
        for name, colour in _colours(names).items():
            own = [point for point in points if point.name == name]
            size = 130 if name == OURS else 40
            place = ([point.intensity for point in own], [point.rate / 1e12 for point in own])
            axes.scatter(*place, size, color=colour, alpha=0.85, edgecolors="white", label=name, zorder=3)
        ours = [point for point in points if point.name == OURS]
        for point in ours:
            number = str(cases.index(point.case) + 1)
            axes.annotate(
                number,
                (point.intensity, point.rate / 1e12),
                color="white",
                weight="bold",
                size=7,
                ha="center",
                va="center",
                zorder=4,
            )
        device = measured[0][0]["environment"]["device"]
        figure.legend(title=f"Roofline, {device}: forward + backward", **LEGEND)
        shares = {point.case: f", {point.share:.0%} of the roof" for point in ours}
        lines = [f"{number}  {case}{shares.get(case, '')}" for number, case in enumerate(cases, 1)]
        below.axis("off")
        half = math.ceil(len(lines) / 2)
        for left, column in ((0.0, lines[:half]), (0.52, lines[half:])):
            below.text(left, 1, "\n".join(column), color=SOFT, size=7.5, va="top", transform=below.transAxes)
    return figure


def points_of(result: Result) -> list[Point]:
    """Cases without arithmetic, or that measure a call's overhead, have no place under a roofline."""
    found = []
    for case in result["cases"]:
        work = case["work"]
        flops = work.get("forward_flops", 0) + work.get("backward_flops", 0)
        moved = work.get("forward_bytes", 0) + work.get("backward_bytes", 0)
        if case.get("overhead") or not flops or not moved:
            continue
        for row in _measured(case["rows"]):
            share = (row.get("share_of_roof") or {}).get("total")
            if share is not None:
                seconds = row["times"]["total"]["median"] / 1e6
                found.append(Point(case["name"], row["name"], flops / moved, flops / seconds, share))
    return found


def save(figure: Figure, path: Path) -> None:
    """As SVG: the same figure gives the same file."""
    path.write_text(charts.svg(figure, STYLE), encoding="utf-8")


def _measured(rows: Sequence[Row], name: str | None = None) -> list[Row]:
    return [row for row in rows if row["status"] == "measured" and name in (None, row["name"])]


def _bars(bars: Iterable[Bar], results: Sequence[Result], title: str, start: float) -> Figure | None:
    """A group of bars for each case, on a logarithmic axis, from `start`. None where there is nothing to draw."""
    once = {(bar.case, bar.name): bar for bar in bars}  # what was measured twice: the later
    if not once:
        return None
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    groups: dict[str, list[Bar]] = {}
    for bar in once.values():
        groups.setdefault(bar.case, []).append(bar)
    colours = _colours(list(dict.fromkeys(bar.name for bar in once.values())))
    rows = sum(len(group) + 1 for group in groups.values())
    notes = list(dict.fromkeys(result["notice"] for result in results if result["notice"]))
    with drawing(STYLE):
        figure = Figure((WIDTH, 1.1 + BAR * (rows + len(notes))), layout="constrained")
        axes = figure.subplots()
        axes.set_title("\n".join(textwrap.shorten(note, 130) for note in notes), loc="left", color=WARNING, size=8)
        axes.set_xscale("log")
        axes.set_yticks(*_draw_groups(axes, groups, colours, start))
        axes.tick_params(length=0)
        axes.grid(False, axis="y")
        axes.xaxis.tick_top()
        axes.set_xlim(*_limits([bar.value for bar in once.values()], start))
        _plain_numbers(axes)
        axes.axvline(start, color=INK, linewidth=0.8)
        axes.set_ylim(rows - 0.5, -1)
        axes.spines[:].set_visible(False)
        handles: list[Patch] = [Patch(color=colour, label=name) for name, colour in colours.items()]
        figure.legend(handles=handles, title=title, **LEGEND)
    return figure


def _draw_groups(
    axes: Axes, groups: dict[str, list[Bar]], colours: dict[str, str], start: float
) -> tuple[list[float], list[str]]:
    """The places and names of the groups."""
    places, labels, y = [], [], 0
    for case, group in groups.items():
        places.append(y + (len(group) - 1) / 2)
        parts = (part.replace(" ", "\N{NO-BREAK SPACE}") for part in case.split(", "))
        labels.append(textwrap.fill(", ".join(parts), 60))
        for bar in group:
            axes.barh(y, max(bar.value, 1e-9) - start, left=start, height=0.75, color=colours[bar.name])
            end = (max(bar.value, start), y)
            axes.annotate(bar.written, end, (4, 0), textcoords="offset points", va="center", color=SOFT, size=7.5)
            y += 1
        y += 1
    return places, labels


def _limits(values: Sequence[float], start: float) -> tuple[float, float]:
    """With room for the numbers beside the bars."""
    low, high = min(*values, start if start != 1.0 else 0.5), max(*values, 2 * start)
    low = max(low, start / 1e6)  # a value of 0 has no place on a logarithmic axis
    return low / 1.05, high * (high / low) ** 0.09


def _plain_numbers(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 3000 else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _peaks(axes: Axes, peaks: dict[str, float], points: Sequence[Point]) -> None:
    """The measured rates of a copy and of products, which no point can pass."""
    copy, top = peaks["copy"], max(rate for name, rate in peaks.items() if name != "copy")
    low, high = min(0.5, *(p.intensity for p in points)) / 2, max(4 * top / copy, *(2 * p.intensity for p in points))
    floor = min(p.rate for p in points) / 3
    axes.loglog([low, top / copy], [low * copy / 1e12, top / 1e12], color=INK, linewidth=1.3)
    middle = math.sqrt(max(low, floor / copy) * top / copy)
    axes.annotate(
        f"copy {copy / 1e12:.2f} TB/s", (middle, middle * copy / 1e12), (-8, 4), textcoords="offset points", ha="right"
    )
    for rate, names in _named_once(peaks).items():
        axes.plot([rate / copy, high], [rate / 1e12] * 2, color=INK if rate == top else SOFT, linewidth=1.3)
        text = f"{names} product {rate / 1e12:.0f}"
        axes.annotate(text, (high, rate / 1e12), (-2, 3), textcoords="offset points", ha="right")
    axes.set(
        xlim=(low, high), ylim=(floor / 1e12, 2 * top / 1e12), xlabel="flops per byte, both the least", ylabel="TFLOP/s"
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")


def _named_once(peaks: dict[str, float]) -> dict[float, str]:
    """Rates of products by falling rate; those within a twentieth of each other share a line."""
    found: dict[float, str] = {}
    for name, rate in sorted(peaks.items(), key=lambda item: -item[1]):
        if name == "copy":
            continue
        near = next((known for known in found if rate > 0.95 * known), None)
        if near is None:
            found[rate] = name
        else:
            found[near] += f", {name}"
    return found


def _colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name: the usual ones have their own, others take theirs as they come."""
    own, others = dict(zip(USUAL, COLOURS, strict=False)), COLOURS[len(USUAL) :]
    strangers = [name for name in names if name not in own]
    return {name: own.get(name) or others[strangers.index(name) % len(others)] for name in names}
