"""Triton kernels of the per-pixel losses: `statistics`, then `values` (losses and gradients) or `weights`.

A segment is what one mean is taken over: the batch, or one image. `chunks` programs share a segment, each takes every
chunks-th block of it. A map that is not needed is None and not read; so is a number. Maps that all lie in a row have
no strides. The README of this room says why it is two launches, and how the last program is found.
"""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl

from . import pixels, reference

SILOG_FLOOR = tl.constexpr(reference.SILOG_FLOOR)
SIZES = ["length", "parts", "chunks", "segments", "height", "width"]
STRIDES = [f"{name}_{axis}" for name in ("depth", "scale", "teacher", "target", "weight") for axis in "bhw"]


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[:12]])
def statistics(
    sums, counts, arrived, depth, scale, teacher, target,
    depth_b, depth_h, depth_w, scale_b, scale_h, scale_w, teacher_b, teacher_h, teacher_w, target_b, target_h, target_w,
    length, chunks, height, width, numbers,
    RATIO: tl.constexpr, GUIDE: tl.constexpr, LANES: tl.constexpr, V: tl.constexpr, ALIGNED: tl.constexpr,
    FLAT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Of each program: mean of q, Σ(q − mean)², Σ exp(GUIDE · s) (sums: 3 × programs), valid targets and teachers
    (counts: 2 × programs). And the count of `values`' programs starts at 0."""
    min_depth, max_depth = pixels.number(numbers.min_depth, ACC), pixels.number(numbers.max_depth, ACC)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    if program == 0:
        tl.store(arrived, 0)
    start = pixels.first_pixel(program // chunks, length, ALIGNED)
    blocks = tl.cdiv(length, LANES * V).to(tl.int32)

    count = tl.zeros([LANES], ACC)  # whole numbers, exact as far as a lane can count
    mean = tl.zeros([LANES], ACC)
    mean_rest = tl.zeros([LANES], ACC)
    moment = tl.zeros([LANES], ACC)
    moment_rest = tl.zeros([LANES], ACC)
    taught = tl.zeros([LANES], tl.int32)
    mass = tl.zeros([LANES], ACC)
    mass_rest = tl.zeros([LANES], ACC)
    for block in range(program % chunks, blocks, chunks):
        place = pixels.block_of(block, start, length, height, width, LANES, V, ALIGNED, FLAT)
        if target is not None:
            truth = pixels.load(target, place, target_b, target_h, target_w, 0, ACC)
            valid = pixels.has_target(truth, min_depth, max_depth)
            if RATIO:
                predicted = pixels.load(depth, place, depth_b, depth_h, depth_w, 1, ACC)
                inverse = 1.0 / pixels.clip(predicted, min_depth, max_depth)
                q = tl.where(valid, pixels.log_ratio(inverse, tl.where(valid, truth, 1.0)), 0.0)
                count, mean, mean_rest, moment, moment_rest = pixels.add_moments(
                    count, mean, mean_rest, moment, moment_rest, q, valid, ACC
                )
            else:
                count += tl.sum(valid.to(ACC), 1)
        if teacher is not None:
            known = pixels.has_teacher(pixels.load(teacher, place, teacher_b, teacher_h, teacher_w, 0, ACC))
            taught += tl.sum(known.to(tl.int32), 1)
            if GUIDE != 0:
                s = pixels.load(scale, place, scale_b, scale_h, scale_w, 0, ACC)
                s = pixels.clip(s, pixels.SCALE_LOW, pixels.SCALE_HIGH)
                here = tl.sum(tl.where(known, pixels.exponential(s, GUIDE), 0.0), 1)
                mass, mass_rest = pixels.add(mass, mass_rest, here)

    if target is not None:
        tl.store(counts + program, tl.sum(count.to(tl.int32), 0))
        if RATIO:
            centre, spread = pixels.merge(count, mean + mean_rest, moment + moment_rest)
            tl.store(sums + program, centre)
            tl.store(sums + programs + program, spread)
    if teacher is not None:
        tl.store(counts + programs + program, tl.sum(taught, 0))
        if GUIDE != 0:
            tl.store(sums + 2 * programs + program, tl.sum(mass + mass_rest, 0))


@triton.jit
def total_count(counts, exists, ACC: tl.constexpr):
    """How many in all (exact), and the same as a divisor: at least 1."""
    number = tl.sum(tl.load(counts, mask=exists, other=0).to(tl.int64), 0)
    return number, tl.maximum(number, 1).to(ACC)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES])
def values(
    total, terms, late, ready, grad_depth, grad_scale, sums, counts, arrived,
    depth, scale, teacher, target, weight, strength,
    depth_b, depth_h, depth_w, scale_b, scale_h, scale_w, teacher_b, teacher_h, teacher_w, target_b, target_h, target_w,
    weight_b, weight_h, weight_w,
    length, parts, chunks, segments, height, width, numbers,
    SILOG: tl.constexpr, LAPLACE: tl.constexpr, GUIDE: tl.constexpr, GATE: tl.constexpr, JOINT: tl.constexpr,
    DETACH: tl.constexpr, PIXELS: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    LANES: tl.constexpr, V: tl.constexpr, ALIGNED: tl.constexpr, FLAT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients per pixel; of each program Σ of the uncertainty and of the response (late: 2 × programs); of each
    segment what its terms need besides (ready: 3 × segments); and from the last program the terms and their total."""
    min_depth, max_depth = pixels.number(numbers.min_depth, ACC), pixels.number(numbers.max_depth, ACC)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    segment = program // chunks
    part = tl.arange(0, PARTS)
    exists = part < parts
    part = segment * parts + part
    before = segments * parts

    # Every program adds up the partial sums of its segment by itself, all in the same order.
    valid_count = 0
    valid_divisor = 1.0
    taught_divisor = 1.0
    silog_pull = 0.0
    centre = 0.0
    silog = 0.0
    mean_mass = 1.0
    if target is not None and (SILOG or LAPLACE):
        valid_count, valid_divisor = total_count(counts + part, exists, ACC)
    if SILOG:
        variance_focus = pixels.number(numbers.variance_focus, ACC)
        each = tl.load(counts + part, mask=exists, other=0).to(ACC)
        means = tl.load(sums + part, mask=exists, other=0.0)
        centre, spread = pixels.merge(each, means, tl.load(sums + before + part, mask=exists, other=0.0))
        variance = spread / valid_divisor + (1.0 - variance_focus) * centre * centre
        silog = 10.0 * tl.sqrt(variance + SILOG_FLOOR)
        silog_pull = pixels.number(numbers.silog, ACC) * 100.0 / (silog * valid_divisor * segments)
        silog = tl.where(valid_count > 0, silog, 0.0)
        centre = variance_focus * centre
    if teacher is not None:
        taught_count, taught_divisor = total_count(counts + before + part, exists, ACC)
        if GUIDE != 0:
            mean_mass = tl.sum(tl.load(sums + 2 * before + part, mask=exists, other=0.0), 0) / taught_divisor
            mean_mass = tl.where(taught_count > 0, mean_mass, 1.0)
            rho = pixels.guide_strength(strength, numbers, ACC)
    if LAPLACE:
        laplace_pull = pixels.number(numbers.uncertainty, ACC) / (valid_divisor * segments)
    if teacher is not None:
        response_pull = pixels.number(numbers.response, ACC) / (taught_divisor * segments)
        beta = pixels.number(numbers.beta, ACC)

    doubt = tl.zeros([LANES], ACC)
    doubt_rest = tl.zeros([LANES], ACC)
    apart = tl.zeros([LANES], ACC)
    apart_rest = tl.zeros([LANES], ACC)
    if PIXELS:
        start = pixels.first_pixel(segment, length, ALIGNED)
        blocks = tl.cdiv(length, LANES * V).to(tl.int32)
        # From the end: what `statistics` read last may still lie in the cache.
        for turned in range(program % chunks, blocks, chunks):
            place = pixels.block_of(blocks - 1 - turned, start, length, height, width, LANES, V, ALIGNED, FLAT)
            predicted = pixels.load(depth, place, depth_b, depth_h, depth_w, 1, ACC)
            held = pixels.clip(predicted, min_depth, max_depth)
            inverse = 1.0 / held
            pull = tl.zeros([LANES, V], ACC)
            if scale is not None:
                s = pixels.load(scale, place, scale_b, scale_h, scale_w, 0, ACC)
                held_s = pixels.clip(s, pixels.SCALE_LOW, pixels.SCALE_HIGH)
            if target is not None:
                truth = pixels.load(target, place, target_b, target_h, target_w, 0, ACC)
                valid = pixels.has_target(truth, min_depth, max_depth)
            if SILOG or LAPLACE:
                true = tl.where(valid, truth, 1.0)
                q = pixels.log_ratio(inverse, true)
            if SILOG:
                pull += silog_pull * (q - centre)
            if LAPLACE:
                sure = pixels.exponential(held_s, -1.0)
                missed = sure * tl.abs(q)
                likelihood = missed + held_s
                counts_for = laplace_pull
                if numbers.beta_nll is not None:
                    factor = pixels.exponential(held_s, 2.0 * pixels.number(numbers.beta_nll, ACC))
                    likelihood = likelihood * factor
                    counts_for = laplace_pull * factor
                doubt, doubt_rest = pixels.add(doubt, doubt_rest, tl.sum(tl.where(valid, likelihood, 0.0), 1))
                if JOINT:
                    pull += pixels.with_sign(counts_for * sure, held, true)
                if grad_scale is not None:
                    free = valid & (s >= pixels.SCALE_LOW) & (s <= pixels.SCALE_HIGH)
                    slope = tl.where(free, counts_for - counts_for * missed, 0.0)
                    tl.store(grad_scale + place[0] + place[1], slope, mask=place[2])
            if SILOG or LAPLACE:
                pull = tl.where(valid, pull, 0.0)
            if teacher is not None:
                learnt = pixels.load(teacher, place, teacher_b, teacher_h, teacher_w, 0, ACC)
                known = pixels.has_teacher(learnt)
                held_t = pixels.clip(learnt, min_depth, max_depth)
                error = tl.abs(pixels.log_ratio(inverse, held_t))
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
                    importance = pixels.load(weight, place, weight_b, weight_h, weight_w, 0, ACC)
                if GUIDE != 0:
                    mass = pixels.exponential(held_s, GUIDE)
                    importance = pixels.guide_weight(mass, known, mean_mass, rho)
                if GATE:
                    sharpness = pixels.number(numbers.sharpness, ACC)
                    importance = importance * pixels.gate_weight(learnt, truth, known & valid, sharpness)
                loss = tl.where(known, error * focused * importance, 0.0)
                apart, apart_rest = pixels.add(apart, apart_rest, tl.sum(loss, 1))
                if not DETACH:
                    focused += steep * error * lower * curve
                pull += tl.where(known, pixels.with_sign(response_pull * importance * focused, held, held_t), 0.0)
            if grad_depth is not None:
                free = (predicted >= min_depth) & (predicted <= max_depth)
                tl.store(grad_depth + place[0] + place[1], tl.where(free, pull * inverse, 0.0), mask=place[2])

    if LAPLACE:
        tl.store(late + program, tl.sum(doubt + doubt_rest, 0))
    if teacher is not None:
        tl.store(late + programs + program, tl.sum(apart + apart_rest, 0))
    if program % chunks == 0:
        tl.store(ready + segment, silog)
        tl.store(ready + segments + segment, valid_divisor)
        tl.store(ready + 2 * segments + segment, taught_divisor)
    # The program that counts itself last sees all that the others stored before they counted themselves.
    tl.debug_barrier()
    if tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu") == programs - 1:
        finish(
            total, terms, late, ready, chunks, segments, programs, numbers,
            SILOG, LAPLACE, teacher is not None, PARTS, ROWS, ACC,
        )  # fmt: skip


@triton.jit
def finish(
    total, terms, late, ready, chunks, segments, programs, numbers,
    SILOG: tl.constexpr, LAPLACE: tl.constexpr, RESPONSE: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Terms and total from what the programs stored: the mean over segments, in one order whichever program does it.

    Reads past the first-level cache, which other multiprocessors do not write to.
    """
    silog = tl.zeros([ROWS], ACC)
    laplace = tl.zeros([ROWS], ACC)
    response = tl.zeros([ROWS], ACC)
    part = tl.arange(0, PARTS)[None, :]
    for first in range(0, segments, ROWS):
        row = first + tl.arange(0, ROWS)
        exists = row < segments
        each = exists[:, None] & (part < chunks)
        place = row[:, None] * chunks + part
        if SILOG:
            silog += tl.load(ready + row, mask=exists, other=0.0, cache_modifier=".cg")
        if LAPLACE:
            divisor = tl.load(ready + segments + row, mask=exists, other=1.0, cache_modifier=".cg")
            laplace += tl.sum(tl.load(late + place, mask=each, other=0.0, cache_modifier=".cg"), 1) / divisor
        if RESPONSE:
            divisor = tl.load(ready + 2 * segments + row, mask=exists, other=1.0, cache_modifier=".cg")
            sums = tl.load(late + programs + place, mask=each, other=0.0, cache_modifier=".cg")
            response += tl.sum(sums, 1) / divisor
    of_silog = tl.sum(silog, 0) / segments
    of_laplace = tl.sum(laplace, 0) / segments
    of_response = tl.sum(response, 0) / segments
    tl.store(terms, of_silog)
    tl.store(terms + 1, of_laplace)
    tl.store(terms + 2, of_response)
    whole = tl.zeros([], ACC)
    if SILOG:
        whole += pixels.number(numbers.silog, ACC) * of_silog
    if LAPLACE:
        whole += pixels.number(numbers.uncertainty, ACC) * of_laplace
    if RESPONSE:
        whole += pixels.number(numbers.response, ACC) * of_response
    tl.store(total, whole)


@triton.jit(do_not_specialize=[*SIZES, *STRIDES[3:12]])
def weights(
    result, sums, counts, scale, teacher, target, strength,
    scale_b, scale_h, scale_w, teacher_b, teacher_h, teacher_w, target_b, target_h, target_w,
    length, parts, height, width, numbers,
    GUIDE: tl.constexpr, PARTS: tl.constexpr, LANES: tl.constexpr, V: tl.constexpr, ALIGNED: tl.constexpr,
    FLAT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The guide (GUIDE ±1), or the gate (0). As many programs as `statistics` had; `parts` share a segment."""
    program = tl.program_id(0)
    segment = program // parts
    if GUIDE != 0:
        part = segment * parts + tl.arange(0, PARTS)
        exists = tl.arange(0, PARTS) < parts
        taught_count, divisor = total_count(counts + tl.num_programs(0) + part, exists, ACC)
        mean_mass = tl.sum(tl.load(sums + 2 * tl.num_programs(0) + part, mask=exists, other=0.0), 0) / divisor
        mean_mass = tl.where(taught_count > 0, mean_mass, 1.0)
        rho = pixels.guide_strength(strength, numbers, ACC)
    start = pixels.first_pixel(segment, length, ALIGNED)
    blocks = tl.cdiv(length, LANES * V).to(tl.int32)
    for turned in range(program % parts, blocks, parts):
        place = pixels.block_of(blocks - 1 - turned, start, length, height, width, LANES, V, ALIGNED, FLAT)
        learnt = pixels.load(teacher, place, teacher_b, teacher_h, teacher_w, 0, ACC)
        known = pixels.has_teacher(learnt)
        if GUIDE != 0:
            s = pixels.load(scale, place, scale_b, scale_h, scale_w, 0, ACC)
            mass = pixels.exponential(pixels.clip(s, pixels.SCALE_LOW, pixels.SCALE_HIGH), GUIDE)
            weight = pixels.guide_weight(mass, known, mean_mass, rho)
        else:
            min_depth, max_depth = pixels.number(numbers.min_depth, ACC), pixels.number(numbers.max_depth, ACC)
            truth = pixels.load(target, place, target_b, target_h, target_w, 0, ACC)
            both = known & pixels.has_target(truth, min_depth, max_depth)
            weight = pixels.gate_weight(learnt, truth, both, pixels.number(numbers.sharpness, ACC))
        tl.store(result + place[0] + place[1], weight, mask=place[2])
