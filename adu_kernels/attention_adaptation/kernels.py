"""Triton kernels of attention with a bias per key: one forward, two backward, one that adds the parts of a split sum.

Words. A program owns a tile of queries (or of keys) of one image and head and walks over the tiles of the others; the
N×M scores exist a tile at a time, in registers. Scores are kept in units of log₂: score = (q·k)·scale·log₂e +
bias·log₂e, so that one exp2 gives a probability. Kept for the backward, per query: the largest score, `peak`, and
`log_mass` = log₂ Σ exp2(score − peak). Their sum would do for small scores; at 1e4 fp32 would round it by 1e-3.

A key that is closed (bias −inf) or lies past the end is read as zeros and has the score −inf: its own numbers are never
looked at. All products are of type DOT with sums of type ACC; no sum is shared between programs, so no atomics.

Each tensor's layout is one constant, *_RUN: r > 0, channels lie next to each other and r divides every other stride;
r < 0, tokens do and −r divides; 0, neither. Strides arrive in units of |r|: so the compiler
knows how wide a load may be.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)

# Sizes and strides vary with the image: specialised, each new size would be a new compilation.
SIZES = ["batch", "heads", "num_queries", "num_keys", "tiles", "chunk", "splits", "scale", "scale_rest"]
STRIDES = [
    f"{tensor}_{axis}"
    for tensor in ("q", "k", "v", "o", "do", "dq", "dk", "dv", "parts")
    for axis in "bhnd"
] + ["bias_b", "bias_n"]  # fmt: skip
UNSPECIALISED = [*SIZES, *STRIDES]


@triton.jit
def token_step(stride_n, RUN: tl.constexpr):
    """Elements from one token to the next, int64."""
    if RUN < 0:
        step = tl.cast(1, tl.int64)
    elif RUN > 0:
        step = stride_n.to(tl.int64) * RUN
    else:
        step = stride_n.to(tl.int64)
    return step


@triton.jit
def head_start(pointer, image, head, stride_b, stride_h, RUN: tl.constexpr):
    UNIT: tl.constexpr = RUN if RUN > 0 else (-RUN if RUN < 0 else 1)
    return pointer + (image.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h) * UNIT


@triton.jit
def tile_offsets(stride_n, stride_d, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, RUN: tl.constexpr,
                 INT64: tl.constexpr):  # fmt: skip
    """tokens × channels: where a tile's elements stand, seen from its first token."""
    INDEX: tl.constexpr = tl.int64 if INT64 else tl.int32
    o_n = tl.arange(0, BLOCK)[:, None].to(INDEX)
    o_d = tl.arange(0, BLOCK_D)[None, :].to(INDEX)
    if RUN > 0:
        offsets = o_n * (stride_n.to(INDEX) * RUN) + o_d
    elif RUN < 0:
        offsets = o_n + o_d * (stride_d.to(INDEX) * -RUN)
    else:
        offsets = o_n * stride_n.to(INDEX) + o_d * stride_d.to(INDEX)
    return offsets


@triton.jit
def load_tile(p_tile, m_n, D: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr, DOT: tl.constexpr):
    """A tile in the type of the products; 0 where m_n is false (looked at if MASKED) and in channels past D."""
    m_d = (tl.arange(0, BLOCK_D) < D)[None, :]
    if MASKED and BLOCK_D != D:
        tile = tl.load(p_tile, mask=m_n[:, None] & m_d, other=0.0)
    elif MASKED:
        tile = tl.load(p_tile, mask=m_n[:, None], other=0.0)
    elif BLOCK_D != D:
        tile = tl.load(p_tile, mask=m_d, other=0.0)
    else:
        tile = tl.load(p_tile)
    return tile.to(DOT)


@triton.jit
def store_tile(p_tile, values, m_n, D: tl.constexpr, BLOCK_D: tl.constexpr):
    m_store = m_n[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :]
    tl.store(p_tile, values.to(p_tile.dtype.element_ty), mask=m_store)


@triton.jit
def load_bias(p_bias, first, num_keys, stride, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr, MASKED: tl.constexpr,
              ACC: tl.constexpr):  # fmt: skip
    """The bias of a tile of keys in units of log₂, −inf past the end (looked at if MASKED)."""
    o_m = first + tl.arange(0, BLOCK)
    if HAS_BIAS and MASKED:
        bias = tl.load(p_bias + o_m.to(tl.int64) * stride, mask=o_m < num_keys, other=-float("inf")).to(ACC) * LOG2E
    elif HAS_BIAS:
        bias = tl.load(p_bias + o_m.to(tl.int64) * stride).to(ACC) * LOG2E
    else:
        bias = tl.where(o_m < num_keys, 0.0, -float("inf")).to(ACC)
    return bias


@triton.jit
def product(a, b, ACC: tl.constexpr):
    """a·bᵀ, in true fp32 where the factors are fp32 (no tf32)."""
    return tl.dot(a, tl.trans(b), input_precision="ieee", out_dtype=ACC)


@triton.jit
def weighted(weights, values, sums, DOT: tl.constexpr, ACC: tl.constexpr):
    """sums + weights·values."""
    return tl.dot(weights.to(DOT), values, sums, input_precision="ieee", out_dtype=ACC)


@triton.jit
def load_keys(p_k, p_v, p_bias, first, num_keys, k_step, v_step, o_k, o_v, bias_n,
              D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr,
              MASKED: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """Keys, values and bias of the tile that starts at key `first`; MASKED: it may reach past the end."""
    bias = load_bias(p_bias, first, num_keys, bias_n, BLOCK_K, HAS_BIAS, MASKED, ACC)
    m_open = bias != -float("inf")
    k = load_tile(p_k + tl.cast(first, tl.int64) * k_step + o_k, m_open, D, BLOCK_D, HAS_BIAS or MASKED, DOT)
    v = load_tile(p_v + tl.cast(first, tl.int64) * v_step + o_v, m_open, D, BLOCK_D, HAS_BIAS or MASKED, DOT)
    return k, v, bias


@triton.jit
def scores(q, k, bias, scale, BIASED: tl.constexpr, ACC: tl.constexpr):
    """queries × keys, in units of log₂."""
    s = product(q, k, ACC)
    if BIASED:
        s = tl.fma(s, scale, bias[None, :])
    else:
        s *= scale
    return s


@triton.jit
def forward_step(peak, mass, sums, q, k, v, bias, scale,
                 HAS_BIAS: tl.constexpr, MASKED: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """One tile of keys more: largest score, Σ exp2(score − largest), and the same sum weighting the values."""
    s = scores(q, k, bias, scale, HAS_BIAS or MASKED, ACC)
    new_peak = tl.maximum(peak, tl.max(s, 1))
    base = new_peak
    if HAS_BIAS:  # a query may have seen no open key yet: −inf minus −inf would be NaN
        base = tl.where(new_peak == -float("inf"), 0.0, new_peak)
    p = tl.exp2(s - base[:, None])
    shrink = tl.exp2(peak - base)
    mass = tl.fma(mass, shrink, tl.sum(p, 1))
    sums = weighted(p, v, sums * shrink[:, None], DOT, ACC)
    return new_peak, mass, sums


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward(
    query, key, value, key_bias, out, peaks, log_masses,
    heads, num_queries, num_keys, tiles, scale, scale_rest,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, o_b, o_h, o_n, o_d, bias_b, bias_n,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, HAS_BIAS: tl.constexpr,
    Q_RUN: tl.constexpr, K_RUN: tl.constexpr, V_RUN: tl.constexpr, O_RUN: tl.constexpr,
    INT64: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile of queries: output, and peak and log_mass for the backward (0 where every key is closed)."""
    program = tl.program_id(0)
    plane, first_query = program // tiles, (program % tiles) * BLOCK_Q
    image, head = plane // heads, plane % heads
    queries = first_query + tl.arange(0, BLOCK_Q)
    m_q = queries < num_queries
    p_q = head_start(query, image, head, q_b, q_h, Q_RUN) + first_query.to(tl.int64) * token_step(q_n, Q_RUN)
    p_k = head_start(key, image, head, k_b, k_h, K_RUN)
    p_v = head_start(value, image, head, v_b, v_h, V_RUN)
    p_bias = key_bias + image.to(tl.int64) * bias_b
    k_step, v_step = token_step(k_n, K_RUN), token_step(v_n, V_RUN)
    o_k = tile_offsets(k_n, k_d, BLOCK_K, BLOCK_D, K_RUN, INT64)
    o_v = tile_offsets(v_n, v_d, BLOCK_K, BLOCK_D, V_RUN, INT64)
    q = load_tile(p_q + tile_offsets(q_n, q_d, BLOCK_Q, BLOCK_D, Q_RUN, INT64), m_q, D, BLOCK_D, True, DOT)
    factor = (tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)) * LOG2E

    peak = tl.full([BLOCK_Q], -float("inf"), ACC)
    mass = tl.zeros([BLOCK_Q], ACC)
    sums = tl.zeros([BLOCK_Q, BLOCK_D], ACC)
    whole = num_keys // BLOCK_K * BLOCK_K
    for first in range(0, whole, BLOCK_K):
        k, v, bias = load_keys(p_k, p_v, p_bias, first, num_keys, k_step, v_step, o_k, o_v, bias_n,
                               D, BLOCK_K, BLOCK_D, HAS_BIAS, False, DOT, ACC)  # fmt: skip
        peak, mass, sums = forward_step(peak, mass, sums, q, k, v, bias, factor, HAS_BIAS, False, DOT, ACC)
    if whole < num_keys:
        k, v, bias = load_keys(p_k, p_v, p_bias, whole, num_keys, k_step, v_step, o_k, o_v, bias_n,
                               D, BLOCK_K, BLOCK_D, HAS_BIAS, True, DOT, ACC)  # fmt: skip
        peak, mass, sums = forward_step(peak, mass, sums, q, k, v, bias, factor, HAS_BIAS, True, DOT, ACC)

    nothing = mass == 0.0
    mass = tl.where(nothing, 1.0, mass)
    p_o = head_start(out, image, head, o_b, o_h, O_RUN) + first_query.to(tl.int64) * token_step(o_n, O_RUN)
    p_o += tile_offsets(o_n, o_d, BLOCK_Q, BLOCK_D, O_RUN, INT64)
    store_tile(p_o, sums * (1.0 / mass)[:, None], m_q, D, BLOCK_D)
    o_row = plane.to(tl.int64) * num_queries + queries
    tl.store(peaks + o_row, tl.where(nothing, 0.0, peak), mask=m_q)
    tl.store(log_masses + o_row, tl.log2(mass), mask=m_q)


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward_queries(
    query, key, value, key_bias, out, peaks, log_masses, grad_out, delta, grad_query,
    heads, num_queries, num_keys, tiles, scale, scale_rest,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, o_b, o_h, o_n, o_d,
    do_b, do_h, do_n, do_d, dq_b, dq_h, dq_n, dq_d, bias_b, bias_n,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, HAS_BIAS: tl.constexpr,
    Q_RUN: tl.constexpr, K_RUN: tl.constexpr, V_RUN: tl.constexpr, O_RUN: tl.constexpr, DO_RUN: tl.constexpr,
    DQ_RUN: tl.constexpr, EXACT: tl.constexpr, INT64: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile of queries: delta = Σ_d dO·O, which the keys' pass reads, and dQ.

    EXACT: the stored delta is freed of the output's rounding. What a delta is short of the exact one is the sum of its
    own dS over the keys, since the probabilities of a query sum to 1.
    """
    program = tl.program_id(0)
    plane, first_query = program // tiles, (program % tiles) * BLOCK_Q
    image, head = plane // heads, plane % heads
    queries = first_query + tl.arange(0, BLOCK_Q)
    m_q = queries < num_queries
    start = first_query.to(tl.int64)
    p_q = head_start(query, image, head, q_b, q_h, Q_RUN) + start * token_step(q_n, Q_RUN)
    p_o = head_start(out, image, head, o_b, o_h, O_RUN) + start * token_step(o_n, O_RUN)
    p_do = head_start(grad_out, image, head, do_b, do_h, DO_RUN) + start * token_step(do_n, DO_RUN)
    p_k = head_start(key, image, head, k_b, k_h, K_RUN)
    p_v = head_start(value, image, head, v_b, v_h, V_RUN)
    p_bias = key_bias + image.to(tl.int64) * bias_b
    k_step, v_step = token_step(k_n, K_RUN), token_step(v_n, V_RUN)
    o_k = tile_offsets(k_n, k_d, BLOCK_K, BLOCK_D, K_RUN, INT64)
    o_v = tile_offsets(v_n, v_d, BLOCK_K, BLOCK_D, V_RUN, INT64)
    q = load_tile(p_q + tile_offsets(q_n, q_d, BLOCK_Q, BLOCK_D, Q_RUN, INT64), m_q, D, BLOCK_D, True, DOT)
    do = load_tile(p_do + tile_offsets(do_n, do_d, BLOCK_Q, BLOCK_D, DO_RUN, INT64), m_q, D, BLOCK_D, True, DOT)
    o = load_tile(p_o + tile_offsets(o_n, o_d, BLOCK_Q, BLOCK_D, O_RUN, INT64), m_q, D, BLOCK_D, True, DOT)
    row = tl.sum(do.to(ACC) * o.to(ACC), 1)
    short = tl.zeros([BLOCK_Q], ACC)
    o_row = plane.to(tl.int64) * num_queries + queries
    peak = tl.load(peaks + o_row, mask=m_q, other=0.0)[:, None]
    log_mass = tl.load(log_masses + o_row, mask=m_q, other=0.0)[:, None]
    factor = (tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)) * LOG2E

    dq = tl.zeros([BLOCK_Q, BLOCK_D], ACC)
    whole = num_keys // BLOCK_K * BLOCK_K
    for first in range(0, whole, BLOCK_K):
        k, v, bias = load_keys(p_k, p_v, p_bias, first, num_keys, k_step, v_step, o_k, o_v, bias_n,
                               D, BLOCK_K, BLOCK_D, HAS_BIAS, False, DOT, ACC)  # fmt: skip
        p = tl.exp2(scores(q, k, bias, factor, HAS_BIAS, ACC) - peak - log_mass)
        ds = p * (product(do, v, ACC) - row[:, None])
        if EXACT:
            short += tl.sum(ds, 1)
        dq = weighted(ds, k, dq, DOT, ACC)
    if whole < num_keys:
        k, v, bias = load_keys(p_k, p_v, p_bias, whole, num_keys, k_step, v_step, o_k, o_v, bias_n,
                               D, BLOCK_K, BLOCK_D, HAS_BIAS, True, DOT, ACC)  # fmt: skip
        p = tl.exp2(scores(q, k, bias, factor, True, ACC) - peak - log_mass)
        ds = p * (product(do, v, ACC) - row[:, None])
        if EXACT:
            short += tl.sum(ds, 1)
        dq = weighted(ds, k, dq, DOT, ACC)

    tl.store(delta + o_row, row + short, mask=m_q)
    p_dq = head_start(grad_query, image, head, dq_b, dq_h, DQ_RUN) + start * token_step(dq_n, DQ_RUN)
    p_dq += tile_offsets(dq_n, dq_d, BLOCK_Q, BLOCK_D, DQ_RUN, INT64)
    store_tile(p_dq, dq * (tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)), m_q, D, BLOCK_D)


@triton.jit
def keys_step(dk, dv, dbias, k, v, bias, p_q, p_do, p_peak, p_log_mass, p_delta, first, num_queries, q_step, do_step,
              o_q, o_do, scale, D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr,
              NEED_BIAS: tl.constexpr, MASKED: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """One tile of queries more. Scores and probabilities are keys × queries here."""
    queries = first + tl.arange(0, BLOCK_Q)
    m_q = queries < num_queries
    q = load_tile(p_q + tl.cast(first, tl.int64) * q_step + o_q, m_q, D, BLOCK_D, MASKED, DOT)
    do = load_tile(p_do + tl.cast(first, tl.int64) * do_step + o_do, m_q, D, BLOCK_D, MASKED, DOT)
    if MASKED:  # a query past the end gives every key the probability exp2(−inf)
        peak = tl.load(p_peak + queries, mask=m_q, other=float("inf"))
        log_mass = tl.load(p_log_mass + queries, mask=m_q, other=0.0)
        row = tl.load(p_delta + queries, mask=m_q, other=0.0)
    else:
        peak = tl.load(p_peak + queries)
        log_mass = tl.load(p_log_mass + queries)
        row = tl.load(p_delta + queries)
    s = product(k, q, ACC)
    if HAS_BIAS:
        s = tl.fma(s, scale, bias[:, None])
    else:
        s *= scale
    p = tl.exp2(s - peak[None, :] - log_mass[None, :])
    dv = weighted(p, do, dv, DOT, ACC)
    ds = p * (product(v, do, ACC) - row[None, :])
    dk = weighted(ds, q, dk, DOT, ACC)
    if NEED_BIAS:
        dbias += tl.sum(ds, 1)
    return dk, dv, dbias


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward_keys(
    query, key, value, key_bias, peaks, log_masses, grad_out, delta, grad_key, grad_value, grad_bias,
    batch, heads, num_queries, num_keys, tiles, splits, chunk, scale, scale_rest,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, do_b, do_h, do_n, do_d,
    dk_b, dk_h, dk_n, dk_d, dv_b, dv_h, dv_n, dv_d, bias_b, bias_n,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, HAS_BIAS: tl.constexpr,
    NEED_BIAS: tl.constexpr, Q_RUN: tl.constexpr, K_RUN: tl.constexpr, V_RUN: tl.constexpr, DO_RUN: tl.constexpr,
    DK_RUN: tl.constexpr, DV_RUN: tl.constexpr, INT64: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile of keys and a chunk of the queries: dK, dV, and Σ dS of each key over the chunk.

    With `splits` chunks the gradients are parts: those of chunk c stand `batch`·c images on. grad_bias: image (parts
    counted likewise) × head × key.
    """
    program = tl.program_id(0)
    tile, rest = program % tiles, program // tiles
    split, plane = rest % splits, rest // splits
    image, head = plane // heads, plane % heads
    first_key = tile * BLOCK_K
    keys = first_key + tl.arange(0, BLOCK_K)
    start = first_key.to(tl.int64)
    p_k = head_start(key, image, head, k_b, k_h, K_RUN)
    p_v = head_start(value, image, head, v_b, v_h, V_RUN)
    p_bias = key_bias + image.to(tl.int64) * bias_b
    k, v, bias = load_keys(
        p_k, p_v, p_bias, first_key, num_keys, token_step(k_n, K_RUN), token_step(v_n, V_RUN),
        tile_offsets(k_n, k_d, BLOCK_K, BLOCK_D, K_RUN, INT64), tile_offsets(v_n, v_d, BLOCK_K, BLOCK_D, V_RUN, INT64),
        bias_n, D, BLOCK_K, BLOCK_D, HAS_BIAS, True, DOT, ACC,
    )  # fmt: skip
    p_q = head_start(query, image, head, q_b, q_h, Q_RUN)
    p_do = head_start(grad_out, image, head, do_b, do_h, DO_RUN)
    o_plane = plane.to(tl.int64) * num_queries
    p_peak, p_log_mass, p_delta = peaks + o_plane, log_masses + o_plane, delta + o_plane
    q_step, do_step = token_step(q_n, Q_RUN), token_step(do_n, DO_RUN)
    o_q = tile_offsets(q_n, q_d, BLOCK_Q, BLOCK_D, Q_RUN, INT64)
    o_do = tile_offsets(do_n, do_d, BLOCK_Q, BLOCK_D, DO_RUN, INT64)
    natural = tl.cast(scale, ACC) + tl.cast(scale_rest, ACC)

    dk = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    dv = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    dbias = tl.zeros([BLOCK_K], ACC)
    first_query = split * chunk
    end = tl.minimum(first_query + chunk, num_queries)
    whole = first_query + (end - first_query) // BLOCK_Q * BLOCK_Q
    for first in range(first_query, whole, BLOCK_Q):
        dk, dv, dbias = keys_step(
            dk, dv, dbias, k, v, bias, p_q, p_do, p_peak, p_log_mass, p_delta, first, num_queries, q_step, do_step,
            o_q, o_do, natural * LOG2E, D, BLOCK_Q, BLOCK_D, HAS_BIAS, NEED_BIAS, False, DOT, ACC,
        )  # fmt: skip
    if whole < end:
        dk, dv, dbias = keys_step(
            dk, dv, dbias, k, v, bias, p_q, p_do, p_peak, p_log_mass, p_delta, whole, num_queries, q_step, do_step,
            o_q, o_do, natural * LOG2E, D, BLOCK_Q, BLOCK_D, HAS_BIAS, NEED_BIAS, True, DOT, ACC,
        )  # fmt: skip

    m_k = keys < num_keys
    part = split * batch + image
    p_dk = head_start(grad_key, part, head, dk_b, dk_h, DK_RUN) + start * token_step(dk_n, DK_RUN)
    p_dv = head_start(grad_value, part, head, dv_b, dv_h, DV_RUN) + start * token_step(dv_n, DV_RUN)
    store_tile(p_dk + tile_offsets(dk_n, dk_d, BLOCK_K, BLOCK_D, DK_RUN, INT64), dk * natural, m_k, D, BLOCK_D)
    store_tile(p_dv + tile_offsets(dv_n, dv_d, BLOCK_K, BLOCK_D, DV_RUN, INT64), dv, m_k, D, BLOCK_D)
    if NEED_BIAS:
        tl.store(grad_bias + (part.to(tl.int64) * heads + head) * num_keys + keys, dbias, mask=m_k)


@triton.jit(do_not_specialize=UNSPECIALISED)
def add_parts(
    key_parts, value_parts, grad_key, grad_value, batch, heads, num_keys, tiles, splits,
    parts_b, parts_h, parts_n, parts_d, dk_b, dk_h, dk_n, dk_d, dv_b, dv_h, dv_n, dv_d,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, PARTS_RUN: tl.constexpr, DK_RUN: tl.constexpr,
    DV_RUN: tl.constexpr, INT64: tl.constexpr,
):  # fmt: skip
    """dK and dV of a tile of keys from the parts that `backward_keys` wrote, added in order."""
    program = tl.program_id(0)
    tile, plane = program % tiles, program // tiles
    image, head = plane // heads, plane % heads
    start = (tile * BLOCK_K).to(tl.int64)
    m_k = tile * BLOCK_K + tl.arange(0, BLOCK_K) < num_keys
    o_parts = tile_offsets(parts_n, parts_d, BLOCK_K, BLOCK_D, PARTS_RUN, INT64)
    o_parts += start * token_step(parts_n, PARTS_RUN)
    ACC: tl.constexpr = key_parts.dtype.element_ty
    dk = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    dv = tl.zeros([BLOCK_K, BLOCK_D], ACC)
    for split in range(splits):
        part = split * batch + image
        dk += load_tile(head_start(key_parts, part, head, parts_b, parts_h, PARTS_RUN) + o_parts, m_k,
                        D, BLOCK_D, True, ACC)  # fmt: skip
        dv += load_tile(head_start(value_parts, part, head, parts_b, parts_h, PARTS_RUN) + o_parts, m_k,
                        D, BLOCK_D, True, ACC)  # fmt: skip
    p_dk = head_start(grad_key, image, head, dk_b, dk_h, DK_RUN) + start * token_step(dk_n, DK_RUN)
    p_dv = head_start(grad_value, image, head, dv_b, dv_h, DV_RUN) + start * token_step(dv_n, DV_RUN)
    store_tile(p_dk + tile_offsets(dk_n, dk_d, BLOCK_K, BLOCK_D, DK_RUN, INT64), dk, m_k, D, BLOCK_D)
    store_tile(p_dv + tile_offsets(dv_n, dv_d, BLOCK_K, BLOCK_D, DV_RUN, INT64), dv, m_k, D, BLOCK_D)
