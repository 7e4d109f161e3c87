"""Triton kernels of attention with a bias per key: one forward, two backward, one that adds the parts of a split sum.

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

from .._triton.device import LOG2E, dtype_of

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
    """a·bᵀ, in true fp32 where the factors are fp32 (no tf32)."""
    return tl.dot(a, tl.trans(b), input_precision="ieee", out_dtype=dtype_of(config.ACC))


@triton.jit
def weighted(weights, values, sums, config: AttentionConfig):
    """sums + weights·values."""
    return tl.dot(
        weights.to(dtype_of(config.DOT)), values, sums, input_precision="ieee", out_dtype=dtype_of(config.ACC)
    )


@triton.jit
def load_keys(k_tiles, v_tiles, key_bias, first, num_keys, MASKED: tl.constexpr, config: AttentionConfig):
    """Keys, values and bias of the tile that starts at key `first`; MASKED: it may reach past the end."""
    bias = load_bias(key_bias, first, num_keys, MASKED, config)
    m_open = bias != -float("inf")
    k = load_tile(tile_at(k_tiles, first), m_open, config.HAS_BIAS or MASKED, config.DOT, config)
    v = load_tile(tile_at(v_tiles, first), m_open, config.HAS_BIAS or MASKED, config.DOT, config)
    return k, v, bias


@triton.jit
def load_queries(q_tiles, do_tiles, p_rows, first, num_queries, MASKED: tl.constexpr, config: AttentionConfig):
    """Queries, the gradients of their outputs and their numbers, likewise."""
    queries = first + tl.arange(0, config.BLOCK_Q)
    m_q = queries < num_queries
    q = load_tile(tile_at(q_tiles, first), m_q, MASKED, config.DOT, config)
    do = load_tile(tile_at(do_tiles, first), m_q, MASKED, config.DOT, config)
    if MASKED:  # a query past the end gives every key the probability exp2(−inf)
        row_max = tl.load(p_rows.row_max + queries, mask=m_q, other=float("inf"))
        log_row_sum = tl.load(p_rows.log_row_sum + queries, mask=m_q, other=0.0)
        delta = tl.load(p_rows.delta + queries, mask=m_q, other=0.0)
    else:
        row_max = tl.load(p_rows.row_max + queries)
        log_row_sum = tl.load(p_rows.log_row_sum + queries)
        delta = tl.load(p_rows.delta + queries)
    return q, do, Rows(row_max, log_row_sum, delta)


@triton.jit
def scores(q, k, bias, scale, BIASED: tl.constexpr, config: AttentionConfig):
    """In units of log₂; bias: broadcast to their shape."""
    s = product(q, k, config)
    if BIASED:
        s = tl.fma(s, scale, bias[None, :])
    else:
        s *= scale
    return s


@triton.jit
def forward_step(row_max, row_sum, sums, q, k, v, bias, scale, MASKED: tl.constexpr, config: AttentionConfig):
    """One tile of keys more: largest score, Σ exp2(score − largest), and the same sum weighting the values."""
    s = scores(q, k, bias, scale, config.HAS_BIAS or MASKED, config)
    new_max = tl.maximum(row_max, tl.max(s, 1))
    base = new_max
    if config.HAS_BIAS:  # a query may have seen no open key yet: −inf minus −inf would be NaN
        base = tl.where(new_max == -float("inf"), 0.0, new_max)
    p = tl.exp2(s - base[:, None])
    shrink = tl.exp2(row_max - base)
    row_sum = tl.fma(row_sum, shrink, tl.sum(p, 1))
    sums = weighted(p, v, sums * shrink[:, None], config)
    return new_max, row_sum, sums


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward(
    query, key, value, key_bias, out, row_max, log_row_sum,
    heads, num_queries, num_keys, tiles, scale, scale_rest,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, o_b, o_h, o_n, o_d, bias_b, bias_n,
    config: AttentionConfig,
):  # fmt: skip
    """A tile of queries: output, and row_max and log_row_sum for the backward (0 where every key is masked)."""
    BLOCK_Q: tl.constexpr = config.BLOCK_Q
    BLOCK_K: tl.constexpr = config.BLOCK_K
    ACC: tl.constexpr = dtype_of(config.ACC)
    program = tl.program_id(0)
    plane, first_query = program // tiles, (program % tiles) * BLOCK_Q
    image, head = plane // heads, plane % heads
    queries = first_query + tl.arange(0, BLOCK_Q)
    m_q = queries < num_queries
    k_tiles = tiles_of(Heads(key, k_b, k_h, k_n, k_d), image, head, BLOCK_K, config.K_DIVISOR, config)
    v_tiles = tiles_of(Heads(value, v_b, v_h, v_n, v_d), image, head, BLOCK_K, config.V_DIVISOR, config)
    bias_of_image = Bias(key_bias + image.to(tl.int64) * bias_b, bias_n)
    q_tiles = tiles_of(Heads(query, q_b, q_h, q_n, q_d), image, head, BLOCK_Q, config.Q_DIVISOR, config)
    q = load_tile(tile_at(q_tiles, first_query), m_q, True, config.DOT, config)
    factor = (tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)) * LOG2E

    largest = tl.full([BLOCK_Q], -float("inf"), ACC)
    row_sum = tl.zeros([BLOCK_Q], ACC)
    sums = tl.zeros([BLOCK_Q, config.BLOCK_D], ACC)
    whole = num_keys // BLOCK_K * BLOCK_K
    for first in range(0, whole, BLOCK_K):
        k, v, bias = load_keys(k_tiles, v_tiles, bias_of_image, first, num_keys, False, config)
        largest, row_sum, sums = forward_step(largest, row_sum, sums, q, k, v, bias, factor, False, config)
    if whole < num_keys:
        k, v, bias = load_keys(k_tiles, v_tiles, bias_of_image, whole, num_keys, True, config)
        largest, row_sum, sums = forward_step(largest, row_sum, sums, q, k, v, bias, factor, True, config)

    nothing = row_sum == 0.0
    row_sum = tl.where(nothing, 1.0, row_sum)
    o_tiles = tiles_of(Heads(out, o_b, o_h, o_n, o_d), image, head, BLOCK_Q, config.O_DIVISOR, config)
    store_tile(tile_at(o_tiles, first_query), sums * (1.0 / row_sum)[:, None], m_q, config)
    o_row = plane.to(tl.int64) * num_queries + queries
    tl.store(row_max + o_row, tl.where(nothing, 0.0, largest), mask=m_q)
    tl.store(log_row_sum + o_row, tl.log2(row_sum), mask=m_q)


@triton.jit
def queries_step(dq, missing, q, do, k, v, bias, rows, scale, MASKED: tl.constexpr, config: AttentionConfig):
    """One tile of keys more: dQ but for its scale, and with EXACT_DELTA Σ dS."""
    s = scores(q, k, bias, scale, config.HAS_BIAS or MASKED, config)
    p = tl.exp2(s - rows.row_max[:, None] - rows.log_row_sum[:, None])
    ds = p * (product(do, v, config) - rows.delta[:, None])
    if config.EXACT_DELTA:
        missing += tl.sum(ds, 1)
    return weighted(ds, k, dq, config), missing


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward_queries(
    query, key, value, key_bias, out, row_max, log_row_sum, grad_output, delta, grad_query,
    heads, num_queries, num_keys, tiles, scale, scale_rest,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, o_b, o_h, o_n, o_d,
    do_b, do_h, do_n, do_d, dq_b, dq_h, dq_n, dq_d, bias_b, bias_n,
    config: AttentionConfig,
):  # fmt: skip
    """A tile of queries: delta = Σ_d dO·O, which the keys' pass reads, and dQ.

    EXACT_DELTA: the stored delta is freed of the output's rounding. What a delta is short of the exact one is the sum
    of its own dS over the keys, since the probabilities of a query sum to 1.
    """
    BLOCK_Q: tl.constexpr = config.BLOCK_Q
    BLOCK_K: tl.constexpr = config.BLOCK_K
    ACC: tl.constexpr = dtype_of(config.ACC)
    program = tl.program_id(0)
    plane, first_query = program // tiles, (program % tiles) * BLOCK_Q
    image, head = plane // heads, plane % heads
    queries = first_query + tl.arange(0, BLOCK_Q)
    m_q = queries < num_queries
    q_tiles = tiles_of(Heads(query, q_b, q_h, q_n, q_d), image, head, BLOCK_Q, config.Q_DIVISOR, config)
    o_tiles = tiles_of(Heads(out, o_b, o_h, o_n, o_d), image, head, BLOCK_Q, config.O_DIVISOR, config)
    do_tiles = tiles_of(Heads(grad_output, do_b, do_h, do_n, do_d), image, head, BLOCK_Q, config.DO_DIVISOR, config)
    k_tiles = tiles_of(Heads(key, k_b, k_h, k_n, k_d), image, head, BLOCK_K, config.K_DIVISOR, config)
    v_tiles = tiles_of(Heads(value, v_b, v_h, v_n, v_d), image, head, BLOCK_K, config.V_DIVISOR, config)
    bias_of_image = Bias(key_bias + image.to(tl.int64) * bias_b, bias_n)
    q = load_tile(tile_at(q_tiles, first_query), m_q, True, config.DOT, config)
    do = load_tile(tile_at(do_tiles, first_query), m_q, True, config.DOT, config)
    o = load_tile(tile_at(o_tiles, first_query), m_q, True, config.DOT, config)
    o_row = plane.to(tl.int64) * num_queries + queries
    rows = Rows(
        tl.load(row_max + o_row, mask=m_q, other=0.0),
        tl.load(log_row_sum + o_row, mask=m_q, other=0.0),
        tl.sum(do.to(ACC) * o.to(ACC), 1),
    )
    missing = tl.zeros([BLOCK_Q], ACC)
    factor = (tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)) * LOG2E

    dq = tl.zeros([BLOCK_Q, config.BLOCK_D], ACC)
    whole = num_keys // BLOCK_K * BLOCK_K
    for first in range(0, whole, BLOCK_K):
        k, v, bias = load_keys(k_tiles, v_tiles, bias_of_image, first, num_keys, False, config)
        dq, missing = queries_step(dq, missing, q, do, k, v, bias, rows, factor, False, config)
    if whole < num_keys:
        k, v, bias = load_keys(k_tiles, v_tiles, bias_of_image, whole, num_keys, True, config)
        dq, missing = queries_step(dq, missing, q, do, k, v, bias, rows, factor, True, config)

    tl.store(delta + o_row, rows.delta + missing, mask=m_q)
    dq_tiles = tiles_of(Heads(grad_query, dq_b, dq_h, dq_n, dq_d), image, head, BLOCK_Q, config.DQ_DIVISOR, config)
    store_tile(tile_at(dq_tiles, first_query), dq * (tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)), m_q, config)


@triton.jit
def keys_step(dk, dv, dbias, k, v, bias, q, do, rows, scale, config: AttentionConfig):
    """One tile of queries more. Scores and probabilities are keys × queries here."""
    s = product(k, q, config)
    if config.HAS_BIAS:
        s = tl.fma(s, scale, bias[:, None])
    else:
        s *= scale
    p = tl.exp2(s - rows.row_max[None, :] - rows.log_row_sum[None, :])
    dv = weighted(p, do, dv, config)
    ds = p * (product(v, do, config) - rows.delta[None, :])
    dk = weighted(ds, q, dk, config)
    if config.NEED_BIAS:
        dbias += tl.sum(ds, 1)
    return dk, dv, dbias


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward_keys(
    query, key, value, key_bias, row_max, log_row_sum, grad_output, delta, grad_key, grad_value, grad_bias,
    batch, heads, num_queries, num_keys, tiles, splits, chunk, scale, scale_rest,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, do_b, do_h, do_n, do_d,
    dk_b, dk_h, dk_n, dk_d, dv_b, dv_h, dv_n, dv_d, bias_b, bias_n,
    config: AttentionConfig,
):  # fmt: skip
    """A tile of keys and a chunk of the queries: dK, dV, and Σ dS of each key over the chunk.

    With `splits` chunks the gradients are parts: those of chunk c stand `batch`·c images on. grad_bias: image (parts
    counted likewise) × head × key.
    """
    BLOCK_Q: tl.constexpr = config.BLOCK_Q
    BLOCK_K: tl.constexpr = config.BLOCK_K
    ACC: tl.constexpr = dtype_of(config.ACC)
    program = tl.program_id(0)
    tile, rest = program % tiles, program // tiles
    split, plane = rest % splits, rest // splits
    image, head = plane // heads, plane % heads
    first_key = tile * BLOCK_K
    keys = first_key + tl.arange(0, BLOCK_K)
    k_tiles = tiles_of(Heads(key, k_b, k_h, k_n, k_d), image, head, BLOCK_K, config.K_DIVISOR, config)
    v_tiles = tiles_of(Heads(value, v_b, v_h, v_n, v_d), image, head, BLOCK_K, config.V_DIVISOR, config)
    bias_of_image = Bias(key_bias + image.to(tl.int64) * bias_b, bias_n)
    k, v, bias = load_keys(k_tiles, v_tiles, bias_of_image, first_key, num_keys, True, config)
    q_tiles = tiles_of(Heads(query, q_b, q_h, q_n, q_d), image, head, BLOCK_Q, config.Q_DIVISOR, config)
    do_tiles = tiles_of(Heads(grad_output, do_b, do_h, do_n, do_d), image, head, BLOCK_Q, config.DO_DIVISOR, config)
    o_plane = plane.to(tl.int64) * num_queries
    p_rows = Rows(row_max + o_plane, log_row_sum + o_plane, delta + o_plane)
    natural = tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)
    factor = natural * LOG2E

    dk = tl.zeros([BLOCK_K, config.BLOCK_D], ACC)
    dv = tl.zeros([BLOCK_K, config.BLOCK_D], ACC)
    dbias = tl.zeros([BLOCK_K], ACC)
    first_query = split * chunk
    end = tl.minimum(first_query + chunk, num_queries)
    whole = first_query + (end - first_query) // BLOCK_Q * BLOCK_Q
    for first in range(first_query, whole, BLOCK_Q):
        q, do, rows = load_queries(q_tiles, do_tiles, p_rows, first, num_queries, False, config)
        dk, dv, dbias = keys_step(dk, dv, dbias, k, v, bias, q, do, rows, factor, config)
    if whole < end:
        q, do, rows = load_queries(q_tiles, do_tiles, p_rows, whole, num_queries, True, config)
        dk, dv, dbias = keys_step(dk, dv, dbias, k, v, bias, q, do, rows, factor, config)

    m_k = keys < num_keys
    part = split * batch + image
    dk_tiles = tiles_of(Heads(grad_key, dk_b, dk_h, dk_n, dk_d), part, head, BLOCK_K, config.DK_DIVISOR, config)
    store_tile(tile_at(dk_tiles, first_key), dk * natural, m_k, config)
    dv_tiles = tiles_of(Heads(grad_value, dv_b, dv_h, dv_n, dv_d), part, head, BLOCK_K, config.DV_DIVISOR, config)
    store_tile(tile_at(dv_tiles, first_key), dv, m_k, config)
    if config.NEED_BIAS:
        tl.store(grad_bias + (part.to(tl.int64) * heads + head) * num_keys + keys, dbias, mask=m_k)


@triton.jit(do_not_specialize=UNSPECIALISED)
def add_parts(
    key_parts, value_parts, grad_key, grad_value, batch, heads, num_keys, tiles, splits,
    parts_b, parts_h, parts_n, parts_d, dk_b, dk_h, dk_n, dk_d, dv_b, dv_h, dv_n, dv_d,
    config: AttentionConfig,
):  # fmt: skip
    """dK and dV of a tile of keys from the parts that `backward_keys` wrote, added in order."""
    BLOCK_K: tl.constexpr = config.BLOCK_K
    PARTS: tl.constexpr = config.PARTS_DIVISOR
    program = tl.program_id(0)
    tile, plane = program % tiles, program // tiles
    image, head = plane // heads, plane % heads
    first_key = tile * BLOCK_K
    m_k = first_key + tl.arange(0, BLOCK_K) < num_keys
    k_parts = Heads(key_parts, parts_b, parts_h, parts_n, parts_d)
    v_parts = Heads(value_parts, parts_b, parts_h, parts_n, parts_d)
    o_parts = tile_offsets(k_parts, BLOCK_K, PARTS, config)
    o_parts += first_key.to(tl.int64) * token_step(k_parts, PARTS)
    dk = tl.zeros([BLOCK_K, config.BLOCK_D], dtype_of(config.ACC))
    dv = tl.zeros([BLOCK_K, config.BLOCK_D], dtype_of(config.ACC))
    for split in range(splits):
        part = split * batch + image
        dk += load_tile(head_start(k_parts, part, head, PARTS) + o_parts, m_k, True, config.ACC, config)
        dv += load_tile(head_start(v_parts, part, head, PARTS) + o_parts, m_k, True, config.ACC, config)
    dk_tiles = tiles_of(Heads(grad_key, dk_b, dk_h, dk_n, dk_d), image, head, BLOCK_K, config.DK_DIVISOR, config)
    store_tile(tile_at(dk_tiles, first_key), dk, m_k, config)
    dv_tiles = tiles_of(Heads(grad_value, dv_b, dv_h, dv_n, dv_d), image, head, BLOCK_K, config.DV_DIVISOR, config)
    store_tile(tile_at(dv_tiles, first_key), dv, m_k, config)
