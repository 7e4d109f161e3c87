"""The loaders on captured images: does the ground truth they give line up with the pictures they give?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adu_depth.data import StereoSample, open_dataset
from adu_depth.evaluation import SemiGlobalMatching
from adu_depth.geometry import depth_to_disparity

SETS = {
    "kitti2015": ("kitti2015", 6, (375, 1242)),
    "kitti_object": ("kitti_object", 1, (375, 1242)),
    "middlebury": ("middlebury_motorcycleQ", 1, (497, 741)),
    "eth3d": ("eth3d", 1, (434, 713)),
}


@pytest.fixture(params=SETS)
def real_set(request: pytest.FixtureRequest, real_stereo: Path) -> list[StereoSample]:
    folder, count, size = SETS[request.param]
    dataset = open_dataset(real_stereo / folder)
    samples = [dataset[i] for i in range(len(dataset))]
    assert len(samples) == count
    assert all(s.left.shape == (3, *size) for s in samples)
    return samples


def photometric_error(sample: StereoSample, disparity: Tensor) -> float:
    """Mean |left(x) − right(x − d)| in grey over valid pixels whose match is inside the right image, linear in x."""
    height, width = sample.left.shape[-2:]
    left, right = sample.left.mean(0).numpy(), sample.right.mean(0).numpy()
    source = np.arange(width) - disparity[0].numpy().astype(np.float64)
    inside = sample.valid[0].numpy() & (source >= 0) & (source <= width - 1)
    row, column = np.nonzero(inside)
    warped = np.empty(row.size)
    for y in range(height):
        on_row = row == y
        warped[on_row] = np.interp(source[y, column[on_row]], np.arange(width), right[y])
    return float(np.abs(left[row, column] - warped).mean())


def test_every_map_is_consistent(real_set: list[StereoSample]) -> None:
    for s in real_set:
        assert 0.0 <= s.left.min() < s.left.max() <= 1.0
        for values in (s.depth, s.disparity):
            assert torch.isfinite(values).all()
            assert torch.equal(values > 0, s.valid)
        again = depth_to_disparity(s.depth, s.camera)
        assert torch.allclose(again[s.valid], s.disparity[s.valid], rtol=1e-4, atol=1e-3)
        assert s.valid.float().mean() > 0.03


def test_the_right_pixel_is_at_x_minus_disparity(real_set: list[StereoSample]) -> None:
    for s in real_set:
        truth = photometric_error(s, s.disparity)
        for name, wrong in (("zero", 0.0), ("half", 0.5), ("double", 2.0), ("opposite", -1.0)):
            assert truth < 0.7 * photometric_error(s, wrong * s.disparity), f"{s.name}: {name} disparity fits better"


def test_depths_are_those_of_the_scene(real_stereo: Path) -> None:
    """Metres, not millimetres, and the principal points' difference taken into account."""
    motorcycle = open_dataset(real_stereo / "middlebury_motorcycleQ")[0]
    assert motorcycle.camera.disparity_offset == pytest.approx(32.778)
    known = motorcycle.depth[motorcycle.valid]
    assert 1.8 < known.min() < known.max() < 5.5
    assert 0.1 < motorcycle.occluded.float().mean() < 0.13  # type: ignore[union-attr]
    terrace = open_dataset(real_stereo / "eth3d")[0]
    assert 2.0 < terrace.depth[terrace.valid].median() < 10.0
    street = open_dataset(real_stereo / "kitti2015")[0]
    assert street.camera.baseline == pytest.approx(0.5327, abs=1e-4)
    assert 5.0 < street.depth[street.valid].median() < 30.0
    assert 0.15 < street.valid.float().mean() < 0.25
    assert street.sparse_depth is None


def test_the_velodyne_scan_agrees_with_a_matcher(real_stereo: Path) -> None:
    sample = open_dataset(real_stereo / "kitti_object")[0]
    assert sample.sparse_depth is not None
    matched = torch.from_numpy(SemiGlobalMatching(128).match(sample.left, sample.right))[None]
    assert (sample.valid & (matched > 0)).sum() > 10_000

    def agreement(rows_down: int) -> float:
        moved, valid = (torch.roll(t, rows_down, dims=-2) for t in (sample.disparity, sample.valid))
        return ((matched - moved)[valid & (matched > 0)].abs() < 1.0).float().mean().item()

    # The road's disparity grows by half a pixel per row, so the scan must be on the right rows to agree.
    assert agreement(0) > 0.75
    assert max(agreement(-2), agreement(2)) < agreement(0) - 0.04
