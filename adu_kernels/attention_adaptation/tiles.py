"""What the attention kernels share: tensors, their tiles and the products of tiles.

A program owns a tile of queries (or of keys) of one image and head and walks over the tiles of the others; the N×M
scores exist a tile at a time, in registers. Scores are kept in units of log₂: score = (q·k)·scale·log₂e + bias·log₂e,
so that one exp2 gives a probability. Kept for the backward, per query: the largest score, `row_max`, and
`log_row_sum` = log₂ Σ exp2(score − row_max). Their sum would do for small scores; at 1e4 fp32 would round it by 1e-3.

A masked key (bias −inf) or one past the end is read as zeros and has the score −inf: its own numbers are never looked
at. All products are of type DOT with sums of type ACC; no sum is shared between programs, so no atomics.

Each tensor's layout is one constant, *_DIVISOR: r > 0, channels lie next to each other and r divides every other
stride; r < 0, tokens do and −r divides; 0, neither. Strides arrive in units of |r|: so the compiler knows how wide a
load may be.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.device import LOG2E, add_product, dtype_of

# Sizes and strides vary with the image: specialised, each new size would be a new compilation.
SIZES = ["batch", "heads", "num_queries", "num_keys", "tiles", "chunk", "splits", "scale", "scale_rest"]
STRIDES = [
    f"{tensor}_{axis}"
    for tensor in ("q", "k", "v", "o", "do", "dq", "dk", "dv", "parts")
    for axis in "bhnd"
] + ["bias_b", "bias_n"]  # fmt: skip
UNSPECIALISED = [*SIZES, *STRIDES]


class AttentionConfig(NamedTuple):
    """What a kernel is compiled for; the layouts of tensors that it does not have stay 0."""

    D: int
    BLOCK_D: int
    """D padded to a power of two."""
    BLOCK_Q: int
    BLOCK_K: int
    HAS_BIAS: bool
    INT64: bool
    DOT: str
    ACC: str
    IN_PARTS: bool
    """How factors are multiplied (`_triton.device.add_product`)."""
    EXACT_DELTA: bool = False
    NEED_BIAS: bool = False
    Q_DIVISOR: int = 0
    K_DIVISOR: int = 0
    V_DIVISOR: int = 0
    O_DIVISOR: int = 0
    DO_DIVISOR: int = 0
    DQ_DIVISOR: int = 0
    DK_DIVISOR: int = 0
    DV_DIVISOR: int = 0
    PARTS_DIVISOR: int = 0


class Heads(NamedTuple):
    """A B×heads×tokens×d tensor."""

    p: Any
    stride_b: Any
    stride_h: Any
    stride_n: Any
    stride_d: Any


class Tiles(NamedTuple):
    """One head of it: its first element, elements from token to token, and where a tile's elements stand, seen from
    its first token."""

    p: Any
    step: Any
    offsets: Any


class Bias(NamedTuple):
    """Of one image's keys."""

    p: Any
    stride_n: Any


class Rows(NamedTuple):
    """Per query: pointers, or the numbers of a tile."""

    row_max: Any
    log_row_sum: Any
    delta: Any


@triton.jit
def head_start(heads, image, head, DIVISOR: tl.constexpr):
    UNIT: tl.constexpr = DIVISOR if DIVISOR > 0 else (-DIVISOR if DIVISOR < 0 else 1)
    return heads.p + (image.to(tl.int64) * heads.stride_b + head.to(tl.int64) * heads.stride_h) * UNIT


@triton.jit
def token_step(heads, DIVISOR: tl.constexpr):
    """Elements from one token to the next, int64."""
    if DIVISOR < 0:
        step = tl.cast(1, tl.int64)
    elif DIVISOR > 0:
        step = heads.stride_n.to(tl.int64) * DIVISOR
    else:
        step = heads.stride_n.to(tl.int64)
    return step


@triton.jit
def tile_offsets(heads, BLOCK: tl.constexpr, DIVISOR: tl.constexpr, config: AttentionConfig):
    """tokens × channels: where a tile's elements stand, seen from its first token."""
    INDEX: tl.constexpr = tl.int64 if config.INT64 else tl.int32
    o_n = tl.arange(0, BLOCK)[:, None].to(INDEX)
    o_d = tl.arange(0, config.BLOCK_D)[None, :].to(INDEX)
    if DIVISOR > 0:
        offsets = o_n * (heads.stride_n.to(INDEX) * DIVISOR) + o_d
    elif DIVISOR < 0:
        offsets = o_n + o_d * (heads.stride_d.to(INDEX) * -DIVISOR)
    else:
        offsets = o_n * heads.stride_n.to(INDEX) + o_d * heads.stride_d.to(INDEX)
    return offsets


@triton.jit
def tiles_of(heads, image, head, BLOCK: tl.constexpr, DIVISOR: tl.constexpr, config: AttentionConfig):
    return Tiles(
        head_start(heads, image, head, DIVISOR),
        token_step(heads, DIVISOR),
        tile_offsets(heads, BLOCK, DIVISOR, config),
    )


@triton.jit
def tile_at(tiles, first):
    """Pointers to the tile whose first token is `first`."""
    return tiles.p + tl.cast(first, tl.int64) * tiles.step + tiles.offsets


@triton.jit
def load_tile(p_tile, m_n, MASKED: tl.constexpr, DTYPE: tl.constexpr, config: AttentionConfig):
    """A tile in that type; 0 where m_n is false (looked at if MASKED) and in channels past D."""
    m_d = (tl.arange(0, config.BLOCK_D) < config.D)[None, :]
    if MASKED and config.BLOCK_D != config.D:
        tile = tl.load(p_tile, mask=m_n[:, None] & m_d, other=0.0)
    elif MASKED:
        tile = tl.load(p_tile, mask=m_n[:, None], other=0.0)
    elif config.BLOCK_D != config.D:
        tile = tl.load(p_tile, mask=m_d, other=0.0)
    else:
        tile = tl.load(p_tile)
    return tile.to(dtype_of(DTYPE))


@triton.jit
def store_tile(p_tile, values, m_n, config: AttentionConfig):
    m_store = m_n[:, None] & (tl.arange(0, config.BLOCK_D) < config.D)[None, :]
    tl.store(p_tile, values.to(p_tile.dtype.element_ty), mask=m_store)


@triton.jit
def load_bias(bias, first, num_keys, MASKED: tl.constexpr, config: AttentionConfig):
    """The bias of a tile of keys in units of log₂, −inf past the end (looked at if MASKED)."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    o_m = first + tl.arange(0, config.BLOCK_K)
    if config.HAS_BIAS and MASKED:
        found = tl.load(bias.p + o_m.to(tl.int64) * bias.stride_n, mask=o_m < num_keys, other=-float("inf"))
        found = found.to(ACC) * LOG2E
    elif config.HAS_BIAS:
        found = tl.load(bias.p + o_m.to(tl.int64) * bias.stride_n).to(ACC) * LOG2E
    else:
        found = tl.where(o_m < num_keys, 0.0, -float("inf")).to(ACC)
    return found


@triton.jit
def product(a, b, config: AttentionConfig):
    """a·bᵀ, where the factors are fp32 with all their bits (no tf32)."""
    sums = tl.zeros([a.shape[0], b.shape[0]], dtype_of(config.ACC))
    return add_product(a, tl.trans(b), sums, config.IN_PARTS)


@triton.jit
def weighted(weights, values, sums, config: AttentionConfig):
    """sums + weights·values."""
    return add_product(weights.to(dtype_of(config.DOT)), values, sums, config.IN_PARTS)


@triton.jit
def load_keys(k_tiles, v_tiles, key_bias, first, num_keys, MASKED: tl.constexpr, config: AttentionConfig):
    """Keys, values and bias of the tile that starts at key `first`; MASKED: it may reach past the end."""
    bias = load_bias(key_bias, first, num_keys, MASKED, config)
    m_open = bias != -float("inf")
    k = load_tile(tile_at(k_tiles, first), m_open, config.HAS_BIAS or MASKED, config.DOT, config)
    v = load_tile(tile_at(v_tiles, first), m_open, config.HAS_BIAS or MASKED, config.DOT, config)
    return k, v, bias


@triton.jit
def scores(q, k, bias, scale, BIASED: tl.constexpr, config: AttentionConfig):
    """In units of log₂; bias: broadcast to their shape."""
    s = product(q, k, config)
    if BIASED:
        s = tl.fma(s, scale, bias[None, :])
    else:
        s *= scale
    return s
