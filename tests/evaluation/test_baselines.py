"""The baselines: the matcher finds known disparities and fills the rest; real pairs give it a plausible D1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adu_depth.data import StereoSample, collate, open_dataset
from adu_depth.errors import InputError
from adu_depth.evaluation import ConstantDisparity, SemiGlobalMatching, evaluate
from adu_depth.evaluation.baselines import fill_along_rows
from adu_depth.geometry import Camera
from tests.evaluation.test_processes import in_threads

CAMERA = Camera(fx=200.0, fy=200.0, cx=80.0, cy=32.0, baseline=0.5, disparity_offset=3.0)


def shifted_pair(disparity: int, name: str = "pair", size: tuple[int, int] = (64, 160)) -> StereoSample:
    generator = torch.Generator().manual_seed(disparity)
    height, width = size
    coarse = torch.rand(1, 3, height // 4, (width + disparity) // 4 + 1, generator=generator)
    wide = F.interpolate(coarse, (height, width + disparity), mode="bicubic").clamp(0, 1)[0]
    left, right = wide[..., :width], wide[..., disparity:]
    truth = torch.full((1, height, width), float(disparity))
    return StereoSample(left, right, 100.0 / (truth + 3), truth, truth > 0, CAMERA, name=name)


def test_the_matcher_finds_a_known_shift_on_every_pixel() -> None:
    matcher = SemiGlobalMatching(32)
    batch = collate([shifted_pair(7, "seven"), shifted_pair(20, "twenty")])
    prediction = matcher(batch)
    assert prediction.disparity is not None
    assert prediction.disparity.shape == prediction.depth.shape == prediction.log_scale.shape == (2, 1, 64, 160)
    for found, truth in zip(prediction.disparity, (7.0, 20.0), strict=True):
        seen = found[..., 24:]  # what the right image still shows
        assert (seen - truth).abs().median() < 0.1
        assert ((seen - truth).abs() < 1).float().mean() > 0.98
    assert torch.allclose(prediction.depth, 200 * 0.5 / (prediction.disparity + 3.0))
    assert set(matcher.density) == {"seven", "twenty"}
    assert all(0.8 < share <= 1.0 for share in matcher.density.values())
    assert (prediction.disparity > 0).all()


def test_the_matcher_says_when_nothing_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SemiGlobalMatching, "match", lambda self, left, right: np.full((64, 160), -1.0, np.float32))
    with pytest.raises(InputError, match="wall: no pixel of the left image has a match"):
        SemiGlobalMatching(32)(collate([shifted_pair(7, "wall")]))


def test_the_matcher_says_what_range_it_takes() -> None:
    for wrong in (0, -16, 40):
        with pytest.raises(InputError, match=f"num_disparities: expected a positive multiple of 16, got {wrong}"):
            SemiGlobalMatching(wrong)


def test_filling_by_hand() -> None:
    n = -1.0
    values = np.array([[n, n, n, n], [n, 3.0, n, 2.0], [5.0, n, n, 9.0], [n, n, n, n], [4.0, n, n, n]])
    expected = [[3, 3, 2, 2], [3, 3, 2, 2], [5, 5, 5, 9], [5, 5, 5, 9], [4, 4, 4, 4]]
    filled = fill_along_rows(values.astype(np.float32), values >= 0)
    assert filled.tolist() == expected
    assert filled.dtype == np.float32


def test_the_constant_is_the_median_of_all_valid_pixels() -> None:
    samples = [shifted_pair(7), shifted_pair(20), shifted_pair(9)]
    samples[1].valid[...] = False
    baseline = ConstantDisparity.median_of(samples[:2])
    assert baseline.disparity == 7.0
    prediction = baseline(collate(samples))
    assert prediction.disparity is not None
    assert prediction.disparity.shape == (3, 1, 64, 160)
    assert (prediction.disparity == 7.0).all()
    assert torch.allclose(prediction.depth, torch.tensor(10.0))
    with pytest.raises(InputError, match="no valid disparity"):
        ConstantDisparity.median_of(samples[1:2])


def test_the_median_does_not_keep_the_maps() -> None:
    """What a data set of thousands of dense maps would need: counts alone, whoever counts them."""
    generator = np.random.default_rng(0)
    samples = []
    for index in range(5):
        sample = shifted_pair(7, str(index), size=(64, 160 + 8 * index))
        truth = generator.gamma(2.0, 30.0, tuple(sample.disparity.shape)).astype(np.float32)
        valid = generator.random(truth.shape) < 0.3
        samples.append(replace(sample, disparity=torch.from_numpy(truth), valid=torch.from_numpy(valid)))
    exact = np.percentile(np.concatenate([s.disparity[s.valid].numpy() for s in samples]), 50, method="lower")
    assert ConstantDisparity.median_of(samples).disparity == pytest.approx(float(exact), abs=1 / 512)
    read: list[int] = []

    class Counted(list[StereoSample]):
        def __getitem__(self, index: int) -> StereoSample:  # type: ignore[override]
            read.append(index)
            return super().__getitem__(index)

    shared = in_threads(3, lambda place: ConstantDisparity.median_of(Counted(samples), place).disparity)
    assert shared == [ConstantDisparity.median_of(samples).disparity] * 3
    assert sorted(read) == [0, 1, 2, 3, 4], "each image in one process only"
    few = replace(samples[0], disparity=torch.tensor([[[3.0, 9.0, 4.0]]]), valid=torch.ones(1, 1, 3, dtype=torch.bool))
    assert ConstantDisparity.median_of([few]).disparity == 4.0
    far = replace(samples[0], disparity=torch.full_like(samples[0].disparity, 1e12))
    assert ConstantDisparity.median_of([far]).disparity == ConstantDisparity.FARTHEST


def test_on_the_real_kitti_pairs(real_stereo: Path) -> None:
    dataset = open_dataset(real_stereo / "kitti2015")
    matcher = SemiGlobalMatching(128)
    sgbm, constant = (evaluate(m, dataset).means() for m in (matcher, ConstantDisparity.median_of(dataset)))
    assert 5.0 < sgbm["d1"] < 12.0
    assert sgbm["epe"] < 2.5
    assert sgbm["abs_rel"] < 0.15
    assert constant["d1"] > 70.0
    assert min(matcher.density.values()) > 0.8
