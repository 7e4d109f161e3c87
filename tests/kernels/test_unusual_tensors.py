"""Tensors without values (device "meta"), tensors of inference mode and traced code: kernels take them as references
do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import adu_kernels

MAPS, PIXELS, HEADS = (1, 4, 3, 6), (1, 1, 3, 6), (1, 2, 5, 4)
CASES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "groupwise_correlation_volume": (lambda f, a, b: f(a, b, 3, 2, normalize="group"), [MAPS, MAPS]),
    "correlation_volume": (lambda f, a, b: f(a, b, 3), [MAPS, MAPS]),
    "concatenation_volume": (lambda f, a, b: f(a, b, 3), [MAPS, MAPS]),
    "combined_volume": (lambda f, a, b, c, d: f(a, b, c, d, 3, 2), [MAPS] * 4),
    "volume_with_scores": (lambda f, a, b, c, d: f(a, b, c, d, 3, 2), [MAPS] * 4),
    "correlation_disparity": (lambda f, a, b: f(a, b, 3), [MAPS, MAPS]),
    "disparity_regression": (lambda f, a: f(a, 2), [MAPS]),
    "attention_adaptation": (lambda f, q, k, v: f(q, k, v), [HEADS] * 3),
    "feature_distillation_loss": (lambda f, a, t: f(a, t), [MAPS, MAPS]),
    "pooled_guide": (lambda f, w: f(w, [(1, 2)]), [PIXELS]),
    "silog_loss": (lambda f, a, t: f(a, t), [PIXELS] * 2),
    "laplace_nll": (lambda f, a, s, t: f(a, s, t), [PIXELS] * 3),
    "focal_response_loss": (lambda f, a, t: f(a, t), [PIXELS] * 2),
    "uncertainty_guide": (lambda f, s: f(s, s > 1), [PIXELS]),
    "teacher_gate": (lambda f, a, t: f(a, t), [PIXELS] * 2),
    "single_output_conv3d": (lambda f, x, w, b: f(x, w, b), [(1, 2, 2, 3, 4), (1, 2, 3, 3, 3), (1,)]),
    "depth_objective": (lambda f, a, s, d, t: f(a, s, d, t), [PIXELS] * 4),
    "depth_gradient_normal_loss": (lambda f, a, t: f(a, t), [PIXELS] * 2),
    "cosine_features": (lambda f, a: f(a), [MAPS]),
    "group_norm": (lambda f, a, r: f(a, 2, activation="relu", residual=r), [MAPS] * 2),
}


def call(name: str, inputs: list[Tensor], backend: str) -> list[Tensor]:
    operation, _ = CASES[name]

    def public(*arguments: Any, **options: Any) -> Any:
        return getattr(adu_kernels, name)(*arguments, **options, backend=backend)

    found = operation(public, *inputs)
    return [found] if isinstance(found, Tensor) else list(found)


def draw(name: str) -> list[Tensor]:
    return [torch.rand(shape) + 0.5 for shape in CASES[name][1]]


@pytest.mark.cpu
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("name", CASES)
def test_shapes_can_be_asked_for_without_values(name: str, backend: str) -> None:
    inputs = draw(name)
    for got, like in zip(
        call(name, [one.to("meta") for one in inputs], backend), call(name, inputs, "torch"), strict=True
    ):
        assert got.is_meta
        assert (got.shape, got.dtype) == (like.shape, like.dtype)


@pytest.mark.parametrize("name", [name for name, (_, shapes) in CASES.items() if len(shapes) > 1])
def test_what_a_teacher_gave_in_inference_mode_is_taken(name: str) -> None:
    """Autograd saves no such tensor, and most references need none of theirs."""
    first, *others = draw(name)
    with torch.inference_mode():
        apart = [one.clone() for one in others]
    grads = []
    for given in (others, apart):
        leaf = first.clone().requires_grad_()
        results = [one for one in call(name, [leaf, *given], "triton") if one.requires_grad]
        if not results:
            return  # teacher_gate has no gradient
        grads.append(torch.autograd.grad(sum(one.sum() for one in results), leaf)[0])  # type: ignore[arg-type]
    assert torch.equal(*grads)


def _untraceable(device: str) -> bool:
    """What torch's question is to Dynamo up to 2.11, which knows no rule for it."""
    torch._dynamo.graph_break()
    raise AssertionError(device)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_traced_whole(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every version of torch from the oldest that is supported on."""
    inputs = draw(name)
    want = call(name, inputs, backend)
    monkeypatch.setattr(torch.amp, "is_autocast_available", _untraceable)
    torch._dynamo.reset()
    traced = torch.compile(call, fullgraph=True, backend="eager")
    for got, expected in zip(traced(name, inputs, backend), want, strict=True):
        torch.testing.assert_close(got, expected)
