"""What a pair says about its own disparity: least at the truth, blind to exposure."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from adu_depth.distillation.photometric import dissimilarity, photometric_loss, reflected, smoothness_loss
from adu_depth.geometry import warp_right


def textured_pair(disparity: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A right view of noise, and the left view that this disparity makes of it."""
    torch.manual_seed(0)
    right = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 26, 50), 3, stride=1)
    return warp_right(right, torch.full((1, 1, 24, 48), disparity))[0], right


def loss_at(value: float, left: torch.Tensor, right: torch.Tensor) -> float:
    return photometric_loss(left, right, torch.full((1, 1, 24, 48), value)).item()


def test_the_loss_is_least_at_the_true_disparity() -> None:
    left, right = textured_pair()
    assert loss_at(3.0, left, right) < 1e-3
    assert loss_at(3.0, left, right) < loss_at(2.5, left, right) < loss_at(2.0, left, right)
    assert loss_at(3.0, left, right) < loss_at(3.5, left, right) < loss_at(4.0, left, right)


def test_a_border_is_reflected_as_torch_does() -> None:
    """Values to the bit; the gradient's sums of four pixels in another order."""
    maps = torch.randn(2, 1, 5, 7, requires_grad=True)
    ours, theirs = reflected(maps, 2), F.pad(maps, [2] * 4, mode="reflect")
    assert torch.equal(ours, theirs)
    upstream = torch.randn_like(ours)
    [own] = torch.autograd.grad(ours, maps, upstream)
    [expected] = torch.autograd.grad(theirs, maps, upstream)
    torch.testing.assert_close(own, expected, rtol=1e-6, atol=1e-6)


def test_gain_and_offset_between_the_views_do_not_matter() -> None:
    left, right = textured_pair()
    assert abs(loss_at(2.5, left, 0.6 * right + 0.1) - loss_at(2.5, left, right)) < 0.05
    assert loss_at(3.0, left, 0.6 * right + 0.1) < 0.02


def test_its_gradient_points_to_the_truth() -> None:
    left, right = textured_pair()
    for start, sign in ((2.6, -1), (3.4, 1)):
        disparity = torch.full((1, 1, 24, 48), start, requires_grad=True)
        photometric_loss(left, right, disparity).backward()
        assert disparity.grad is not None
        assert torch.sign(disparity.grad.sum()) == sign


def test_pixels_the_right_view_does_not_contain_teach_nothing() -> None:
    left, right = textured_pair()
    disparity = torch.full((1, 1, 24, 48), 3.0, requires_grad=True)
    photometric_loss(left, right, disparity).backward()
    assert disparity.grad is not None
    assert torch.equal(disparity.grad[..., :1], torch.zeros(1, 1, 24, 1))


def test_what_the_right_view_does_not_contain_is_not_counted() -> None:
    """At disparity 8 the first eight columns have no partner: the outer five reach no window that counts."""
    left, right = textured_pair()
    other = left.clone()
    other[..., :5] = torch.rand(1, 3, 24, 5)
    assert loss_at(8.0, other, right) == loss_at(8.0, left, right)


def test_a_plain_surface_says_nothing() -> None:
    plain = torch.full((1, 3, 8, 8), 0.5)
    assert dissimilarity(plain, plain).abs().max() < 1e-3
    disparity = torch.full((1, 1, 8, 8), 1.0, requires_grad=True)
    photometric_loss(plain, plain, disparity).backward()
    assert disparity.grad is not None
    assert disparity.grad.abs().max() < 1e-6


def test_smoothness_forgives_steps_at_edges_of_the_image() -> None:
    step = torch.cat([torch.ones(1, 1, 8, 8), 3 * torch.ones(1, 1, 8, 8)], -1)
    plain, edged = torch.zeros(1, 3, 8, 16), torch.cat([torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)], -1)
    assert smoothness_loss(plain, torch.ones(1, 1, 8, 16)) == 0
    assert smoothness_loss(edged, step) < 0.01 * smoothness_loss(plain, step)
