"""The roofline: arithmetic per byte against arithmetic per second, under the two roofs measured in the same run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness.result import Result
from bench.plots.svg import INK, LINE, SOFT, Drawing, colours_of, shortened

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 980, 560, 78, 24, 96, 52


@dataclass(frozen=True)
class Point:
    """An implementation of a case, forward and backward together: least flops and bytes over its own time."""

    case: str
    name: str
    intensity: float
    rate: float
    share: float


def points_of(result: Result) -> list[Point]:
    """Cases without arithmetic, or that measure a call's overhead, have no place under a roofline."""
    found = []
    for case in result["cases"]:
        work = case["work"]
        flops = work.get("forward_flops", 0) + work.get("backward_flops", 0)
        moved = work.get("forward_bytes", 0) + work.get("backward_bytes", 0)
        if case.get("overhead") or not flops or not moved:
            continue
        for row in case["rows"]:
            share = (row.get("share_of_roof") or {}).get("total")
            if row["status"] == "measured" and share is not None:
                seconds = row["times"]["total"]["median"] / 1e6
                found.append(Point(case["name"], row["name"], flops / moved, flops / seconds, share))
    return found


def roofline(results: Sequence[Result]) -> str | None:
    """None where no roof was measured: on a CPU nothing is compared with one."""
    measured = [(result, points_of(result)) for result in results if result["roofs"]]
    points = [point for _, found in measured for point in found]
    if not points:
        return None
    roofs = measured[0][0]["roofs"]
    top_rate = max(roofs[name] for name in roofs if name != "copy")
    across = _Scale(min(0.5, *(p.intensity for p in points)) / 2, 4 * top_rate / roofs["copy"], LEFT, WIDTH - RIGHT)
    up = _Scale(min(p.rate for p in points) / 3, 2 * top_rate, HEIGHT - BOTTOM, TOP)
    device = measured[0][0]["environment"]["device"]
    title = f"Roofline, {device}: forward + backward"
    drawing = Drawing(WIDTH, HEIGHT, title)
    drawing.text(16, 28, title, size=16, bold=True)
    colours = colours_of(list(dict.fromkeys(p.name for p in points)))
    drawing.legend(colours, 16, 54, WIDTH - 32)
    _grid(drawing, across, up)
    _roofs(drawing, across, up, roofs)
    for point in points:
        tip = f"{point.case}, {point.name}: {point.rate / 1e12:.2f} TFLOP/s, {point.share:.0%} of the roof"
        drawing.dot(across(point.intensity), up(point.rate), colours[point.name], tip)
    last = ""
    for point in sorted((p for p in points if p.name == "ours"), key=lambda p: (-p.rate, p.intensity)):
        if point.case != last:
            drawing.text(
                across(point.intensity) + 8,
                up(point.rate) + 4,
                f"{shortened(point.case, 34)} {point.share:.0%}",
                size=11,
                colour=SOFT,
            )
        last = point.case
    return drawing.svg()


@dataclass(frozen=True)
class _Scale:
    """Logarithmic, from low to high at drawing coordinates start to end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def decades(self) -> list[float]:
        return [10.0**k for k in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)]


def _grid(drawing: Drawing, across: _Scale, up: _Scale) -> None:
    for value in across.decades():
        drawing.line(across(value), TOP, across(value), HEIGHT - BOTTOM)
        drawing.text(across(value), HEIGHT - BOTTOM + 18, f"{value:g}", anchor="middle", size=12, colour=SOFT)
    for value in up.decades():
        drawing.line(LEFT, up(value), WIDTH - RIGHT, up(value))
        drawing.text(LEFT - 8, up(value) + 4, f"{value / 1e12:g}", anchor="end", size=12, colour=SOFT)
    drawing.text(WIDTH - RIGHT, HEIGHT - 12, "flops per byte, both the least", anchor="end", size=12, colour=SOFT)
    drawing.text(16, TOP - 12, "TFLOP/s", size=12, colour=SOFT)


def _roofs(drawing: Drawing, across: _Scale, up: _Scale, roofs: dict[str, float]) -> None:
    top = max(rate for name, rate in roofs.items() if name != "copy")
    low = max(across.low, up.low / roofs["copy"])  # where the slanted roof enters the picture
    ridge = top / roofs["copy"]
    drawing.line(across(low), up(low * roofs["copy"]), across(ridge), up(top), INK, 1.6)
    # Its name lies below the roof's middle, where points seldom are.
    middle = math.sqrt(low * ridge)
    drawing.text(
        across(middle) - 10,
        up(middle * roofs["copy"]) - 10,
        f"copy {roofs['copy'] / 1e12:.2f} TB/s",
        anchor="end",
        size=12,
    )
    for name, rate in roofs.items():
        if name != "copy":
            start = rate / roofs["copy"]
            drawing.line(across(start), up(rate), WIDTH - RIGHT, up(rate), INK if rate == top else LINE, 1.6)
            drawing.text(WIDTH - RIGHT, up(rate) - 6, f"{name} product {rate / 1e12:.0f}", anchor="end", size=12)
