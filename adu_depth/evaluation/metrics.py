"""Depth and stereo metrics of one image, as the field's tables define them.

Definitions: Eigen et al., 1406.2283 (depth) and the KITTI stereo benchmark (end-point error, D1). Every metric is taken
over the valid pixels of one image in float64; tables average these over images, so never pool the pixels of a batch.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from torch import Tensor

from adu_depth.errors import InputError
from adu_kernels.checks import plain_number

Map: TypeAlias = "np.ndarray | Tensor"

DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "a1", "a2", "a3")
STEREO_METRICS = ("epe", "d1")
KITTI_DEPTH_METRICS = ("SILog", "sqErrorRel", "absErrorRel", "iRMSE")
"""As the benchmark's own table calls them: SILog and the relative errors × 100, iRMSE in 1/km."""

HU_METRICS = ("rmse", "rel", "delta1", "delta2", "delta3")
HIGHER_IS_BETTER = ("a1", "a2", "a3", "delta1", "delta2", "delta3")
"""The shares of pixels within a bound; every other metric of an image is an error."""

KITTI_DEPTH_RANGE = (1 / 256, 65535 / 256)
"""Metres that a depth map of KITTI can hold: a uint16 PNG of metres × 256, 0 = none."""


def as_map(value: Map, name: str) -> np.ndarray:
    """`value` as an H×W float64 array; leading dimensions of size 1 (channel, batch) are dropped."""
    array = _float64(value)
    if array.ndim < 2 or any(size != 1 for size in array.shape[:-2]):
        raise InputError(f"{name}: expected one image, H×W or 1×H×W, got shape {tuple(array.shape)}")
    return array.reshape(array.shape[-2:])


def _float64(value: Map) -> np.ndarray:
    return np.asarray(value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value, np.float64)


def depth_pixels(
    prediction: Map, target: Map, min_depth: float = 1e-3, max_depth: float = 80.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predicted depth, true depth, the H×W mask they were picked by), both clean float64 vectors.

    A target counts where min_depth ≤ target ≤ max_depth (so not where it is NaN, inf, 0 or negative). The prediction is
    clamped to the same range first, as the field's evaluation code does. NaN in it is an error, not a depth.
    """
    min_depth, max_depth = plain_number(min_depth), plain_number(max_depth)
    if not 0 < min_depth < max_depth:
        raise InputError(f"depth range: expected 0 < min_depth < max_depth, got {min_depth} and {max_depth}")
    predicted, truth = as_map(prediction, "prediction"), as_map(target, "target")
    _require_same_shape(predicted, truth, "prediction")
    valid = (truth >= min_depth) & (truth <= max_depth)
    if not valid.any():
        raise InputError(f"target: no valid pixel, none of {truth.size} depths is in [{min_depth}, {max_depth}] m")
    chosen = predicted[valid]
    _require_no_nan(chosen, "prediction")
    return np.clip(chosen, min_depth, max_depth), truth[valid], valid


def depth_metrics(prediction: Map, target: Map, min_depth: float = 1e-3, max_depth: float = 80.0) -> dict[str, float]:
    """Errors of one depth map against its ground truth, as Eigen et al. define them (arXiv 1406.2283).

    With p predicted, g true, δ = ln p − ln g: abs_rel = mean |p−g|/g, sq_rel = mean (p−g)²/g, rmse in metres, rmse_log
    with natural logarithms, log10 = mean |log10 p − log10 g|, silog = 100·√(mean δ² − (mean δ)²) (biased variance),
    a1..a3 = share of max(p/g, g/p) < 1.25^k.

    Args:
        prediction, target: H×W or 1×H×W metres, numpy or torch, any real dtype. A target that is NaN, inf, 0, negative
            or outside the range does not count.
        min_depth, max_depth: metres, 0 < min_depth < max_depth; the prediction is clamped to it, as the field's
            evaluation code does.

    Returns:
        The nine numbers by name, calculated in float64.

    Raises:
        InputError: different shapes, no valid pixel, or NaN among the predictions of valid pixels.

    Example:
        >>> errors = depth_metrics(torch.tensor([[11.0, 9.0, 5.0]]), torch.tensor([[10.0, 10.0, 0.0]]))
        >>> errors["abs_rel"], errors["rmse"], errors["a1"]  # the third pixel has no ground truth
        (0.1, 1.0, 1.0)
    """
    p, g, _ = depth_pixels(prediction, target, min_depth, max_depth)
    difference, log_difference = p - g, np.log(p) - np.log(g)
    ratio = np.maximum(p / g, g / p)
    values = {
        "abs_rel": np.mean(np.abs(difference) / g),
        "sq_rel": np.mean(difference**2 / g),
        "rmse": np.sqrt(np.mean(difference**2)),
        "rmse_log": np.sqrt(np.mean(log_difference**2)),
        "log10": np.mean(np.abs(log_difference)) / np.log(10.0),
        "silog": 100.0 * np.std(log_difference),
        "a1": np.mean(ratio < 1.25),
        "a2": np.mean(ratio < 1.25**2),
        "a3": np.mean(ratio < 1.25**3),
    }
    return {name: float(value) for name, value in values.items()}


def kitti_depth_metrics(prediction: Map, target: Map) -> dict[str, float]:
    """The four columns of KITTI's depth prediction benchmark for one image.

    With p predicted, g true, δ = ln p − ln g: SILog = 100·√(mean δ² − (mean δ)²), sqErrorRel = 100·mean (p−g)²/g² (the
    papers' sq_rel divides by g once), absErrorRel = 100·mean |p−g|/g, iRMSE = 1000·√(mean (1/p − 1/g)²) in 1/km. The
    benchmark caps no depth: every truth counts that its maps can hold (1/256 to 65535/256 m), and predictions are
    clamped to what a submission can hold, the same range. From its development kit, cpp/evaluate_depth.cpp.

    Args:
        prediction, target: H×W or 1×H×W metres, numpy or torch, any real dtype.

    Returns:
        The four numbers by the benchmark's names, calculated in float64.

    Raises:
        InputError: different shapes, no valid pixel, or NaN among the predictions of valid pixels.

    Example:
        >>> errors = kitti_depth_metrics(torch.tensor([[8.0, 20.0]]), torch.tensor([[10.0, 25.0]]))
        >>> {name: round(value, 3) for name, value in errors.items()}  # a fifth too near everywhere
        {'SILog': 0.0, 'sqErrorRel': 4.0, 'absErrorRel': 20.0, 'iRMSE': 19.039}
    """
    p, g, _ = depth_pixels(prediction, target, *KITTI_DEPTH_RANGE)
    relative = (p - g) / g
    values = {
        "SILog": 100.0 * np.std(np.log(p) - np.log(g)),
        "sqErrorRel": 100.0 * np.mean(relative**2),
        "absErrorRel": 100.0 * np.mean(np.abs(relative)),
        "iRMSE": 1000.0 * np.sqrt(np.mean((1.0 / p - 1.0 / g) ** 2)),
    }
    return {name: float(value) for name, value in values.items()}


def hu_metrics(prediction: Map, target: Map) -> dict[str, float]:
    """Errors by the rules of the light-weight student's line of work (Hu et al., arXiv 1803.08673; arXiv 2105.06143).

    With p predicted, g true, over the pixels with g > 0: rmse = √mean (p−g)² in metres, rel = mean |p−g|/g, delta1..3 =
    share of max(p/g, g/p) ≤ 1.25^k. Neither is clamped or cropped. From util.py of 2105.06143's public code, but for a
    p of 0 or less: there a negative ratio counts as a hit, here as a miss.

    Args:
        prediction, target: metres, numpy or torch, any real dtype: H×W or 1×H×W, or a batch B×H×W or B×1×H×W, of which
            each image is measured by itself and the results averaged. A target that is 0, negative, NaN or inf does
            not count.

    Returns:
        The five numbers by name, calculated in float64.

    Raises:
        InputError: different shapes, an image without a valid pixel, or NaN among the predictions of valid
            pixels.

    Example:
        >>> errors = hu_metrics(torch.tensor([[5.0, 1.0, 3.0]]), torch.tensor([[4.0, 2.0, 0.0]]))
        >>> errors["rmse"], errors["rel"], errors["delta1"]  # the third pixel has no ground truth; 5/4 is a hit
        (1.0, 0.375, 0.5)
    """
    predictions, truths = _images(prediction, "prediction"), _images(target, "target")
    if predictions.shape != truths.shape:
        raise InputError(f"prediction: expected the target's shape {truths.shape}, got {predictions.shape}")
    rows = [_hu_row(p, g) for p, g in zip(predictions, truths, strict=True)]
    return {name: float(np.mean([row[name] for row in rows])) for name in HU_METRICS}


def _hu_row(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    valid = np.isfinite(target) & (target > 0)
    if not valid.any():
        raise InputError(f"target: no valid pixel, none of {target.size} depths is finite and above 0 m")
    p, g = prediction[valid], target[valid]
    _require_no_nan(p, "prediction")
    ratio = np.full_like(g, np.inf)
    np.divide(p, g, out=ratio, where=p > 0)
    np.maximum(ratio, np.divide(1.0, ratio), out=ratio)
    shares = {f"delta{k}": np.mean(ratio <= 1.25**k) for k in (1, 2, 3)}
    values = {"rmse": np.sqrt(np.mean((p - g) ** 2)), "rel": np.mean(np.abs(p - g) / g), **shares}
    return {name: float(value) for name, value in values.items()}


def _images(value: Map, name: str) -> np.ndarray:
    """B×H×W float64 of one image or a batch."""
    array = _float64(value)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (2, 3) or not array.size:
        raise InputError(f"{name}: expected H×W, B×H×W or B×1×H×W, got shape {tuple(array.shape)}")
    return array.reshape(-1, *array.shape[-2:])


def stereo_metrics(disparity: Map, target: Map) -> dict[str, float]:
    """Errors of one disparity map, as the KITTI stereo benchmark 2015 defines them.

    epe = mean |error| in pixels; d1 = percent of valid pixels whose error is above 3 px AND above 5 % of the truth.

    Args:
        disparity, target: H×W or 1×H×W pixels, numpy or torch, any real dtype. Target ≤ 0, NaN or inf = none.

    Returns:
        The two numbers by name, calculated in float64.

    Raises:
        InputError: different shapes, no valid pixel, or NaN or inf among the predictions of valid
            pixels.

    Example:
        >>> stereo_metrics(torch.tensor([[10.0, 24.0, 96.0]]), torch.tensor([[10.0, 20.0, 100.0]]))
        {'epe': 2.6666666666666665, 'd1': 33.33333333333333}
    """
    predicted, truth = as_map(disparity, "disparity"), as_map(target, "target")
    _require_same_shape(predicted, truth, "disparity")
    valid = np.isfinite(truth) & (truth > 0)
    if not valid.any():
        raise InputError(f"target: no valid pixel, none of {truth.size} disparities is finite and positive")
    if not np.isfinite(predicted[valid]).all():
        raise InputError("disparity: NaN or inf where there is ground truth, expected a number at every valid pixel")
    error = np.abs(predicted[valid] - truth[valid])
    outlier = (error > 3.0) & (error > 0.05 * truth[valid])
    return {"epe": float(error.mean()), "d1": 100.0 * float(outlier.mean())}


def _require_same_shape(predicted: np.ndarray, truth: np.ndarray, name: str) -> None:
    if predicted.shape != truth.shape:
        raise InputError(f"{name}: expected the target's size {truth.shape}, got {predicted.shape}; resize it first")


def _require_no_nan(values: np.ndarray, name: str) -> None:
    if missing := int(np.isnan(values).sum()):
        raise InputError(f"{name}: NaN at {missing} of {values.size} valid pixels, expected a depth at each")
