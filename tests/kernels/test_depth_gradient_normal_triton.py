"""The Triton kernels of the depth, gradient and normal loss against the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from adu_kernels import depth_gradient_normal_loss, reference
from adu_kernels._triton import runtime
from adu_kernels.depth_gradient_normal import launch
from adu_kernels.testing import parity
from adu_kernels.testing.suite import OperationTests, Shapes
from tests.kernels.depth_scenes import scene

pytest.importorskip("triton")


def _target(like: Tensor) -> Tensor:
    """For a depth of this shape, beside it: dense but for a few holes, numbers that every dtype holds exactly."""
    target = scene(7, torch.bfloat16, tuple(like.shape), like.device)[3].abs()
    holes = torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    holes[11::29] = True
    return torch.where(holes.view(like.shape), 0, torch.where(target > 0, target, 8.0)).to(like.dtype)


def _total(**options: Any) -> parity.Operation:
    def of(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda depth, **backend: function(depth, _target(depth), **options, **backend).total

    return parity.Operation(of(depth_gradient_normal_loss), of(reference.depth_gradient_normal_loss))


class TestLoss(OperationTests):
    operation = _total()
    name = "depth_gradient_normal_loss"
    shapes: ClassVar = {
        "one": ((1, 1, 1, 1),),
        "odd": ((2, 1, 5, 7),),
        "a row": ((1, 1, 1, 9),),
        "a column": ((2, 1, 9, 1),),
        "two by two": ((1, 1, 2, 2),),
        "columns as one": ((2, 1, 3, 8),),
        "more than one program": ((1, 1, 9, 132),),
    }
    small: ClassVar = ((2, 1, 3, 4),)

    def draw(self, shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
        return [scene(3, dtype, shapes[0])[0].detach()]

    def test_traced_whole(self) -> None:
        (depth,) = self.draw(self.small, torch.float32)
        target = _target(depth)  # drawn outside of what is traced
        operation = parity.Operation(
            lambda d, backend: depth_gradient_normal_loss(d, target, backend=backend).total,
            lambda d: reference.depth_gradient_normal_loss(d, target).total,
        )
        parity.check_whole_graph(operation, [depth])


def test_per_image() -> None:
    """Three images with one launch; another number of them is no other compilation."""
    depth = scene(3, torch.float64, (3, 1, 5, 7))[0].detach()
    operation = _total(normalize="image")
    parity.check_parity(operation, [depth])
    parity.check_gradients(operation, [depth], fast=True)
    parity.check_compilations(operation, [[depth], [depth[:1]], [depth[:, :, :3, :2]]])


@pytest.mark.parametrize(
    "options",
    [{"weights": (1.0, 0.0, 0.0, 0.0)}, {"weights": (0.0, 0.0, 0.0, 1.0)}, {"offset": 2.0, "weights": (0, 3.0, 1, 0)}],
    ids=["depth", "normal", "gradients"],
)
def test_each_term_s_gradient(options: dict[str, Any]) -> None:
    depth = scene(3, torch.float64, (2, 1, 5, 7))[0].detach()
    parity.check_parity(_total(**options), [depth])
    parity.check_gradients(_total(**options), [depth], fast=True)


def test_more_segments_and_parts_than_finish_takes_at_once() -> None:
    """In smaller steps the same: no image is left out, none counted twice."""
    depth = scene(3, torch.float64, (3, 1, 5, 2))[0].detach()
    whole = launch._config

    def in_steps(*arguments: Any) -> Any:
        return whole(*arguments)._replace(SEGMENTS=2, PARTS=2)

    with patch.object(launch, "_config", in_steps), patch.object(launch, "PIXELS", replace(launch.PIXELS, rows=2)):
        parity.check_parity(_total(normalize="image"), [depth])
        parity.check_parity(_total(), [depth])


@pytest.mark.parametrize("first", [1, 2, 4])
def test_columns_as_one_wherever_the_memory_starts(first: int) -> None:
    """Rows that are a multiple of four long, in memory that starts on no 16 bytes, and on every."""
    given = scene(3, torch.float32, (2, 1, 3, 8))[0].detach()
    memory = torch.full((first + given.numel(),), torch.nan, device=given.device)
    moved = memory[first:].view(given.shape).copy_(given)
    parity.check_parity(_total(), [moved])


def test_factors_of_every_size() -> None:
    """Errors from 1e-30 to 1e18 in one thread's product: it passes no range."""
    target = torch.full((1, 1, 8, 4), 8.0)
    depth = target + 10.0 ** torch.linspace(0, 18, 32).view(target.shape)
    depth[0, 0, ::2, ::2] = 8.0
    for dtype, offset in ((torch.float32, 1e-30), (torch.float64, 1e-200)):
        pair = depth.to(dtype), target.to(dtype)
        want = reference.depth_gradient_normal_loss(*pair, offset=offset)
        got = depth_gradient_normal_loss(*pair, offset=offset, backend="triton")
        for one, other in zip(got[1:4], want[1:4], strict=True):
            torch.testing.assert_close(one, other)


def test_depth_and_target_of_two_types() -> None:
    depth = scene(3, torch.float16, (2, 1, 5, 7))[0].detach().requires_grad_()
    target = _target(depth).float()
    want = reference.depth_gradient_normal_loss(depth, target)
    got = depth_gradient_normal_loss(depth, target, backend="triton")
    assert got.total.dtype == want.total.dtype == torch.float32
    gradients = [torch.autograd.grad(one.total, depth)[0] for one in (got, want)]
    assert gradients[0].dtype == torch.float16
    torch.testing.assert_close(*gradients, rtol=2e-3, atol=1e-6)


def test_three_launches_and_nothing_of_a_map_s_size_kept() -> None:
    """Two forward, one backward; between them autograd keeps the inputs and two divisors."""
    depth = scene(3, torch.float32, (2, 1, 3, 9))[0].detach().requires_grad_()
    target = _target(depth)
    started = runtime.run
    names = []

    def noted(kernel: Any, *arguments: Any, **options: Any) -> None:
        names.append(kernel.__name__)
        started(kernel, *arguments, **options)

    with patch.object(runtime, "run", noted):
        run = lambda: depth_gradient_normal_loss(depth, target, backend="triton").total  # noqa: E731
        assert parity.saved_bytes(run, [depth, target]) <= 8
        torch.autograd.grad(run(), depth)
    assert names == ["sums", "finish"] * 2 + ["gradient"]


def test_offsets_beyond_int32() -> None:
    memory = parity.memory_beyond_int32(64)
    apart = 2**31 // 7 + 1  # the eighth column lies beyond 2³¹
    given = scene(3, torch.float16, (1, 1, 3, 8))[0].detach()
    far = torch.as_strided(memory, given.shape, (0, 0, 1, apart))
    far.copy_(given)
    results = []
    for depth in (given.to(far.device), far):
        leaf = depth.detach().requires_grad_()
        terms = depth_gradient_normal_loss(leaf, _target(given).to(far.device), backend="triton")
        results.append([*terms, *torch.autograd.grad(terms.total, leaf)])
    for one, other in zip(*results, strict=True):
        parity.same_but_for_rounding(one, other)
