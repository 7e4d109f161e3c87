"""What was measured, or read from the machine code: the launch table, and where torch's own attention is faster."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._triton import runtime
from .._triton.dtypes import in_parts
from .._triton.layout import ceil_div


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
            "enable_fp_fusion": False,  # every fused multiply-add is written out in the kernels
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
    # 2 heads of 32: forward 87 µs, with 128×64 queries × keys 103. Backward 305 → 278 µs by 64×32 queries × keys where
    # the bias wants a gradient (128×32 before), 298 → 273 by three stages of the keys' pass, not two (65f2ad8).
    # 258 → 243 by 32×64 queries × keys in the keys' pass, not 64×64 (tune at 70ed244).
    LaunchShape(
        2,
        32,
        Tile(64, 128, 128, 3),
        Tile(128, 64, 256, 3),
        Tile(32, 64, 128, 3),
        Tile(64, 32, 128, 3),
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
    # fp32 on AMD, and on NVIDIA the last of these: each thread holds whole rows of both factors, so tiles are small.
    LaunchShape(4, 32, Tile(64, 32, 256, 2), Tile(32, 32, 256, 2), Tile(32, 32, 256, 2)),
    LaunchShape(4, 64, Tile(32, 16, 256, 2), Tile(16, 16, 256, 2), Tile(16, 16, 256, 2)),
    # The smallest tile a product takes; its backward passes spill some 250 bytes a thread on NVIDIA.
    LaunchShape(4, 128, Tile(16, 16, 256, 2), Tile(16, 16, 256, 2), Tile(16, 16, 256, 2)),
    LaunchShape(8, 128, Tile(16, 16, 128, 1), Tile(16, 16, 128, 1), Tile(16, 16, 128, 1)),
)
# fp32 in parts of bf16. Executed counts at 64 channels, of an A100's DRAM time: forward 2.4, queries 3.9, keys 7.3; as
# true fp32 19, 39 and 42. Backward, 32 queries and keys of 64 channels would be 3.1 and 3.9, but spill 0.5 KB a thread.
IN_PARTS = (
    LaunchShape(4, 32, Tile(64, 32, 128, 2), Tile(16, 32, 128, 2), Tile(32, 16, 128, 2)),
    LaunchShape(4, 64, Tile(64, 16, 128, 2), Tile(16, 32, 128, 2), Tile(16, 16, 128, 2)),
)
# Half precision with channels that are not neighbours: loads of 2 bytes, which cannot run ahead into shared memory.
# Spills where a head has more than 64 channels.
OTHER_LAYOUT = LaunchShape(
    2, 128, Tile(64, 32, 128, 1), Tile(64, 32, 128, 1), Tile(32, 64, 128, 1), exact_delta=Tile(64, 16, 128, 1)
)
# The wide heads of half precision, within AMD's 64 KB.
WIDE_ON_AMD = LaunchShape(2, 128, Tile(128, 32, 256, 2), Tile(64, 32, 256, 2), Tile(16, 64, 256, 2))

PROGRAMS_WANTED = 528
"""The keys' pass splits the queries until it has so many programs: four for each of an H200's 132 multiprocessors. With
two, 416 programs for 396 places left 20 to run alone: backward of 2 heads of 32 304 µs, with four 267 (65f2ad8)."""
FEWEST_QUERIES = 512
"""No split gets fewer queries than this, for its parts are written and read again."""
ADD_KEYS = 32
"""Keys per program of `add_parts`."""


def launch_shape(query: Tensor, channels_contiguous: bool) -> LaunchShape:
    """The row for queries of this type and width.

    channels_contiguous: the channels of a head are neighbours in all tensors that a kernel reads and writes.
    """
    itemsize, width = query.element_size(), query.shape[3]
    if itemsize == 2 and not channels_contiguous:
        return OTHER_LAYOUT
    if itemsize == 2 and width > 64 and runtime.WARP_SIZE == 64:
        return WIDE_ON_AMD
    shapes = IN_PARTS if multiplies_in_parts(query) else LAUNCH_SHAPES
    return next(shape for shape in shapes if itemsize <= shape.itemsize and width <= shape.width)


def multiplies_in_parts(query: Tensor) -> bool:
    """Whether products are those of parts in bf16. Of heads wider than 64 three parts of both factors spill 2 KB."""
    return in_parts(query) and query.shape[3] <= IN_PARTS[-1].width


def split_queries(programs: int, queries: int, block: int) -> tuple[int, int]:
    """Into how many chunks the queries of a keys' pass of so many programs are cut, and how many each chunk has.

    Sizes alone decide, so the same input is always added up in the same order.
    """
    splits = max(1, min(ceil_div(PROGRAMS_WANTED, programs), queries // FEWEST_QUERIES))
    chunk = ceil_div(ceil_div(queries, splits), block) * block
    return ceil_div(queries, chunk), chunk


# torch's `scaled_dot_product_attention` knows no bias per key without an N×M mask, so only calls without a bias can go
# there. A row is written from a result of `python -m bench attention-adaptation` and names it; nothing is guessed from
# one device, dtype or size to another. The table is empty: torch's attention has not been timed without a bias yet, and
# the kernel runs everywhere.
@dataclass(frozen=True)
class LibraryFaster:
    """One class of calls without a bias for which the library's median was below ours."""

    device: str
    """As `torch.cuda.get_device_name` gives it."""
    dtype: torch.dtype
    width: int
    """Channels per head."""
    queries: tuple[int, int]
    """Fewest and most tokens, both measured, between which it holds."""
    keys: tuple[int, int]
    gradients: bool
    """Measured forward and backward together (True), or the forward alone."""
    ours: float
    """Median, µs."""
    library: float
    """Median, µs; below `ours`."""
    result: str
    """The file in bench/results that holds both."""


LIBRARY_FASTER: tuple[LibraryFaster, ...] = ()


def library_is_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a row of the table says so for this call.

    Never where `torch.use_deterministic_algorithms` is on: the kernel's gradients repeat to the bit, and the library's
    depend on which of its backends runs.
    """
    if not LIBRARY_FASTER or torch.are_deterministic_algorithms_enabled():
        return False
    name = device_name(query.device)
    gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return any(
        row.device == name
        and row.dtype == query.dtype
        and row.width == query.shape[3]
        and row.gradients == gradients
        and row.queries[0] <= query.shape[2] <= row.queries[1]
        and row.keys[0] <= key.shape[2] <= row.keys[1]
        and row.library < row.ours
        for row in LIBRARY_FASTER
    )


@torch.compiler.assume_constant_result
def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
