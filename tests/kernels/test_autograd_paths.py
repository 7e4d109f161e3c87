"""Every operation through every path that autograd offers, and the implementation "auto" takes there."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._vmap_internals import _vmap

import adu_kernels
from adu_kernels import backend, reference
from adu_kernels._triton import runtime
from adu_kernels.testing.autograd_paths import RIGHT_OR_REFUSED, SAME, Run, check_autograd_paths, on_one_tensor
from adu_kernels.testing.parity import Operation
from tests.kernels.own_thread import with_backwards_in_another_thread

MAPS = (1, 2, 1, 3)
PIXELS = (1, 1, 1, 3)


def _both(name: str, call: Callable[..., Any]) -> Operation:
    """The public operation and its twin, called as `call(operation, *inputs)`."""

    def public(*inputs: Tensor, backend: str) -> Any:
        def operation(*arguments: Any, **options: Any) -> Any:
            return getattr(adu_kernels, name)(*arguments, **options, backend=backend)

        return call(operation, *inputs)

    return Operation(public, lambda *inputs: call(getattr(reference, name), *inputs))


def _constant(like: Tensor, shape: tuple[int, ...], low: float = 1.0) -> Tensor:
    """On the device of `like`: where a checkpoint runs a case again, another is tensors' default."""
    return torch.linspace(low, low + 3, math.prod(shape), dtype=torch.float64, device=like.device).view(shape)


CASES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "groupwise_correlation_volume": (lambda f, a, b: f(a, b, 2, 1, normalize="group"), [MAPS, MAPS]),
    "correlation_volume": (lambda f, a, b: f(a, b, 2), [MAPS, MAPS]),
    "concatenation_volume": (lambda f, a, b: f(a, b, 2), [MAPS, MAPS]),
    "combined_volume": (lambda f, a, b, c, d: f(a, b, c, d, 2, 1), [MAPS, MAPS, MAPS, MAPS]),
    "volume_with_scores": (lambda f, a, b: f(a, b, None, None, 2, 2), [MAPS, MAPS]),
    "correlation_disparity": (lambda f, a, b: f(a, b, 3), [MAPS, MAPS]),
    "disparity_regression": (lambda f, a: f(a, 2), [MAPS]),
    "attention_adaptation": (lambda f, q, k, v, bias: f(q, k, v, bias), [(1, 1, 3, 2), *[(1, 1, 2, 2)] * 2, (1, 2)]),
    "feature_distillation_loss": (lambda f, a: f(a, _constant(a, MAPS), _constant(a, (1, 1, 1, 3))), [MAPS]),
    "feature_distillation_losses": (lambda f, a, b: f([a, b], [_constant(a, MAPS)] * 2), [MAPS, MAPS]),
    "silog_loss": (lambda f, a: f(a.exp(), _constant(a, PIXELS)), [PIXELS]),
    "laplace_nll": (lambda f, a, s: f(a.exp(), s, _constant(a, PIXELS), joint=True), [PIXELS, PIXELS]),
    "focal_response_loss": (lambda f, a: f(a.exp(), _constant(a, PIXELS)), [PIXELS]),
    "single_output_conv3d": (lambda f, x, w, b: f(x, w, b), [(1, 1, 1, 1, 2), (1, 1, 3, 3, 3), (1,)]),
    "depth_objective": (
        lambda f, a, s: f(a.exp(), s, _constant(a, PIXELS), _constant(a, PIXELS, 2.0), joint=True).total,
        [PIXELS, PIXELS],
    ),
    "depth_gradient_normal_loss": (lambda f, a: f(a.exp(), _constant(a, PIXELS)).total, [PIXELS]),
    "cosine_features": (lambda f, x: f(x), [(1, 2, 2, 3)]),
    "group_norm": (
        lambda f, x, w, b, r: f(x, 1, w, b, activation="relu", residual=r),
        [MAPS, (MAPS[1],), (MAPS[1],), MAPS],
    ),
}


def case(name: str) -> tuple[Operation, list[Tensor]]:
    call, shapes = CASES[name]
    return _both(name, call), [torch.randn(shape) for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_the_reference_s_result_or_an_error_by_name(name: str) -> None:
    operation, inputs = case(name)
    check_autograd_paths(operation, inputs, name)


@pytest.mark.skipif(not runtime.interpreting(), reason="on a GPU every backward runs in such a thread")
@pytest.mark.parametrize("name", CASES)
def test_in_a_thread_of_autograd_s_own_too(name: str) -> None:
    operation, inputs = case(name)
    flat = torch.cat([value.double().flatten() for value in inputs])
    kernel, twin = (on_one_tensor(run, inputs) for run in (operation.triton, operation.torch))
    paths = {**SAME, "is_grads_batched, twice": _batched_twice}
    want = {path: result(twin, flat) for path, result in paths.items()}
    wrong = []

    def all_paths() -> None:
        for path, result in paths.items():
            try:
                torch.testing.assert_close(result(kernel, flat), want[path], rtol=1e-8, atol=1e-10)
            except Exception as error:
                wrong.append(f"{path}: {error}")

    with_backwards_in_another_thread(all_paths)
    assert not wrong


def _batched_twice(run: Run, flat: Tensor) -> Tensor:
    """Batches of batches, as of a jacobian within a function that is itself called for a batch."""
    leaf = flat.clone().requires_grad_()
    output = run(leaf)[0]
    upstream = torch.stack([torch.ones_like(output), -output, output.cos()]).detach()
    upstream = torch.stack([upstream, upstream * 2])
    one_batch = partial(torch.autograd.grad, output, leaf, retain_graph=True, is_grads_batched=True)
    return _vmap(lambda batch: one_batch(grad_outputs=batch)[0])(upstream)


def test_such_a_thread_is_another() -> None:
    threads = []
    value = torch.zeros((), device="cpu", requires_grad=True)
    total = value * 1
    total.register_hook(lambda _: threads.append(threading.get_ident()))
    total.backward(retain_graph=True)
    with_backwards_in_another_thread(total.backward)
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False]


@pytest.mark.cpu
def test_every_differentiable_operation_is_tried() -> None:
    assert {*adu_kernels.__all__} - {*CASES} == {
        "pooled_guide", "uncertainty_guide", "teacher_gate",  # no gradient
        "ConcatFreeConv3d",  # torch's own convolutions
        "ObjectiveTerms", "ObjectiveWeights", "GradientNormalTerms", "GradientNormalWeights",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["forward mode", "torch.func.grad", "torch.func.jvp", "vmap of grad"])
def test_where_kernels_have_no_rule_auto_is_the_reference(path: str) -> None:
    call, shapes = CASES["disparity_regression"]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    operation = _both("disparity_regression", call)
    with backend.use_backend("triton"):
        got = RIGHT_OR_REFUSED[path](
            on_one_tensor(lambda *maps: operation.public(*maps, backend="auto"), inputs), inputs[0].flatten()
        )
    torch.testing.assert_close(got, RIGHT_OR_REFUSED[path](on_one_tensor(operation.torch, inputs), inputs[0].flatten()))


@pytest.mark.parametrize("name", ["uncertainty_guide", "teacher_gate", "pooled_guide"])
def test_without_a_gradient_too_transforms_are_refused(name: str) -> None:
    depth = torch.rand(2, 1, 1, 2, 2) + 1
    second = {"uncertainty_guide": depth[0] > 1.5, "teacher_gate": depth[0], "pooled_guide": [(1, 1)]}[name]
    with pytest.raises(
        RuntimeError, match=f"{name}: the Triton kernels have no rule for torch.func .vmap.: use backend"
    ):
        torch.func.vmap(lambda one: getattr(adu_kernels, name)(one, second, backend="triton"))(depth)


def test_traced_code_asks_again_where_a_transform_begins() -> None:
    logits = torch.randn(1, 4, 2, 3)
    traced = torch.compile(lambda x: adu_kernels.disparity_regression(x, backend="triton")[0], backend="eager")
    traced(logits)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="no rule for forward-mode"):
        traced(torch.autograd.forward_ad.make_dual(logits, logits))
