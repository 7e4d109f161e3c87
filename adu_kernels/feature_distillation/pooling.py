"""Triton kernels that average the guide's map to the sizes of the levels, all of them in one launch.

`nested`: every cell is k×k pixels, k a power of two; a program reads a tile once, makes the finest cells' sums, and
each coarser level's from those. `windows`: any cells, overlapping ones included; each level reads what it needs.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import dtype_of, wide_index
from .kernels import decoded, level_program


@triton.jit
def coarser_cells(sums, pooled, batch, first_row, first_column, height, width,
                  ROWS: tl.constexpr, COLUMNS: tl.constexpr, CELL: tl.constexpr, BEFORE: tl.constexpr):  # fmt: skip
    """Sums over CELL×CELL pixels from those over BEFORE×BEFORE, their means stored."""
    STEP: tl.constexpr = CELL // BEFORE
    DOWN: tl.constexpr = ROWS // CELL
    ACROSS: tl.constexpr = COLUMNS // CELL
    sums = tl.sum(tl.reshape(sums, [DOWN * STEP, ACROSS, STEP]), 2)
    sums = tl.sum(tl.reshape(sums, [DOWN, STEP, ACROSS]), 1)
    row = batch * (height // CELL) + first_row // CELL + tl.arange(0, DOWN)
    column = first_column // CELL + tl.arange(0, ACROSS)
    p_pooled = pooled + (row * (width // CELL))[:, None] + column[None, :]
    tl.store(p_pooled, sums * (1.0 / (CELL * CELL)), mask=(column < width // CELL)[None, :])
    return sums


class NestedConfig(NamedTuple):
    LEVELS: int
    CELLS: tuple[int, ...]
    """k per level, finest first."""
    COLUMNS: int
    """Pixels across of a program: one row of the coarsest cells."""
    CONTIGUOUS_W: bool
    """Pixels of a row are neighbours, and rows start where STRIDE_DIVISOR of them load at once."""
    STRIDE_DIVISOR: int
    INT64: bool
    ACC: str


@triton.jit(do_not_specialize=["height", "width", "stride_b", "stride_h", "stride_w", "tiles"])
def nested(weight, pooled, height, width, stride_b, stride_h, stride_w, tiles, config: NestedConfig):
    """A program: one row of the coarsest cells of an image, COLUMNS pixels wide."""
    COLUMNS: tl.constexpr = config.COLUMNS
    ROWS: tl.constexpr = config.CELLS[config.LEVELS - 1]
    STRIDE_DIVISOR: tl.constexpr = config.STRIDE_DIVISOR
    INT64: tl.constexpr = config.INT64
    program = tl.program_id(0)
    strip, first_column = program // tiles, (program % tiles) * COLUMNS
    strips = height // ROWS
    batch, first_row = wide_index(strip // strips, INT64), (strip % strips) * ROWS
    rows = wide_index(first_row + tl.arange(0, ROWS), INT64)
    columns = wide_index(first_column + tl.arange(0, COLUMNS), INT64)
    if config.CONTIGUOUS_W:
        o_weight = (rows * (stride_h // STRIDE_DIVISOR) * STRIDE_DIVISOR)[:, None] + columns[None, :]
        m_weight = (columns < width // STRIDE_DIVISOR * STRIDE_DIVISOR)[None, :]
    else:
        o_weight = (rows * stride_h)[:, None] + (columns * stride_w)[None, :]
        m_weight = (columns < width)[None, :]
    sums = tl.load(weight + batch * (stride_b // STRIDE_DIVISOR) * STRIDE_DIVISOR + o_weight, mask=m_weight, other=0.0)
    sums = sums.to(dtype_of(config.ACC))
    for level in tl.static_range(config.LEVELS):
        sums = coarser_cells(
            sums, pooled[level], batch, first_row, first_column, height, width,
            ROWS, COLUMNS, config.CELLS[level], config.CELLS[level - 1] if level > 0 else 1,
        )  # fmt: skip


class WindowsConfig(NamedTuple):
    LEVELS: int
    CELLS: int
    """Of a program."""
    SPAN: int
    """Columns of each cell that are read at a time."""
    INT64: bool
    ACC: str


@triton.jit(do_not_specialize=["spans", "height", "width", "stride_b", "stride_h", "stride_w", "batch_size"])
def windows(weight, pooled, spans, height, width, stride_b, stride_h, stride_w, batch_size, config: WindowsConfig):
    """spans: per level its first program, rows and columns, encoded (launch.py says why)."""
    CELLS: tl.constexpr = config.CELLS
    SPAN: tl.constexpr = config.SPAN
    INT64: tl.constexpr = config.INT64
    ACC: tl.constexpr = dtype_of(config.ACC)
    for level in tl.static_range(config.LEVELS):
        here, program = level_program(spans, level, config.LEVELS)
        if here:
            down, across = decoded(spans[level][1]), decoded(spans[level][2])
            cell = wide_index(program, INT64) * CELLS + tl.arange(0, CELLS)
            m_cell = cell < wide_index(batch_size, INT64) * down * across
            row, column = cell // across % down, cell % across
            # Products of two sizes of an image stay below 2³¹ where the image has fewer pixels than that; op.py checks.
            top, end = row * height // down, ((row + 1) * height + down - 1) // down
            left, right = column * width // across, ((column + 1) * width + across - 1) // across
            p_cell = weight + (cell // across // down) * stride_b
            sums = tl.zeros([CELLS, SPAN], ACC)
            for y in range((height + down - 1) // down + 1):
                m_row = m_cell & (top + y < end)
                for first in range(0, (width + across - 1) // across + 1, SPAN):
                    x = left[:, None] + first + tl.arange(0, SPAN)[None, :]
                    mask = m_row[:, None] & (x < right[:, None])
                    p_load = (p_cell + (top + y) * stride_h)[:, None] + x * stride_w
                    sums += tl.load(p_load, mask=mask, other=0.0).to(ACC)
            mean = tl.sum(sums, 1) / ((end - top) * (right - left)).to(ACC)
            tl.store(pooled[level] + cell, mean, mask=m_cell)
