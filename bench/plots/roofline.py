"""The roofline: arithmetic per byte against arithmetic per second, under the two roofs measured in the same run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness.contenders import OURS
from bench.harness.result import Result
from bench.plots.svg import INK, PAPER, SOFT, Drawing, colours_of, shortened

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 980, 580, 78, 24, 116, 52
KEY_ROW = 18


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
    """None where no roof was measured: on a CPU nothing is compared with one. Numbers name the cases below the plot."""
    measured = [(result, points_of(result)) for result in results if result["roofs"]]
    points = [point for _, found in measured for point in found]
    if not points:
        return None
    roofs = measured[0][0]["roofs"]
    top_rate = max(roofs[name] for name in roofs if name != "copy")
    farthest = max(4 * top_rate / roofs["copy"], *(2 * p.intensity for p in points))
    across = _Scale(min(0.5, *(p.intensity for p in points)) / 2, farthest, LEFT, WIDTH - RIGHT)
    up = _Scale(min(p.rate for p in points) / 3, 2 * top_rate, HEIGHT - BOTTOM, TOP)
    cases = list(dict.fromkeys(point.case for point in points))
    title = f"Roofline, {measured[0][0]['environment']['device']}: forward + backward"
    drawing = Drawing(WIDTH, HEIGHT + KEY_ROW * -(-len(cases) // 2) + 20, title)
    drawing.text(16, 28, title, size=16, bold=True)
    colours = colours_of(list(dict.fromkeys(p.name for p in points)))
    drawing.legend(colours, 16, 54, WIDTH - 32)
    _grid(drawing, across, up)
    _roofs(drawing, across, up, roofs)
    for point in points:
        tip = f"{point.case}, {point.name}: {point.rate / 1e12:.2f} TFLOP/s, {point.share:.0%} of the roof"
        x, y = across(point.intensity), up(point.rate)
        if point.name == OURS:
            drawing.dot(x, y, colours[point.name], tip, radius=8.5)
            drawing.text(x, y + 4, str(cases.index(point.case) + 1), anchor="middle", size=11, colour=PAPER, bold=True)
        else:
            drawing.dot(x, y, colours[point.name], tip)
    ours = {point.case: point.share for point in points if point.name == OURS}
    for number, case in enumerate(cases):
        share = f", {ours[case]:.0%} of the roof" if case in ours else ""
        x, y = 16 + (number % 2) * WIDTH / 2, HEIGHT + 14 + KEY_ROW * (number // 2)
        drawing.text(x, y, f"{number + 1}  {shortened(case, 62)}{share}", size=11, colour=SOFT)
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
    for rate, names in _named_once(roofs).items():
        start = rate / roofs["copy"]
        drawing.line(across(start), up(rate), WIDTH - RIGHT, up(rate), INK if rate == top else SOFT, 1.6)
        drawing.text(WIDTH - RIGHT, up(rate) - 6, f"{names} product {rate / 1e12:.0f}", anchor="end", size=12)


def _named_once(roofs: dict[str, float]) -> dict[float, str]:
    """Rates of products by falling rate; those within a twentieth of each other share a line."""
    found: dict[float, str] = {}
    for name, rate in sorted(roofs.items(), key=lambda item: -item[1]):
        if name == "copy":
            continue
        near = next((known for known in found if rate > 0.95 * known), None)
        if near is None:
            found[rate] = name
        else:
            found[near] += f", {name}"
    return found
