"""Launches of the layers that cost most: convolutions, norms, matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod

from adu_kernels.testing.fake_cuda.recorder import Row, TensorInfo
from adu_kernels.testing.fake_cuda.rules import layout_conversions
from bench.step_model.launch import Launch, Unit, full, relayout, size

WARPS_OF_A_NORM = 132 * 4
"""Blocks of GroupNorm's statistics that run at once on an H100."""
CYCLES_FORWARD, CYCLES_BACKWARD = 200.0, 150.0
"""Of a block's round over 512 elements."""


def padded(count: int, tile: int) -> int:
    return -(-count // tile) * tile


def unit_of(tensor: TensorInfo) -> Unit:
    """fp32 convolutions run in TF32 unless the user says otherwise."""
    return "tf32" if tensor.dtype == "float32" else "matrix"


def convolution(row: Row) -> list[Launch]:
    x, weight = row.inputs[:2]
    (out,) = row.outputs
    inputs, outputs, pixels, kernel, groups, depthwise = _sizes(row, x, weight, out)
    flops = 2.0 * pixels * inputs * outputs * kernel / groups
    tiles = 2.0 * pixels * padded(inputs // groups, 32) * padded(outputs // groups, 64) * groups * kernel
    moved = size([x, weight, out])
    found = [relayout(t) for t in layout_conversions(row)]
    if depthwise:
        found.append(Launch("convolution", moved, flops, "vector", padded=4 * flops))
    else:
        found.append(Launch("convolution", moved, flops, unit_of(x), padded=tiles))
    if len(row.inputs) > 2:  # the bias
        found.append(Launch("elementwise", 2.0 * out.bytes))
    return found


def convolution_backward(row: Row) -> list[Launch]:
    gradient, x, weight = row.inputs[:3]
    of_input, of_weight, of_bias = row.facts["wanted"]
    outputs = iter(row.outputs)
    inputs, channels, pixels, kernel, groups, depthwise = _sizes(row, x, weight, gradient)
    flops = 2.0 * pixels * inputs * channels * kernel / groups
    unit: Unit = "vector" if depthwise else unit_of(x)
    found = [relayout(t) for t in layout_conversions(row)]
    if of_input:
        tiles = 2.0 * pixels * padded(channels // groups, 32) * padded(inputs // groups, 64) * groups * kernel
        moved = size([gradient, weight, next(outputs)])
        found.append(Launch("convolution", moved, flops, unit, padded=4 * flops if depthwise else tiles))
    if of_weight:
        tiles = 2.0 * pixels * padded(channels // groups, 64) * padded(inputs // groups * kernel, 64) * groups
        moved = size([gradient, x, next(outputs)])
        found.append(Launch("convolution", moved, flops, unit, padded=8 * flops if depthwise else tiles))
    if of_bias:
        found.append(Launch("reduction", float(gradient.bytes)))
    return found


def _sizes(row: Row, x: TensorInfo, weight: TensorInfo, out: TensorInfo) -> tuple[int, int, int, int, int, bool]:
    """Channels in and out, positions of the kernel, its taps, groups, and whether each channel is one."""
    groups = row.facts["groups"]
    if row.facts["transposed"]:
        inputs, outputs, pixels = weight.shape[0], weight.shape[1] * groups, full(x) // x.shape[1]
    else:
        inputs, outputs, pixels = weight.shape[1] * groups, weight.shape[0], full(out) // out.shape[1]
    return inputs, outputs, pixels, prod(weight.shape[2:]), groups, groups > 1 and groups == inputs


def group_norm(row: Row) -> list[Launch]:
    """ATen's: statistics with a block for each group of an image, coefficients, the map itself."""
    x = row.inputs[0]
    images, channels = x.shape[:2]
    groups = row.outputs[1].shape[1] if len(row.outputs) > 1 else gcd(channels, 8)
    rounds = _rounds(full(x), images * groups)
    return [
        Launch("norm", float(x.bytes), cycles=rounds * CYCLES_FORWARD),
        Launch("norm", 16.0 * images * channels),
        Launch("norm", 2.0 * x.bytes),
    ]


def group_norm_backward(row: Row) -> list[Launch]:
    gradient, x = row.inputs[:2]
    images, channels = x.shape[:2]
    rounds = _rounds(full(x), images * channels)
    return [
        *(relayout(t) for t in (gradient, x) if not t.contiguous),
        Launch("norm", 2.0 * x.bytes, cycles=rounds * CYCLES_BACKWARD),
        Launch("norm", 16.0 * images * channels, count=3),
        Launch("norm", 3.0 * x.bytes),
    ]


def _rounds(elements: int, blocks: int) -> int:
    return -(-elements // blocks // 512) * -(-blocks // WARPS_OF_A_NORM)


def batch_norm(row: Row) -> list[Launch]:
    return [Launch("norm", 3.0 * row.inputs[0].bytes)]


def batch_norm_backward(row: Row) -> list[Launch]:
    return [Launch("norm", 5.0 * max(t.bytes for t in row.inputs[:2]))]


def layer_norm(row: Row) -> list[Launch]:
    return [Launch("norm", float(row.inputs[0].bytes + row.outputs[0].bytes))]


def layer_norm_backward(row: Row) -> list[Launch]:
    x = float(row.inputs[0].bytes)
    return [Launch("norm", 3 * x), Launch("norm", 2 * x)]


def product(row: Row) -> list[Launch]:
    first = 1 if row.name in ("addmm", "baddbmm") else 0
    a, b = row.inputs[first : first + 2]
    flops = 2.0 * full(a) * b.shape[-1]
    unit: Unit = "vector" if a.dtype == "float32" else "matrix"  # torch's default: no TF32 in products
    return [Launch("product", size(row.inputs) + size(row.outputs), flops, unit)]


def attention(row: Row) -> list[Launch]:
    backward = "backward" in row.name
    query, key = row.inputs[1:3] if backward else row.inputs[:2]
    flops = 4.0 * full(query) * key.shape[2] * (2.5 if backward else 1.0)
    unit: Unit = "vector" if query.dtype == "float32" else "matrix"
    return [Launch("product", size(row.inputs) + size(row.outputs), flops, unit)]


SDPA = ("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention")  # fmt: skip


def _named(names: Sequence[str], cost: Callable[[Row], list[Launch]]) -> dict[str, Callable[[Row], list[Launch]]]:
    return dict.fromkeys(names, cost)


LAYERS: dict[str, Callable[[Row], list[Launch]]] = {
    "convolution": convolution,
    "convolution_backward": convolution_backward,
    "native_group_norm": group_norm,
    "native_group_norm_backward": group_norm_backward,
    "native_layer_norm": layer_norm,
    "native_layer_norm_backward": layer_norm_backward,
    **_named(["cudnn_batch_norm", "native_batch_norm", "_batch_norm_with_update"], batch_norm),
    **_named(["cudnn_batch_norm_backward", "native_batch_norm_backward", "batch_norm_backward"], batch_norm_backward),
    **_named(["mm", "addmm", "bmm", "baddbmm"], product),
    **_named([name + end for name in SDPA for end in ("", "_backward")], attention),
}
"""By the operation's name."""
