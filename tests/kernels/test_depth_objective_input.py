"""What the per-pixel losses say to input they cannot use."""

from __future__ import annotations

import math

import pytest
import torch

from adu_kernels import depth_objective, focal_response_loss, laplace_nll, silog_loss, teacher_gate, uncertainty_guide

pytestmark = pytest.mark.cpu

X = torch.ones(2, 1, 3, 5, device="cpu")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "depth: expected B×1×H×W, got 2×3×5", lambda: silog_loss(X[:, 0], X[:, 0])),
        (ValueError, "depth: expected B×1×H×W, got 2×3×3×5", lambda: silog_loss(X.expand(2, 3, 3, 5), X)),
        (ValueError, "target: .* depth, 2×1×3×5, got 2×1×3×4", lambda: silog_loss(X, X[..., 1:])),
        (ValueError, "target: .*device of depth, cpu, got meta", lambda: silog_loss(X, X.to("meta"))),
        (TypeError, "target: expected a tensor .*got NoneType", lambda: silog_loss(X, None)),
        (TypeError, "depth: .*floating-point tensor, got torch.int64", lambda: silog_loss(X.long(), X)),
        (ValueError, r"variance_focus: .*\[0.0, 1.0\], got 1.1", lambda: silog_loss(X, X, 1.1)),
        (ValueError, "0 < min_depth < max_depth, got 5.0 and 2.0", lambda: silog_loss(X, X, 0.85, 5.0, 2.0)),
        (ValueError, "within 1e-18 to .*got 0.001 and 1e.38", lambda: silog_loss(X, X, max_depth=1e38)),
        (ValueError, "within 1e-18 to .*got 1e-30 and", lambda: teacher_gate(X, X, min_depth=1e-30)),
        (ValueError, "max_depth: .*finite.*got inf", lambda: silog_loss(X, X, max_depth=math.inf)),
        (ValueError, "log_scale: .*got 1×1×3×5", lambda: laplace_nll(X, X[:1], X)),
        (TypeError, "joint: .*got 1", lambda: laplace_nll(X, X, X, joint=1)),
        (ValueError, "beta_nll: .*got -0.5", lambda: laplace_nll(X, X, X, beta_nll=-0.5)),
        (ValueError, "weight: .*got 2×1×3×4", lambda: focal_response_loss(X, X, X[..., 1:])),
        (ValueError, r"gamma: .*\[1.0, inf\], got 0.5", lambda: focal_response_loss(X, X, gamma=0.5)),
        (ValueError, "beta: .*> 0, got 0", lambda: focal_response_loss(X, X, beta=0)),
        (TypeError, "valid: .*bool tensor, got torch.float32", lambda: uncertainty_guide(X, X)),
        (ValueError, "valid: .*log_scale", lambda: uncertainty_guide(X, X[..., 1:] > 0)),
        (ValueError, "guide: .*'emphasise', 'attenuate', 'none', got 'up'", lambda: uncertainty_guide(X, X > 0, "up")),
        (ValueError, "strength: .*got 2.0", lambda: uncertainty_guide(X, X > 0, strength=2.0)),
        (ValueError, "strength: .*0-dim tensor, got .*1", lambda: uncertainty_guide(X, X > 0, strength=torch.ones(1))),
        (ValueError, "sharpness: .*got -1", lambda: teacher_gate(X, X, -1)),
        (ValueError, "teacher_depth: .*got 2×1×3×4", lambda: depth_objective(X, X, X[..., 1:], X)),
        (ValueError, "guide_strength: .*got -0.1", lambda: depth_objective(X, X, X, X, guide_strength=-0.1)),
        (TypeError, "gate: .*got None", lambda: depth_objective(X, X, X, X, gate=None)),
        (ValueError, "weights: .*got 2 values", lambda: depth_objective(X, X, X, X, weights=(1.0, 2.0))),
        (ValueError, "weights: .*keys silog.*got a", lambda: depth_objective(X, X, X, X, weights={"a": 1.0})),
        (ValueError, "weights.response: .*got -1", lambda: depth_objective(X, X, X, X, weights=(1, 1, -1))),
        (TypeError, "weights.silog: .*got '1'", lambda: depth_objective(X, X, X, X, weights=("1", 1, 1))),
        (TypeError, "weights: .*got float", lambda: depth_objective(X, X, X, X, weights=1.0)),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call) -> None:
    with pytest.raises(error, match=message):
        call()
