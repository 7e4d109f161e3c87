"""Depth, disparity and the camera that joins them, through crops, resizes, batches and the right view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adu_depth.geometry import Camera, depth_to_disparity, disparity_to_depth, stack_cameras, warp_right

CAMERA = Camera(fx=720.0, fy=700.0, cx=600.0, cy=170.0, baseline=0.5)


def test_hand_computed_depths_and_nothing_where_nothing_is() -> None:
    disparity = torch.tensor([36.0, 4.5, 0.0, -1.0])
    assert disparity_to_depth(disparity, CAMERA).tolist() == [10.0, 80.0, 0.0, 0.0]
    assert disparity_to_depth(disparity.numpy(), CAMERA).tolist() == [10.0, 80.0, 0.0, 0.0]
    depth = torch.tensor([10.0, 80.0, 0.0])
    assert depth_to_disparity(depth, CAMERA).tolist() == [36.0, 4.5, 0.0]
    assert depth_to_disparity(depth.numpy(), CAMERA).tolist() == [36.0, 4.5, 0.0]


def test_an_offset_between_the_principal_points_counts() -> None:
    """Middlebury: depth = f·B/(d + doffs)."""
    camera = Camera(994.978, 994.978, 311.193, 254.877, 0.193001, disparity_offset=31.086)
    depth = disparity_to_depth(torch.tensor([30.0]), camera)
    assert depth.item() == pytest.approx(994.978 * 0.193001 / 61.086, rel=1e-6)
    assert depth_to_disparity(depth, camera).item() == pytest.approx(30.0, rel=1e-5)


def test_each_image_of_a_batch_has_its_own_camera() -> None:
    batch = stack_cameras([CAMERA, Camera(360.0, 360.0, 0.0, 0.0, 0.5)])
    depth = disparity_to_depth(torch.full((2, 1, 2, 3), 36.0), batch)
    assert depth[0].unique().tolist() == [10.0]
    assert depth[1].unique().tolist() == [5.0]


def test_crops_move_the_principal_point_and_resizing_scales_pixel_areas() -> None:
    cropped = CAMERA.cropped(top=20, left=100)
    assert (cropped.cx, cropped.cy, cropped.fx) == (500.0, 150.0, 720.0)
    half = CAMERA.resized(0.5, 0.25)
    assert (half.fx, half.fy) == (360.0, 175.0)
    # The point at the left image border (−½) stays at the border.
    assert half.cx == pytest.approx((600.0 + 0.5) / 2 - 0.5)
    assert half.cy == pytest.approx((170.0 + 0.5) / 4 - 0.5)


def test_gradients_pass_only_where_there_is_a_disparity() -> None:
    disparity = torch.tensor([36.0, 0.0], requires_grad=True)
    disparity_to_depth(disparity, CAMERA).sum().backward()
    assert disparity.grad.tolist() == pytest.approx([-360.0 / 36**2, 0.0])  # type: ignore[union-attr]


def test_warping_reads_between_columns_and_knows_the_border() -> None:
    right = torch.tensor([10.0, 20.0, 40.0, 80.0]).reshape(1, 1, 1, 4)
    warped, inside = warp_right(right, torch.tensor([0.0, 0.5, 1.0, 4.0]).reshape(1, 1, 1, 4))
    assert warped.flatten().tolist() == [10.0, 15.0, 20.0, 10.0]
    assert inside.flatten().tolist() == [True, True, True, False]


def test_warping_each_channel_by_its_own_disparity() -> None:
    torch.manual_seed(0)
    right, disparity = torch.rand(2, 1, 5, 16), 6 * torch.rand(2, 3, 5, 16)
    warped, inside = warp_right(right.expand(-1, 3, -1, -1), disparity)
    alone = [warp_right(right, disparity[:, k : k + 1]) for k in range(3)]
    assert torch.equal(warped, torch.cat([view for view, _ in alone], 1))
    assert torch.equal(inside, torch.cat([seen for _, seen in alone], 1))


def test_warping_agrees_with_grid_sample() -> None:
    torch.manual_seed(0)
    right, disparity = torch.rand(2, 3, 5, 16), 6 * torch.rand(2, 1, 5, 16)
    columns = torch.arange(16.0) - disparity[:, 0]
    rows = torch.arange(5.0)[:, None].expand(2, 5, 16)
    grid = torch.stack([columns / 15 * 2 - 1, rows / 4 * 2 - 1], -1)
    expected = torch.nn.functional.grid_sample(right, grid, align_corners=True, padding_mode="border")
    assert torch.allclose(warp_right(right, disparity)[0], expected, atol=1e-5)


def test_warping_has_the_gradient_of_its_slope() -> None:
    right = torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64).reshape(1, 1, 1, 4)
    disparity = torch.tensor([0.0, 0.0, 0.5, 1.25], dtype=torch.float64).reshape(1, 1, 1, 4).requires_grad_()
    warp_right(right, disparity)[0].sum().backward()
    # d/dx at columns 0, 1, 1.5 and 1.75, with the sign of −disparity.
    assert disparity.grad.flatten().tolist()[2:] == [-3.0, -3.0]  # type: ignore[union-attr]
    assert np.isfinite(disparity.grad.numpy()).all()  # type: ignore[union-attr]
