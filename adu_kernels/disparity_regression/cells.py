"""Where a cell lies, and what is read of it: logits between its four corners, maps at its pixels.

A cell lies between four coarse pixels (rows h, h + 1, columns w, w + 1) and holds s × s fine pixels, so cells run from
−1 to the last row and column, their corners clamped at the border. A block is ROWS × COLUMNS fine pixels of LANES
cells, all those of a cell in one thread.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import LOG2E, constant, dtype_of

LOWEST = tl.constexpr(-(2.0**100))  # what −inf counts as (reference.py): differences, interpolated values stay finite


class Corners(NamedTuple):
    """Of the coarse pixels around a cell: how far from the start of a plane each lies."""

    upper_left: tl.tensor
    upper_right: tl.tensor
    lower_left: tl.tensor
    lower_right: tl.tensor


class Border(NamedTuple):
    """Whether a cell hangs over the border, on each of the map's sides."""

    left: tl.tensor
    right: tl.tensor
    top: tl.tensor
    bottom: tl.tensor


class Part(NamedTuple):
    """ROWS × COLUMNS fine pixels of each cell (h, w), from one of its fine rows and columns on."""

    h: tl.tensor
    w: tl.tensor
    first_row: tl.tensor
    first_column: tl.tensor
    height: tl.tensor
    """Of the coarse map, as `width`."""
    width: tl.tensor


class FineMap(NamedTuple):
    """One image of a B×sH×sW map."""

    start: tl.tensor
    stride_y: tl.tensor
    stride_x: tl.tensor


@triton.jit
def load(pointers, ACC: tl.constexpr):
    return tl.maximum(tl.load(pointers).to(ACC), LOWEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def corners_of(h, w, H, W, stride_h, stride_w):
    """The `Corners` of cell (h, w).

    Clamped at the border, and for lanes past the last cell too: every lane reads inside the tensor.
    """
    upper = tl.minimum(tl.maximum(h, 0), H - 1).to(tl.int64) * stride_h
    lower = tl.minimum(h + 1, H - 1).to(tl.int64) * stride_h
    left = tl.maximum(w, 0).to(tl.int64) * stride_w
    right = tl.minimum(w + 1, W - 1).to(tl.int64) * stride_w
    return Corners(upper + left, upper + right, lower + left, lower + right)


@triton.jit
def quotient(a, b):
    """a / b, correctly rounded: in fp32 a plain `/` may be off by two units in the last place."""
    if a.dtype == tl.float32:
        result = tl.div_rn(a, b)
    else:
        result = a / b
    return result


@triton.jit
def share(place, S: tl.constexpr):
    """place / S to the last bit: between logits 1000 apart its rounding is 1e-4 of a probability."""
    if S & (S - 1) == 0:
        result = place * (1.0 / S)
    else:
        result = quotient(place, tl.full(place.shape, S, place.dtype))
    return result


@triton.jit
def relative(logits, top):
    """Logits relative to their pixel's largest, in units of log₂. Both passes interpolate these, not the logits: near
    the largest the subtraction is exact, and no rounding of a large logit reaches a probability or tells them apart.

    The product is written as fused with 0, so that the compiler fuses it into no sum after it, here one way and in the
    backward another: of logits 10³⁰ apart one pass would find a weight of 1 and the other infinity.
    """
    return tl.fma(logits - top, tl.full([], LOG2E, logits.dtype), tl.full([], 0.0, logits.dtype))


@triton.jit
def scores(plane, corners, across, down, ACC: tl.constexpr):
    """Logits of one candidate at ROWS × COLUMNS fine pixels of LANES cells; `down` is ROWS × 1 × LANES or 1, `across`
    1 × COLUMNS × 1."""
    left_top = load(plane + corners.upper_left, ACC)[None, None, :]
    right_top = load(plane + corners.upper_right, ACC)[None, None, :]
    left = left_top + down * (load(plane + corners.lower_left, ACC)[None, None, :] - left_top)
    right = right_top + down * (load(plane + corners.lower_right, ACC)[None, None, :] - right_top)
    return left + across * (right - left)


@triton.jit
def load_pixels(m, part, other: tl.constexpr, config):
    """ROWS × COLUMNS × LANES values of a `FineMap`: the part's pixels of each cell, `other` where none is.

    One load per pixel and not one for all: so each thread holds all pixels of its cell, whatever layout Triton would
    choose for such a load, and sums over them need no exchange between threads. The choosing below costs nothing then.
    """
    S: tl.constexpr = constant(config.SCALE)
    R: tl.constexpr = constant(config.ROWS)
    P: tl.constexpr = constant(config.COLUMNS)
    row = tl.arange(0, R)[:, None, None]
    column = tl.arange(0, P)[None, :, None]
    values = tl.full([R, P, config.LANES], other, dtype_of(config.ACC))
    for i in tl.static_range(R):
        for j in tl.static_range(P):
            y = S * part.h + (S // 2 + i) + part.first_row
            x = S * part.w + (S // 2 + j) + part.first_column
            inside = (y >= 0) & (y < S * part.height) & (x >= 0) & (x < S * part.width)
            inside = tl.where((part.first_row + i < S) & (part.first_column + j < S), inside, False)
            p_one = m.start + y.to(tl.int64) * m.stride_y + x.to(tl.int64) * m.stride_x
            one = tl.load(p_one, mask=inside, other=other)
            values = tl.where((row == i) & (column == j), one[None, None, :], values)
    return values
