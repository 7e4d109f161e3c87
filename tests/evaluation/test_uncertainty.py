"""Uncertainty metrics: what a perfect, a useless and a calibrated uncertainty must score; a slow second definition."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.evaluation import uncertainty_metrics
from adu_depth.evaluation.uncertainty import (
    QUANTILES,
    UNCERTAINTY_METRICS,
    sparsification_curve,
    uncertainty_score,
)

SHAPE = (150, 200)


def laplace_scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prediction, log_scale, target): targets drawn from exactly the Laplace distribution that is predicted."""
    generator = np.random.default_rng(seed)
    prediction = generator.uniform(8.0, 20.0, SHAPE)
    log_scale = generator.uniform(-4.0, -1.0, SHAPE)
    target = prediction * np.exp(generator.laplace(0.0, np.exp(log_scale)))
    return prediction, log_scale, target


def test_a_calibrated_prediction() -> None:
    prediction, log_scale, target = laplace_scene()
    metrics = uncertainty_metrics(prediction, log_scale, target, max_depth=1e4)
    assert tuple(metrics) == UNCERTAINTY_METRICS
    assert metrics["calibration_error"] < 0.01
    # Entropy of a Laplace distribution is 1 + ln 2b.
    assert metrics["nll"] == pytest.approx(1 + math.log(2) + log_scale.mean(), abs=0.02)
    assert all(metrics[f"aurg_{error}"] > 0 for error in ("abs_rel", "rmse", "a1"))
    assert all(metrics[f"ause_{error}"] > 0 for error in ("abs_rel", "rmse", "a1"))


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_over_and_under_confidence_cost_likelihood_and_calibration_not_order(shift: float) -> None:
    prediction, log_scale, target = laplace_scene()
    right = uncertainty_metrics(prediction, log_scale, target)
    wrong = uncertainty_metrics(prediction, log_scale + shift, target)
    assert wrong["calibration_error"] > right["calibration_error"] + 0.1
    assert wrong["nll"] > right["nll"] + 0.5
    for name in ("ause_abs_rel", "aurg_rmse", "ause_a1"):
        assert wrong[name] == pytest.approx(right[name], abs=1e-9)


def test_a_bias_costs_calibration() -> None:
    prediction, log_scale, target = laplace_scene()
    assert uncertainty_metrics(prediction * 1.1, log_scale, target)["calibration_error"] > 0.1


@pytest.mark.parametrize("error", ["abs_rel", "rmse", "a1"])
def test_a_perfect_order_leaves_nothing_to_the_oracle(error: str) -> None:
    prediction, _, target = laplace_scene()
    size = {
        "abs_rel": np.abs(prediction - target) / target,
        "rmse": np.abs(prediction - target),
        "a1": np.maximum(prediction / target, target / prediction),
    }[error]
    metrics = uncertainty_metrics(prediction, np.log(size), target, max_depth=1e4)
    assert metrics[f"ause_{error}"] == pytest.approx(0.0, abs=1e-9)
    assert metrics[f"aurg_{error}"] > 0
    reverse = uncertainty_metrics(prediction, -np.log(size), target, max_depth=1e4)
    assert reverse[f"ause_{error}"] > metrics[f"aurg_{error}"]
    assert reverse[f"aurg_{error}"] < 0


def test_a_random_order_gains_nothing() -> None:
    prediction, _, target = laplace_scene()
    noise = np.random.default_rng(5).normal(size=SHAPE)
    metrics = uncertainty_metrics(prediction, noise, target)
    whole = np.abs(prediction - target)[target <= 80] / target[target <= 80]
    # The curve falls to 0 in its last fiftieth, which alone gives a gain of a hundredth of the error.
    assert metrics["aurg_abs_rel"] == pytest.approx(whole.mean() / 100, abs=0.02 * whole.mean())
    assert abs(metrics["aurg_a1"]) < 0.01


def test_ties_do_not_depend_on_the_order_of_pixels() -> None:
    prediction, _, target = laplace_scene()
    steps = np.round(np.random.default_rng(1).normal(size=SHAPE))
    shuffle = np.random.default_rng(2).permutation(prediction.size)
    moved = [a.ravel()[shuffle].reshape(SHAPE) for a in (prediction, steps, target)]
    assert uncertainty_metrics(*moved) == pytest.approx(uncertainty_metrics(prediction, steps, target), rel=1e-9)


def test_against_masks_interval_by_interval() -> None:
    """The definition of mono-uncertainty in words: keep the pixels at or below each quantile, average their errors."""
    prediction, log_scale, target = (a[:30, :31] for a in laplace_scene(3))
    error = (prediction - target) ** 2
    curves = []
    for ranking in (log_scale, error):
        curve = []
        for step in range(50):
            kept = ranking <= np.quantile(ranking, 1 - step / 50)
            curve.append(math.sqrt(error[kept].mean()))
        curves.append([*curve, 0.0])
    area, oracle = (sum((a + b) / 2 for a, b in pairwise(c)) / 50 for c in curves)
    metrics = uncertainty_metrics(prediction, log_scale, target, max_depth=1e4)
    assert metrics["ause_rmse"] == pytest.approx(area - oracle, rel=1e-9)
    assert metrics["aurg_rmse"] == pytest.approx(math.sqrt(error.mean()) - area, rel=1e-9)


def test_curve_by_hand() -> None:
    # 100 pixels, error = rank: without the k/50 worst 2k, the mean of 1..(100 - 2k) is (101 - 2k) / 2.
    error = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    curve = sparsification_curve(error, error)
    assert curve.shape == (51,)
    kept = np.array([(error <= np.percentile(error, 100 - 2 * k)).sum() for k in range(50)])
    assert curve[:-1] == pytest.approx((kept + 1) / 2)
    assert curve[-1] == 0.0


def test_nll_and_calibration_of_two_pixels_by_hand() -> None:
    prediction, target = np.array([[2.0, 2.0]]), np.array([[2.0 * math.e, 2.0]])
    metrics = uncertainty_metrics(prediction, np.array([[math.log(0.5), 0.0]]), target)
    assert metrics["nll"] == pytest.approx((1 / 0.5 + math.log(1.0) + 0 + math.log(2.0)) / 2)
    # Truths at the quantiles 1 - e^-2 / 2 = 0.932 and 0.5.
    levels = [k / 100 for k in range(1, 100)]
    covered = [(0.0 if q < 0.5 else 0.5 if q < 1 - math.exp(-2) / 2 else 1.0) for q in levels]
    expected = sum(abs(c - q) for c, q in zip(covered, levels, strict=True)) / 99
    assert metrics["calibration_error"] == pytest.approx(expected)


def test_invalid_pixels_and_bad_input() -> None:
    prediction, log_scale, target = (torch.from_numpy(a)[None] for a in laplace_scene())
    hidden = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    visible = [a[~hidden].reshape(1, 1, -1) for a in (prediction, log_scale, target)]
    expected = uncertainty_metrics(*visible)
    nothing = torch.full_like(target, torch.nan)
    seen = [torch.where(hidden, nothing, a) for a in (prediction, log_scale, target)]
    assert uncertainty_metrics(*seen) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InputError, match="log_scale: NaN or inf at 1 of"):
        uncertainty_metrics(np.ones((2, 2)), np.array([[0.0, 0.0], [0.0, np.nan]]), np.ones((2, 2)))
    with pytest.raises(InputError, match=r"log_scale: expected the target's size \(2, 2\), got \(1, 2\)"):
        uncertainty_metrics(np.ones((2, 2)), np.zeros((1, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="no valid pixel"):
        uncertainty_metrics(np.ones((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))


def test_the_curves_are_what_the_numbers_come_from() -> None:
    prediction, log_scale, target = laplace_scene()
    score = uncertainty_score(prediction, log_scale, target, max_depth=1e4)
    assert score.metrics == uncertainty_metrics(prediction, log_scale, target, max_depth=1e4)
    coverage = score.curves["coverage"]
    assert np.abs(coverage - QUANTILES).mean() == pytest.approx(score.metrics["calibration_error"])
    assert (np.diff(coverage) >= 0).all()
    for level, share in ((10, coverage[9]), (50, coverage[49]), (90, coverage[89])):
        quantile = prediction * np.exp(np.exp(log_scale) * laplace_quantile(level / 100))
        assert share == pytest.approx((target <= quantile).mean(), abs=1e-9)
    assert score.curves["method_rmse"][0] == pytest.approx(math.sqrt(((prediction - target) ** 2).mean()))


def laplace_quantile(q: float) -> float:
    return math.log(2 * q) if q < 0.5 else -math.log(2 - 2 * q)


@pytest.mark.parametrize("wrong_by", [0.2, 1.0, 5.0])
def test_a_temperature_repairs_a_scale_that_is_wrong_everywhere(wrong_by: float) -> None:
    prediction, log_scale, target = laplace_scene()
    right = uncertainty_metrics(prediction, log_scale, target, max_depth=1e4)
    off = log_scale - math.log(wrong_by)
    best = uncertainty_metrics(prediction, off, target, max_depth=1e4)["best_temperature"]
    assert best == pytest.approx(wrong_by * right["best_temperature"], rel=1e-9)
    assert best == pytest.approx(wrong_by, rel=0.02)
    score = uncertainty_score(prediction, off, target, max_depth=1e4, temperature=best)
    assert score.metrics["nll_scaled"] <= right["nll"]
    assert score.metrics["calibration_error_scaled"] < 0.01
    tried = [
        uncertainty_score(prediction, off, target, max_depth=1e4, temperature=best * factor).metrics["nll_scaled"]
        for factor in (0.97, 1.0, 1.03)
    ]
    assert tried[1] < min(tried[0], tried[2]), "the closed form is where the likelihood is best"
    moved = uncertainty_metrics(prediction, off + math.log(best), target, max_depth=1e4)
    for name in ("nll", "calibration_error"):
        assert score.metrics[f"{name}_scaled"] == pytest.approx(moved[name], rel=1e-9)
    for name in ("ause_abs_rel", "aurg_a1"):
        assert score.metrics[name] == pytest.approx(moved[name], abs=1e-12)
