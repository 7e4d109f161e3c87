"""The convolution with one output channel: its definition, what it refuses, and the kernels against the reference."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from adu_kernels import reference, single_output_conv3d
from adu_kernels._triton import runtime
from adu_kernels.single_output_conv3d import launch
from adu_kernels.testing.parity import (
    DEVICE,
    Operation,
    check_parity,
    layouts,
    leaves,
    memory_beyond_int32,
    same_but_for_rounding,
    saved_bytes,
)
from adu_kernels.testing.suite import OperationTests, Shapes
from tests.kernels import plans

OPERATION = Operation(single_output_conv3d, reference.single_output_conv3d)


def _weight(channels: int) -> tuple[int, ...]:
    return (1, channels, 3, 3, 3)


def _inputs(*shape: int, dtype: torch.dtype = torch.float32, last: bool = True, bias: bool = False) -> list[Tensor]:
    layout = torch.channels_last_3d if last else torch.contiguous_format
    made = [torch.randn(one).to(dtype).contiguous(memory_format=layout) for one in (shape, _weight(shape[1]))]
    return [*made, *([torch.randn(1).to(dtype)] if bias else [])]


class TestSingleOutputConv3d(OperationTests):
    operation = OPERATION
    shapes: ClassVar[dict[str, Shapes]] = {
        "one element": ((1, 1, 1, 1, 1), _weight(1)),
        "one plane": ((1, 3, 1, 4, 5), _weight(3)),
        "one column": ((2, 3, 4, 5, 1), _weight(3)),
        "prime": ((2, 3, 3, 5, 7), _weight(3)),
        "several tiles": ((1, 3, 5, 7, 19), _weight(3)),
    }
    small = ((1, 3, 3, 4, 5), _weight(3))

    def test_every_layout(self) -> None:
        """Within the error budget: tiles differ with the layout, and in the interpreter numpy's matrix product rounds
        a row by where in the tile it stands."""
        inputs = self.draw(self.small, torch.float32)
        kinds = [layouts(value) for value in inputs]
        assert {"transposed", "spaced", "channels-last"} == kinds[0].keys() == kinds[1].keys()
        for name in kinds[0]:
            check_parity(self.operation, [kind[name] for kind in kinds])


class TestWithBias(OperationTests):
    operation = OPERATION
    shapes: ClassVar[dict[str, Shapes]] = {"prime": ((2, 3, 2, 5, 7), _weight(3), (1,))}
    small = ((1, 2, 2, 3, 4), _weight(2), (1,))

    def test_every_layout(self) -> None:
        """A bias has one."""


@pytest.mark.cpu
def test_the_definition_element_by_element() -> None:
    x, weight, bias = _inputs(1, 2, 3, 3, 4, dtype=torch.float64, bias=True)
    y = single_output_conv3d(x, weight, bias)
    assert y.shape == (1, 1, 3, 3, 4)
    for d, h, w in torch.cartesian_prod(*map(torch.arange, (3, 3, 4))).tolist():
        want = bias[0].clone()
        for i, j, k in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
            at = (d + i - 1, h + j - 1, w + k - 1)
            if all(0 <= n < size for n, size in zip(at, (3, 3, 4), strict=True)):
                want += (weight[0, :, i, j, k] * x[0, :, at[0], at[1], at[2]]).sum()
        torch.testing.assert_close(y[0, 0, d, h, w], want)


@pytest.mark.parametrize("last", [True, False], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [8, 16, 32, 33, 64, 100])
def test_channels(channels: int, dtype: torch.dtype, last: bool) -> None:
    check_parity(OPERATION, _inputs(1, channels, 2, 3, 5, dtype=dtype, last=last, bias=True))


@pytest.mark.parametrize("size", [(3, 20, 70), (5, 70, 20), (9, 33, 3), (2, 3, 300)], ids=str)
@pytest.mark.parametrize("last", [True, False], ids=["channels-last", "contiguous"])
def test_tiles_of_two_byte_types(size: tuple[int, int, int], last: bool) -> None:
    check_parity(OPERATION, _inputs(1, 4, *size, dtype=torch.bfloat16, last=last))


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, most)) for most in (2, 20, 4, 9, 20)]
    dtype = data.draw(st.sampled_from([torch.float64, torch.bfloat16]))
    inputs = _inputs(*shape, dtype=dtype, last=data.draw(st.booleans()), bias=data.draw(st.booleans()))
    check_parity(OPERATION, inputs, epsilon=1e-12 if dtype == torch.float64 else None)


@pytest.mark.parametrize("cut", ["channels", "planes", "rows", "columns", "expanded", "flipped", "one of two columns"])
def test_parts_of_tensors(cut: str) -> None:
    """Strides that no layout has; gaps, and a stride of 0."""
    x, weight = _inputs(2, 8, 6, 8, 10)
    parts = {
        "channels": x[:, 2:7],
        "planes": x[:, :5, ::2],
        "rows": x[:, :5, :, 1::3],
        "columns": x[:, :5, :, :, 3:9],
        "expanded": x[:, :5, :1].expand(-1, -1, 4, -1, -1),
        "flipped": x[:, :5].transpose(2, 4),
        "one of two columns": x[:, :5, ..., :2].contiguous()[..., ::2],
    }
    part, taps = parts[cut].to(DEVICE), weight[:, 1:6].to(DEVICE)
    g = torch.randn(part[:, :1].shape, device=DEVICE)
    if cut != "one of two columns":  # whose positions would lie at one stride otherwise
        g = g.transpose(2, 3).contiguous().transpose(2, 3)
    found = []
    for run in (OPERATION.triton, OPERATION.torch):
        given = [part.detach().requires_grad_(), taps.detach().requires_grad_()]
        (y,) = run(*given)
        found.append([y, *torch.autograd.grad(y, given, g)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_only_the_gradients_that_are_asked_for(needed: tuple[int, ...]) -> None:
    inputs = leaves(_inputs(1, 3, 3, 4, 5, bias=True))
    for number, value in enumerate(inputs):
        value.requires_grad_(number in needed)
    wanted = [inputs[number] for number in needed]
    y, same = single_output_conv3d(*inputs, backend="triton"), reference.single_output_conv3d(*inputs)
    grad_output = torch.randn_like(y)
    for got, want in zip(
        torch.autograd.grad(y, wanted, grad_output), torch.autograd.grad(same, wanted, grad_output), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_a_constant_grad_output_without_memory() -> None:
    """As y.sum() gives it: all strides 0."""
    inputs = leaves(_inputs(1, 3, 3, 4, 5))
    found = [torch.autograd.grad(run(*inputs)[0].sum(), inputs) for run in (OPERATION.triton, OPERATION.torch)]
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_gradients_lie_in_memory_as_the_inputs_do() -> None:
    inputs = leaves(_inputs(1, 4, 3, 4, 5))
    y = single_output_conv3d(*inputs, backend="triton")
    for value, gradient in zip(inputs, torch.autograd.grad(y.sum(), inputs), strict=True):
        assert gradient.stride() == value.stride()


@pytest.mark.parametrize("last", [True, False], ids=["channels-last", "contiguous"])
def test_offsets_of_64_bits_give_the_same(last: bool) -> None:
    inputs = _inputs(2, 5, 4, 9, 13, last=last)
    grad_output = torch.randn(2, 1, 4, 9, 13)

    def both_ways() -> list[Tensor]:
        given = leaves(inputs)
        y = single_output_conv3d(*given, backend="triton")
        return [y, *torch.autograd.grad(y, given, grad_output.to(y))]

    narrow = both_ways()
    with plans.offsets_of_64_bits(launch):
        wide = both_ways()
        check_parity(OPERATION, _inputs(1, 5, 3, 9, 13, dtype=torch.bfloat16, last=last))  # in smaller tiles
    for one, other in zip(narrow, wide, strict=True):
        same_but_for_rounding(one, other)


@pytest.mark.slow
def test_more_than_int32_elements() -> None:
    """The second image starts 2³¹ elements after the first."""
    shape, one = (2, 4, 3, 5, 6), 4 * 3 * 5 * 6
    memory = memory_beyond_int32(one)
    strides = (2**31, 1, 5 * 6 * 4, 6 * 4, 4)
    x = torch.as_strided(memory, shape, strides)
    plain, weight = _inputs(*shape, dtype=torch.float16)
    x.copy_(plain)
    got = single_output_conv3d(x, weight.to(DEVICE), backend="triton")
    assert torch.equal(got, single_output_conv3d(plain.to(DEVICE), weight.to(DEVICE), backend="triton"))


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_s_type(backend: str, dtype: torch.dtype) -> None:
    """As conv3d: what comes in, but float64, is cast to autocast's type; gradients come back in their own."""
    inputs = leaves(_inputs(1, 3, 3, 4, 5, dtype=dtype, bias=True))
    with torch.autocast(DEVICE, torch.bfloat16):
        y = single_output_conv3d(*inputs, backend=backend)
        if dtype != torch.float64:
            assert y.dtype == F.conv3d(*inputs, padding=1).dtype
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.bfloat16)
    grads = torch.autograd.grad(y.sum(), inputs)
    assert [g.dtype for g in grads] == [dtype] * 3
    exact = reference.single_output_conv3d(*(v.detach().double() for v in inputs))
    torch.testing.assert_close(y.double(), exact, rtol=2e-2, atol=1e-1)


def test_x_and_the_weight_are_all_that_is_kept() -> None:
    inputs = leaves(_inputs(1, 4, 3, 4, 5))
    assert saved_bytes(lambda: single_output_conv3d(*inputs, backend="triton"), inputs) == 0


def test_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward; backward one, and one that adds up the weight's partial sums."""
    started = []
    run = runtime.run
    monkeypatch.setattr(runtime, "run", lambda kernel, *a, **o: (started.append(kernel.__name__), run(kernel, *a, **o)))
    inputs = leaves(_inputs(1, 4, 3, 4, 5))
    y = single_output_conv3d(*inputs, backend="triton")
    assert started == ["convolution"]
    torch.autograd.grad(y.sum(), inputs)
    assert started == ["convolution", "convolution_backward", "add_parts"]


@pytest.mark.cpu
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (64, 128), (96, 312), (33, 47), (7, 5), (1000, 3)])
@pytest.mark.parametrize(("positions", "columns"), [(64, 0), (64, 16), (256, 0), (256, 32)])
def test_tiles_cover_the_image_once(height: int, width: int, columns: int, positions: int) -> None:
    tile = launch.tile_shape(height, width, positions, columns)
    assert tile.rows * tile.columns <= positions
    inner_h, inner_w = tile.rows - 2 * tile.halo_h, tile.columns - 2 * tile.halo_w
    assert (tile.tiles_h - 1) * inner_h < height <= tile.tiles_h * inner_h
    assert (tile.tiles_w - 1) * inner_w < width <= tile.tiles_w * inner_w
    # Without a border the neighbours of what is written are in the tile, or outside of the image.
    assert tile.halo_h or tile.rows >= height
    assert tile.halo_w or tile.columns >= width


def _refused(**changed: Any) -> dict[str, Any]:
    x, weight, bias = _inputs(1, 3, 2, 3, 4, bias=True)
    return {"x": x, "weight": weight, "bias": bias} | changed


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x: expected a tensor B×C×D×H×W, got list"),
        ({"x": torch.rand(3, 2, 3, 4, device="cpu")}, ValueError, "x: expected B×C×D×H×W, got 3×2×3×4"),
        ({"x": torch.rand(1, 3, 0, 3, 4, device="cpu")}, ValueError, "x: expected at least one element per dimension"),
        (
            {"x": torch.ones(1, 3, 2, 3, 4, dtype=torch.int32, device="cpu")},
            TypeError,
            "x: expected a floating-point tensor",
        ),
        ({"weight": torch.rand(2, 3, 3, 3, 3, device="cpu")}, ValueError, "weight: expected 1×C×3×3×3, got 2×3×3×3×3"),
        ({"weight": torch.rand(1, 4, 3, 3, 3, device="cpu")}, ValueError, "weight: expected 1×3×3×3×3, got 1×4×3×3×3"),
        ({"weight": torch.rand(1, 3, 3, 3, 5, device="cpu")}, ValueError, "weight: expected 1×3×3×3×3, got 1×3×3×3×5"),
        (
            {"weight": torch.rand(1, 3, 3, 3, 3, device="cpu").double()},
            TypeError,
            "weight: expected the dtype of x, torch.float32",
        ),
        ({"weight": torch.rand(1, 3, 3, 3, 3, device="meta")}, ValueError, "weight: expected the device of x, cpu"),
        ({"bias": torch.rand(2, device="cpu")}, ValueError, "bias: expected 1, got 2"),
        ({"bias": torch.rand(1, device="cpu").half()}, TypeError, "bias: expected the dtype of x, torch.float32"),
        ({"bias": 1.0}, TypeError, "bias: expected a tensor 1, got float"),
    ],
)
def test_what_is_refused_is_named(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        single_output_conv3d(**_refused(**changed))
