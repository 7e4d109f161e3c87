"""Triton kernels of the per-pixel losses: `statistics`, then `values` (losses and gradients) or `weights`.

A segment is what one mean is taken over: the batch, or one image. `chunks` programs share a segment, each takes every
chunks-th block of it. A map that is not needed is None and not read; so is a number. Maps that all lie in a row have
no strides. The README beside this file says why it is two launches, and how the last program is found.
"""

# mypy: disable-error-code="assignment"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import constant, dtype_of
from . import pixels, reference

SILOG_FLOOR = tl.constexpr(reference.SILOG_FLOOR)
SIZES = ["length", "parts", "chunks", "segments", "height", "width"]
STRIDES = [f"{name}_{axis}" for name in ("depth", "scale", "teacher", "target", "weight") for axis in "bhw"]


class LossConfig(NamedTuple):
    """What a kernel is compiled for; what it does not look at stays as it is here."""

    LANES: int
    V: int
    """Neighbouring pixels of a lane."""
    ALIGNED: bool
    """Segments have a multiple of 16 pixels: no block ends within 16 neighbouring ones."""
    FLAT: bool
    """All maps lie in a row."""
    ACC: str
    SILOG: bool = False
    LAPLACE: bool = False
    GUIDE: int = 0
    """±1: the weight follows exp(±s)."""
    GATE: bool = False
    JOINT: bool = False
    DETACH: bool = False
    PIXELS: bool = False
    """`values` looks at pixels at all: a gradient or a sum is wanted."""
    PARTS: int = 0
    """The power of two that neither parts nor chunks of a segment pass."""
    ROWS: int = 0
    """Segments that the last program adds up at a time."""


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[:12]])
def statistics(
    sums, counts, arrived, depth, scale, teacher, target,
    depth_b, depth_h, depth_w, scale_b, scale_h, scale_w, teacher_b, teacher_h, teacher_w, target_b, target_h, target_w,
    length, chunks, height, width, numbers, config: LossConfig,
):  # fmt: skip
    """Of each program: mean of q, Σ(q − mean)², Σ exp(GUIDE · s) (sums: 3 × programs), valid targets and teachers
    (counts: 2 × programs). And the count of `values`' programs starts at 0."""
    LANES: tl.constexpr = constant(config.LANES)
    V: tl.constexpr = constant(config.V)
    ACC: tl.constexpr = dtype_of(config.ACC)
    m_depth = pixels.Map(depth, depth_b, depth_h, depth_w)
    m_scale = pixels.Map(scale, scale_b, scale_h, scale_w)
    m_teacher = pixels.Map(teacher, teacher_b, teacher_h, teacher_w)
    m_target = pixels.Map(target, target_b, target_h, target_w)
    min_depth, max_depth = pixels.number(numbers.min_depth, ACC), pixels.number(numbers.max_depth, ACC)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    if program == 0:
        tl.store(arrived, 0)
    start = pixels.first_pixel(program // chunks, length, config.ALIGNED)
    blocks = tl.cdiv(length, LANES * V).to(tl.int32)

    count = tl.zeros([LANES], ACC)  # whole numbers, exact as far as a lane can count
    mean = tl.zeros([LANES], ACC)
    mean_compensation = tl.zeros([LANES], ACC)
    m2 = tl.zeros([LANES], ACC)
    m2_compensation = tl.zeros([LANES], ACC)
    taught = tl.zeros([LANES], tl.int32)
    guide_sum = tl.zeros([LANES], ACC)
    guide_compensation = tl.zeros([LANES], ACC)
    for block in range(program % chunks, blocks, chunks):
        place = pixels.block_of(block, start, length, height, width, LANES, V, config.ALIGNED, config.FLAT)
        if target is not None:
            truth = pixels.load(m_target, place, 0, ACC)
            valid = pixels.has_target(truth, min_depth, max_depth)
            if config.SILOG:
                predicted = pixels.load(m_depth, place, 1, ACC)
                inverse = 1.0 / pixels.clip(predicted, min_depth, max_depth)
                q = tl.where(valid, pixels.log_ratio(inverse, tl.where(valid, truth, 1.0)), 0.0)
                count, mean, mean_compensation, m2, m2_compensation = pixels.add_moments(
                    count, mean, mean_compensation, m2, m2_compensation, q, valid, ACC
                )
            else:
                count += tl.sum(valid.to(ACC), 1)
        if teacher is not None:
            known = pixels.has_teacher(pixels.load(m_teacher, place, 0, ACC))
            taught += tl.sum(known.to(tl.int32), 1)
            if config.GUIDE != 0:
                s = pixels.load(m_scale, place, 0, ACC)
                s = pixels.clip(s, pixels.SCALE_LOW, pixels.SCALE_HIGH)
                here = tl.sum(tl.where(known, pixels.exponential(s, config.GUIDE), 0.0), 1)
                guide_sum, guide_compensation = pixels.add(guide_sum, guide_compensation, here)

    if target is not None:
        tl.store(counts + program, tl.sum(count.to(tl.int32), 0))
        if config.SILOG:
            centre, spread = pixels.merge(count, mean + mean_compensation, m2 + m2_compensation)
            tl.store(sums + program, centre)
            tl.store(sums + programs + program, spread)
    if teacher is not None:
        tl.store(counts + programs + program, tl.sum(taught, 0))
        if config.GUIDE != 0:
            tl.store(sums + 2 * programs + program, tl.sum(guide_sum + guide_compensation, 0))


@triton.jit
def total_count(counts, exists, ACC: tl.constexpr):
    """How many in all (exact), and the same as a divisor: at least 1."""
    number = tl.sum(tl.load(counts, mask=exists, other=0).to(tl.int64), 0)
    return number, tl.maximum(number, 1).to(ACC)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES])
def values(
    total, terms, partial_losses, per_segment, grad_depth, grad_log_scale, sums, counts, arrived,
    depth, scale, teacher, target, weight, strength,
    depth_b, depth_h, depth_w, scale_b, scale_h, scale_w, teacher_b, teacher_h, teacher_w, target_b, target_h, target_w,
    weight_b, weight_h, weight_w,
    length, parts, chunks, segments, height, width, numbers, config: LossConfig,
):  # fmt: skip
    """Gradients per pixel; of each program Σ of the uncertainty and of the response (partial_losses: 2 × programs); of
    each segment SILog and the divisors of the others (per_segment: 3 × segments); and from the last program the terms
    and their total."""
    LANES: tl.constexpr = constant(config.LANES)
    V: tl.constexpr = constant(config.V)
    ACC: tl.constexpr = dtype_of(config.ACC)
    m_depth = pixels.Map(depth, depth_b, depth_h, depth_w)
    m_scale = pixels.Map(scale, scale_b, scale_h, scale_w)
    m_teacher = pixels.Map(teacher, teacher_b, teacher_h, teacher_w)
    m_target = pixels.Map(target, target_b, target_h, target_w)
    m_weight = pixels.Map(weight, weight_b, weight_h, weight_w)
    min_depth, max_depth = pixels.number(numbers.min_depth, ACC), pixels.number(numbers.max_depth, ACC)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    segment = program // chunks
    part = tl.arange(0, config.PARTS)
    exists = part < parts
    part = segment * parts + part
    before = segments * parts

    # Every program adds up the partial sums of its segment by itself, all in the same order.
    valid_count = 0
    valid_divisor = 1.0
    taught_divisor = 1.0
    silog_grad_scale = 0.0
    centre = 0.0
    silog = 0.0
    guide_mean = 1.0
    if target is not None and (config.SILOG or config.LAPLACE):
        valid_count, valid_divisor = total_count(counts + part, exists, ACC)
    if config.SILOG:
        variance_focus = pixels.number(numbers.variance_focus, ACC)
        each = tl.load(counts + part, mask=exists, other=0).to(ACC)
        means = tl.load(sums + part, mask=exists, other=0.0)
        centre, spread = pixels.merge(each, means, tl.load(sums + before + part, mask=exists, other=0.0))
        variance = spread / valid_divisor + (1.0 - variance_focus) * centre * centre
        silog = 10.0 * tl.sqrt(variance + SILOG_FLOOR)
        silog_grad_scale = pixels.number(numbers.silog, ACC) * 100.0 / (silog * valid_divisor * segments)
        silog = tl.where(valid_count > 0, silog, 0.0)
        centre = variance_focus * centre
    if teacher is not None:
        taught_count, taught_divisor = total_count(counts + before + part, exists, ACC)
        if config.GUIDE != 0:
            guide_mean = tl.sum(tl.load(sums + 2 * before + part, mask=exists, other=0.0), 0) / taught_divisor
            guide_mean = tl.where(taught_count > 0, guide_mean, 1.0)
            rho = pixels.guide_strength(strength, numbers, ACC)
    if config.LAPLACE:
        laplace_grad_scale = pixels.number(numbers.uncertainty, ACC) / (valid_divisor * segments)
    if teacher is not None:
        response_grad_scale = pixels.number(numbers.response, ACC) / (taught_divisor * segments)
        beta = pixels.number(numbers.beta, ACC)

    uncertainty_sum = tl.zeros([LANES], ACC)
    uncertainty_compensation = tl.zeros([LANES], ACC)
    response_sum = tl.zeros([LANES], ACC)
    response_compensation = tl.zeros([LANES], ACC)
    if config.PIXELS:
        start = pixels.first_pixel(segment, length, config.ALIGNED)
        blocks = tl.cdiv(length, LANES * V).to(tl.int32)
        # From the end: what `statistics` read last may still lie in the cache.
        for turned in range(program % chunks, blocks, chunks):
            place = pixels.block_of(
                blocks - 1 - turned, start, length, height, width, LANES, V, config.ALIGNED, config.FLAT
            )
            predicted = pixels.load(m_depth, place, 1, ACC)
            clamped = pixels.clip(predicted, min_depth, max_depth)
            inverse = 1.0 / clamped
            grad_log_depth = tl.zeros([LANES, V], ACC)
            if scale is not None:
                s = pixels.load(m_scale, place, 0, ACC)
                clamped_s = pixels.clip(s, pixels.SCALE_LOW, pixels.SCALE_HIGH)
            if target is not None:
                truth = pixels.load(m_target, place, 0, ACC)
                valid = pixels.has_target(truth, min_depth, max_depth)
            if config.SILOG or config.LAPLACE:
                true = tl.where(valid, truth, 1.0)
                q = pixels.log_ratio(inverse, true)
            if config.SILOG:
                grad_log_depth += silog_grad_scale * (q - centre)
            if config.LAPLACE:
                sure = pixels.exponential(clamped_s, -1.0)
                missed = sure * tl.abs(q)
                likelihood = missed + clamped_s
                counts_for = laplace_grad_scale
                if numbers.beta_nll is not None:
                    factor = pixels.exponential(clamped_s, 2.0 * pixels.number(numbers.beta_nll, ACC))
                    likelihood = likelihood * factor
                    counts_for = laplace_grad_scale * factor
                here = tl.sum(tl.where(valid, likelihood, 0.0), 1)
                uncertainty_sum, uncertainty_compensation = pixels.add(uncertainty_sum, uncertainty_compensation, here)
                if config.JOINT:
                    grad_log_depth += pixels.with_sign(counts_for * sure, clamped, true)
                if grad_log_scale is not None:
                    free = valid & (s >= pixels.SCALE_LOW) & (s <= pixels.SCALE_HIGH)
                    slope = tl.where(free, counts_for - counts_for * missed, 0.0)
                    tl.store(grad_log_scale + place[0] + place[1], slope, mask=place[2])
            if config.SILOG or config.LAPLACE:
                grad_log_depth = tl.where(valid, grad_log_depth, 0.0)
            if teacher is not None:
                learnt = pixels.load(m_teacher, place, 0, ACC)
                known = pixels.has_teacher(learnt)
                clamped_teacher = pixels.clip(learnt, min_depth, max_depth)
                error = tl.abs(pixels.log_ratio(inverse, clamped_teacher))
                t, curve = pixels.focus(error, beta)
                steep = 0.5 * beta
                lower = 1.0
                if numbers.gamma is not None:
                    gamma = pixels.number(numbers.gamma, ACC)
                    steep = steep * gamma
                    lower = pixels.power(t, gamma - 1.0)
                focused = t * lower
                importance = 1.0
                if weight is not None:
                    importance = pixels.load(m_weight, place, 0, ACC)
                if config.GUIDE != 0:
                    guiding = pixels.exponential(clamped_s, config.GUIDE)
                    importance = pixels.guide_weight(guiding, known, guide_mean, rho)
                if config.GATE:
                    sharpness = pixels.number(numbers.sharpness, ACC)
                    importance = importance * pixels.gate_weight(learnt, truth, known & valid, sharpness)
                loss = tl.where(known, error * focused * importance, 0.0)
                response_sum, response_compensation = pixels.add(response_sum, response_compensation, tl.sum(loss, 1))
                if not config.DETACH:
                    focused += steep * error * lower * curve
                slope = pixels.with_sign(response_grad_scale * importance * focused, clamped, clamped_teacher)
                grad_log_depth += tl.where(known, slope, 0.0)
            if grad_depth is not None:
                free = (predicted >= min_depth) & (predicted <= max_depth)
                tl.store(grad_depth + place[0] + place[1], tl.where(free, grad_log_depth * inverse, 0.0), mask=place[2])

    if config.LAPLACE:
        tl.store(partial_losses + program, tl.sum(uncertainty_sum + uncertainty_compensation, 0))
    if teacher is not None:
        tl.store(partial_losses + programs + program, tl.sum(response_sum + response_compensation, 0))
    if program % chunks == 0:
        tl.store(per_segment + segment, silog)
        tl.store(per_segment + segments + segment, valid_divisor)
        tl.store(per_segment + 2 * segments + segment, taught_divisor)
    # The program that counts itself last sees all that the others stored before they counted themselves.
    tl.debug_barrier()
    if tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu") == programs - 1:
        finish(
            total, terms, partial_losses, per_segment, chunks, segments, programs, numbers, teacher is not None, config
        )


@triton.jit
def finish(
    total, terms, partial_losses, per_segment, chunks, segments, programs, numbers, RESPONSE: tl.constexpr, config
):
    """Terms and total from what the programs stored: the mean over segments, in one order whichever program does it.

    Reads past the first-level cache, which other multiprocessors do not write to.
    """
    ROWS: tl.constexpr = constant(config.ROWS)
    ACC: tl.constexpr = dtype_of(config.ACC)
    silog = tl.zeros([ROWS], ACC)
    laplace = tl.zeros([ROWS], ACC)
    response = tl.zeros([ROWS], ACC)
    part = tl.arange(0, config.PARTS)[None, :]
    for first in range(0, segments, ROWS):
        row = first + tl.arange(0, ROWS)
        exists = row < segments
        each = exists[:, None] & (part < chunks)
        place = row[:, None] * chunks + part
        if config.SILOG:
            silog += tl.load(per_segment + row, mask=exists, other=0.0, cache_modifier=".cg")
        if config.LAPLACE:
            divisor = tl.load(per_segment + segments + row, mask=exists, other=1.0, cache_modifier=".cg")
            laplace += tl.sum(tl.load(partial_losses + place, mask=each, other=0.0, cache_modifier=".cg"), 1) / divisor
        if RESPONSE:
            divisor = tl.load(per_segment + 2 * segments + row, mask=exists, other=1.0, cache_modifier=".cg")
            sums = tl.load(partial_losses + programs + place, mask=each, other=0.0, cache_modifier=".cg")
            response += tl.sum(sums, 1) / divisor
    of_silog = tl.sum(silog, 0) / segments
    of_laplace = tl.sum(laplace, 0) / segments
    of_response = tl.sum(response, 0) / segments
    tl.store(terms, of_silog)
    tl.store(terms + 1, of_laplace)
    tl.store(terms + 2, of_response)
    whole = tl.zeros([], ACC)
    if config.SILOG:
        whole += pixels.number(numbers.silog, ACC) * of_silog
    if config.LAPLACE:
        whole += pixels.number(numbers.uncertainty, ACC) * of_laplace
    if RESPONSE:
        whole += pixels.number(numbers.response, ACC) * of_response
    tl.store(total, whole)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[3:12]])
def weights(
    result, sums, counts, scale, teacher, target, strength,
    scale_b, scale_h, scale_w, teacher_b, teacher_h, teacher_w, target_b, target_h, target_w,
    length, parts, height, width, numbers, config: LossConfig,
):  # fmt: skip
    """The guide (GUIDE ±1), or the gate (0). As many programs as `statistics` had; `parts` share a segment."""
    LANES: tl.constexpr = constant(config.LANES)
    V: tl.constexpr = constant(config.V)
    ACC: tl.constexpr = dtype_of(config.ACC)
    m_scale = pixels.Map(scale, scale_b, scale_h, scale_w)
    m_teacher = pixels.Map(teacher, teacher_b, teacher_h, teacher_w)
    m_target = pixels.Map(target, target_b, target_h, target_w)
    program = tl.program_id(0)
    segment = program // parts
    if config.GUIDE != 0:
        part = segment * parts + tl.arange(0, config.PARTS)
        exists = tl.arange(0, config.PARTS) < parts
        taught_count, divisor = total_count(counts + tl.num_programs(0) + part, exists, ACC)
        guide_mean = tl.sum(tl.load(sums + 2 * tl.num_programs(0) + part, mask=exists, other=0.0), 0) / divisor
        guide_mean = tl.where(taught_count > 0, guide_mean, 1.0)
        rho = pixels.guide_strength(strength, numbers, ACC)
    start = pixels.first_pixel(segment, length, config.ALIGNED)
    blocks = tl.cdiv(length, LANES * V).to(tl.int32)
    for turned in range(program % parts, blocks, parts):
        place = pixels.block_of(
            blocks - 1 - turned, start, length, height, width, LANES, V, config.ALIGNED, config.FLAT
        )
        learnt = pixels.load(m_teacher, place, 0, ACC)
        known = pixels.has_teacher(learnt)
        if config.GUIDE != 0:
            s = pixels.load(m_scale, place, 0, ACC)
            guiding = pixels.exponential(pixels.clip(s, pixels.SCALE_LOW, pixels.SCALE_HIGH), config.GUIDE)
            weight = pixels.guide_weight(guiding, known, guide_mean, rho)
        else:
            min_depth, max_depth = pixels.number(numbers.min_depth, ACC), pixels.number(numbers.max_depth, ACC)
            truth = pixels.load(m_target, place, 0, ACC)
            both = known & pixels.has_target(truth, min_depth, max_depth)
            weight = pixels.gate_weight(learnt, truth, both, pixels.number(numbers.sharpness, ACC))
        tl.store(result + place[0] + place[1], weight, mask=place[2])
