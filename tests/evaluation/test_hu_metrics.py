"""The errors of 1803.08673 and 2105.06143 against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.evaluation import hu_metrics

G = torch.tensor([[1.0, 2.0, 4.0, 0.0]])
P = torch.tensor([[1.25, 1.0, 6.0, 9.0]])


def test_by_hand() -> None:
    assert hu_metrics(P, G) == pytest.approx(
        {
            "rmse": math.sqrt((0.0625 + 1 + 4) / 3),
            "rel": (0.25 + 0.5 + 0.5) / 3,
            "delta1": 1 / 3,  # 1.25 itself is a hit
            "delta2": 2 / 3,  # 1.5 ≤ 1.5625
            "delta3": 2 / 3,  # 2 > 1.953125
        }
    )


def test_neither_clamped_nor_capped() -> None:
    """80 m and more count, as do predictions beyond any range."""
    assert hu_metrics(np.array([[200.0]]), np.array([[100.0]]))["rmse"] == 100.0
    assert hu_metrics(np.array([[1e-9]]), np.array([[1e-6]]))["rel"] == pytest.approx(0.999)


def test_a_depth_that_is_not_above_zero_misses() -> None:
    below = hu_metrics(np.array([[-2.0, 0.0, 1.0]]), np.ones((1, 3)))
    assert (below["delta1"], below["delta3"]) == (1 / 3, 1 / 3)
    assert below["rel"] == pytest.approx((3 + 1 + 0) / 3)


def test_images_are_averaged_not_pooled() -> None:
    few, many = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    batch = hu_metrics(torch.ones(2, 1, 1, 3), torch.stack([few, many])[:, None])
    assert batch["rmse"] == 0.5, "the mean of each image's root"
    assert batch == hu_metrics(torch.ones(2, 1, 3), torch.stack([few, many]))
    assert batch["rel"] == 0.25


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="target: no valid pixel, none of 4 depths"):
        hu_metrics(P, 0 * G)
    with pytest.raises(InputError, match="prediction: NaN at 1 of 3 valid pixels"):
        hu_metrics(torch.tensor([[math.nan, 1.0, 1.0, 1.0]]), G)
    with pytest.raises(InputError, match="prediction: expected the target's shape"):
        hu_metrics(P[:, :3], G)
    with pytest.raises(InputError, match="prediction: expected H×W, B×H×W or B×1×H×W, got shape"):
        hu_metrics(torch.ones(2, 3, 1, 4), G)
    assert hu_metrics(torch.tensor([[1.0, 2.0, 4.0, math.nan]]), torch.tensor([[1.0, 2.0, 4.0, math.inf]]))["rmse"] == 0
