"""What is measured of one frame, where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adu_depth.data import SyntheticStereo
from adu_depth.doctor.matching import WIDEST, match_features, match_pair, warp_error
from adu_depth.doctor.measure import CANDIDATES, measure_frame
from tests.data.trees import scenes


def test_wide_pairs_are_matched_smaller_and_told_in_their_own_pixels() -> None:
    sample = SyntheticStereo(1, 96, 2 * WIDEST, seed=1)[0]
    facts = measure_frame(sample, {})
    assert match_pair(sample.left, sample.right).disparity.shape == (96, 2 * WIDEST)  # type: ignore[arg-type]
    assert facts.ratio == pytest.approx(1, abs=0.03)
    assert facts.order == "right"


def test_a_shifted_texture() -> None:
    """Everything moved by eight pixels, and by three rows: forward, and the rows apart."""
    texture = torch.rand(1, 30, 60, generator=torch.Generator().manual_seed(0))
    image = (
        torch.nn.functional.interpolate(texture[None], scale_factor=8, mode="bicubic")[0].clamp(0, 1).expand(3, -1, -1)
    )
    left, right = image[:, 3:, :-8], image[:, :-3, 8:]
    features = match_features(left, right)
    assert features.count > 30
    assert features.forward > 0.95
    assert features.row_offset == pytest.approx(3, abs=0.3)
    assert match_features(right, left).forward < 0.05
    level = image[:, :-3, :-8]
    assert np.median(match_pair(level, right).disparity) == pytest.approx(8, abs=0.2)
    known = np.ones(level.shape[-2:], dtype=bool)
    errors = [warp_error(level, right, np.full(known.shape, d), known) for d in (7.0, 8.0, 9.0)]
    assert errors[1] < 0.1 < min(errors[0], errors[2])
    assert np.isnan(warp_error(level, right, np.full(known.shape, 1e4), known)), "outside the right image"


def test_swapped_identical_and_single() -> None:
    sample = scenes(1, (128, 416))[0]
    assert measure_frame(replace(sample, left=sample.right, right=sample.left), {}).order == "swapped"  # type: ignore[arg-type]
    assert measure_frame(replace(sample, right=sample.left), {}).order == "identical"
    single = measure_frame(replace(sample, right=None), {})
    assert single.features is None
    assert single.median_depth == pytest.approx(float(sample.depth[sample.valid].median()))
    assert single.valid == pytest.approx(float(sample.valid.float().mean()))


def test_the_best_candidate_is_the_factor_the_maps_are_off_by() -> None:
    sample = scenes(1, (128, 416))[0]
    for factor, expected in (
        (1.0, "the ground truth"),
        (2.0, "half of it"),
        (0.5, "its double"),
        (-1.0, "the opposite sign"),
    ):
        facts = measure_frame(replace(sample, disparity=sample.disparity * factor), {})
        assert facts.best_candidate == expected
    assert next(iter(CANDIDATES)) == "the ground truth"
