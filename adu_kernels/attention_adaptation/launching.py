"""Starts the kernels of this room: the launch table, and what each kernel is compiled for. Arguments are checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from .._triton import runtime
from .._triton.layout import ceil_div
from . import kernels, layout


@dataclass(frozen=True)
class Tile:
    """One program: queries × keys a step, threads, and how many tiles of what it walks over are in shared memory."""

    queries: int
    keys: int
    threads: int
    stages: int

    def options(self, masked_by_load: bool) -> dict[str, int]:
        """num_warps and num_stages.

        masked_by_load: which keys are read depends on the bias, itself a load of the same loop. The pipeline gives
        every load of such a chain as many steps, so the same number of tiles takes 2·stages − 1. A wavefront of 64
        means AMD's 64 KB of shared memory: two tiles there.
        """
        stages = 2 * self.stages - 1 if masked_by_load else self.stages
        return {
            "num_warps": self.threads // runtime.WARP_SIZE,
            "num_stages": min(stages, 2) if runtime.WARP_SIZE == 64 else stages,
            "enable_fp_fusion": False,  # every fused multiply-add is written in kernels.py
        }


@dataclass(frozen=True)
class LaunchShape:
    """How the passes divide their work for heads of up to `width` channels in types of up to `itemsize` bytes."""

    itemsize: int
    width: int
    forward: Tile
    backward_queries: Tile
    backward_keys: Tile
    exact_delta: Tile | None = None
    """`backward_queries` of half precision where the bias wants a gradient, if another one: it sums dS as well."""
    keys_from_registers: Tile | None = None
    """`backward_keys` on matrix units that take their factors from registers, if another one."""


# Chosen from the machine code of sm_80, sm_90, sm_100 and gfx942: no spills anywhere, and registers and shared memory
# that let as many programs as possible share a multiprocessor. Rows up to 64 channels of half precision are measured
# (H200, Triton 3.6.0, bench/results/h200: bf16 with a bias, B 8, N 7488, M 832).
LAUNCH_SHAPES = (
    # 2 heads of 32: forward 87 µs, with 128×64 queries × keys 103; the keys' pass takes 293 of 337 µs backward.
    LaunchShape(
        2,
        32,
        Tile(64, 128, 128, 3),
        Tile(128, 64, 256, 3),
        Tile(64, 64, 128, 2),
        Tile(128, 32, 256, 3),
        keys_from_registers=Tile(32, 128, 256, 3),
    ),
    # Half precision, two groups of four warps with 64 rows each, the height of a Hopper product. On sm_90 the passes of
    # the queries need 125 and 128 registers: two programs a multiprocessor, one's exponentials beside the other's
    # products. The keys' pass holds two accumulators: with 32×128 queries × keys 819 µs backward (4 heads of 64), with
    # 64×64 747. That spills 80 bytes on sm_80 and 144 on sm_120, where 32×128 does not.
    # With the sum of dS 64 keys take 204 registers on sm_90, one program a multiprocessor; 32 keys take 119.
    LaunchShape(
        2,
        64,
        Tile(128, 64, 256, 3),
        Tile(128, 64, 256, 3),
        Tile(64, 64, 128, 2),
        Tile(128, 32, 256, 3),
        keys_from_registers=Tile(32, 128, 256, 3),
    ),
    # Twice the accumulators: 32 keys at a time. 16 queries are what does not spill on sm_80 (32: 344 bytes), with the
    # sum of dS 16 keys (32: 24 bytes).
    LaunchShape(2, 128, Tile(128, 32, 256, 3), Tile(128, 32, 256, 3), Tile(16, 128, 256, 2), Tile(128, 16, 256, 3)),
    # True fp32 has no matrix unit on NVIDIA: each thread holds whole rows of both factors, so tiles are small.
    LaunchShape(4, 32, Tile(64, 32, 256, 2), Tile(32, 32, 256, 2), Tile(32, 32, 256, 2)),
    LaunchShape(4, 64, Tile(32, 16, 256, 2), Tile(16, 16, 256, 2), Tile(16, 16, 256, 2)),
    # The smallest tile a product takes; its backward passes spill some 250 bytes a thread on NVIDIA.
    LaunchShape(4, 128, Tile(16, 16, 256, 2), Tile(16, 16, 256, 2), Tile(16, 16, 256, 2)),
    LaunchShape(8, 128, Tile(16, 16, 128, 1), Tile(16, 16, 128, 1), Tile(16, 16, 128, 1)),
)
# Half precision with channels that are not neighbours: loads of 2 bytes, which cannot run ahead into shared memory.
# Spills where a head has more than 64 channels.
OTHER_LAYOUT = LaunchShape(
    2, 128, Tile(64, 32, 128, 1), Tile(64, 32, 128, 1), Tile(32, 64, 128, 1), exact_delta=Tile(64, 16, 128, 1)
)
# The wide heads of half precision, within AMD's 64 KB.
WIDE_ON_AMD = LaunchShape(2, 128, Tile(128, 32, 256, 2), Tile(64, 32, 256, 2), Tile(16, 64, 256, 2))

PROGRAMS_WANTED = 264
"""The keys' pass splits the queries until it has so many programs: two for each of an H200's 132 multiprocessors."""
FEWEST_QUERIES = 512
"""No split gets fewer queries than this, for its parts are written and read again."""
ADD_KEYS = 32
"""Keys per program of `add_parts`."""


def launch_shape(query: Tensor, tensors: Iterable[Tensor]) -> LaunchShape:
    """The row for queries of this type and width, where `tensors` are all that a kernel reads and writes."""
    itemsize, width = query.element_size(), query.shape[3]
    if itemsize == 2 and any(layout.run_and_strides(tensor)[0] <= 0 for tensor in tensors):
        return OTHER_LAYOUT
    if itemsize == 2 and width > 64 and runtime.WARP_SIZE == 64:
        return WIDE_ON_AMD
    return next(shape for shape in LAUNCH_SHAPES if itemsize <= shape.itemsize and width <= shape.width)


def forward(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output and, per query, the largest score and log₂ Σ exp2(score − largest)."""
    out, peak, log_mass = layout.new_output(query)
    tensors = {"Q": query, "K": key, "V": value, "O": out}
    tile = launch_shape(query, tensors.values()).forward
    batch, heads, queries, _ = query.shape
    tiles = ceil_div(queries, tile.queries)
    constants, strides = _constants(tile, tensors, key_bias)
    runtime.run(
        kernels.forward, batch * heads * tiles,
        query, key, value, _present(key_bias, peak), out, peak, log_mass,
        heads, queries, key.shape[2], tiles, *_two_floats(scale), *strides, *_bias_strides(key_bias),
        **constants, **tile.options(key_bias is not None),
    )  # fmt: skip
    return out, peak, log_mass


def backward(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    out: Tensor,
    peak: Tensor,
    log_mass: Tensor,
    scale: float,
    needed: Sequence[bool],
) -> list[Tensor]:
    """The gradients of those of query, key, value and key_bias that are needed, in order."""
    bias_needed = needed[3] and key_bias is not None
    delta = torch.empty_like(peak)
    grad_query = _backward_queries(
        upstream, query, key, value, key_bias, out, peak, log_mass, delta, scale, bias_needed
    )
    found: list[Tensor | None] = [grad_query, None, None, None]
    if needed[1] or needed[2] or bias_needed:
        found[1:] = _backward_keys(upstream, query, key, value, key_bias, peak, log_mass, delta, scale, bias_needed)
    return [gradient for gradient, wanted in zip(found, needed, strict=True) if wanted and gradient is not None]


def _backward_queries(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, out: Tensor, peak: Tensor,
    log_mass: Tensor, delta: Tensor, scale: float, bias_needed: bool,
) -> Tensor:  # fmt: skip
    """dQ; fills delta. First, since the keys' pass reads delta: here dO is loaded anyway."""
    gradient = layout.like(query)
    tensors = {"Q": query, "K": key, "V": value, "O": out, "DO": upstream, "DQ": gradient}
    shape, exact = launch_shape(query, tensors.values()), bias_needed and out.dtype != delta.dtype
    tile = shape.exact_delta or shape.backward_queries if exact else shape.backward_queries
    batch, heads, queries, _ = query.shape
    tiles = ceil_div(queries, tile.queries)
    constants, strides = _constants(tile, tensors, key_bias)
    runtime.run(
        kernels.backward_queries, batch * heads * tiles,
        query, key, value, _present(key_bias, peak), out, peak, log_mass, upstream, delta, gradient,
        heads, queries, key.shape[2], tiles, *_two_floats(scale), *strides, *_bias_strides(key_bias),
        EXACT=exact, **constants, **tile.options(key_bias is not None),
    )  # fmt: skip
    return gradient


def _backward_keys(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, peak: Tensor,
    log_mass: Tensor, delta: Tensor, scale: float, bias_needed: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """dK, dV and, where needed, the gradient of the bias."""
    grad_key, grad_value = layout.like(key), layout.like(value)
    shape = launch_shape(query, (query, key, value, upstream))
    tile = shape.backward_keys
    if shape.keys_from_registers and not runtime.products_from_shared_memory():
        tile = shape.keys_from_registers
    (batch, heads, queries, width), keys = query.shape, key.shape[2]
    tiles = ceil_div(keys, tile.keys)
    splits, chunk = split_queries(batch * heads * tiles, queries, tile.queries)
    to_key, to_value = grad_key, grad_value
    if splits > 1:
        to_key, to_value = (peak.new_empty((splits * batch, heads, keys, width)) for _ in range(2))
    bias_parts = peak.new_empty((splits, batch, heads, keys)) if bias_needed else delta
    tensors = {"Q": query, "K": key, "V": value, "DO": upstream, "DK": to_key, "DV": to_value}
    constants, strides = _constants(tile, tensors, key_bias)
    runtime.run(
        kernels.backward_keys, batch * heads * tiles * splits,
        query, key, value, _present(key_bias, peak), peak, log_mass, upstream, delta, to_key, to_value, bias_parts,
        batch, heads, queries, keys, tiles, splits, chunk, *_two_floats(scale), *strides, *_bias_strides(key_bias),
        NEED_BIAS=bias_needed, **constants, **tile.options(False),
    )  # fmt: skip
    if splits > 1:
        _add_parts(to_key, to_value, grad_key, grad_value)
    if not bias_needed or key_bias is None:
        return grad_key, grad_value, None
    return grad_key, grad_value, bias_parts.sum((0, 2)).to(key_bias.dtype)


def _add_parts(key_parts: Tensor, value_parts: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
    batch, heads, keys, width = grad_key.shape
    block = ADD_KEYS
    runs, strides = _layouts({"PARTS": key_parts, "DK": grad_key, "DV": grad_value})
    tiles = ceil_div(keys, block)
    runtime.run(
        kernels.add_parts, batch * heads * tiles,
        key_parts, value_parts, grad_key, grad_value, batch, heads, keys, tiles, key_parts.shape[0] // batch, *strides,
        D=width, BLOCK_D=_padded(width), BLOCK_K=block,
        INT64=layout.needs_int64([key_parts, grad_key, grad_value], block), num_warps=128 // runtime.WARP_SIZE,
        enable_fp_fusion=False, **runs,
    )  # fmt: skip


def split_queries(programs: int, queries: int, block: int) -> tuple[int, int]:
    """Into how many chunks the queries of a keys' pass of so many programs are cut, and how many each chunk has.

    Sizes alone decide, so the same input is always added up in the same order.
    """
    splits = max(1, min(ceil_div(PROGRAMS_WANTED, programs), queries // FEWEST_QUERIES))
    chunk = ceil_div(ceil_div(queries, splits), block) * block
    return ceil_div(queries, chunk), chunk


def _constants(tile: Tile, tensors: dict[str, Tensor], key_bias: Tensor | None) -> tuple[dict[str, Any], list[int]]:
    """What a kernel is compiled for, and the strides of its tensors, in order."""
    runs, strides = _layouts(tensors)
    query = tensors["Q"]
    constants = {
        "D": query.shape[3], "BLOCK_D": _padded(query.shape[3]), "BLOCK_Q": tile.queries, "BLOCK_K": tile.keys,
        "HAS_BIAS": key_bias is not None,
        "INT64": layout.needs_int64(tensors.values(), max(tile.queries, tile.keys)),
        "DOT": _factor(query), "ACC": tl.float64 if query.dtype == torch.float64 else tl.float32,
    }  # fmt: skip
    return constants | runs, strides


def _layouts(tensors: dict[str, Tensor]) -> tuple[dict[str, int], list[int]]:
    described = {name: layout.run_and_strides(tensor) for name, tensor in tensors.items()}
    runs = {f"{name}_RUN": run for name, (run, _) in described.items()}
    return runs, [stride for _, strides in described.values() for stride in strides]


def _factor(tensor: Tensor) -> tl.dtype:
    """The tensor's own type, but that Triton's interpreter would multiply the bit patterns of bfloat16."""
    if tensor.dtype == torch.bfloat16:
        return tl.float32 if runtime.interpreting() else tl.bfloat16
    return {torch.float16: tl.float16, torch.float32: tl.float32, torch.float64: tl.float64}[tensor.dtype]


def _padded(width: int) -> int:
    """The width of a tile: a power of two, 16 at the least, as the matrix units want it."""
    return max(16, 1 << (width - 1).bit_length())


def _two_floats(number: float) -> tuple[float, float]:
    """The number as a sum of two that fp32 holds: kernel arguments are fp32, and fp64 needs more of it."""
    near = float(np.float32(number))
    return near, number - near


def _present(key_bias: Tensor | None, other: Tensor) -> Tensor:
    """The bias, or something that stands in its place and is not read."""
    return other if key_bias is None else key_bias


def _bias_strides(key_bias: Tensor | None) -> tuple[int, int]:
    return (0, 0) if key_bias is None else (key_bias.stride(0), key_bias.stride(1))
