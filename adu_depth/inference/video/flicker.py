"""How steady the depth of a clip is, as a number that does not depend on what the clip shows or how it was taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adu_depth.inference.video.flow import Motion, warp


@dataclass(frozen=True)
class Flicker:
    """What a `FlickerMeter` found; None where the clip has too few frames, or nothing could be followed in it.

    flicker: from frame to frame and back, as a share of the depth. change: from a frame to the next, likewise; of a
    moving camera it holds what truly comes nearer. pixels: share of a frame's pixels that `flicker` is the mean of.
    """

    flicker: float | None
    change: float | None
    pixels: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.flicker is None or self.change is None:
            return "flicker not measured (it takes three frames in which the same is seen)"
        return (
            f"flicker {self.flicker:.2%} (from frame to frame {self.change:.2%}, over {self.pixels:.0%} of the pixels)"
        )


class FlickerMeter:
    """Temporal flicker of depth maps, followed along the optical flow of the pictures.

    With d_t(p) the depth at pixel p of frame t, and p⁻, p⁺ where the flow leads from p in the frames before and after,

        flicker = mean |ln d_t(p) − ½ (ln d_{t−1}(p⁻) + ln d_{t+1}(p⁺))|
        change  = mean |ln d_t(p) − ln d_{t−1}(p⁻)|

    over the pixels whose flow is consistent (`flow.consistent`), in `flicker` both ways; first over a frame's pixels,
    then over the frames in which there are any.

    `change` is the optical-flow based warping error that papers on depth of videos report (OPW in Wang et al., "Neural
    Video Depth Stabilizer", 2307.08695, after the warping error of Lai et al., "Learning Blind Video Temporal
    Consistency", 1808.00449), of ln d instead of d, so that a share of the depth counts alike near and far. Of a camera
    that moves it is no fault: what is driven towards comes nearer. `flicker` is the difference from the mean of both
    neighbours: an approach at constant speed leaves nearly none ((v/d)²/2 of a surface at d that comes v nearer in a
    frame), and what jumps back and forth leaves all of it. Both are 0 of a scene and a prediction that do not change.

    Example:
        >>> still = Motion.between(np.zeros((32, 64), np.uint8), np.zeros((32, 64), np.uint8))
        >>> meter = FlickerMeter()
        >>> for metres in (10.0, 10.1, 10.0):
        ...     meter.add(np.full((32, 64), np.log(metres)), still)
        >>> meter.result().flicker  # ln(10.1 / 10)
        0.00995
    """

    def __init__(self) -> None:
        self._depth: np.ndarray | None = None
        self._motion: Motion | None = None
        self._difference: np.ndarray | None = None
        self._flickers: list[tuple[float, float]] = []
        self._changes: list[float] = []

    def add(self, log_depth: np.ndarray, motion: Motion | None) -> None:
        """The next frame: H×W ln metres, NaN where there is none. motion: what moved since the frame before, None of
        the first one (what else is given for it is not looked at)."""
        log_depth = np.asarray(log_depth, dtype=np.float32)
        difference = None
        if self._depth is not None and motion is not None:
            ahead = warp(log_depth, motion.forward) - self._depth
            if self._difference is not None:
                both = np.abs(self._difference + ahead)[motion.forward_holds] / 2
                both = both[np.isfinite(both)]
                if both.size:
                    self._flickers.append((float(both.mean(dtype=np.float64)), both.size / log_depth.size))
            behind = np.where(motion.backward_holds, warp(self._depth, motion.backward) - log_depth, np.nan)
            seen = np.abs(behind)[np.isfinite(behind)]
            if seen.size:
                self._changes.append(float(seen.mean(dtype=np.float64)))
            difference = behind
        self._depth, self._difference = log_depth, difference

    def result(self) -> Flicker:
        """Of all frames so far."""
        rounded = [round(float(np.mean(found)), 5) if found else None
                   for found in ([value for value, _ in self._flickers], self._changes)]  # fmt: skip
        share = round(float(np.mean([share for _, share in self._flickers])), 3) if self._flickers else 0.0
        return Flicker(rounded[0], rounded[1], share)
