"""B×C×H×W maps within kernels: where a row starts, and blocks of its columns × channels.

All strides but that of neighbouring channels arrive in units of STRIDE_DIVISOR elements (`layout.divided_strides`), so
that the compiler knows what divides them. `layout`: the `layout.MapLayout` of the map, its fields constexprs.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Map(NamedTuple):
    pointer: Any
    stride_b: Any
    stride_c: Any
    stride_h: Any
    stride_w: Any


@triton.jit
def row_start(m, batch, row, layout):
    """Where an image's row starts in a `Map`, or in anything else with these fields."""
    STRIDE_DIVISOR: tl.constexpr = layout.STRIDE_DIVISOR
    return m.pointer + batch * STRIDE_DIVISOR * m.stride_b + row * STRIDE_DIVISOR * m.stride_h


@triton.jit
def block_offsets(m, columns, channels, layout):
    """Of the columns and of the channels, from the start of a row."""
    o_c = channels
    if not layout.CONTIGUOUS_C:
        o_c = o_c * m.stride_c
    o_w = columns
    if not layout.CONTIGUOUS_W:
        o_w = o_w * layout.STRIDE_DIVISOR * m.stride_w
    return o_w, o_c


@triton.jit
def load_block(p_row, m, columns, channels, width, C: tl.constexpr, layout):
    """columns × channels of the row that starts at p_row, 0 outside of the map."""
    o_w, o_c = block_offsets(m, columns, channels, layout)
    m_load = ((columns >= 0) & (columns < width))[:, None] & (channels < C)[None, :]
    return tl.load(p_row + o_w[:, None] + o_c[None, :], mask=m_load, other=0.0)


@triton.jit
def store_block(p_row, m, values, columns, channels, width, C: tl.constexpr, layout):
    """Writes what `load_block` reads; no column is below 0."""
    o_w, o_c = block_offsets(m, columns, channels, layout)
    m_store = (columns < width)[:, None] & (channels < C)[None, :]
    tl.store(p_row + o_w[:, None] + o_c[None, :], values.to(p_row.dtype.element_ty), mask=m_store)
