"""Line charts by matplotlib, which is imported where one is drawn: it may be missing where models are trained.

The style is that of bench's plots too. Lines differ by colour, lightness and dashes, for the colour-blind and on paper.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adu_depth.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1c1b1a", "#6a6762", "#e3dfd8"
COLOURS = ("#0072b2", "#e08a00", "#7a1f5c", "#009e73", "#56a4d9", "#5b5852")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (8, 1.5, 1.5, 1.5)), (0, (1.5, 1.2)), (0, (3, 1.2)))
"""More than six lines repeat the colours with other dashes."""
PAGE_COLOURS = {INK: "ink", SOFT: "soft", LINE: "line", **{colour: f"s{i}" for i, colour in enumerate(COLOURS)}}
"""The names these have in the page's style sheet, where they follow the reader's light or dark."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # letters stay letters, which can be searched, and a diff shows what changed
    "svg.hashsalt": "adu-depth",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "path.simplify": False,
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "grid.color": LINE,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}
_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """A line: finite values at increasing steps."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One chart of a picture: lines by the name its legend shows; `about` stands below the title."""

    title: str
    lines: Mapping[str, Series]
    across: str
    up: str
    about: str = ""


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


def line_chart(series: Mapping[str, Series], up: str, colours: Mapping[str, int] | None = None) -> str:
    """SVG to stand in the page, in its colours: each line's smoothed course, the raw one faint behind it, and a legend.

    series: by the name shown in the legend. up: what the values are. colours: the number of each line's colour; by
    default their order.
    """
    if not series:
        raise ValueError(f"chart {up!r} has no line to draw")
    smoothed = {name: smooth(line.values) for name, line in series.items()}
    low, high = _value_range(smoothed.values())
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure((4.8, 3.0), layout="constrained")
        axes = figure.subplots()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        axes.set(ylim=(low, high), xlabel="training step", ylabel=up)
        for order, (name, line) in enumerate(series.items()):
            number = order if colours is None else colours[name]
            every = max(1, math.ceil(len(line.steps) / _MOST_POINTS))
            chosen = np.array([*range(0, len(line.steps) - 1, every), len(line.steps) - 1])
            steps, raw, course = line.steps[chosen], line.values[chosen], smoothed[name][chosen]
            axes.plot(steps, np.clip(raw, low, high), color=_colour(number), alpha=0.3, linewidth=0.7, clip_on=False)
            _line(axes, steps, np.clip(course, low, high), number)
        _finish(axes, list(series), "")
        return within_page(figure)


def within_page(figure: Figure) -> str:
    """An SVG element for a page, in the colours of its style sheet."""
    text = re.sub(r'^.*?(?=<svg)|<style.*?</style>| xmlns(:\w+)?="[^"]*"', "", svg(figure), flags=re.DOTALL)
    return re.sub("|".join(PAGE_COLOURS), lambda found: f"var(--{PAGE_COLOURS[found[0]]})", text)


def picture(panels: Sequence[Panel]) -> str:
    """A whole SVG file of charts side by side: lines as they are, on white."""
    if not panels or not all(panel.lines for panel in panels):
        raise ValueError("picture: expected at least one panel, and a line in each")
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure((5.6 * len(panels), 3.8), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for number, line in enumerate(panel.lines.values()):
                _line(axes, line.steps, line.values, number)
            high = max(float(line.values.max()) for line in panel.lines.values())
            low = min(float(line.values.min()) for line in panel.lines.values())
            axes.set(ylim=(min(0.0, low), high * 1.04 if high > 0 else 1.0))
            axes.set(xlabel=_written(panel.across), ylabel=_written(panel.up))
            axes.set_title(_written(panel.about), loc="left", color=SOFT, size=9)
            _finish(axes, list(panel.lines), panel.title)
        return svg(figure)


@contextmanager
def drawing(own: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib in our style, and `own` settings, whatever the machine's are; InputError where it is not installed."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise InputError(f"charts are drawn by matplotlib: pip install matplotlib ({error})") from error
    with style.context(["default", {**STYLE, **(own or {})}]):
        yield


def svg(figure: Figure, own: Mapping[str, Any] | None = None) -> str:
    """The file of a figure that was drawn with `own` settings: the same figure gives the same text."""
    file = io.StringIO()
    with drawing(own), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's fonts have what ours lacks
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return file.getvalue().replace("<g id=", "<g class=")  # several may stand in one page, where an id is unique


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, number: int) -> None:
    """Known as class series-N in the file. Its label is a number: matplotlib leaves out what begins with "_"."""
    (line,) = axes.plot(steps, values, color=_colour(number), linestyle=DASHES[number % len(DASHES)], linewidth=1.8)
    line.set_marker("o" if len(steps) == 1 else "")  # a short run has one row
    line.set(label=str(number), gid=f"line series-{number % len(COLOURS)}", clip_on=False)


def _finish(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.margins(x=0)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=0)
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
    for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
        line.set_clip_on(False)  # a clipping path is found by its id
    columns = max(1, min(len(names), 50 // (4 + max(map(len, names)))))
    above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.06 if axes.get_title("left") else 1.0)}
    legend = axes.legend(title=_written(title), ncols=columns, alignment="left", handlelength=2.8, **above)
    legend.get_title().set_fontweight("bold")
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(_written(name))


def _written(name: str) -> str:
    """Names may hold bytes that are no text, which no font has."""
    return name.encode("utf-8", "replace").decode()


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _value_range(lines: Iterable[np.ndarray]) -> tuple[float, float]:
    """A range that holds the lines but for the first steps' peak, which would flatten all that follows."""
    arrays = list(lines)
    low = min(float(a.min()) for a in arrays)
    high = max(float(np.quantile(a, 0.98)) for a in arrays)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return (0.0 if 0.0 <= low < 0.4 * high else low - margin), high + margin
