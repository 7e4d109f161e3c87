"""The loss of arXiv 1803.08673: what it is, at which pixels, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adu_kernels import GradientNormalWeights, depth_gradient_normal_loss
from adu_kernels.testing import parity

SHAPE = (2, 1, 5, 6)
either = pytest.mark.parametrize("backend", ["torch", "triton"])


def dense(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Depth, a little off, and a target that is valid everywhere; on the device that tensors are made on."""
    target = 1 + 9 * torch.rand(SHAPE)
    return (target + torch.randn(SHAPE)).to(dtype).to(parity.DEVICE), target.to(dtype).to(parity.DEVICE)


def sobel(like: Tensor) -> Tensor:
    of_x = like.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    return torch.stack([of_x, of_x.T]).unsqueeze(1)


def published(depth: Tensor, target: Tensor) -> list[Tensor]:
    """The paper's terms as it writes them, with a convolution and a cosine: nothing here knows of invalid pixels."""
    of_depth, of_target = (functional.conv2d(one, sobel(depth), padding=1) for one in (depth, target))
    ones = torch.ones_like(depth)
    normals = [torch.cat([-slopes, ones], 1) for slopes in (of_depth, of_target)]
    slopes = ((of_depth - of_target).abs() + 0.5).log().mean((0, 2, 3))
    cosine = torch.cosine_similarity(*normals, dim=1, eps=0.0)
    return [((depth - target).abs() + 0.5).log().mean(), *slopes, (1 - cosine).abs().mean()]


@either
def test_with_a_dense_target_it_is_the_published_loss(backend: str) -> None:
    """Zero padding included: the border's windows count, and beyond it both maps are 0."""
    depth, target = dense()
    depth.requires_grad_()
    terms = depth_gradient_normal_loss(depth, target, backend=backend)
    want = published(depth, target)
    for got, expected in zip(terms[1:], want, strict=True):
        torch.testing.assert_close(got, expected.detach(), rtol=1e-12, atol=1e-13)
    whole = torch.stack(want).sum()
    torch.testing.assert_close(terms.total, whole, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(one, depth)[0] for one in (terms.total, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-13)


@either
def test_windows_count_where_all_of_them_is_valid(backend: str) -> None:
    """One missing target takes nine windows; those of the border need what lies in the image alone."""
    depth, target = dense()
    hole = target.clone()
    hole[0, 0, 2, 3] = torch.nan
    slope_x, slope_y = functional.conv2d(depth - target, sobel(depth), padding=1).split(1, 1)
    kept = torch.ones_like(target, dtype=torch.bool)
    kept[0, 0, 1:4, 2:5] = False
    terms = depth_gradient_normal_loss(depth, hole, backend=backend)
    torch.testing.assert_close(terms.gradient_x, (slope_x[kept].abs() + 0.5).log().mean())
    torch.testing.assert_close(terms.gradient_y, (slope_y[kept].abs() + 0.5).log().mean())
    there = hole.isfinite()
    torch.testing.assert_close(terms.depth, ((depth - target)[there].abs() + 0.5).log().mean())


@either
@pytest.mark.parametrize("normalize", ["batch", "image"])
def test_what_stands_where_nothing_is_known_changes_no_bit(backend: str, normalize: str) -> None:
    depth, target = dense(torch.float32)
    unknown = torch.rand(SHAPE).to(parity.DEVICE) < 0.2
    results = []
    for garbage, none in ((0.0, 0.0), (torch.nan, torch.nan), (torch.inf, 81.0)):
        given = depth.masked_fill(unknown, garbage).requires_grad_()
        terms = depth_gradient_normal_loss(
            given, target.masked_fill(unknown, none), normalize=normalize, backend=backend
        )
        results.append([*terms, *torch.autograd.grad(terms.total, given)])
        assert (results[-1][-1][unknown] == 0).all()
    for other in results[1:]:
        for one, first in zip(other, results[0], strict=True):
            assert one.isfinite().all()
            assert torch.equal(one, first)


@either
@pytest.mark.parametrize("normalize", ["batch", "image"])
def test_nothing_valid_is_zero_with_a_zero_gradient(backend: str, normalize: str) -> None:
    depth = torch.full(SHAPE, torch.nan, device=parity.DEVICE).requires_grad_()
    terms = depth_gradient_normal_loss(depth, torch.zeros_like(depth), normalize=normalize, backend=backend)
    assert all(term == 0 for term in terms)
    assert (torch.autograd.grad(terms.total, depth)[0] == 0).all()


@either
def test_an_image_without_targets_counts_as_zero(backend: str) -> None:
    depth, target = dense()
    target[1] = 0
    per_image = depth_gradient_normal_loss(depth, target, normalize="image", backend=backend)
    alone = depth_gradient_normal_loss(depth[:1], target[:1], backend=backend)
    for both, one in zip(per_image, alone, strict=True):
        torch.testing.assert_close(both, one / 2)


@either
def test_a_valid_pixel_without_a_window_is_in_the_depth_term_alone(backend: str) -> None:
    """A LiDAR's points: every window has a hole."""
    depth, target = dense()
    target[..., ::2, :] = 0
    depth.requires_grad_()
    terms = depth_gradient_normal_loss(depth, target, backend=backend)
    assert terms.depth != 0
    assert terms.gradient_x == terms.gradient_y == terms.normal == 0
    assert (torch.autograd.grad(terms.total, depth)[0][..., ::2, :] == 0).all()


@either
def test_a_nan_predicted_at_a_valid_pixel_is_told(backend: str) -> None:
    depth, target = dense()
    depth[0, 0, 3, 3] = torch.nan
    assert all(term.isnan() for term in depth_gradient_normal_loss(depth, target, backend=backend))


@either
def test_the_truth_itself_has_no_slope(backend: str) -> None:
    """Every term is at its smallest, and none of the four kinks has a slope there."""
    _, target = dense(torch.float32)
    depth = target.clone().requires_grad_()
    terms = depth_gradient_normal_loss(depth, target, offset=0.25, backend=backend)
    torch.testing.assert_close(torch.stack(terms[1:]).cpu(), torch.tensor([0.25, 0.25, 0.25, 1.0], device="cpu").log())
    assert (torch.autograd.grad(terms.total, depth)[0].abs() < 1e-9).all()


@either
def test_weights_and_range(backend: str) -> None:
    depth, target = dense()
    plain = depth_gradient_normal_loss(depth, target, backend=backend)
    names = GradientNormalWeights._fields
    for weights in ((1.0, 2.0, 3.0, 4.0), dict(zip(names, (1.0, 2.0, 3.0, 4.0), strict=True))):
        terms = depth_gradient_normal_loss(depth, target, weights=weights, backend=backend)
        want = plain.depth + 2 * plain.gradient_x + 3 * plain.gradient_y + 4 * plain.normal
        torch.testing.assert_close(terms.total, want)
        assert all(map(torch.equal, terms[1:], plain[1:]))
    far = depth_gradient_normal_loss(depth, target, min_depth=3.0, max_depth=6.0, backend=backend)
    inside = target.where((target >= 3) & (target <= 6), 0)
    assert all(map(torch.equal, far, depth_gradient_normal_loss(depth, inside, backend=backend)))


@either
def test_autocast_changes_no_bit_and_a_target_has_no_gradient(backend: str) -> None:
    depth, target = dense(torch.float32)
    plain = depth_gradient_normal_loss(depth, target, backend=backend)
    for one in (depth, target):
        one.requires_grad_()
    with torch.autocast(parity.DEVICE, torch.bfloat16):
        terms = depth_gradient_normal_loss(depth, target, backend=backend)
    assert all(map(torch.equal, terms, plain))
    of_depth, of_target = torch.autograd.grad(terms.total, [depth, target], allow_unused=True)
    assert of_depth.abs().sum() > 0
    assert of_target is None


X = torch.ones(1, 1, 3, 4, device="cpu")


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "target: .*got 1×1×3×3", lambda: depth_gradient_normal_loss(X, X[..., 1:])),
        (ValueError, "depth: expected .*got 1×2×3×4", lambda: depth_gradient_normal_loss(X.expand(1, 2, 3, 4), X)),
        (TypeError, "target: .*got None", lambda: depth_gradient_normal_loss(X, None)),  # type: ignore[arg-type]
        *(
            (
                ValueError,
                "offset: expected a number of at least 1.2e-38, got ",
                partial(depth_gradient_normal_loss, X, X, offset=offset),
            )
            for offset in (0, -1.0, 1e-40)
        ),
        (ValueError, "min_depth, max_depth: .*got 5 and 2", lambda: _range(5, 2)),
        (ValueError, "min_depth, max_depth: .*got 0 and 2", lambda: _range(0, 2)),
        (ValueError, "normalize: .*got 'sum'", lambda: depth_gradient_normal_loss(X, X, normalize="sum")),
        (ValueError, "weights: .*got 2 values", lambda: depth_gradient_normal_loss(X, X, weights=(1.0, 2.0))),
        (ValueError, "weights: .*keys depth.*got a", lambda: depth_gradient_normal_loss(X, X, weights={"a": 1.0})),
        (ValueError, "weights.normal: .*got -1", lambda: depth_gradient_normal_loss(X, X, weights=(1, 1, 1, -1))),
        (TypeError, "weights: .*got float", lambda: depth_gradient_normal_loss(X, X, weights=1.0)),  # type: ignore
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


def _range(low: float, high: float) -> Any:
    return depth_gradient_normal_loss(X, X, min_depth=low, max_depth=high)
