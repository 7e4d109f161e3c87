"""Triton kernels of the feature distillation loss: both sums of all levels in one launch, the gradients in another.

A level is one pair of feature maps. Its positions are numbered through B, H and W, of which the host has merged what
lies without gaps. A lane is a vector of V neighbouring elements. Channels-last: lanes run over the channels of a
position, then over positions; channels-first: a lane stands at V neighbouring positions and walks through channels, its
weights in registers. Which of the two and V are compiled in, per level; whether a channels-first map's rows start where
wide loads may depends on the image, so that is looked at while running.

The tuples `shapes`, `spans` and `…_strides` have an entry per level, whose numbers are encoded (launch.py says why).
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .._triton.device import dtype_of, wide_index

RUNTIME = ["shapes", "adapted_strides", "teacher_strides", "weight_strides", "gradient_strides"]


class LossConfig(NamedTuple):
    """What `sums` and `gradients` are compiled for. Tuples have an entry per level."""

    LEVELS: int
    CHANNELS: tuple[int, ...]
    CHANNELS_LAST: tuple[bool, ...]
    VECTOR: tuple[int, ...]
    """Elements of a wide load."""
    LANES: tuple[int, ...]
    TILES: int
    """Tiles a channels-last program visits."""
    CHUNK: int
    """Channels a channels-first program walks through."""
    UNROLL: int
    """Of them, under way at once."""
    NARROW: int
    """Elements of each map a thread has under way where rows start anywhere."""
    WEIGHTED: bool
    FLAT: bool
    """All positions of each channels-last level lie at one stride."""
    INT64: bool
    ACC: str


class FinishConfig(NamedTuple):
    LEVELS: int
    TILE: int
    FLOOR: float
    ACC: str


class Shape(NamedTuple):
    """Encoded: a level's first program, its positions along three axes, and the elements of a wide load (0: rows start
    anywhere)."""

    first_program: Any
    size_0: Any
    size_1: Any
    size_2: Any
    wide: Any


class Map(NamedTuple):
    """A feature map or its gradient; strides along the axes of positions and of channels, encoded."""

    p: Any
    stride_0: Any
    stride_1: Any
    stride_2: Any
    stride_c: Any


class Weight(NamedTuple):
    p: Any
    stride_0: Any
    stride_1: Any
    stride_2: Any


class Position(NamedTuple):
    index_0: Any
    index_1: Any
    index_2: Any


@triton.jit
def decoded(number):
    return (number - 3) >> 1


@triton.jit
def map_of(pointer, strides):
    return Map(pointer, strides[0], strides[1], strides[2], strides[3])


@triton.jit
def level_program(shapes, level: tl.constexpr, LEVELS: tl.constexpr):
    """Whether this program works on the level, and its number there."""
    program = tl.program_id(0)
    here = program >= decoded(shapes[level][0])
    if level + 1 < LEVELS:
        here = here & (program < decoded(shapes[level + 1][0]))
    return here, program - decoded(shapes[level][0])


@triton.jit
def offsets(map, position, V: tl.constexpr, CONTIGUOUS: tl.constexpr):
    """Where lanes start. Strides are whole multiples of V; dividing and multiplying tells the compiler so."""
    inner = position.index_2
    if not CONTIGUOUS:
        inner = position.index_2 * (decoded(map.stride_2) // V)
    outer = position.index_0 * (decoded(map.stride_0) // V) + position.index_1 * (decoded(map.stride_1) // V)
    return (outer + inner) * V


@triton.jit
def load_weight(weight, position, mask, ACC: tl.constexpr):
    return tl.load(weight.p + offsets(weight, position, 1, False)[:, None], mask=mask, other=0.0).to(ACC)


@triton.jit
def channels_last_lanes(program, tile, shape, level: tl.constexpr, config: LossConfig):
    """Position, channels and mask of a tile's lanes."""
    V: tl.constexpr = config.VECTOR[level]
    VECTORS: tl.constexpr = config.CHANNELS[level] // V
    LANES: tl.constexpr = config.LANES[level]
    lane = wide_index(program * config.TILES + tile, config.INT64) * LANES + tl.arange(0, LANES)
    index_2 = lane // VECTORS
    valid = index_2 < wide_index(decoded(shape.size_0), config.INT64) * decoded(shape.size_1) * decoded(shape.size_2)
    index_0, index_1 = index_2 * 0, index_2 * 0
    if not config.FLAT:
        row, index_2 = index_2 // decoded(shape.size_2), index_2 % decoded(shape.size_2)
        index_0, index_1 = row // decoded(shape.size_1), row % decoded(shape.size_1)
    channel = (lane % VECTORS)[:, None] * V + tl.arange(0, V)[None, :]
    return Position(index_0, index_1, index_2), channel, valid[:, None]


@triton.jit
def channels_last_pointers(map, position, channel, V: tl.constexpr):
    o_channel = channel
    if V == 1:
        o_channel = channel * decoded(map.stride_c)
    return map.p + offsets(map, position, V, False)[:, None] + o_channel


@triton.jit
def channels_last_sums(program, adapted, teacher, weight, shape, level: tl.constexpr, config: LossConfig):
    V: tl.constexpr = config.VECTOR[level]
    LANES: tl.constexpr = config.LANES[level]
    ACC: tl.constexpr = dtype_of(config.ACC)
    error = tl.zeros([LANES, 1], ACC)
    power = tl.zeros([LANES, 1], ACC)
    for tile in range(config.TILES):
        position, channel, mask = channels_last_lanes(program, tile, shape, level, config)
        p_adapted = channels_last_pointers(adapted, position, channel, V)
        p_teacher = channels_last_pointers(teacher, position, channel, V)
        target = tl.load(p_teacher, mask=mask, other=0.0).to(ACC)
        difference = tl.load(p_adapted, mask=mask, other=0.0).to(ACC) - target
        squares = tl.sum(difference * difference, 1, keep_dims=True)
        if config.WEIGHTED:
            squares *= load_weight(weight, position, mask, ACC)
        error += squares
        power += tl.sum(target * target, 1, keep_dims=True)
    return tl.sum(error), tl.sum(power)


@triton.jit
def channels_last_gradient(
    program, adapted, teacher, weight, gradient, factor, shape, level: tl.constexpr, config: LossConfig
):
    V: tl.constexpr = config.VECTOR[level]
    ACC: tl.constexpr = dtype_of(config.ACC)
    for tile in range(config.TILES):
        position, channel, mask = channels_last_lanes(program, tile, shape, level, config)
        p_adapted = channels_last_pointers(adapted, position, channel, V)
        p_teacher = channels_last_pointers(teacher, position, channel, V)
        target = tl.load(p_teacher, mask=mask, other=0.0).to(ACC)
        difference = tl.load(p_adapted, mask=mask, other=0.0).to(ACC) - target
        factors = tl.zeros([config.LANES[level], 1], ACC) + factor
        if config.WEIGHTED:
            factors *= load_weight(weight, position, mask, ACC)
        p_gradient = channels_last_pointers(gradient, position, channel, V)
        tl.store(p_gradient, (difference * factors).to(gradient.p.dtype.element_ty), mask=mask)


@triton.jit
def channels_first_program(program, shape, level: tl.constexpr, config: LossConfig):
    """The block of positions and the first channel of a program."""
    BLOCK: tl.constexpr = config.VECTOR[level] * config.LANES[level]
    positions = wide_index(decoded(shape.size_0), config.INT64) * decoded(shape.size_1) * decoded(shape.size_2)
    blocks = ((positions + BLOCK - 1) // BLOCK).to(tl.int32)
    return program % blocks, (program // blocks) * config.CHUNK


@triton.jit
def channels_first_lanes(block, shape, V: tl.constexpr, LANES: tl.constexpr, INT64: tl.constexpr):
    """Position (the last index in units of V) and mask of a block's lanes."""
    lane = wide_index(block, INT64) * LANES + tl.arange(0, LANES)
    row, index_2 = lane // (decoded(shape.size_2) // V), lane % (decoded(shape.size_2) // V)
    index_0, index_1 = row // decoded(shape.size_1), row % decoded(shape.size_1)
    return Position(index_0, index_1, index_2), (index_0 < decoded(shape.size_0))[:, None]


@triton.jit
def channels_first_pointers(map, position, V: tl.constexpr):
    return map.p + offsets(map, position, V, V > 1)[:, None] + tl.arange(0, V)[None, :]


@triton.jit
def channel_mask(channel, mask, C: tl.constexpr, CHUNK: tl.constexpr):
    if C % CHUNK != 0:
        mask = tl.where(channel < C, mask, False)
    return mask


@triton.jit
def channel_offset(map, channel, V: tl.constexpr):
    return channel * (decoded(map.stride_c) // V) * V


@triton.jit
def channels_first_sums(
    block, first_channel, adapted, teacher, weight, shape, WIDE: tl.constexpr, level: tl.constexpr, config: LossConfig
):
    V: tl.constexpr = config.VECTOR[level] if WIDE else 1
    LANES: tl.constexpr = config.LANES[level] if WIDE else config.LANES[level] * config.VECTOR[level]
    UNROLL: tl.constexpr = config.UNROLL if WIDE else config.NARROW // config.VECTOR[level]
    ACC: tl.constexpr = dtype_of(config.ACC)
    position, mask = channels_first_lanes(block, shape, V, LANES, config.INT64)
    p_adapted = channels_first_pointers(adapted, position, V)
    p_teacher = channels_first_pointers(teacher, position, V)
    error = tl.zeros([LANES, V], ACC)
    power = tl.zeros([LANES, V], ACC)
    for step in range(0, config.CHUNK, UNROLL):
        step_error = tl.zeros([LANES, V], ACC)
        step_power = tl.zeros([LANES, V], ACC)
        for part in tl.static_range(UNROLL):
            channel = wide_index(first_channel + step + part, config.INT64)
            m_load = channel_mask(channel, mask, config.CHANNELS[level], config.CHUNK)
            o_adapted, o_teacher = channel_offset(adapted, channel, V), channel_offset(teacher, channel, V)
            target = tl.load(p_teacher + o_teacher, mask=m_load, other=0.0).to(ACC)
            difference = tl.load(p_adapted + o_adapted, mask=m_load, other=0.0).to(ACC) - target
            step_error += difference * difference
            step_power += target * target
        error += step_error
        power += step_power
    if config.WEIGHTED:
        p_weight = channels_first_pointers(weight, position, V)
        error *= tl.load(p_weight, mask=mask, other=0.0).to(ACC)
    return tl.sum(error), tl.sum(power)


@triton.jit
def channels_first_gradient(
    block, first_channel, adapted, teacher, weight, gradient, factor, shape,
    WIDE: tl.constexpr, level: tl.constexpr, config: LossConfig,
):  # fmt: skip
    V: tl.constexpr = config.VECTOR[level] if WIDE else 1
    LANES: tl.constexpr = config.LANES[level] if WIDE else config.LANES[level] * config.VECTOR[level]
    UNROLL: tl.constexpr = config.UNROLL if WIDE else config.NARROW // config.VECTOR[level]
    ACC: tl.constexpr = dtype_of(config.ACC)
    position, mask = channels_first_lanes(block, shape, V, LANES, config.INT64)
    p_adapted = channels_first_pointers(adapted, position, V)
    p_teacher = channels_first_pointers(teacher, position, V)
    p_gradient = channels_first_pointers(gradient, position, V)
    factors = tl.zeros([LANES, V], ACC) + factor
    if config.WEIGHTED:
        p_weight = channels_first_pointers(weight, position, V)
        factors *= tl.load(p_weight, mask=mask, other=0.0).to(ACC)
    for step in range(0, config.CHUNK, UNROLL):
        for part in tl.static_range(UNROLL):
            channel = wide_index(first_channel + step + part, config.INT64)
            m_load = channel_mask(channel, mask, config.CHANNELS[level], config.CHUNK)
            o_adapted, o_teacher = channel_offset(adapted, channel, V), channel_offset(teacher, channel, V)
            target = tl.load(p_teacher + o_teacher, mask=m_load, other=0.0).to(ACC)
            difference = tl.load(p_adapted + o_adapted, mask=m_load, other=0.0).to(ACC) - target
            o_gradient = channel_offset(gradient, channel, V)
            tl.store(p_gradient + o_gradient, (difference * factors).to(gradient.p.dtype.element_ty), mask=m_load)


@triton.jit(do_not_specialize=RUNTIME)
def sums(
    partials, adapted, teacher, weight, shapes, adapted_strides, teacher_strides, weight_strides, config: LossConfig
):
    """Each program's Σ weight·(adapted − teacher)² and Σ teacher², into partials (2 × programs)."""
    ACC: tl.constexpr = dtype_of(config.ACC)
    for level in tl.static_range(config.LEVELS):
        here, program = level_program(shapes, level, config.LEVELS)
        if here:
            shape = Shape(shapes[level][0], shapes[level][1], shapes[level][2], shapes[level][3], shapes[level][4])
            a = map_of(adapted[level], adapted_strides[level])
            t = map_of(teacher[level], teacher_strides[level])
            w = Weight(weight[level], weight_strides[level][0], weight_strides[level][1], weight_strides[level][2])
            error, power = tl.zeros([], ACC), tl.zeros([], ACC)
            if config.CHANNELS_LAST[level]:
                error, power = channels_last_sums(program, a, t, w, shape, level, config)
            else:
                block, channel = channels_first_program(program, shape, level, config)
                if decoded(shape.wide) > 0:
                    error, power = channels_first_sums(block, channel, a, t, w, shape, True, level, config)
                else:
                    error, power = channels_first_sums(block, channel, a, t, w, shape, False, level, config)
            tl.store(partials + tl.program_id(0), error)
            tl.store(partials + tl.num_programs(0) + tl.program_id(0), power)


@triton.jit
def compensated(total, compensation, value):
    """One step of Kahan's sum. A total that is no number any more keeps what it is: ∞ stays ∞."""
    value = value - compensation
    grown = total + value
    compensation = (grown - total) - value
    return grown, tl.where(tl.abs(grown) < float("inf"), compensation, 0.0)


@triton.jit(do_not_specialize=["spans", "programs"])
def finish(partials, losses, slopes, spans, programs, config: FinishConfig):
    """One program per level: its loss, and 2/(elements · power), what a gradient is multiplied by.

    spans: per level its first program, one past its last, and its elements. The order of the sum is fixed by them.
    """
    TILE: tl.constexpr = config.TILE
    ACC: tl.constexpr = dtype_of(config.ACC)
    for level in tl.static_range(config.LEVELS):
        if tl.program_id(0) == level:
            error = tl.zeros([TILE], ACC)
            error_compensation = tl.zeros([TILE], ACC)
            power = tl.zeros([TILE], ACC)
            power_compensation = tl.zeros([TILE], ACC)
            for first in range(decoded(spans[level][0]), decoded(spans[level][1]), TILE):
                program = first + tl.arange(0, TILE)
                mask = program < decoded(spans[level][1])
                part = tl.load(partials + program, mask=mask, other=0.0)
                error, error_compensation = compensated(error, error_compensation, part)
                part = tl.load(partials + programs + program, mask=mask, other=0.0)
                power, power_compensation = compensated(power, power_compensation, part)
            elements = tl.cast(decoded(spans[level][2]), ACC)
            mean_power = tl.sum(power) / elements + tl.full([], config.FLOOR, ACC)
            tl.store(losses + level, tl.sum(error) / elements / mean_power)
            tl.store(slopes + level, 2.0 / (elements * mean_power))


@triton.jit(do_not_specialize=[*RUNTIME, "grad_stride"])
def gradients(
    grad_output, slopes, adapted, teacher, weight, gradient, grad_stride, shapes, adapted_strides, teacher_strides,
    weight_strides, gradient_strides, config: LossConfig,
):  # fmt: skip
    """grad_output · slope · weight · (adapted − teacher), in the traversal of `sums`."""
    for level in tl.static_range(config.LEVELS):
        here, program = level_program(shapes, level, config.LEVELS)
        if here:
            factor = tl.load(grad_output + level * grad_stride).to(dtype_of(config.ACC)) * tl.load(slopes + level)
            shape = Shape(shapes[level][0], shapes[level][1], shapes[level][2], shapes[level][3], shapes[level][4])
            a = map_of(adapted[level], adapted_strides[level])
            t = map_of(teacher[level], teacher_strides[level])
            w = Weight(weight[level], weight_strides[level][0], weight_strides[level][1], weight_strides[level][2])
            g = map_of(gradient[level], gradient_strides[level])
            if config.CHANNELS_LAST[level]:
                channels_last_gradient(program, a, t, w, g, factor, shape, level, config)
            else:
                block, channel = channels_first_program(program, shape, level, config)
                if decoded(shape.wide) > 0:
                    channels_first_gradient(block, channel, a, t, w, g, factor, shape, True, level, config)
                else:
                    channels_first_gradient(block, channel, a, t, w, g, factor, shape, False, level, config)
