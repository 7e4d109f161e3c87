"""Triton kernel of attention with a bias per key, forward. How scores are kept and layouts said: tiles.py."""

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
    load_keys,
    load_tile,
    scores,
    store_tile,
    tile_at,
    tiles_of,
    weighted,
)


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
