"""Everything that is measured on one image, under each of the protocols asked for."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.sample import StereoSample
from adu_depth.errors import InputError
from adu_depth.evaluation.metrics import (
    KITTI_DEPTH_RANGE,
    as_map,
    depth_metrics,
    hu_metrics,
    kitti_depth_metrics,
    stereo_metrics,
)
from adu_depth.evaluation.pair import pair_metrics
from adu_depth.evaluation.protocols import PROTOCOLS, protocol_named, window_mask
from adu_depth.evaluation.uncertainty import uncertainty_score
from adu_depth.models.prediction import DepthPrediction, require_temperature
from adu_depth.schema import require_kinds

Row: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class ImageScore:
    """One image's metrics, and the curves of its uncertainty (see UncertaintyScore) where it was measured."""

    row: Row
    curves: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """What is measured and how.

    protocols: names in PROTOCOLS. min_depth, max_depth: metres; truths outside do not count, predictions are clamped.
    uncertainty: measure the predicted uncertainty too; temperature: also that of temperature·b (see
    `uncertainty_score`). scale: "median" multiplies each predicted depth map by median truth / median prediction over
    the protocol's pixels first, as is usual for networks that learned without metres (Zhou et al., 1704.07813): it
    uses the truth, so its numbers never belong beside those of "none". Disparities are not touched. proxies: protocol
    "pair" compares with them too where a frame has some; not for the matcher that they are from.
    """

    protocols: tuple[str, ...] = ("none",)
    min_depth: float = 1e-3
    max_depth: float = 80.0
    uncertainty: bool = False
    temperature: float | None = None
    scale: Literal["none", "median"] = "none"
    proxies: bool = True

    def __post_init__(self) -> None:
        require_kinds(self)
        if not self.protocols:
            raise InputError("protocols: expected at least one, got none")
        for name in self.protocols:
            protocol_named(name)
        if not 0 < self.min_depth < self.max_depth:
            raise InputError(
                f"depth range: expected 0 < min_depth < max_depth, got {self.min_depth} and {self.max_depth}"
            )
        if self.temperature is not None:
            require_temperature(self.temperature)

    @property
    def looks_back(self) -> bool:
        """Whether a protocol compares with the right view's disparity (`disparity_of_right`): one prediction more."""
        return any(PROTOCOLS[name].metrics == "pair" for name in self.protocols)

    def windows(self, sample: StereoSample) -> dict[str, Tensor]:
        """For each protocol that has something to compare with in this image, 1×H×W bool: the pixels that it looks at.

        Most compare with the truth, "pair" with the right view. InputError where that is missing.
        """
        depth, valid = sample.depth.cpu(), sample.valid.cpu()
        found = {}
        for name in self.protocols:
            if PROTOCOLS[name].metrics == "pair":
                sample.require_right(f"protocol {name!r}")
                found[name] = window_mask(name, *sample.left.shape[-2:])[None]
                continue
            near, far = self._range(name)
            seen = valid & window_mask(name, *sample.left.shape[-2:])
            if bool((seen & (depth >= near) & (depth <= far)).any()):
                found[name] = seen
        return found

    def _range(self, protocol: str) -> tuple[float, float]:
        """Metres: the truths that count."""
        metrics = PROTOCOLS[protocol].metrics
        if metrics == "papers":
            return self.min_depth, self.max_depth
        return KITTI_DEPTH_RANGE if metrics == "kitti" else (math.ulp(0.0), sys.float_info.max)

    def score(
        self,
        prediction: DepthPrediction,
        index: int,
        sample: StereoSample,
        windows: dict[str, Tensor],
        right_disparity: Tensor | None = None,
    ) -> dict[str, ImageScore]:
        """The scores of image `index` of a batch by protocol. windows: what `self.windows(sample)` returned.

        right_disparity: B×1×H×W, the right views'; needed where `looks_back`.
        """
        return {
            name: ImageScore(self._pair_row(prediction, index, sample, right_disparity))
            if PROTOCOLS[name].metrics == "pair"
            else self._score(prediction, index, sample, seen, name)
            for name, seen in windows.items()
        }

    def _pair_row(
        self, prediction: DepthPrediction, index: int, sample: StereoSample, right_disparity: Tensor | None
    ) -> Row:
        if prediction.disparity is None or right_disparity is None:
            raise InputError("protocol 'pair': expected disparities of both views, got a prediction without")
        disparity, right = prediction.disparity[index], sample.require_right("protocol 'pair'")
        row = pair_metrics(sample.left, right, disparity, right_disparity[index])
        if self.proxies and sample.proxied and bool(sample.valid.any()):
            proxies = torch.where(sample.valid, sample.disparity, 0.0)
            row |= {f"proxy_{name}": value for name, value in stereo_metrics(disparity, proxies).items()}
        return row

    def _score(
        self, prediction: DepthPrediction, index: int, sample: StereoSample, seen: Tensor, protocol: str
    ) -> ImageScore:
        target = as_map(torch.where(seen, sample.depth.cpu(), 0.0), "depth")
        depth = as_map(prediction.depth[index], "prediction")
        if self.scale == "median":
            depth = depth * self._median_ratio(depth, target)
        if PROTOCOLS[protocol].metrics == "kitti":
            return ImageScore(kitti_depth_metrics(depth, target))
        if PROTOCOLS[protocol].metrics == "hu":
            return ImageScore(hu_metrics(depth, target))
        row = depth_metrics(depth, target, self.min_depth, self.max_depth)
        if prediction.disparity is not None:
            row |= _stereo_row(prediction.disparity[index], sample, seen)
        if not self.uncertainty:
            return ImageScore(row)
        log_scale = prediction.require_log_scale("the uncertainty's metrics")[index]
        found = uncertainty_score(depth, log_scale, target, self.min_depth, self.max_depth, self.temperature)
        return ImageScore(row | found.metrics, found.curves)

    def _median_ratio(self, depth: np.ndarray, target: np.ndarray) -> float:
        counted = (target >= self.min_depth) & (target <= self.max_depth)
        median = float(np.median(depth[counted])) if counted.any() else float("nan")
        if not median > 0:
            raise InputError(f"scale: expected a positive median of the predicted depths, got {median}")
        return float(np.median(target[counted])) / median


def _stereo_row(disparity: Tensor, sample: StereoSample, seen: Tensor) -> Row:
    """epe and d1; where the data set says what the right camera cannot see, epe_noc and d1_noc without those pixels."""
    truth = sample.disparity.cpu()
    row = stereo_metrics(disparity, torch.where(seen, truth, 0.0))
    if sample.occluded is not None and bool((both := seen & ~sample.occluded.cpu()).any()):
        row |= {f"{k}_noc": v for k, v in stereo_metrics(disparity, torch.where(both, truth, 0.0)).items()}
    return row
