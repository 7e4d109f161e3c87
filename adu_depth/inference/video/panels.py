"""A frame of the video that is written: the source, its depth and its uncertainty, with their scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from adu_depth.inference.colour import ColourScale
from adu_depth.inference.pictures import depth_picture, scaled_to, side_by_side, uncertainty_picture

WIDEST_PANEL = 1920
LARGEST_SIDE = 8000  # pixels; MPEG-4 holds pictures to 8191
_GAP = 8


@dataclass(frozen=True)
class Panels:
    """How a clip's frames are laid out. fps: for the time above the source. note: above the depth, how it was made."""

    scale: ColourScale
    layout: Literal["row", "column"]
    fps: float
    note: str = ""

    def picture(
        self, number: int, source: np.ndarray, log_depth: np.ndarray, log_scale: np.ndarray | None
    ) -> np.ndarray:
        """H'×W'×3 uint8 RGB, both sides even, as encoders want it. source: H×W×3 uint8 RGB; the maps H×W."""
        with np.errstate(invalid="ignore"):
            depth = np.exp(log_depth.astype(np.float64))
        panels = {
            f"frame {number}, {number / self.fps:.2f} s": source,
            f"depth{self.note}": depth_picture(np.nan_to_num(depth), self.scale),
        }
        if log_scale is not None:
            panels["how sure the network is"] = uncertainty_picture(log_scale)
        count = len(panels) if self.layout == "row" else 1
        width = min(source.shape[1], WIDEST_PANEL, LARGEST_SIDE // count - 2 * _GAP)
        sheet = side_by_side({caption: scaled_to(p, width) for caption, p in panels.items()}, columns=count, gap=_GAP)
        if sheet.shape[0] > LARGEST_SIDE:
            sheet = scaled_to(sheet, max(1, sheet.shape[1] * LARGEST_SIDE // sheet.shape[0]))
        down, across = (side % 2 for side in sheet.shape[:2])
        return np.asarray(cv2.copyMakeBorder(sheet, 0, down, 0, across, cv2.BORDER_REPLICATE))
