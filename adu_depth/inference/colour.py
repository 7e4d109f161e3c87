"""Colour scales: which colour a depth, an uncertainty or an error gets, and the ticks that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

INVALID = (104, 104, 104)
"""RGB of a pixel without a value."""

# Every ramp changes lightness in one direction, so it also reads in grey and for most colour-blind people.
# Magma without its near-black end: far things must differ from dark paper, and dots of them be seen on a picture.
_OPENCV_RAMPS = {"magma": (cv2.COLORMAP_MAGMA, 24), "viridis": (cv2.COLORMAP_VIRIDIS, 0)}
_ANCHOR_RAMPS = {"ember": ((255, 255, 250), (254, 224, 150), (244, 140, 70), (190, 30, 45), (84, 0, 30))}


@cache
def ramp(name: str) -> np.ndarray:
    """The 256 RGB colours of "magma", "viridis" or "ember" (white to dark red): 256×3 uint8."""
    if name in _OPENCV_RAMPS:
        colour_map, first = _OPENCV_RAMPS[name]
        indices = np.linspace(first, 255, 256).round().astype(np.uint8)[:, None]
        return np.ascontiguousarray(cv2.applyColorMap(indices, colour_map)[:, 0, ::-1])
    anchors = np.array(_ANCHOR_RAMPS[name], dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


@dataclass(frozen=True)
class ColourScale:
    """Maps values from `low` to `high` onto a ramp, evenly or in the logarithm; beyond the ends the end colour stays.

    label and unit name what is shown ("depth", "m"). reverse: the last colour of the ramp stands for `low`.
    open_ended: the picture may hold values above `high`, so the last tick says "≥".
    """

    label: str
    unit: str
    low: float
    high: float
    ramp: str
    log: bool = False
    reverse: bool = False
    open_ended: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a colour scale needs finite low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic colour scale needs low > 0, got {self.low}")

    def position(self, values: np.ndarray | float) -> np.ndarray:
        """Where on the scale values lie: 0 at low, 1 at high, clipped; NaN stays NaN."""
        values = np.asarray(values, dtype=np.float64)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                span = math.log(self.high) - math.log(self.low)
                return np.clip((np.log(values) - math.log(self.low)) / span, 0.0, 1.0)
        return np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)

    def colours(self) -> np.ndarray:
        """The ramp from low to high: 256×3 uint8 RGB."""
        return ramp(self.ramp)[::-1] if self.reverse else ramp(self.ramp)

    def colourise(self, values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """H×W values to H×W×3 uint8 RGB; grey where `valid` (H×W bool) is false or the value is not finite."""
        usable = np.isfinite(values) if valid is None else np.isfinite(values) & valid
        index = (self.position(np.where(usable, values, self.high)) * 255).round().astype(np.uint8)
        picture = self.colours()[index]
        picture[~usable] = INVALID
        return picture

    def ticks(self) -> list[float]:
        """Values to write beside the scale, low and high among them, far enough apart to be read."""
        inner = _log_ticks(self.low, self.high) if self.log else _even_ticks(self.low, self.high)
        apart = 0.06
        kept = [t for t in inner if apart < self.position(t) < 1 - apart]
        return [self.low, *kept, self.high]

    def tick_label(self, value: float, at_least: str = "≥ ") -> str:
        """The tick's number; the top of an open-ended scale says that it stands for everything above."""
        number = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return f"{at_least}{number}" if self.open_ended and value == self.high else number


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low < m * 10.0**e < high]


def _even_ticks(low: float, high: float, about: int = 6) -> list[float]:
    step = nice_step((high - low) / about)
    first = math.floor(low / step) + 1
    return [step * k for k in range(first, math.ceil(high / step)) if low < step * k < high]


def nice_step(at_least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `at_least` (> 0)."""
    magnitude = 10.0 ** math.floor(math.log10(at_least))
    return next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= at_least * (1 - 1e-9))


def depth_scale(low: float = 2.0, high: float = 80.0) -> ColourScale:
    """Depth in metres, near bright and far dark, in the logarithm.

    A street fills the range from a few metres to eighty: evenly spaced colours spend most of the ramp on the far half,
    where few pixels are; inverse depth spends it on the first ten metres. The logarithm gives each doubling its share.
    """
    return ColourScale("depth", "m", low, high, "magma", log=True, reverse=True, open_ended=True)


DEPTH = depth_scale()
UNCERTAINTY = ColourScale("predicted error of depth", "%", 1.0, 100.0, "viridis", log=True, open_ended=True)
ERROR = ColourScale("error of depth", "%", 0.0, 30.0, "ember", open_ended=True)
