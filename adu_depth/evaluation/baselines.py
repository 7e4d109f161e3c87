"""What a trained network must be better than: a classical matcher, and one disparity for every pixel.

Both are `predict` functions for `evaluate`, so they are measured on the same pixels as everything else. Neither says
how sure it is: log_scale is 0 everywhere and means nothing.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from adu_depth.data.dataset import Dataset
from adu_depth.data.image_files import grey_levels
from adu_depth.data.sample import StereoSample
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.geometry import disparity_to_depth
from adu_depth.models.prediction import DepthPrediction

SGBM_FIXED_POINT = 16  # OpenCV returns disparities in sixteenths of a pixel


class SemiGlobalMatching:
    """OpenCV's StereoSGBM (after Hirschmüller, TPAMI 2008) on grey images, three-way, blocks of 3×3.

    num_disparities: searched range in pixels, a positive multiple of 16; disparities beyond it cannot be found.
    uniqueness: percent by which a match must beat every other.
    Penalties, uniqueness (10) and speckle filter are those of OpenCV's stereo_match samples. Of the usual variants
    (colour or grey, 5, 8 or 3 paths, blocks of 3 or 5) this one had the lowest D1 on six KITTI 2015 pairs.
    Images are extended on the left by the searched range, so that the left rim is matched as well. Pixels without a
    match are filled along rows by the smaller, that is the farther, of their two matched neighbours, as KITTI's
    development kit does. density: image name → share of pixels matched before filling.
    """

    block_size = 3

    def __init__(self, num_disparities: int = 128, uniqueness: int = 10) -> None:
        if num_disparities <= 0 or num_disparities % 16:
            raise InputError(f"num_disparities: expected a positive multiple of 16, got {num_disparities}")
        self.num_disparities = num_disparities
        self.density: dict[str, float] = {}
        area = (
            3 * self.block_size**2
        )  # the samples' 3 is for colour; kept on grey it smooths more, which helps on roads
        self._matcher = cv2.StereoSGBM.create(
            minDisparity=0,
            numDisparities=num_disparities,
            blockSize=self.block_size,
            P1=8 * area,
            P2=32 * area,
            disp12MaxDiff=1,
            preFilterCap=63,
            uniquenessRatio=uniqueness,
            speckleWindowSize=100,
            speckleRange=32,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
        )

    def __call__(self, sample: StereoSample) -> DepthPrediction:
        """sample: a batch. Raises InputError for a pair in which nothing at all matches."""
        maps = []
        for name, left, right in zip(sample.name, sample.left, sample.require_right("stereo matching"), strict=True):
            disparity = self.match(left, right)
            matched = disparity >= 0
            self.density.setdefault(name, float(matched.mean()))  # a second look at the pair is of the right view
            if not matched.any():
                raise InputError(f"{name}: no pixel of the left image has a match in the right one")
            # Zero disparity is a point at infinity; half a step away from it keeps the depth far instead of unknown.
            maps.append(np.maximum(fill_along_rows(disparity, matched), 0.5 / SGBM_FIXED_POINT))
        return _prediction(torch.from_numpy(np.stack(maps))[:, None].to(sample.left.device), sample)

    def match(self, left: Tensor, right: Tensor) -> np.ndarray:
        """H×W float32 disparity of a 3×H×W pair, negative where there is no match."""
        rim = self.num_disparities
        views = (cv2.copyMakeBorder(grey_levels(v), 0, 0, rim, 0, cv2.BORDER_REPLICATE) for v in (left, right))
        disparity: np.ndarray = self._matcher.compute(*views)[:, rim:].astype(np.float32) / SGBM_FIXED_POINT
        return disparity


class ConstantDisparity:
    """The same disparity at every pixel of every image."""

    STEPS = 256
    """Per pixel of disparity, in which the median is counted: what the data sets' maps store."""
    FARTHEST = 4096.0
    """Pixels; larger disparities are counted as this one."""

    def __init__(self, disparity: float) -> None:
        self.disparity = disparity

    @classmethod
    def median_of(cls, dataset: Dataset, processes: ProcessGroup | None = None) -> ConstantDisparity:
        """The median of all valid ground-truth disparities of `dataset`, to 1/256 px; `processes` share the images.

        Given the set it is then evaluated on, it has peeked at the answers: the best one number could do, a generous
        baseline. Values are counted, not kept: a large data set's would not fit into memory. Raises InputError if no
        pixel is valid.
        """
        processes = processes or ProcessGroup()
        own = np.zeros(int(cls.FARTHEST) * cls.STEPS + 1, dtype=np.int64)
        for index in range(processes.rank, len(dataset), processes.world_size):
            sample = dataset[index]
            known = sample.disparity[sample.valid].cpu().double().numpy()
            own += np.bincount(np.rint(known.clip(0, cls.FARTHEST) * cls.STEPS).astype(np.int64), minlength=own.size)
        counts = np.cumsum(sum(processes.gather(own)))
        if counts[-1] == 0:
            raise InputError("dataset: no valid disparity to take the median of")
        return cls(int(np.searchsorted(counts, (counts[-1] + 1) // 2)) / cls.STEPS)

    def __call__(self, sample: StereoSample) -> DepthPrediction:
        """sample: a batch."""
        return _prediction(torch.full_like(sample.left[:, :1], self.disparity), sample)


class Matched:
    """A data set's pairs with what a matcher finds in them where ground truth would stand."""

    def __init__(self, samples: Dataset, matcher: SemiGlobalMatching) -> None:
        self.samples, self.matcher = samples, matcher

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> StereoSample:
        sample = self.samples[index]
        found = torch.from_numpy(self.matcher.match(sample.left, sample.require_right("stereo matching")))[None]
        return replace(sample, disparity=found, valid=found > 0)


def fill_along_rows(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fills an H×W map: the smaller of the nearest known values left and right; at a rim the only one there is.

    A row with nothing known takes the nearest row above that has something, or below if there is none above.
    """
    height, width = values.shape
    columns = np.arange(width)
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.flip(np.minimum.accumulate(np.flip(np.where(known, columns, width), axis=1), axis=1), axis=1)
    rows = np.arange(height)[:, None]
    from_left = np.where(left >= 0, values[rows, left.clip(min=0)], np.inf)
    from_right = np.where(right < width, values[rows, right.clip(max=width - 1)], np.inf)
    filled = np.where(known, values, np.minimum(from_left, from_right))
    full_rows = np.flatnonzero(known.any(axis=1))
    if full_rows.size == 0:
        raise ValueError("known: no pixel is known, nothing to fill from")
    above = np.searchsorted(full_rows, np.arange(height), side="right") - 1
    return filled[full_rows[above.clip(min=0)]].astype(values.dtype)


def _prediction(disparity: Tensor, sample: StereoSample) -> DepthPrediction:
    depth = disparity_to_depth(disparity, sample.camera)
    return DepthPrediction(depth=depth, log_scale=torch.zeros_like(depth), features=(), disparity=disparity)
