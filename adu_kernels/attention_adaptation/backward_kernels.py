"""Triton kernels of attention with a bias per key, backward: the queries' pass, the keys', and the sum of the parts
where the latter's is split."""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import LOG2E, dtype_of
from .tiles import (
    UNSPECIALISED,
    AttentionConfig,
    Bias,
    Heads,
    Rows,
    head_start,
    load_keys,
    load_tile,
    product,
    scores,
    store_tile,
    tile_at,
    tile_offsets,
    tiles_of,
    token_step,
    weighted,
)


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
