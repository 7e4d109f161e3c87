"""Depth and stereo metrics against hand-computed values and plain second definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.evaluation import depth_metrics, stereo_metrics


def scene(seed: int = 0, shape: tuple[int, int] = (17, 23)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    target = generator.uniform(1.0, 70.0, shape)
    prediction = target * np.exp(generator.normal(0.1, 0.3, shape))
    target[generator.random(shape) < 0.4] = 0.0
    return prediction, target


def test_two_pixels_by_hand() -> None:
    # p = (2, 6), g = (1, 8): |p-g|/g = 1, 1/4; ratios 2 and 4/3; 1.25² = 1.5625.
    metrics = depth_metrics(np.array([[2.0, 6.0]]), np.array([[1.0, 8.0]]))
    a, b = math.log(2.0), math.log(0.75)
    expected = {
        "abs_rel": 0.625,
        "sq_rel": (1.0 + 4.0 / 8.0) / 2,
        "rmse": math.sqrt((1 + 4) / 2),
        "rmse_log": math.sqrt((a * a + b * b) / 2),
        "log10": (math.log10(2) + math.log10(4 / 3)) / 2,
        "silog": 100 * abs(a - b) / 2,
        "a1": 0.0,
        "a2": 0.5,
        "a3": 0.5,
    }
    assert metrics == pytest.approx(expected, rel=1e-12)


def test_against_a_loop_over_pixels() -> None:
    prediction, target = scene()
    pairs = [(p, g) for p, g in zip(prediction.ravel(), target.ravel(), strict=True) if 1e-3 <= g <= 80]
    pairs = [(min(max(p, 1e-3), 80.0), g) for p, g in pairs]
    n = len(pairs)
    logs = [math.log(p / g) for p, g in pairs]
    expected = {
        "abs_rel": sum(abs(p / g - 1) for p, g in pairs) / n,
        "sq_rel": sum((p - g) * (p / g - 1) for p, g in pairs) / n,
        "rmse": math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n),
        "rmse_log": math.sqrt(sum(d * d for d in logs) / n),
        "log10": sum(abs(math.log10(p / g)) for p, g in pairs) / n,
        "silog": 100 * math.sqrt(sum(d * d for d in logs) / n - (sum(logs) / n) ** 2),
        **{f"a{k}": sum(abs(d) < k * math.log(1.25) for d in logs) / n for k in (1, 2, 3)},
    }
    assert depth_metrics(prediction, target) == pytest.approx(expected, rel=1e-9)


def test_a_global_scale_leaves_silog_at_zero_and_moves_the_rest() -> None:
    _, target = scene()
    metrics = depth_metrics(target * 1.1, target)
    assert metrics["silog"] == pytest.approx(0.0, abs=1e-4)
    assert metrics["abs_rel"] == pytest.approx(0.1)
    assert metrics["rmse_log"] == pytest.approx(math.log(1.1))


def test_numpy_torch_and_a_channel_dimension_agree() -> None:
    prediction, target = scene()
    expected = depth_metrics(prediction, target)
    tensors = [torch.from_numpy(a)[None].requires_grad_() for a in (prediction, target)]
    assert depth_metrics(*tensors) == expected
    assert depth_metrics(prediction[None, None], target[None]) == expected
    assert depth_metrics(*[t.float() for t in tensors]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, 80.01, 1e-4])
def test_what_stands_at_an_invalid_target_changes_nothing(bad: float) -> None:
    prediction, target = scene()
    hidden = target == 0
    expected = depth_metrics(prediction, target)
    assert depth_metrics(np.where(hidden, np.nan, prediction), np.where(hidden, bad, target)) == expected


def test_the_ends_of_the_depth_range_count() -> None:
    assert depth_metrics(np.full((1, 2), 5.0), np.array([[2.0, 10.0]]), 2.0, 10.0)["a3"] == 0.0
    with pytest.raises(InputError, match="no valid pixel"):
        depth_metrics(np.full((1, 2), 5.0), np.array([[2.0, 10.0]]), 2.1, 9.9)


def test_predictions_are_clamped_to_the_depth_range() -> None:
    target = np.array([[40.0, 2.0]])
    clamped = depth_metrics(np.array([[80.0, 1e-3]]), target)
    assert depth_metrics(np.array([[np.inf, -3.0]]), target) == clamped
    assert clamped["sq_rel"] == pytest.approx((40.0 + 1.999**2 / 2) / 2)


@pytest.mark.parametrize("target", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.full((2, 2), 100.0)])
def test_no_valid_pixel_is_said(target: np.ndarray) -> None:
    with pytest.raises(InputError, match="no valid pixel"):
        depth_metrics(np.ones((2, 2)), target)


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match=r"prediction: NaN at 1 of 4"):
        depth_metrics(np.array([[np.nan, 1.0], [1.0, 1.0]]), np.ones((2, 2)))
    with pytest.raises(InputError, match=r"prediction: expected the target's size \(2, 3\), got \(3, 2\)"):
        depth_metrics(np.ones((3, 2)), np.ones((2, 3)))
    with pytest.raises(InputError, match="expected one image"):
        depth_metrics(np.ones((2, 1, 3, 3)), np.ones((2, 1, 3, 3)))
    with pytest.raises(InputError, match="depth range"):
        depth_metrics(np.ones((2, 2)), np.ones((2, 2)), max_depth=0.0)


def test_d1_needs_both_three_pixels_and_five_percent() -> None:
    #                     3 px: no   4 px, 5 %: no   4.1 px  3.1 of 50 px  2.9 of 4 px: no
    target = np.array([[10.0, 80.0, 80.0, 50.0, 4.0, 0.0, np.nan, np.inf, -5.0]])
    error = np.array([[3.0, 4.0, -4.1, 3.1, 2.9, 1e6, 1e6, 1e6, 1e6]])
    metrics = stereo_metrics(np.nan_to_num(target, posinf=0) + error, target)
    assert metrics == pytest.approx({"epe": (3 + 4 + 4.1 + 3.1 + 2.9) / 5, "d1": 40.0})


def test_stereo_metrics_take_tensors_and_refuse_the_rest() -> None:
    target = torch.tensor([[[10.0, 20.0]]])
    assert stereo_metrics(target + 1, target) == {"epe": 1.0, "d1": 0.0}
    with pytest.raises(InputError, match="no valid pixel"):
        stereo_metrics(target, torch.zeros_like(target))
    with pytest.raises(InputError, match="NaN or inf"):
        stereo_metrics(target * torch.nan, target)
    assert stereo_metrics(torch.tensor([[torch.nan, 5.0]]), np.array([[0.0, 5.0]])) == {"epe": 0.0, "d1": 0.0}
