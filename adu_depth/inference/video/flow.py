"""Where each pixel of a frame was in the frame before, and where that can be trusted.

Flow is H×W×2 float32 in pixels, (to the right, down). Maps are H×W float32; NaN is no value.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

LARGEST_SIDE = 768
"""Pixels: flow of larger pictures is found in a smaller copy, to a fraction of a pixel of that."""
SMALLEST_SIDE = 32
"""Pixels: smaller ones are continued at their edges, for OpenCV's search takes none."""


@dataclass(frozen=True)
class Motion:
    """What moved between two frames, `before` and `after` it.

    backward: flow from a pixel of the frame after to the one before; forward: the other way. Where `backward_holds` and
    `forward_holds` (H×W bool), the way there and back ends where it began.
    """

    backward: np.ndarray
    forward: np.ndarray
    backward_holds: np.ndarray
    forward_holds: np.ndarray

    @classmethod
    def between(cls, before: np.ndarray, after: np.ndarray) -> Motion:
        """That of two grey pictures, H×W uint8."""
        backward, forward = optical_flow(after, before), optical_flow(before, after)
        return cls(backward, forward, consistent(backward, forward), consistent(forward, backward))


def optical_flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """H×W×2 flow from `start` to `end` (H×W uint8 grey): Kroeger et al., "Fast Optical Flow using Dense Inverse
    Search" (arXiv 1603.03590), as OpenCV has it. Two equal pictures have a flow of exactly 0."""
    height, width = start.shape
    shrink = min(1.0, LARGEST_SIDE / max(height, width))
    if shrink < 1.0:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        start, end = (cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (start, end))
    missing = [max(0, SMALLEST_SIDE - side) for side in start.shape]
    start, end = (cv2.copyMakeBorder(p, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE) for p in (start, end))
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = finder.calc(start, end, None)[: start.shape[0] - missing[0], : start.shape[1] - missing[1]]
    if shrink < 1.0:
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        flow = flow * np.array([width / size[0], height / size[1]], dtype=np.float32)
    return np.asarray(flow, dtype=np.float32)


def warp(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """H×W values of the frame that `flow` leads to, at the pixels that it leads from: bilinear, NaN beyond the edge."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    values = np.asarray(values, dtype=np.float32)
    found = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    outside = (x < 0) | (y < 0) | (x > values.shape[1] - 1) | (y > values.shape[0] - 1)
    return np.where(outside, np.float32(np.nan), found)


def consistent(flow: np.ndarray, reverse: np.ndarray) -> np.ndarray:
    """H×W bool: |w + w'|² < 0.01 (|w|² + |w'|²) + 0.5, w the flow and w' the reverse one at its end.

    The test of Sundaram, Brox and Keutzer (ECCV 2010, "Dense point trajectories by GPU-accelerated large displacement
    optical flow"), which Ruder et al. (1604.08610) and Lai et al. (1808.00449) use for videos. False of what is hidden
    in the other frame, or outside of it.
    """
    back = np.stack([warp(reverse[..., axis], flow) for axis in (0, 1)], axis=-1)
    apart = np.square(flow + back).sum(-1)
    return np.asarray(apart < 0.01 * (np.square(flow).sum(-1) + np.square(back).sum(-1)) + 0.5)  # NaN: false
