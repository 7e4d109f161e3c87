"""One frame's measurements: all that the checks judge, without the frame's images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from adu_depth.data.dataset import depth_disparity_product
from adu_depth.data.image_files import grey_levels
from adu_depth.data.rig import MAP_ROLES, read_map_values
from adu_depth.data.sample import StereoSample
from adu_depth.doctor.matching import FEWEST_PIXELS, Features, match_features, match_pair, warp_error
from adu_depth.geometry import Camera

FEWEST_FEATURES = 30
DECIDED = 0.8  # share of the features that must agree on the views' order
DENSER = 1.25  # by what factor one order must match more pixels than the other, where features are too few
CANDIDATES = {"the ground truth": 1.0, "zero": 0.0, "the opposite sign": -1.0, "half of it": 0.5, "its double": 2.0}

LEAP = 0.1  # of ln(depth)
FEWEST_LEAPS = 200
LEAST_KNOWN = 0.4  # of the pixels: a LiDAR's points are too far apart
STEP_SHARE = 1 / 80  # of the width, between the two pixels compared: sensors leave holes at a leap itself

Order = Literal["right", "swapped", "unclear", "identical"]


@dataclass(frozen=True)
class FrameFacts:
    """name, files by role, (height, width), the camera, and what was measured; NaN where there was nothing to measure.

    valid: share of the pixels with ground truth. median_depth: metres. ratio: median of matched over stated disparity.
    product: median(depth · disparity) / (f·B). sparse_ratio: median of sparse_depth over depth where both are known.
    warp_errors: grey levels by candidate, see CANDIDATES. negative, not_numbers: share of a stored map's values that
    are so, by role, where it is not 0. edge_ratio: see `edge_ratio`, of single images.
    """

    name: str
    files: dict[str, Path]
    size: tuple[int, int]
    camera: Camera
    valid: float
    median_depth: float
    sparse_ratio: float = float("nan")
    product: float = float("nan")
    order: Order = "unclear"
    features: Features | None = None
    ratio: float = float("nan")
    warp_errors: tuple[float, ...] = ()
    negative: dict[str, float] = field(default_factory=dict)
    not_numbers: dict[str, float] = field(default_factory=dict)
    edge_ratio: float = float("nan")

    @cached_property
    def best_candidate(self) -> str:
        """Which of CANDIDATES warps the right view onto the left one best."""
        errors = [error if np.isfinite(error) else np.inf for error in self.warp_errors]
        return list(CANDIDATES)[int(np.argmin(errors))]

    @property
    def focal_baseline(self) -> float:
        return float(self.camera.fx) * float(self.camera.baseline)


def measure_frame(sample: StereoSample, files: dict[str, Path]) -> FrameFacts:
    """Measures a single (unbatched) sample as its data set gives it."""
    known = sample.valid[0].numpy()
    depth = sample.depth[sample.valid]
    height, width = sample.left.shape[-2:]
    facts = {
        "name": str(sample.name),
        "files": files,
        "size": (height, width),
        "camera": sample.camera,
        "valid": float(known.mean()),
        "median_depth": float(depth.median()) if depth.numel() else float("nan"),
        "sparse_ratio": _sparse_ratio(sample),
        **_strange_values(files),
    }
    if sample.right is None:
        aligned = edge_ratio(grey_levels(sample.left), sample.depth[0].numpy(), known)
        return FrameFacts(**facts, edge_ratio=aligned)  # type: ignore[arg-type]
    matched, features = match_pair(sample.left, sample.right), match_features(sample.left, sample.right)
    disparity = sample.disparity[0].numpy()
    both = known & (matched.disparity > 0)
    ratio = float(np.median(matched.disparity[both] / disparity[both])) if both.sum() >= FEWEST_PIXELS else float("nan")
    errors = (warp_error(sample.left, sample.right, disparity * factor, known) for factor in CANDIDATES.values())
    return FrameFacts(
        **facts,  # type: ignore[arg-type]
        product=depth_disparity_product(vars(sample), sample.camera),
        order=_order(sample, features, matched.density, matched.swapped_density),
        features=features,
        ratio=ratio,
        warp_errors=tuple(errors),
    )


def _strange_values(files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """What `read_map` takes for unknown without a word. Only floats can be so; a 16-bit PNG cannot."""
    shares: dict[str, dict[str, float]] = {"negative": {}, "not_numbers": {}}
    for role, path in files.items():
        if role in MAP_ROLES and path.suffix.lower() in (".npy", ".pfm"):
            values = read_map_values(path)
            for kind, found in (("negative", values < 0), ("not_numbers", np.isnan(values))):
                if found.any():
                    shares[kind][role] = float(found.mean())
    return shares


def _order(sample: StereoSample, features: Features, density: float, swapped_density: float) -> Order:
    if sample.right is not None and torch.equal(sample.left, sample.right):
        return "identical"
    if features.count >= FEWEST_FEATURES and not DECIDED > features.forward > 1 - DECIDED:
        return "right" if features.forward >= DECIDED else "swapped"
    if density > DENSER * swapped_density:
        return "right"
    return "swapped" if swapped_density > DENSER * density else "unclear"


def _sparse_ratio(sample: StereoSample) -> float:
    if sample.sparse_depth is None:
        return float("nan")
    both = sample.valid & (sample.sparse_depth > 0)
    if both.sum() < FEWEST_PIXELS:
        return float("nan")
    return float((sample.sparse_depth[both] / sample.depth[both]).median())


def edge_ratio(grey: np.ndarray, depth: np.ndarray, known: np.ndarray) -> float:
    """Mean change of grey where depth leaps over its mean anywhere: 1 where the two know nothing of each other.

    All H×W: grey levels, metres, bool. NaN where too few depths are known, or leap.
    """
    if known.mean() < LEAST_KNOWN:
        return float("nan")
    step = max(round(grey.shape[1] * STEP_SHARE), 1)
    changes, at_leaps = [], []
    for axis in (0, 1):
        here, there = (np.s_[:-step], np.s_[step:]) if axis == 0 else (np.s_[:, :-step], np.s_[:, step:])
        both = known[here] & known[there]
        change = np.abs(grey[there].astype(np.float32) - grey[here])[both]
        leaps = np.abs(np.log(depth[there][both] / depth[here][both])) > LEAP
        changes.append(change)
        at_leaps.append(change[leaps])
    found, everywhere = np.concatenate(at_leaps), np.concatenate(changes)
    if found.size < FEWEST_LEAPS or not everywhere.any():
        return float("nan")
    return float(found.mean() / everywhere.mean())
