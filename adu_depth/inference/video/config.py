"""What `adu-depth predict` is asked for where its source is a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from adu_depth.errors import InputError
from adu_depth.schema import Range, check_ranges


@dataclass(frozen=True)
class VideoConfig:
    """A clip's: a video file, a camera, or a folder of frames (--as-video)."""

    depth_range: tuple[float, float] = (2.0, 80.0)
    """Metres that the colours reach from and to, the same in every frame of every clip."""
    layout: Literal["row", "column"] = "row"
    """Source, depth and uncertainty beside each other or, for wide pictures, one below the other."""
    format: Literal["mp4", "avi"] = "mp4"
    """"mp4" (MPEG-4), or "avi" (each frame a JPEG: larger, and read nearly everywhere)."""
    fps: Annotated[float, Range(0.1, 240.0)] | None = None
    """Frames a second of what is written; without it the file's own, the rate at which a camera's were taken, 10."""
    limit: Annotated[int, Range(1, 100_000_000)] | None = None
    """So many frames at most. A camera ends there, or at Ctrl-C."""
    stabilise: Annotated[float, Range(0.0, 0.95)] = 0.0
    """How much of a frame's depth is taken from the frame before, where that shows the same: less flicker, in
    whatever it shows and how it moves. 0: as the network says; 0.7 halves it or so."""
    frames: Literal["none", "png", "npz"] = "none"
    """Also a file a frame: "png" (16-bit, metres × 256), or "npz" (compressed: depth in metres, log_scale)."""

    def __post_init__(self) -> None:
        check_ranges(self, "video.")
        low, high = self.depth_range
        if not (0 < low < high and math.isfinite(high)):
            raise InputError(f"video.depth_range: expected metres 0 < low < high, got {low:g} and {high:g}")
