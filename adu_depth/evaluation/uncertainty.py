"""Whether a predicted uncertainty knows where the errors are, and how large they are.

Sparsification: drop the most uncertain pixels first and watch the error of the rest (Ilg et al., 1802.07095; for depth
Poggi et al., 2005.06209). Likelihood and coverage: the prediction read as a Laplace distribution of ln(depth).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adu_depth.errors import InputError
from adu_depth.evaluation.metrics import Map, as_map, depth_pixels

RANKED_ERRORS = ("abs_rel", "rmse", "a1")
UNCERTAINTY_METRICS = (
    *(f"{area}_{error}" for error in RANKED_ERRORS for area in ("ause", "aurg")),
    "nll",
    "calibration_error",
    "best_temperature",
)
SCALED_METRICS = ("nll_scaled", "calibration_error_scaled")
"""The same two after the predicted scale was multiplied by a temperature."""

INTERVALS = 50
QUANTILES = np.arange(1, 100) / 100.0


@dataclass(frozen=True)
class UncertaintyScore:
    """One image's metrics, and the curves they are areas of.

    curves: "method_E" and "oracle_E" for each E of RANKED_ERRORS, INTERVALS + 1 points of the error that is left after
    dropping k/INTERVALS of the pixels; "coverage" (and "coverage_scaled"), the share of pixels whose truth lies below
    the predicted quantile, at QUANTILES.
    """

    metrics: dict[str, float]
    curves: dict[str, np.ndarray]


def uncertainty_metrics(
    prediction: Map, log_scale: Map, target: Map, min_depth: float = 1e-3, max_depth: float = 80.0
) -> dict[str, float]:
    """Quality of one image's predicted uncertainty, on `depth_metrics`' pixels.

    ause_*, aurg_*: area between the method's and the oracle's sparsification curve (0 is best; arXiv 2005.06209), and
    gain over dropping pixels at random (0 is useless), in the unit of the error: abs_rel, rmse in metres, and 1 − a1.
    The same map s ranks the pixels for all three, in 50 steps; the oracle ranks by the error itself. nll: mean of
    |r|/b + ln 2b with r = ln p − ln g. calibration_error: mean over q = 1 %, …, 99 % of |share of pixels whose truth
    lies below the predicted q-quantile − q|; 0 is calibrated, 0.25 about the worst a centred prediction can do.
    best_temperature: mean of |r|/b, the factor on b that would give this image its best nll; 1 is right, above 1 the
    prediction was too sure.

    Args:
        prediction, target: H×W or 1×H×W metres, numpy or torch, any real dtype.
        log_scale: H×W or 1×H×W, s, natural log of the Laplace scale b of ln(depth).
        min_depth, max_depth: metres, as in `depth_metrics`.

    Returns:
        The numbers by name, calculated in float64: "ause_E" and "aurg_E" for E of abs_rel, rmse and a1; "nll",
        "calibration_error", "best_temperature".

    Raises:
        InputError: different shapes, no valid pixel, or a log_scale that is not finite at a valid pixel.

    Example:
        >>> target, error = torch.full((20, 30), 10.0), torch.linspace(0.01, 0.2, 600).view(20, 30)
        >>> sure = uncertainty_metrics(target * error.exp(), error.log(), target)  # knows how far it is off, everywhere
        >>> round(sure["ause_abs_rel"], 6), round(sure["best_temperature"], 3)
        (0.0, 1.0)
    """
    return uncertainty_score(prediction, log_scale, target, min_depth, max_depth).metrics


def uncertainty_score(
    prediction: Map,
    log_scale: Map,
    target: Map,
    min_depth: float = 1e-3,
    max_depth: float = 80.0,
    temperature: float | None = None,
) -> UncertaintyScore:
    """`uncertainty_metrics` with the curves; with a `temperature` also nll and calibration of temperature·b."""
    p, g, valid = depth_pixels(prediction, target, min_depth, max_depth)
    scale_map = as_map(log_scale, "log_scale")
    if scale_map.shape != valid.shape:
        raise InputError(f"log_scale: expected the target's size {valid.shape}, got {scale_map.shape}")
    s = scale_map[valid]
    if not np.isfinite(s).all():
        raise InputError(f"log_scale: NaN or inf at {int((~np.isfinite(s)).sum())} of {s.size} valid pixels")
    ratio = np.maximum(p / g, g / p)
    relative, squared, wrong = np.abs(p - g) / g, (p - g) ** 2, (ratio >= 1.25).astype(np.float64)
    metrics: dict[str, float] = {}
    curves: dict[str, np.ndarray] = {}
    for name, error, oracle in (("abs_rel", relative, relative), ("rmse", squared, squared), ("a1", wrong, ratio)):
        method, best = (sparsification_curve(error, ranking, root=name == "rmse") for ranking in (s, oracle))
        metrics |= {f"ause_{name}": _area(method) - _area(best), f"aurg_{name}": float(method[0]) - _area(method)}
        curves |= {f"method_{name}": method, f"oracle_{name}": best}
    residual = (np.log(g) - np.log(p)) / np.exp(s)
    curves["coverage"] = coverage_curve(residual)
    metrics["nll"] = _laplace_nll(residual, s)
    metrics["calibration_error"] = _calibration_error(curves["coverage"])
    metrics["best_temperature"] = float(np.mean(np.abs(residual)))
    if temperature is not None:
        curves["coverage_scaled"] = coverage_curve(residual / temperature)
        metrics["nll_scaled"] = _laplace_nll(residual / temperature, s + np.log(temperature))
        metrics["calibration_error_scaled"] = _calibration_error(curves["coverage_scaled"])
    return UncertaintyScore(metrics, curves)


def sparsification_curve(error: np.ndarray, uncertainty: np.ndarray, root: bool = False) -> np.ndarray:
    """Mean error (or its root) of the pixels kept after dropping the 0/50, 1/50, … 49/50 most uncertain; 0 at the end.

    Pixels as uncertain as the threshold are kept, so ties are never split by their order in the image. Shape 51.
    """
    order = np.argsort(uncertainty)
    ranked = uncertainty[order]
    thresholds = np.percentile(ranked, 100.0 * (1.0 - np.arange(INTERVALS) / INTERVALS))
    kept = np.searchsorted(ranked, thresholds, side="right").clip(min=1)
    means = np.cumsum(error[order])[kept - 1] / kept
    return np.append(np.sqrt(means) if root else means, 0.0)


def coverage_curve(residual: np.ndarray) -> np.ndarray:
    """Share of pixels whose truth lies below the predicted quantile, for each of QUANTILES; calibrated is QUANTILES.

    residual: (ln g − ln p)/b, which is Laplace(0, 1) where the prediction is right about its own errors.
    """
    tail = 0.5 * np.exp(-np.abs(residual))
    probability = np.sort(np.where(residual < 0, tail, 1.0 - tail))
    return np.searchsorted(probability, QUANTILES, side="right") / probability.size


def _area(curve: np.ndarray) -> float:
    return float((curve[:-1] + curve[1:]).sum() / (2 * INTERVALS))


def _laplace_nll(residual: np.ndarray, s: np.ndarray) -> float:
    return float(np.mean(np.abs(residual) + s + np.log(2.0)))


def _calibration_error(coverage: np.ndarray) -> float:
    return float(np.mean(np.abs(coverage - QUANTILES)))
