"""The traps of this field's metrics, each as a number worked out by hand beside the one that the mistake would give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.evaluation import depth_metrics, kitti_depth_metrics

P, G = np.array([[2.0, 6.0, 10.0, 24.0]]), np.array([[1.0, 8.0, 10.0, 16.0]])
LOGS = [math.log(2.0), math.log(0.75), 0.0, math.log(1.5)]


def test_kittis_own_columns_by_hand() -> None:
    mean = sum(LOGS) / 4
    assert kitti_depth_metrics(P, G) == pytest.approx(
        {
            "SILog": 100 * math.sqrt(sum(d * d for d in LOGS) / 4 - mean**2),
            "sqErrorRel": 100 * (1.0 + 1 / 16 + 0.0 + 1 / 4) / 4,
            "absErrorRel": 100 * (1.0 + 1 / 4 + 0.0 + 1 / 2) / 4,
            "iRMSE": 1000 * math.sqrt(((1 / 2 - 1) ** 2 + (1 / 6 - 1 / 8) ** 2 + (1 / 24 - 1 / 16) ** 2) / 4),
        },
        rel=1e-12,
    )


def test_the_golden_numbers_and_what_the_mistakes_would_give() -> None:
    metrics, benchmark = depth_metrics(P, G), kitti_depth_metrics(P, G)
    golden = {
        "sq_rel": (1.375, 0.328125),  # divided by g once, not by g²
        "rmse_log": (0.4265020, 0.1852275),  # natural logarithm, not of base 10
        "log10": (0.1505150, 0.3465736),  # base 10, not natural
        "silog": (37.523792, 43.328743),  # biased variance, not n − 1
    }
    for name, (right, mistake) in golden.items():
        assert metrics[name] == pytest.approx(right, rel=1e-6), name
        assert metrics[name] != pytest.approx(mistake, rel=1e-3), name
    assert benchmark["sqErrorRel"] == pytest.approx(32.8125)
    half = 100 * math.sqrt(sum(d * d for d in LOGS) / 4 - 0.5 * (sum(LOGS) / 4) ** 2)  # a loss, not the metric
    assert metrics["silog"] != pytest.approx(half, rel=1e-3)
    assert metrics["silog"] == pytest.approx(benchmark["SILog"])


def test_the_benchmark_caps_no_depth_that_its_maps_can_hold() -> None:
    far = np.array([[200.0, 10.0]])
    assert kitti_depth_metrics(np.array([[100.0, 10.0]]), far)["absErrorRel"] == pytest.approx(25.0)
    assert depth_metrics(np.array([[100.0, 10.0]]), far)["abs_rel"] == 0.0
    clamped = kitti_depth_metrics(np.array([[1e6, 0.0]]), far)
    assert clamped == kitti_depth_metrics(np.array([[65535 / 256, 1 / 256]]), far)


def test_tensors_and_bad_input() -> None:
    tensors = (torch.from_numpy(a)[None] for a in (P, G))
    assert kitti_depth_metrics(*tensors) == kitti_depth_metrics(P, G)
    assert kitti_depth_metrics(np.where([[0, 1, 0, 0]], np.nan, P), np.where([[0, 1, 0, 0]], 0, G)) == pytest.approx(
        kitti_depth_metrics(P[:, [0, 2, 3]], G[:, [0, 2, 3]])
    )
    with pytest.raises(InputError, match="no valid pixel"):
        kitti_depth_metrics(P, 0 * G)
    with pytest.raises(InputError, match="NaN at 1 of 4"):
        kitti_depth_metrics(np.where(P == 6, np.nan, P), G)
