"""Checks of what images and maps show: sizes, order of the views, rows, agreement with the ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from adu_depth.doctor.findings import ERROR, OK, SKIPPED, WARNING, Level, Report, counted
from adu_depth.doctor.measure import CANDIDATES, FEWEST_FEATURES, FrameFacts

ROW_WARNING, ROW_ERROR = 1.0, 2.5  # pixels between the rows on which two views show the same thing
SCALE_WARNING, SCALE_ERROR = 0.06, 0.12  # matching itself is within 2.5 % on nine real pairs
PRODUCT_WARNING, PRODUCT_ERROR = 0.01, 0.05
WARP_MARGIN = 0.8  # a right ground truth is this much better than any other candidate; real pairs: 0.2 to 0.5
# By what factor one thing is off, and what usually does that.
DISPARITY_FACTORS = {
    256.0: "maps stored without their factor of 256",
    128.0: "maps stored without their factor of 128",
    1 / 256: "maps multiplied by 256 twice",
    0.5: "full-size disparities with half-size images",
    2.0: "half-size disparities with full-size images",
}
DEPTH_FACTORS = {
    1000.0: "depths in millimetres",
    100.0: "depths in centimetres",
    256.0: "maps multiplied by 256 twice",
    1 / 256: "maps stored without their factor of 256",
    1 / 1000: "a baseline in millimetres",
    0.01: "a baseline in centimetres",
    0.5: "twice the baseline, or the focal length of another image size",
    2.0: "half the baseline, or the focal length of another image size",
}


def check_sizes(frames: Sequence[FrameFacts], report: Report) -> None:
    sizes = Counter(frame.size for frame in frames)
    told = ", ".join(f"{h}×{w} ({n})" for (h, w), n in sizes.most_common(5))
    if len(sizes) == 1:
        report.add("image sizes", OK, f"height × width {told}; maps and views agree")
    else:
        text = f"{len(sizes)} sizes, height × width {told}; maps and views agree"
        report.add("image sizes", OK, text, advice="train with --data.fit resize, or crop to at most the smallest")


def check_order(frames: Sequence[FrameFacts], report: Report) -> None:
    by_order = {order: [f.name for f in frames if f.order == order] for order in ("swapped", "identical", "unclear")}
    right = len(frames) - sum(map(len, by_order.values()))
    if names := by_order["swapped"]:
        report.add(
            "order of views", ERROR, f"left and right are swapped in {len(names)} of {len(frames)} pairs", names,
            "exchange the two folders (or these files): a point must be farther left in the right view",
        )  # fmt: skip
    if names := by_order["identical"]:
        report.add(
            "order of views",
            ERROR,
            f"twice the same picture in {counted(len(names), 'pair')}",
            names,
            "find the right one",
        )
    if names := by_order["unclear"]:
        report.add(
            "order of views", WARNING, f"{len(names)} of {len(frames)} pairs do not tell which is the left view", names,
            "look at them: nothing repeats between the views, or hardly anything is there to match",
        )  # fmt: skip
    if right == len(frames):
        report.add("order of views", OK, f"left is left in {right} of {counted(right, 'pair')}")


def check_rows(frames: Sequence[FrameFacts], report: Report) -> None:
    """Rectified views show a point on the same row."""
    seen = [f for f in frames if f.features is not None and f.features.count >= FEWEST_FEATURES]
    if not seen:
        report.add("rows", SKIPPED, "too few corners are found in both views")
        return
    offsets = {f.name: abs(f.features.row_offset) for f in seen if f.features is not None}
    for level, limit, above in ((ERROR, ROW_ERROR, np.inf), (WARNING, ROW_WARNING, ROW_ERROR)):
        if names := [name for name, offset in offsets.items() if limit < offset <= above]:
            worst = max(offsets[name] for name in names)
            report.add(
                "rows", level, f"up to {worst:.1f} px between the views' rows in {counted(len(names), 'pair')}", names,
                "the pairs are not rectified: rectify them with their calibration",
            )  # fmt: skip
    if max(offsets.values()) <= ROW_WARNING:
        report.add("rows", OK, f"views meet on the same row within {max(offsets.values()):.1f} px (median of corners)")


def check_scale(frames: Sequence[FrameFacts], report: Report) -> None:
    """What the images show by matching against what the ground truth says."""
    usable = [f for f in frames if f.order == "right" and np.isfinite(f.ratio)]
    if not usable:
        report.add("scale", SKIPPED, "no pair with both ground truth and matches")
        return
    stored = [f for f in usable if "disparity" in f.files]
    derived = [f for f in usable if "disparity" not in f.files]
    _judge(
        report, "scale", stored, lambda f: f.ratio, SCALE_WARNING, SCALE_ERROR,
        "matched disparity is {ratio:.3g} times the stored one",
        "the stored disparities are wrong by that factor, {reason}", DISPARITY_FACTORS,
    )  # fmt: skip
    typical = _median(derived, lambda f: f.focal_baseline * f.ratio)
    _judge(
        report, "scale", derived, lambda f: f.ratio, SCALE_WARNING, SCALE_ERROR,
        "matched disparity is {ratio:.3g} times f·B / depth",
        f"these depths need f·B = {typical:.4g} px·m: baseline, focal length or the depths' unit is wrong ({{reason}})",
        DEPTH_FACTORS,
    )  # fmt: skip


def check_product(frames: Sequence[FrameFacts], report: Report) -> None:
    """Depth and disparity that were both stored, against the calibration."""
    both = [f for f in frames if "depth" in f.files and "disparity" in f.files and np.isfinite(f.product)]
    if not both:
        report.add("depth × disparity", SKIPPED, "depth and disparity are not both stored")
        return
    baselines = sorted({round(float(f.camera.baseline) * f.product, 4) for f in both})
    _judge(
        report, "depth × disparity", both, lambda f: f.product, PRODUCT_WARNING, PRODUCT_ERROR,
        "median(depth · disparity) is {ratio:.4g} times f·B",
        f"with these maps the baseline would be {baselines[len(baselines) // 2]:g} m; or one map is of another unit or "
        "size ({reason})",
        DEPTH_FACTORS,
    )  # fmt: skip


def check_sparse(frames: Sequence[FrameFacts], report: Report) -> None:
    """A LiDAR's depths against the dense ones."""
    both = [f for f in frames if "sparse_depth" in f.files and np.isfinite(f.sparse_ratio)]
    if both:
        _judge(
            report, "sparse depth", both, lambda f: f.sparse_ratio, 0.03, 0.1,
            "sparse depth is {ratio:.4g} times the dense depth", "one of the two has another unit ({reason})",
            DEPTH_FACTORS,
        )  # fmt: skip


def check_warp(frames: Sequence[FrameFacts], report: Report) -> None:
    """Does the ground truth warp the right view onto the left one better than other disparities do?"""
    seen = [f for f in frames if any(np.isfinite(error) for error in f.warp_errors)]
    if not seen:
        report.add("sign", SKIPPED, "no pair with ground truth inside both views")
        return
    bad = [f for f in seen if f.best_candidate != next(iter(CANDIDATES))]
    for candidate in sorted({f.best_candidate for f in bad}):
        names = [f.name for f in bad if f.best_candidate == candidate]
        report.add(
            "sign", ERROR, f"in {len(names)} of {len(seen)} pairs {candidate} fits the images better than the ground "
            "truth", names, "swapped views, maps of the other view, or maps of another scale: see the checks above",
        )  # fmt: skip
    close = [f for f in seen if f not in bad and f.warp_errors[0] > WARP_MARGIN * np.nanmin(f.warp_errors[1:])]
    if close:
        report.add(
            "sign", WARNING, f"in {len(close)} of {len(seen)} pairs the ground truth hardly fits better than others",
            [f.name for f in close], "look at them: maps of another frame, hardly any texture, or far away only",
        )  # fmt: skip
    if not bad and not close:
        means = np.nanmean([f.warp_errors for f in seen], axis=0)
        told = ", ".join(f"{name} {mean:.1f}" for name, mean in zip(CANDIDATES, means, strict=True))
        report.add("sign", OK, f"the ground truth fits the images best; grey levels of error by {told}")


def _judge(
    report: Report,
    check: str,
    frames: Sequence[FrameFacts],
    measure: Callable[[FrameFacts], float],
    warning: float,
    error: float,
    text: str,
    advice: str,
    factors: dict[float, str],
) -> None:
    """Frames whose ratio is off by more than `error` or `warning` are named together, by how far they are off."""
    if not frames:
        return
    levels: dict[Level, list[FrameFacts]] = {OK: [], WARNING: [], ERROR: []}
    for frame in frames:
        off = abs(np.log(max(measure(frame), 1e-9)))
        levels[ERROR if off > np.log1p(error) else WARNING if off > np.log1p(warning) else OK].append(frame)
    for level in (ERROR, WARNING):
        if found := levels[level]:
            ratio = _median(found, measure)
            said = text.format(ratio=ratio) + f" in {len(found)} of {len(frames)} frames"
            report.add(check, level, said, [f.name for f in found], advice.format(reason=_reason(ratio, factors)))
    if len(levels[OK]) == len(frames):
        report.add(
            check, OK, text.format(ratio=_median(frames, measure)) + f" (median of {counted(len(frames), 'frame')})"
        )


def _median(frames: Sequence[FrameFacts], measure: Callable[[FrameFacts], float]) -> float:
    return float(np.median([measure(f) for f in frames])) if frames else float("nan")


def _reason(ratio: float, factors: dict[float, str]) -> str:
    near = [why for factor, why in factors.items() if abs(np.log(ratio / factor)) < np.log(1.15)]
    return f"as from {near[0]}" if near else "no usual factor"
