"""What both device files of the cost volumes share: their words, what is compiled in, items and vectors of channels.

Words. The *base* map is the one whose columns the volume's columns are (left in the left view), the *match* map is read
at column − SIGN·d; SIGN is 1 in the left view, −1 in the right. A program owns one image row (b, h) and a run of items;
an item is a group (slide.py correlates it) or a few concatenated channels, of one column or of a few neighbouring ones.
`correlating` and `concatenating`: how many programs of a row do one and the other; `index`: a program's number in its
row. In a backward the *target* map is the one whose gradient is made, past which the other slides. A tile is a row of
table.py.

What stands in a cell without a partner is neither read into the volume nor into a gradient, NaN included.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.layout import MapLayout

# Sizes and strides vary with the image: specialised, each new size would be a new compilation.
SIZES = ["height", "width", "num_disparities", "correlating", "concatenating"]


class SlideConfig(NamedTuple):
    NUM_GROUPS: int
    """0 where nothing is correlated."""
    GROUPS: int
    """Groups of a block of columns: NUM_GROUPS, with NORMALIZE "all" the next power of two."""
    K: int
    """Channels of a group; BLOCK_K the next power of two."""
    BLOCK_K: int
    BLOCK_N: int
    """Items of a program."""
    PIXELS: int
    """Neighbouring columns of an item."""
    SIGN: int
    CHANNELS_LAST: bool
    """Neighbouring items are groups of one pixel, else columns of one group."""
    INT64: bool
    SCALE: float
    NORMALIZE: str
    EPS: float
    EPS_ADDED: bool
    CONCAT: int
    """Channels of a concatenated map, 0 where there is none; an item holds CONCAT_SIZE of them."""
    CONCAT_SIZE: int
    MASK_BASE: bool
    FEATURES: MapLayout
    """Of the correlated maps and their gradients."""
    CONCAT_FEATURES: MapLayout
    VOLUME: MapLayout
    ACC: str
    NEEDED: tuple[bool, ...] = (True, True, True, True)
    """Gradients that are written: base, match, base_concat, match_concat."""
    SCORE_SHARE: float = 0.0
    """A group's share of the scores, 1 / NUM_GROUPS; 0 where there is no gradient of scores."""


class Volume(NamedTuple):
    pointer: Any
    stride_b: Any
    stride_c: Any
    stride_d: Any
    stride_h: Any
    stride_w: Any


class Scores(NamedTuple):
    """B×D×H×W, the mean over the groups."""

    pointer: Any
    stride_b: Any
    stride_d: Any
    stride_h: Any
    stride_w: Any


@triton.jit
def split_items(items, num_blocks, GROUPS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Item number → block of columns and group. The faster of the two is the one neighbouring in memory."""
    if CHANNELS_LAST:
        return items // GROUPS, items % GROUPS
    return items % num_blocks, items // num_blocks


@triton.jit
def vector_pointers(p_row, m, columns, groups, SIZE: tl.constexpr, BLOCK: tl.constexpr, layout):
    """items × BLOCK: where the channels of each item's group stand at its column, in the row that starts at p_row."""
    o_c = groups[:, None] * SIZE + tl.arange(0, BLOCK)[None, :]
    if not layout.CONTIGUOUS_C:
        o_c = o_c * m.stride_c
    o_w = columns
    if not layout.CONTIGUOUS_W:
        o_w = o_w * layout.STRIDE_DIVISOR * m.stride_w
    return p_row + o_w[:, None] + o_c


@triton.jit
def vector_mask(mask, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    # One `return`: Triton wants them all of one type, also those behind a constexpr `if`.
    vectors = mask[:, None]
    if BLOCK != SIZE:
        vectors = vectors & (tl.arange(0, BLOCK) < SIZE)[None, :]
    return vectors


@triton.jit
def load_vectors(p_row, m, columns, groups, mask, SIZE: tl.constexpr, BLOCK: tl.constexpr, layout):
    """items × BLOCK: the SIZE channels of each item's group at its column, 0 where masked."""
    p_load = vector_pointers(p_row, m, columns, groups, SIZE, BLOCK, layout)
    return tl.load(p_load, mask=vector_mask(mask, SIZE, BLOCK), other=0.0)


@triton.jit
def store_vectors(p_row, m, values, columns, groups, mask, SIZE: tl.constexpr, BLOCK: tl.constexpr, layout):
    p_store = vector_pointers(p_row, m, columns, groups, SIZE, BLOCK, layout)
    tl.store(p_store, values.to(p_row.dtype.element_ty), mask=vector_mask(mask, SIZE, BLOCK))


@triton.jit
def inverse_norm(squares, config):
    """1 / (norm + eps), or 1 / norm with 0 for a vector no longer than eps."""
    if config.EPS_ADDED:
        return 1.0 / (tl.sqrt(squares) + config.EPS)
    present = squares > config.EPS * config.EPS
    return tl.where(present, 1.0 / tl.sqrt(tl.where(present, squares, 1.0)), 0.0)
