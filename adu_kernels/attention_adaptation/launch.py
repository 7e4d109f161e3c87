"""How the kernels are started: memory layouts, what each kernel is compiled for, PyTorch's operators.

Triton is imported only where a kernel runs. The launch table is in table.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import accumulator, factor
from .._triton.layout import INT32_LIMIT, by_layout, ceil_div, power_of_two
from .._triton.operators import Operator
from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype
from . import table

if TYPE_CHECKING:
    from .tiles import AttentionConfig

WIDEST_HEAD = 128
"""Channels per head that the kernels take: the accumulators of more would not stay in registers."""
WIDEST_LOAD = 16
"""Bytes; what a stride is a multiple of beyond this changes no load."""


class Attended(NamedTuple):
    """What the forward was given, and what it found."""

    query: Tensor
    key: Tensor
    value: Tensor
    key_bias: Tensor | None
    scale: float
    out: Tensor
    row_max: Tensor
    log_row_sum: Tensor


def like(tensor: Tensor) -> Tensor:
    """Unwritten memory of the tensor's shape, dense, its axes in the tensor's own order of N, d and heads.

    So a result stands in memory as the map it came from: tokens × channels for a channels-last map, channels × tokens
    for a contiguous one, B×heads×N×d for a contiguous tensor; the convolution that reads it next needs no copy.
    """
    batch, heads, tokens, width = tensor.shape
    if tensor.stride(3) > tensor.stride(2):
        return tensor.new_empty((batch, heads, width, tokens)).transpose(2, 3)
    if tensor.stride(1) < tensor.stride(2):
        return tensor.new_empty((batch, tokens, heads, width)).transpose(1, 2)
    return tensor.new_empty((batch, heads, tokens, width))


def new_output(query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The forward's results, unwritten: the output, and two numbers per query, B×heads×N each."""
    dtype = accumulation_dtype(query)
    return like(query), query.new_empty(query.shape[:3], dtype=dtype), query.new_empty(query.shape[:3], dtype=dtype)


@by_layout
def divisor_and_strides(tensor: Tensor) -> tuple[int, list[int]]:
    """What tiles.py calls the layout's DIVISOR, and the strides in its units (those of axes of size 1 are 0)."""
    strides = [0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    widest = WIDEST_LOAD // tensor.element_size()
    for axis, sign in ((3, 1), (2, -1)):
        if tensor.stride(axis) == 1 or (axis == 3 and tensor.shape[axis] == 1):
            others = [stride for other, stride in enumerate(strides) if other != axis]
            unit = math.gcd(widest, *others)
            return sign * unit, [stride // unit for stride in strides]
    return 0, strides


def tile_needs_int64(tensors: Iterable[Tensor], block: int) -> bool:
    """Whether a tile of so many tokens may reach 2³¹ elements or further from its first."""
    return any((block - 1) * t.stride(2) + (t.shape[3] - 1) * t.stride(3) >= INT32_LIMIT for t in tensors)


def forward(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for the backward, per query, the largest score and log₂ Σ exp2(score − largest)."""
    from . import kernels

    out, row_max, log_row_sum = new_output(query)
    tensors = {"Q": query, "K": key, "V": value, "O": out}
    tile = _launch_shape(tensors).forward
    batch, heads, queries, _ = query.shape
    tiles = ceil_div(queries, tile.queries)
    in_parts = table.multiplies_in_parts(query)
    config, strides = _config(tensors, tile.queries, tile.keys, in_parts, HAS_BIAS=key_bias is not None)
    runtime.run(
        kernels.forward, batch * heads * tiles,
        query, key, value, _present(key_bias, row_max), out, row_max, log_row_sum,
        heads, queries, key.shape[2], tiles, *_two_floats(scale), *strides, *_bias_strides(key_bias),
        config=config, **tile.options(key_bias is not None),
    )  # fmt: skip
    return out, row_max, log_row_sum


def gradients(
    grad_output: Tensor, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, out: Tensor,
    row_max: Tensor, log_row_sum: Tensor, scale: float, needed: list[bool],
) -> list[Tensor]:  # fmt: skip
    """Of those of query, key, value and key_bias that are needed, in order."""
    attended = Attended(query, key, value, key_bias, scale, out, row_max, log_row_sum)
    bias_needed = needed[3] and key_bias is not None
    delta = torch.empty_like(row_max)
    found: list[Tensor | None] = [_backward_queries(grad_output, attended, delta, bias_needed), None, None, None]
    if needed[1] or needed[2] or bias_needed:
        found[1:] = _backward_keys(grad_output, attended, delta, bias_needed)
    return [gradient for gradient, wanted in zip(found, needed, strict=True) if wanted and gradient is not None]


def _backward_queries(grad_output: Tensor, attended: Attended, delta: Tensor, bias_needed: bool) -> Tensor:
    """dQ; fills delta. First, since the keys' pass reads delta: here dO is loaded anyway."""
    from . import backward_kernels

    query, key, value, key_bias, scale, out, row_max, log_row_sum = attended
    gradient = like(query)
    tensors = {"Q": query, "K": key, "V": value, "O": out, "DO": grad_output, "DQ": gradient}
    shape, exact = _launch_shape(tensors), bias_needed and out.dtype != delta.dtype
    tile = shape.exact_delta or shape.backward_queries if exact else shape.backward_queries
    batch, heads, queries, _ = query.shape
    tiles = ceil_div(queries, tile.queries)
    biased = key_bias is not None
    in_parts = table.multiplies_in_parts(query)
    config, strides = _config(tensors, tile.queries, tile.keys, in_parts, HAS_BIAS=biased, EXACT_DELTA=exact)
    runtime.run(
        backward_kernels.backward_queries, batch * heads * tiles,
        query, key, value, _present(key_bias, row_max), out, row_max, log_row_sum, grad_output, delta, gradient,
        heads, queries, key.shape[2], tiles, *_two_floats(scale), *strides, *_bias_strides(key_bias),
        config=config, **tile.options(biased),
    )  # fmt: skip
    return gradient


def _backward_keys(
    grad_output: Tensor, attended: Attended, delta: Tensor, bias_needed: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """dK, dV and, where needed, the gradient of the bias."""
    from . import backward_kernels

    query, key, value, key_bias, scale, _, row_max, log_row_sum = attended
    grad_key, grad_value = like(key), like(value)
    shape = _launch_shape({"Q": query, "K": key, "V": value, "DO": grad_output})
    tile = shape.backward_keys
    if shape.keys_from_registers and not runtime.products_from_shared_memory():
        tile = shape.keys_from_registers
    (batch, heads, queries, width), keys = query.shape, key.shape[2]
    tiles = ceil_div(keys, tile.keys)
    splits, chunk = table.split_queries(batch * heads * tiles, queries, tile.queries)
    to_key, to_value = grad_key, grad_value
    if splits > 1:
        to_key, to_value = (row_max.new_empty((splits * batch, heads, keys, width)) for _ in range(2))
    bias_parts = row_max.new_empty((splits, batch, heads, keys)) if bias_needed else delta
    tensors = {"Q": query, "K": key, "V": value, "DO": grad_output, "DK": to_key, "DV": to_value}
    biased = key_bias is not None
    in_parts = table.multiplies_in_parts(query)
    config, strides = _config(tensors, tile.queries, tile.keys, in_parts, HAS_BIAS=biased, NEED_BIAS=bias_needed)
    runtime.run(
        backward_kernels.backward_keys, batch * heads * tiles * splits,
        query, key, value, _present(key_bias, row_max), row_max, log_row_sum, grad_output, delta, to_key, to_value,
        bias_parts, batch, heads, queries, keys, tiles, splits, chunk, *_two_floats(scale), *strides,
        *_bias_strides(key_bias), config=config, **tile.options(False),
    )  # fmt: skip
    if splits > 1:
        _add_parts(to_key, to_value, grad_key, grad_value)
    if not bias_needed or key_bias is None:
        return grad_key, grad_value, None
    return grad_key, grad_value, bias_parts.sum((0, 2)).to(key_bias.dtype)


def _add_parts(key_parts: Tensor, value_parts: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
    from . import backward_kernels

    batch, heads, keys, _ = grad_key.shape
    tiles = ceil_div(keys, table.ADD_KEYS)
    config, strides = _config({"PARTS": key_parts, "DK": grad_key, "DV": grad_value}, 1, table.ADD_KEYS, False)
    runtime.run(
        backward_kernels.add_parts, batch * heads * tiles,
        key_parts, value_parts, grad_key, grad_value, batch, heads, keys, tiles, key_parts.shape[0] // batch, *strides,
        config=config, num_warps=128 // runtime.WARP_SIZE, enable_fp_fusion=False,
    )  # fmt: skip


def _launch_shape(tensors: dict[str, Tensor]) -> table.LaunchShape:
    return table.launch_shape(tensors["Q"], all(divisor_and_strides(tensor)[0] > 0 for tensor in tensors.values()))


@by_layout
def _config(
    tensors: dict[str, Tensor], queries: int, keys: int, in_parts: bool, HAS_BIAS: bool = False, **options: bool
) -> tuple[AttentionConfig, list[int]]:
    """What a kernel is compiled for, and the strides of its tensors, in order. queries, keys: of a tile."""
    from .tiles import AttentionConfig

    described = {name: divisor_and_strides(tensor) for name, tensor in tensors.items()}
    divisors: dict[str, Any] = {f"{name}_DIVISOR": divisor for name, (divisor, _) in described.items()}
    first = next(iter(tensors.values()))
    config = AttentionConfig(
        D=first.shape[3],
        BLOCK_D=max(16, power_of_two(first.shape[3])),  # what the matrix units want
        BLOCK_Q=queries,
        BLOCK_K=keys,
        HAS_BIAS=HAS_BIAS,
        INT64=tile_needs_int64(tensors.values(), max(queries, keys)),
        DOT=str(factor(first)),
        ACC=str(accumulator(first)),
        IN_PARTS=in_parts and not runtime.interpreting(),
        **divisors,
        **options,
    )
    return config, [stride for _, strides in described.values() for stride in strides]


def _two_floats(number: float) -> tuple[float, float]:
    """The number as a sum of two that fp32 holds: kernel arguments are fp32, and fp64 needs more of it."""
    near = float(np.float32(number))
    return near, number - near


def _present(key_bias: Tensor | None, other: Tensor) -> Tensor:
    """The bias, or something that stands in its place and is not read."""
    return other if key_bias is None else key_bias


def _bias_strides(key_bias: Tensor | None) -> tuple[int, int]:
    return (0, 0) if key_bias is None else (key_bias.stride(0), key_bias.stride(1))


attention = Operator("adu_kernels::attention_adaptation", forward)
attention_backward = Operator("adu_kernels::attention_adaptation_backward", gradients)


@attention.register_fake
def _(query, key, value, key_bias, scale):  # type: ignore[no-untyped-def]
    return new_output(query)


@attention_backward.register_fake
def _(grad_output, query, key, value, key_bias, out, row_max, log_row_sum, scale, needed):  # type: ignore[no-untyped-def]
    grads = [like(tensor) for tensor, need in zip((query, key, value), needed[:3], strict=True) if need]
    return [*grads, key_bias.new_empty(key_bias.shape)] if needed[3] else grads


def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    out, row_max, log_row_sum = output
    keep(ctx, "attention_adaptation", [*tensors, row_max, log_row_sum], [out])
    ctx.mark_non_differentiable(row_max, log_row_sum)
    ctx.set_materialize_grads(False)


def backward(ctx, grad_output, *_):  # type: ignore[no-untyped-def]
    needed = list(ctx.needs_input_grad[:4])
    if grad_output is None:
        return (None,) * 5
    (*tensors, row_max, log_row_sum), (out,) = kept(ctx, lambda *inputs: attention(*inputs[:4], ctx.scale)[:1])
    grads = iter(attention_backward(grad_output, *tensors, out, row_max, log_row_sum, ctx.scale, needed))
    return *(next(grads) if need else None for need in needed), None


differentiable_once(
    attention,
    attention_backward,
    setup_context=setup_context,
    backward=backward,
    operation=lambda *_: "attention_adaptation",
)


def attention_adaptation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    softmax_scale: float | None = None,
) -> Tensor:
    if query.shape[-1] > WIDEST_HEAD:
        raise ValueError(
            f"query: expected at most {WIDEST_HEAD} channels per head with backend='triton', got {query.shape[-1]}"
        )
    scale = query.shape[-1] ** -0.5 if softmax_scale is None else float(softmax_scale)
    out, *_ = attention(query, key, value, key_bias, scale)
    return out
