"""Disparity regression against F.interpolate + softmax, hand-computed cases, sharp peaks, and fp64 gradcheck."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adu_kernels import disparity_regression

pytestmark = pytest.mark.cpu


def _literal(logits: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    size = [scale * n for n in logits.shape[1:]]
    upsampled = F.interpolate(logits[:, None], size=size, mode="trilinear", align_corners=False)[:, 0]
    p = upsampled.softmax(1)
    d = torch.arange(size[0], dtype=p.dtype).view(1, -1, 1, 1)
    mean = (d * p).sum(1, keepdim=True)
    return mean[:, 0], ((d - mean) ** 2 * p).sum(1)


def test_two_candidates_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1)  # p = ¼, ¾
    disparity, variance = disparity_regression(logits)
    assert disparity.shape == variance.shape == (1, 1, 1)
    torch.testing.assert_close(disparity.item(), 0.75)
    torch.testing.assert_close(variance.item(), 0.1875)


def test_upsampling_by_hand() -> None:
    """Two candidates 0 and ln 16 at half scale are 0, ¼, ¾ and all of ln 16 at full: p ∝ 1, 2, 8, 16."""
    logits = torch.tensor([0.0, math.log(16.0)], dtype=torch.float64).view(1, 2, 1, 1)
    disparity, variance = disparity_regression(logits, scale=2)
    mean = (2 + 16 + 48) / 27
    assert disparity.shape == (1, 2, 2)
    torch.testing.assert_close(disparity, torch.full_like(disparity, mean))
    torch.testing.assert_close(variance, torch.full_like(variance, (2 + 32 + 144) / 27 - mean**2))


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 1, 1), (1, 7, 1, 3), (2, 2, 5, 1)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
def test_equals_interpolate_and_softmax(shape: tuple[int, ...], scale: int) -> None:
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    logits.requires_grad_()
    grad_outputs = torch.randn(2, shape[0], scale * shape[2], scale * shape[3], dtype=torch.float64)
    got, want = disparity_regression(logits, scale), _literal(logits, scale)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs)
    (ours,) = torch.autograd.grad(got, logits, list(grad_outputs))
    (theirs,) = torch.autograd.grad(want, logits, list(grad_outputs))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("output", [0, 1])
def test_gradcheck(scale: int, output: int) -> None:
    logits = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: disparity_regression(x, scale)[output], (logits,))


def test_a_channel_dimension_of_one_is_squeezed() -> None:
    logits = torch.randn(2, 5, 3, 4)
    for ours, theirs in zip(disparity_regression(logits[:, None], 2), disparity_regression(logits, 2), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sharpness", [0.5, 4.0, 12.0])
def test_variance_of_a_peak_at_large_disparity(sharpness: float) -> None:
    """E[d²] − E[d]² in fp32 is off by 0.06 or more at d = 1000 and often negative; the centred form is exact."""
    d = torch.arange(1024, dtype=torch.float64)
    logits = (-sharpness * (d - 1000.3).abs()).view(1, -1, 1, 1)
    disparity, variance = disparity_regression(logits.float())
    exact_disparity, exact_variance = disparity_regression(logits.float().double())
    assert (disparity.double() - exact_disparity).abs().max() < 1e-3
    torch.testing.assert_close(variance.double(), exact_variance, rtol=1e-4, atol=1e-6)


def test_variance_is_never_negative() -> None:
    logits = torch.full((1, 192, 4, 4), -1e4)
    logits[:, 170] = 1e4
    disparity, variance = disparity_regression(logits)
    assert disparity.unique().tolist() == [170.0]
    assert variance.unique().tolist() == [0.0]
    assert (disparity_regression(100 * torch.randn(2, 48, 8, 8), 2)[1] >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_give_fp32(dtype: torch.dtype) -> None:
    logits = (5 * torch.randn(1, 12, 3, 4)).to(dtype)
    for ours, theirs in zip(disparity_regression(logits, 4), disparity_regression(logits.float(), 4), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_autocast_changes_no_bit() -> None:
    logits = torch.randn(1, 12, 3, 4)
    expected = disparity_regression(logits, 4)
    with torch.autocast("cpu", torch.bfloat16):
        got = disparity_regression(logits, 4)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_any_strides() -> None:
    logits = torch.randn(2, 6, 4, 5)
    for view in (
        logits.permute(0, 1, 3, 2),
        logits[:, :, ::2, 1:],
        logits.contiguous(memory_format=torch.channels_last),
    ):
        for ours, theirs in zip(disparity_regression(view, 2), disparity_regression(view.contiguous(), 2), strict=True):
            torch.testing.assert_close(ours, theirs)


X = torch.zeros(2, 4, 3, 5, device="cpu")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "logits: expected a tensor", lambda: disparity_regression(None)),
        (TypeError, "logits: expected a floating.*torch.int32", lambda: disparity_regression(X.int())),
        (ValueError, "logits: expected B×D×H×W or B×1×D×H×W, got 4×3×5", lambda: disparity_regression(X[0])),
        (
            ValueError,
            "logits: expected B×D×H×W or B×1×D×H×W, got 2×4×1×3×5",
            lambda: disparity_regression(X[:, :, None]),
        ),
        (ValueError, "scale: .* ≥ 1, got 0", lambda: disparity_regression(X, 0)),
        (TypeError, "scale: .*got 1.5", lambda: disparity_regression(X, 1.5)),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()
