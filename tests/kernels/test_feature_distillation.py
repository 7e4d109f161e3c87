"""The feature distillation loss against hand-computed cases, its analytic gradient, and fp64 gradcheck."""

from __future__ import annotations

import pytest
import torch

from adu_kernels import feature_distillation_loss

pytestmark = pytest.mark.cpu


def test_by_hand() -> None:
    teacher = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)  # mean square 5
    adapted = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)  # mean squared error (1 + 4)/2
    torch.testing.assert_close(feature_distillation_loss(adapted, teacher).item(), 2.5 / (5 + 1e-6))


def test_weights_by_hand() -> None:
    teacher = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    adapted = torch.tensor([2.0, 4.0], dtype=torch.float64).view(1, 1, 1, 2)
    weight = torch.tensor([3.0, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    expected = (3.0 * 1 + 0.5 * 9) / 2 / (1 + 1e-6)
    torch.testing.assert_close(feature_distillation_loss(adapted, teacher, weight).item(), expected)


def test_teachers_power_is_of_the_whole_level() -> None:
    """One number over batch, channels and positions: scaling both maps changes nothing (but the floor's share)."""
    teacher, adapted = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    teacher[0] *= 10
    expected = (adapted - teacher).square().mean() / (teacher.square().mean() + 1e-6)
    torch.testing.assert_close(feature_distillation_loss(adapted, teacher), expected)


def test_gradcheck_and_analytic_gradient() -> None:
    adapted = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    weight = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: feature_distillation_loss(x, teacher, weight), (adapted,))
    (grad,) = torch.autograd.grad(feature_distillation_loss(adapted, teacher, weight), adapted)
    power = teacher.square().mean() + 1e-6
    torch.testing.assert_close(grad, 2 * weight * (adapted - teacher).detach() / (2 * 4 * 3 * power))


def test_no_gradient_to_teacher_and_weight() -> None:
    adapted, teacher = (torch.randn(1, 2, 2, 2, requires_grad=True) for _ in range(2))
    weight = torch.rand(1, 1, 2, 2, requires_grad=True)
    feature_distillation_loss(adapted, teacher, weight).backward()
    assert adapted.grad is not None
    assert teacher.grad is None
    assert weight.grad is None


def test_silent_teacher_does_not_divide_by_zero() -> None:
    adapted = torch.full((1, 1, 1, 1), 1e-3)
    torch.testing.assert_close(feature_distillation_loss(adapted, torch.zeros(1, 1, 1, 1)).item(), 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_in_fp32_whatever_autocast_says(dtype: torch.dtype) -> None:
    adapted, teacher = (300 * torch.randn(2, 1, 8, 4, 5)).to(dtype)  # squares overflow fp16
    expected = feature_distillation_loss(adapted.float(), teacher.float())
    with torch.autocast("cpu", torch.bfloat16):
        got = feature_distillation_loss(adapted, teacher)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
    assert got.isfinite()


X = torch.zeros(2, 4, 3, 5, device="cpu")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "adapted: expected B×C×H×W, got 4×3×5", lambda: feature_distillation_loss(X[0], X)),
        (ValueError, "teacher: .*adapted, 2×4×3×5, got 2×3×3×5", lambda: feature_distillation_loss(X, X[:, 1:])),
        (ValueError, "weight: expected B×1×H×W, 2×1×3×5", lambda: feature_distillation_loss(X, X, X[:, :1, 1:])),
        (ValueError, "weight: expected B×1×H×W, got 2×4×3×5", lambda: feature_distillation_loss(X, X, X)),
        (TypeError, "weight: .*got torch.bool", lambda: feature_distillation_loss(X, X, X[:, :1] > 0)),
        (ValueError, "teacher: .*device of adapted, cpu", lambda: feature_distillation_loss(X, X.to("meta"))),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()
