"""What the two images of a pair say by themselves: which is the left one, on which rows they meet, how far things move.

Disparities are in pixels of the images given; pairs wider than WIDEST are matched at that width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from adu_depth.data.image_files import grey_levels
from adu_depth.evaluation.baselines import SemiGlobalMatching

WIDEST = 1300  # beyond it matching takes seconds and says no more
FEATURES = 3000
LOWE_RATIO = 0.8  # second-best distance that a match must beat (Lowe, IJCV 2004)
ROW_SLACK = 12.0  # pixels two views may be apart in height for their features still to be taken as matches
FEWEST_PIXELS = 100  # fewer are no measurement


@dataclass(frozen=True)
class Matched:
    """Semi-global matching of a pair, in the order given and with the views exchanged.

    disparity: H×W float32, negative where nothing matches. density, swapped_density: shares of the pixels matched; the
    wrong order finds only what repeats itself.
    """

    disparity: np.ndarray
    density: float
    swapped_density: float


@dataclass(frozen=True)
class Features:
    """Corners found again, wherever they moved. count: how many. forward: the share of those that moved at all which
    are farther left in the right view, as all are in a rectified pair. row_offset: median of y_right − y_left, pixels.
    Both are NaN where there is nothing to take them from."""

    count: int
    forward: float
    row_offset: float


def match_pair(left: Tensor, right: Tensor) -> Matched:
    """Two 3×H×W views in [0, 1]."""
    (small_left, small_right), scale = _narrowed(left, right)
    matcher = _matcher(max(64, small_left.shape[-1] // 5 // 16 * 16))
    disparity, exchanged = matcher.match(small_left, small_right), matcher.match(small_right, small_left)
    densities = [float((found >= 0).mean()) for found in (disparity, exchanged)]
    if scale < 1:
        size = (left.shape[-1], left.shape[-2])
        disparity = cv2.resize(disparity, size, interpolation=cv2.INTER_NEAREST) / np.float32(scale)
    return Matched(disparity, *densities)


def match_features(left: Tensor, right: Tensor) -> Features:
    """Two 3×H×W views in [0, 1]."""
    views, scale = _narrowed(left, right)
    detector = cv2.ORB.create(nfeatures=FEATURES)
    (points, words), (others, other_words) = (detector.detectAndCompute(grey_levels(view), None) for view in views)
    if words is None or other_words is None or len(others) < 2:
        return Features(0, np.nan, np.nan)
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(words, other_words, k=2)
    best = [p[0] for p in pairs if len(p) == 2 and p[0].distance < LOWE_RATIO * p[1].distance]
    moves = np.array([np.subtract(others[m.trainIdx].pt, points[m.queryIdx].pt) for m in best]).reshape(-1, 2) / scale
    moves = moves[np.abs(moves[:, 1]) < ROW_SLACK / scale]
    if len(moves) == 0:
        return Features(0, np.nan, np.nan)
    moved = moves[np.abs(moves[:, 0]) > 1, 0]
    forward = float((moved < 0).mean()) if len(moved) else float("nan")
    return Features(len(moves), forward, float(np.median(moves[:, 1])))


def warp_error(left: Tensor, right: Tensor, disparity: np.ndarray, known: np.ndarray) -> float:
    """Mean |left(x) − right(x − disparity)| in grey levels of 255 over the `known` pixels (H×W) whose match lies in the
    right image, linear between columns; NaN if they are too few."""
    here, there = grey_levels(left), grey_levels(right).astype(np.float32)
    height, width = here.shape
    source = np.arange(width, dtype=np.float32) - disparity.astype(np.float32)
    inside = known & (source >= 0) & (source <= width - 1)
    if inside.sum() < FEWEST_PIXELS:
        return float("nan")
    rows = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
    warped = cv2.remap(there, source, rows, cv2.INTER_LINEAR)
    return float(np.abs(here[inside].astype(np.float32) - warped[inside]).mean())


@cache
def _matcher(num_disparities: int) -> SemiGlobalMatching:
    return SemiGlobalMatching(num_disparities)


def _narrowed(left: Tensor, right: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
    """Both views no wider than WIDEST, and by what factor they were made smaller."""
    height, width = left.shape[-2:]
    if width <= WIDEST:
        return (left, right), 1.0
    size = (round(height * WIDEST / width), WIDEST)
    small = [F.interpolate(v[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1) for v in (left, right)]
    return (small[0], small[1]), WIDEST / width
