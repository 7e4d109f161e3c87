"""Triton kernels of the feature distillation loss: both sums of all levels in one launch, the gradients in another.

Words. A level is one pair of feature maps. Its positions are numbered through B, H and W, of which the host has merged
what lies without gaps; `shape` is (first program, three sizes of the positions, elements of a wide load or 0). All
numbers in tuples are encoded (plan.py says why).
A lane is a vector of V neighbouring elements. Channels-last: lanes run over the channels of a position, then over
positions; channels-first: a lane stands at V neighbouring positions and walks through channels, its weights in
registers. Which of the two and V are compiled in, per level; whether a channels-first map's rows start where wide loads
may depends on the image, so that is looked at while running.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import triton
import triton.language as tl

from .._triton.device import wide_index

RUNTIME = ["shapes", "adapted_strides", "teacher_strides", "weight_strides", "gradient_strides"]


@triton.jit
def decoded(numbers, index: tl.constexpr):
    return (numbers[index] - 3) >> 1


@triton.jit
def offsets(index_0, index_1, index_2, strides, V: tl.constexpr, UNIT: tl.constexpr):
    """Where lanes start. Strides are whole multiples of V; dividing and multiplying tells the compiler so."""
    inner = index_2
    if not UNIT:
        inner = index_2 * (decoded(strides, 2) // V)
    return (index_0 * (decoded(strides, 0) // V) + index_1 * (decoded(strides, 1) // V) + inner) * V


@triton.jit
def channels_last_lanes(program, tile, shape, C: tl.constexpr, V: tl.constexpr, LANES: tl.constexpr,
                        TILES: tl.constexpr, FLAT: tl.constexpr, INT64: tl.constexpr):  # fmt: skip
    """Position (as three indices), channels and mask of a tile's lanes."""
    lane = wide_index(program * TILES + tile, INT64) * LANES + tl.arange(0, LANES)
    index_2 = lane // (C // V)
    valid = index_2 < wide_index(decoded(shape, 1), INT64) * decoded(shape, 2) * decoded(shape, 3)
    index_0, index_1 = index_2 * 0, index_2 * 0
    if not FLAT:
        row = index_2 // decoded(shape, 3)
        index_0, index_1, index_2 = row // decoded(shape, 2), row % decoded(shape, 2), index_2 % decoded(shape, 3)
    channel = (lane % (C // V))[:, None] * V + tl.arange(0, V)[None, :]
    return index_0, index_1, index_2, channel, valid[:, None]


@triton.jit
def channels_last_pointers(map, index_0, index_1, index_2, channel, strides, V: tl.constexpr):
    o_channel = channel
    if V == 1:
        o_channel = channel * decoded(strides, 3)
    return map + offsets(index_0, index_1, index_2, strides, V, False)[:, None] + o_channel


@triton.jit
def channels_first_lanes(block, shape, V: tl.constexpr, LANES: tl.constexpr, INT64: tl.constexpr):
    """Position (as three indices, the last in units of V) and mask of a block's lanes."""
    lane = wide_index(block, INT64) * LANES + tl.arange(0, LANES)
    row, index_2 = lane // (decoded(shape, 3) // V), lane % (decoded(shape, 3) // V)
    index_0, index_1 = row // decoded(shape, 2), row % decoded(shape, 2)
    return index_0, index_1, index_2, (index_0 < decoded(shape, 1))[:, None]


@triton.jit
def channels_first_pointers(map, index_0, index_1, index_2, strides, V: tl.constexpr):
    return map + offsets(index_0, index_1, index_2, strides, V, V > 1)[:, None] + tl.arange(0, V)[None, :]


@triton.jit
def level_program(shapes, level: tl.constexpr, LEVELS: tl.constexpr):
    """Whether this program works on the level, and its number there."""
    program = tl.program_id(0)
    own = program >= decoded(shapes[level], 0)
    if level + 1 < LEVELS:
        own = own & (program < decoded(shapes[level + 1], 0))
    return own, program - decoded(shapes[level], 0)


@triton.jit
def channels_last_sums(
    program, adapted, teacher, weight, shape, adapted_strides, teacher_strides, weight_strides,
    C: tl.constexpr, V: tl.constexpr, LANES: tl.constexpr, TILES: tl.constexpr, WEIGHTED: tl.constexpr,
    FLAT: tl.constexpr, INT64: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    error = tl.zeros([LANES, 1], ACC)
    power = tl.zeros([LANES, 1], ACC)
    for tile in range(TILES):
        b, h, w, channel, mask = channels_last_lanes(program, tile, shape, C, V, LANES, TILES, FLAT, INT64)
        p_adapted = channels_last_pointers(adapted, b, h, w, channel, adapted_strides, V)
        p_teacher = channels_last_pointers(teacher, b, h, w, channel, teacher_strides, V)
        theirs = tl.load(p_teacher, mask=mask, other=0.0).to(ACC)
        difference = tl.load(p_adapted, mask=mask, other=0.0).to(ACC) - theirs
        squares = tl.sum(difference * difference, 1, keep_dims=True)
        if WEIGHTED:
            p_weight = weight + offsets(b, h, w, weight_strides, 1, False)[:, None]
            squares *= tl.load(p_weight, mask=mask, other=0.0).to(ACC)
        error += squares
        power += tl.sum(theirs * theirs, 1, keep_dims=True)
    return tl.sum(error), tl.sum(power)


@triton.jit
def channels_first_sums(
    block, first_channel, adapted, teacher, weight, shape, adapted_strides, teacher_strides, weight_strides,
    C: tl.constexpr, V: tl.constexpr, LANES: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr,
    WEIGHTED: tl.constexpr, INT64: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    b, h, w, mask = channels_first_lanes(block, shape, V, LANES, INT64)
    p_adapted = channels_first_pointers(adapted, b, h, w, adapted_strides, V)
    p_teacher = channels_first_pointers(teacher, b, h, w, teacher_strides, V)
    error = tl.zeros([LANES, V], ACC)
    power = tl.zeros([LANES, V], ACC)
    for step in range(0, CHUNK, UNROLL):
        step_error = tl.zeros([LANES, V], ACC)
        step_power = tl.zeros([LANES, V], ACC)
        for part in tl.static_range(UNROLL):
            channel = wide_index(first_channel + step + part, INT64)
            m_load = mask
            if C % CHUNK != 0:
                m_load = tl.where(channel < C, mask, False)
            o_adapted, o_teacher = (
                channel * (decoded(adapted_strides, 3) // V) * V,
                channel * (decoded(teacher_strides, 3) // V) * V,
            )
            theirs = tl.load(p_teacher + o_teacher, mask=m_load, other=0.0).to(ACC)
            difference = tl.load(p_adapted + o_adapted, mask=m_load, other=0.0).to(ACC) - theirs
            step_error += difference * difference
            step_power += theirs * theirs
        error += step_error
        power += step_power
    if WEIGHTED:
        p_weight = channels_first_pointers(weight, b, h, w, weight_strides, V)
        error *= tl.load(p_weight, mask=mask, other=0.0).to(ACC)
    return tl.sum(error), tl.sum(power)


@triton.jit(do_not_specialize=RUNTIME)
def sums(
    partials, adapted, teacher, weight, shapes, adapted_strides, teacher_strides, weight_strides,
    LEVELS: tl.constexpr, CHANNELS: tl.constexpr, LAST: tl.constexpr, VECTOR: tl.constexpr, LANES: tl.constexpr,
    TILES: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr, NARROW: tl.constexpr, WEIGHTED: tl.constexpr,
    FLAT: tl.constexpr, INT64: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Each program's Σ weight·(adapted − teacher)² and Σ teacher², into partials (2 × programs)."""
    for level in tl.static_range(LEVELS):
        own, program = level_program(shapes, level, LEVELS)
        if own:
            error, power = tl.zeros([], ACC), tl.zeros([], ACC)
            if LAST[level]:
                error, power = channels_last_sums(
                    program, adapted[level], teacher[level], weight[level], shapes[level], adapted_strides[level],
                    teacher_strides[level], weight_strides[level], CHANNELS[level], VECTOR[level], LANES[level], TILES,
                    WEIGHTED, FLAT, INT64, ACC,
                )  # fmt: skip
            else:
                blocks = channels_first_blocks(shapes[level], VECTOR[level] * LANES[level], INT64)
                block, first_channel = program % blocks, (program // blocks) * CHUNK
                if decoded(shapes[level], 4) > 0:
                    error, power = channels_first_sums(
                        block, first_channel, adapted[level], teacher[level], weight[level], shapes[level],
                        adapted_strides[level], teacher_strides[level], weight_strides[level], CHANNELS[level],
                        VECTOR[level], LANES[level], CHUNK, UNROLL, WEIGHTED, INT64, ACC,
                    )  # fmt: skip
                else:
                    error, power = channels_first_sums(
                        block, first_channel, adapted[level], teacher[level], weight[level], shapes[level],
                        adapted_strides[level], teacher_strides[level], weight_strides[level], CHANNELS[level],
                        1, LANES[level] * VECTOR[level], CHUNK, NARROW // VECTOR[level], WEIGHTED, INT64, ACC,
                    )  # fmt: skip
            tl.store(partials + tl.program_id(0), error)
            tl.store(partials + tl.num_programs(0) + tl.program_id(0), power)


@triton.jit
def channels_first_blocks(shape, BLOCK: tl.constexpr, INT64: tl.constexpr):
    """Programs that stand side by side over the positions of a channels-first level."""
    positions = wide_index(decoded(shape, 1), INT64) * decoded(shape, 2) * decoded(shape, 3)
    return ((positions + BLOCK - 1) // BLOCK).to(tl.int32)


@triton.jit
def compensated(total, lost, value):
    """One step of Kahan's sum. A total that is no number any more keeps what it is: ∞ stays ∞."""
    value = value - lost
    grown = total + value
    lost = (grown - total) - value
    return grown, tl.where(tl.abs(grown) < float("inf"), lost, 0.0)


@triton.jit(do_not_specialize=["spans", "programs"])
def finish(partials, losses, slopes, spans, programs,
           LEVELS: tl.constexpr, TILE: tl.constexpr, FLOOR: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """One program per level: its loss, and 2/(elements · power), what a gradient is multiplied by.

    spans: per level its first program, one past its last, and its elements. The order of the sum is fixed by them.
    """
    for level in tl.static_range(LEVELS):
        if tl.program_id(0) == level:
            error = tl.zeros([TILE], ACC)
            lost_error = tl.zeros([TILE], ACC)
            power = tl.zeros([TILE], ACC)
            lost_power = tl.zeros([TILE], ACC)
            for first in range(decoded(spans[level], 0), decoded(spans[level], 1), TILE):
                program = first + tl.arange(0, TILE)
                mask = program < decoded(spans[level], 1)
                part = tl.load(partials + program, mask=mask, other=0.0)
                error, lost_error = compensated(error, lost_error, part)
                part = tl.load(partials + programs + program, mask=mask, other=0.0)
                power, lost_power = compensated(power, lost_power, part)
            elements = tl.cast(decoded(spans[level], 2), ACC)
            mean_power = tl.sum(power) / elements + tl.full([], FLOOR, ACC)
            tl.store(losses + level, tl.sum(error) / elements / mean_power)
            tl.store(slopes + level, 2.0 / (elements * mean_power))


@triton.jit
def channels_last_gradient(
    program, adapted, teacher, weight, gradient, factor, shape, adapted_strides, teacher_strides, weight_strides,
    gradient_strides, C: tl.constexpr, V: tl.constexpr, LANES: tl.constexpr, TILES: tl.constexpr,
    WEIGHTED: tl.constexpr, FLAT: tl.constexpr, INT64: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    for tile in range(TILES):
        b, h, w, channel, mask = channels_last_lanes(program, tile, shape, C, V, LANES, TILES, FLAT, INT64)
        p_adapted = channels_last_pointers(adapted, b, h, w, channel, adapted_strides, V)
        p_teacher = channels_last_pointers(teacher, b, h, w, channel, teacher_strides, V)
        theirs = tl.load(p_teacher, mask=mask, other=0.0).to(ACC)
        difference = tl.load(p_adapted, mask=mask, other=0.0).to(ACC) - theirs
        factors = tl.zeros([LANES, 1], ACC) + factor
        if WEIGHTED:
            p_weight = weight + offsets(b, h, w, weight_strides, 1, False)[:, None]
            factors *= tl.load(p_weight, mask=mask, other=0.0).to(ACC)
        p_gradient = channels_last_pointers(gradient, b, h, w, channel, gradient_strides, V)
        tl.store(p_gradient, (difference * factors).to(gradient.dtype.element_ty), mask=mask)


@triton.jit
def channels_first_gradient(
    block, first_channel, adapted, teacher, weight, gradient, factor, shape, adapted_strides, teacher_strides,
    weight_strides, gradient_strides, C: tl.constexpr, V: tl.constexpr, LANES: tl.constexpr, CHUNK: tl.constexpr,
    UNROLL: tl.constexpr, WEIGHTED: tl.constexpr, INT64: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    b, h, w, mask = channels_first_lanes(block, shape, V, LANES, INT64)
    p_adapted = channels_first_pointers(adapted, b, h, w, adapted_strides, V)
    p_teacher = channels_first_pointers(teacher, b, h, w, teacher_strides, V)
    p_gradient = channels_first_pointers(gradient, b, h, w, gradient_strides, V)
    factors = tl.zeros([LANES, V], ACC) + factor
    if WEIGHTED:
        p_weight = channels_first_pointers(weight, b, h, w, weight_strides, V)
        factors *= tl.load(p_weight, mask=mask, other=0.0).to(ACC)
    for step in range(0, CHUNK, UNROLL):
        for part in tl.static_range(UNROLL):
            channel = wide_index(first_channel + step + part, INT64)
            m_load = mask
            if C % CHUNK != 0:
                m_load = tl.where(channel < C, mask, False)
            o_adapted, o_teacher = (
                channel * (decoded(adapted_strides, 3) // V) * V,
                channel * (decoded(teacher_strides, 3) // V) * V,
            )
            theirs = tl.load(p_teacher + o_teacher, mask=m_load, other=0.0).to(ACC)
            difference = tl.load(p_adapted + o_adapted, mask=m_load, other=0.0).to(ACC) - theirs
            o_gradient = channel * (decoded(gradient_strides, 3) // V) * V
            tl.store(p_gradient + o_gradient, (difference * factors).to(gradient.dtype.element_ty), mask=m_load)


@triton.jit(do_not_specialize=[*RUNTIME, "upstream_stride"])
def gradients(
    upstream, slopes, adapted, teacher, weight, gradient, upstream_stride, shapes, adapted_strides, teacher_strides,
    weight_strides, gradient_strides,
    LEVELS: tl.constexpr, CHANNELS: tl.constexpr, LAST: tl.constexpr, VECTOR: tl.constexpr, LANES: tl.constexpr,
    TILES: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr, NARROW: tl.constexpr, WEIGHTED: tl.constexpr,
    FLAT: tl.constexpr, INT64: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """upstream · slope · weight · (adapted − teacher), in the traversal of `sums`."""
    for level in tl.static_range(LEVELS):
        own, program = level_program(shapes, level, LEVELS)
        if own:
            factor = tl.load(upstream + level * upstream_stride).to(ACC) * tl.load(slopes + level)
            if LAST[level]:
                channels_last_gradient(
                    program, adapted[level], teacher[level], weight[level], gradient[level], factor, shapes[level],
                    adapted_strides[level], teacher_strides[level], weight_strides[level], gradient_strides[level],
                    CHANNELS[level], VECTOR[level], LANES[level], TILES, WEIGHTED, FLAT, INT64, ACC,
                )  # fmt: skip
            else:
                blocks = channels_first_blocks(shapes[level], VECTOR[level] * LANES[level], INT64)
                block, first_channel = program % blocks, (program // blocks) * CHUNK
                if decoded(shapes[level], 4) > 0:
                    channels_first_gradient(
                        block, first_channel, adapted[level], teacher[level], weight[level], gradient[level], factor,
                        shapes[level], adapted_strides[level], teacher_strides[level], weight_strides[level],
                        gradient_strides[level], CHANNELS[level], VECTOR[level], LANES[level], CHUNK, UNROLL, WEIGHTED,
                        INT64, ACC,
                    )  # fmt: skip
                else:
                    channels_first_gradient(
                        block, first_channel, adapted[level], teacher[level], weight[level], gradient[level], factor,
                        shapes[level], adapted_strides[level], teacher_strides[level], weight_strides[level],
                        gradient_strides[level], CHANNELS[level], 1, LANES[level] * VECTOR[level], CHUNK,
                        NARROW // VECTOR[level], WEIGHTED, INT64, ACC,
                    )  # fmt: skip
