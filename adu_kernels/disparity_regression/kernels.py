"""Triton kernels of the disparity head. The README beside this file derives them; the names below are its names.

Along disparity an interval lies between two candidates k, k + 1 and holds s fine disparities at equal steps of the
logit. The softmax has a row per fine pixel: its row_max is the largest fine logit there, its row_sum that of
exp(logit − row_max). `cells.py` says what a cell is.
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import constant, dtype_of
from . import cells

LARGE = tl.constexpr(50.0)  # exponent of a sum of weights that no pixel has
ABSENT = tl.constexpr(1e38)  # as the largest logit of a pixel: whatever is relative to it has no weight
NOTHING = tl.constexpr(-(2.0**80))  # as in reference.py
INTERVALS = tl.constexpr(12)  # summed by themselves before they are added: a large sum is rounded less often


class RegressionConfig(NamedTuple):
    """What `forward` and `backward` are compiled for."""

    SCALE: int
    """s, fine pixels per coarse one, along each axis."""
    ROWS: int
    """Fine rows of a cell per thread, as `COLUMNS`."""
    COLUMNS: int
    LANES: int
    """Cells per program, one per thread."""
    CANDIDATES: int
    """Coarse candidates per program, backward; 0 forward: all."""
    ACC: str


@triton.jit
def _largest(plane, plane_step, D, corners, across, down, ACC: tl.constexpr, S: tl.constexpr):
    """The largest fine logit of each pixel, and where it is.

    It is beside a coarse candidate, or, for odd s, at one: no other fine point is looked at. NaN where a logit is.
    """
    here = cells.scores(plane, corners, across, down, ACC)
    if S % 2 == 0:
        # 2s times the logit: a sum of whole multiples is rounded once, and a power of two costs none to divide by.
        most = here * (2 * S)  # the clamped end before the first candidate
        place = tl.full(here.shape, S // 2 - 1, ACC)
        position = tl.full([], S + S // 2, ACC)
        # Candidate 1 is read before the loop: Triton takes two values that start alike for one all the way through.
        before = here
        plane += tl.where(D > 1, plane_step, 0)  # after the last candidate its own logit is held
        here = cells.scores(plane, corners, across, down, ACC)
        for k in tl.range(2, D + 1, loop_unroll_factor=3):
            plane += tl.where(k < D, plane_step, 0)
            there = cells.scores(plane, corners, across, down, ACC)
            beside = here * (2 * S - 1) + tl.maximum(before, there)
            place = tl.where(beside > most, tl.where(before > there, position - 1, position), place)
            most = tl.maximum(most, beside, propagate_nan=tl.PropagateNan.ALL)
            position += S
            before = here
            here = there
        largest = most * (1.0 / (2 * S))
    else:
        largest = here
        place = tl.full(here.shape, S // 2, ACC)
        position = tl.full([], S + S // 2, ACC)
        for _ in tl.range(1, D, loop_unroll_factor=2):
            plane += plane_step
            there = cells.scores(plane, corners, across, down, ACC)
            place = tl.where(there > largest, position, place)
            largest = tl.maximum(largest, there, propagate_nan=tl.PropagateNan.ALL)
            position += S
    return largest, place


@triton.jit
def _sign(x):
    """±1."""
    if x.dtype == tl.float32:
        # One instruction where a comparison and a choice are two.
        sign = ((x.to(tl.int32, bitcast=True) & -0x80000000) | 0x3F800000).to(tl.float32, bitcast=True)
    else:
        sign = tl.where(x < 0, -1.0, 1.0).to(x.dtype)
    return sign


@triton.jit
def _add_interval(sums, here, there, centre, S: tl.constexpr):
    """Adds the s fine points between two candidates to the sums of weight, weight · e and weight · e², e the distance
    from the pixel's place. `centre`: that of the middle of the interval's points."""
    sum0, sum1, sum2 = sums
    if S == 1:  # the interval's one point is the candidate itself
        weight = tl.exp2(here)
        about = weight * centre
        return sum0 + weight, sum1 + about, sum2 + about * centre
    difference = there - here
    # From the larger end down, no power can overflow, and every sum is one of non-negative terms but for the place
    # within its own interval. Every ratio is used once: each use adds what an exponential is off by.
    step = tl.abs(difference) * (-1.0 / S)
    if S % 2 == 0:
        start = tl.maximum(here, there) + 0.5 * step
    else:
        start = tl.maximum(here, there + step)
    first = tl.exp2(start)  # the weight of point 0, at the larger end
    even0 = first  # Σ jⁿ · weight of the points j = 0, 2, …
    odd0 = first  # of the points 1, 3, …, each over the ratio: the weight of the point before it
    odd1 = first
    odd2 = first
    even1 = tl.zeros_like(first)
    even2 = tl.zeros_like(first)
    for j in tl.static_range(2, S, 2):
        weight = tl.exp2(start + j * step)
        even0 += weight
        if j == 2:  # not added to 0, which would be an instruction
            even1 = 2 * weight
            even2 = 4 * weight
        else:
            even1 += j * weight
            even2 += (j * j) * weight
        if j + 1 < S:
            odd0 += weight
            odd1 += (j + 1) * weight
            odd2 += ((j + 1) * (j + 1)) * weight
    ratio = tl.exp2(step)
    moment0 = even0 + ratio * odd0
    moment1 = even1 + ratio * odd1
    sum2 += even2
    sum2 += ratio * odd2
    rises = _sign(difference)
    # Distances grow from the larger end away from it: turned around where that is the far end.
    distance = -rises * centre - (S - 1) / 2
    about = distance * moment0 + moment1
    sum2 += distance * (about + moment1)
    return sum0 + moment0, sum1 - rises * about, sum2


@triton.jit(do_not_specialize=["D", "H", "W", "tiles", "stride_b", "stride_d", "stride_h", "stride_w"])
def forward(
    logits, mean, variance, row_max, row_sum,
    D, H, W, tiles, stride_b, stride_d, stride_h, stride_w, config: RegressionConfig,
):  # fmt: skip
    """One program: ROWS × COLUMNS fine pixels of LANES cells of one image. The s fine rows of a row of cells are
    divided into groups of ROWS, and lanes run over those groups, cell by cell."""
    S: tl.constexpr = constant(config.SCALE)
    R: tl.constexpr = constant(config.ROWS)
    P: tl.constexpr = constant(config.COLUMNS)
    N: tl.constexpr = constant(config.LANES)
    ACC: tl.constexpr = dtype_of(config.ACC)
    ACROSS: tl.constexpr = (S + P - 1) // P
    DOWN: tl.constexpr = (S + R - 1) // R
    ABOVE: tl.constexpr = (S - S // 2) // R  # groups of the first row of cells that lie outside of the image
    HALF: tl.constexpr = 0.5 if S % 2 == 0 else 0.0
    program = tl.program_id(0)
    part = program % ACROSS
    tile = (program // ACROSS) % tiles
    image = (program // (ACROSS * tiles)).to(tl.int64)

    lane = tile * N + tl.arange(0, N)
    group = lane // (W + 1) + ABOVE
    w = lane % (W + 1) - 1
    h = group // DOWN - 1
    corners = cells.corners_of(h, w, H, W, stride_h, stride_w)
    row = (group % DOWN * R)[None, None, :] + tl.arange(0, R)[:, None, None]
    column = part * P + tl.arange(0, P)[None, :, None]
    down = cells.share(row.to(ACC) + HALF, S)
    across = cells.share(column.to(ACC) + HALF, S)
    plane = logits + image * stride_b
    plane_step = stride_d.to(tl.int64)

    # First the largest fine logit and where it is: everything after is taken relative to both.
    top, place = _largest(plane, plane_step, D, corners, across, down, ACC, S)

    here = cells.relative(cells.scores(plane, corners, across, down, ACC), top)
    weight = tl.exp2(here)
    sum0 = tl.zeros([R, P, N], ACC)
    sum1 = tl.zeros([R, P, N], ACC)
    sum2 = tl.zeros([R, P, N], ACC)
    for j in tl.static_range(S // 2):  # the clamped end before the first candidate
        distance = j - place
        sum0 += weight
        sum1 += weight * distance
        sum2 += weight * distance * distance
    position = tl.full([], S // 2 + (S - 1) / 2, ACC)
    for begin in tl.range(1, D, INTERVALS):
        part0 = tl.zeros([R, P, N], ACC)
        part1 = tl.zeros([R, P, N], ACC)
        part2 = tl.zeros([R, P, N], ACC)
        for _ in tl.range(begin, tl.minimum(begin + INTERVALS, D), loop_unroll_factor=2):
            plane += plane_step
            there = cells.relative(cells.scores(plane, corners, across, down, ACC), top)
            part0, part1, part2 = _add_interval((part0, part1, part2), here, there, position - place, S)
            position += S
            here = there
        sum0 += part0
        sum1 += part1
        sum2 += part2
    weight = tl.exp2(here)
    for j in tl.static_range(S - S // 2):  # the last candidate and the clamped end after it
        distance = (position + (j - (S - 1) / 2)) - place
        sum0 += weight
        sum1 += weight * distance
        sum2 += weight * distance * distance

    # The largest logit weighs 1, unless it lies between logits so far apart (10⁹ and more) that rounding put it far
    # above or below 0. Then its place is all that is known. A sum may have become ∞ − ∞; the largest tells of real NaN.
    known = (sum0 <= 2.0**LARGE) & (sum0 >= 1e-30)
    lost = (top == top) & (known == 0)
    sum0 = tl.where(lost, 1.0, sum0)
    sum1 = tl.where(lost, 0.0, sum1)
    sum2 = tl.where(lost, 0.0, sum2)
    shift = cells.quotient(sum1, sum0)
    y = S * h[None, None, :] + S // 2 + row
    x = S * w[None, None, :] + S // 2 + column
    inside = (y >= 0) & (y < S * H) & (x >= 0) & (x < S * W) & (row < S) & (column < S)
    pixel = image * (S * H) * (S * W) + (y.to(tl.int64) * (S * W) + x)
    tl.store(mean + pixel, place + shift, mask=inside)
    about_mean = tl.maximum(cells.quotient(sum2, sum0) - shift * shift, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(variance + pixel, about_mean, mask=inside)
    top = tl.where(lost | (top < NOTHING), ABSENT, top)  # no gradient comes from there
    tl.store(row_max + pixel, top, mask=inside)
    tl.store(row_sum + pixel, sum0, mask=inside)


@triton.jit
def _interval_gradient(here, there, distance, slope, curve, level, S: tl.constexpr):
    """dL/d(logit of the nearer candidate), dL/d(logit of the farther), summed over the s fine points between them.

    At a fine disparity `e` away from the mean, dL/d(fine logit) = p · (slope · e + curve · e² − level). A fine logit is
    interpolated from the candidate that it is closer to: the other one may be far below.
    """
    HALF: tl.constexpr = 0.5 if S % 2 == 0 else 0.0
    difference = there - here
    total = tl.zeros_like(here)
    ranked = tl.zeros_like(here)  # Σ i · term, summed from the end: Σ of the partial sums
    for i in tl.static_range(S - 1, -1, -1):
        e = distance + i
        if 2 * i + 2 * HALF > S:
            fine = there + difference * ((i + HALF) / S - 1)
        else:
            fine = here + difference * ((i + HALF) / S)
        total += tl.exp2(fine) * (e * (slope + curve * e) - level)
        if i > 0:
            ranked += total
    farther = ranked * (1.0 / S)
    if S % 2 == 0:
        farther += total * (0.5 / S)
    return total - farther, farther


@triton.jit
def _end_gradient(here, distance, slope, curve, level, COUNT: tl.constexpr):
    """dL/d(logit) of the COUNT fine points at a clamped end, all of which have the logit `here`."""
    shape = tl.zeros_like(here)
    for j in tl.static_range(COUNT):
        e = distance + j
        shape += e * (slope + curve * e) - level
    return tl.exp2(here) * shape


@triton.jit
def _store_corners(p_corners, plane, across, down, gradient, border, inside, part, PARTS: tl.constexpr):
    """Spreads dL/d(logit at fine pixels) over the four corners of each cell, and writes one value per corner.

    A later part of the cell adds to what the same thread wrote for the parts before.
    """
    right = tl.sum(gradient * across, 1, keep_dims=True)
    left = tl.sum(gradient, 1, keep_dims=True) - right
    lower_right = tl.sum(right * down, 0, keep_dims=True)
    upper_right = tl.sum(right, 0, keep_dims=True) - lower_right
    lower_left = tl.sum(left * down, 0, keep_dims=True)
    upper_left = tl.sum(left, 0, keep_dims=True) - lower_left
    # Where the border holds a row or a column, both corners are one coarse pixel: the one that exists gets all.
    upper_right = tl.where(border.left, upper_right + upper_left, upper_right)
    lower_right = tl.where(border.left, lower_right + lower_left, lower_right)
    upper_left = tl.where(border.right, upper_left + upper_right, upper_left)
    lower_left = tl.where(border.right, lower_left + lower_right, lower_left)
    lower_left = tl.where(border.top, lower_left + upper_left, lower_left)
    lower_right = tl.where(border.top, lower_right + upper_right, lower_right)
    upper_left = tl.where(border.bottom, upper_left + lower_left, upper_left)
    upper_right = tl.where(border.bottom, upper_right + lower_right, upper_right)
    if PARTS > 1:
        again = inside & (part > 0)
        upper_left += tl.load(p_corners, mask=again, other=0.0)
        upper_right += tl.load(p_corners + plane, mask=again, other=0.0)
        lower_left += tl.load(p_corners + 2 * plane, mask=again, other=0.0)
        lower_right += tl.load(p_corners + 3 * plane, mask=again, other=0.0)
    tl.store(p_corners, upper_left, mask=inside)
    tl.store(p_corners + plane, upper_right, mask=inside)
    tl.store(p_corners + 2 * plane, lower_left, mask=inside)
    tl.store(p_corners + 3 * plane, lower_right, mask=inside)


@triton.jit(
    do_not_specialize=[
        *("B", "D", "H", "W", "tiles", "stride_b", "stride_d", "stride_h", "stride_w"),
        *("grad_mean_stride_b", "grad_mean_stride_y", "grad_mean_stride_x"),
        *("grad_variance_stride_b", "grad_variance_stride_y", "grad_variance_stride_x"),
    ]
)
def backward(
    logits, mean, variance, row_max, row_sum, grad_mean, grad_variance, grad_corners,
    B, D, H, W, tiles, stride_b, stride_d, stride_h, stride_w,
    grad_mean_stride_b, grad_mean_stride_y, grad_mean_stride_x,
    grad_variance_stride_b, grad_variance_stride_y, grad_variance_stride_x, config: RegressionConfig,
):  # fmt: skip
    """One program: CANDIDATES of LANES cells of one image; the s × s fine pixels of a cell in parts of ROWS × COLUMNS.

    Writes, per cell and candidate, what each of its corners receives: grad_corners is 4 × B × D × (H + 1) × (W + 1).
    """
    S: tl.constexpr = constant(config.SCALE)
    R: tl.constexpr = constant(config.ROWS)
    P: tl.constexpr = constant(config.COLUMNS)
    N: tl.constexpr = constant(config.LANES)
    CHUNK: tl.constexpr = constant(config.CANDIDATES)
    ACC: tl.constexpr = dtype_of(config.ACC)
    HALF: tl.constexpr = 0.5 if S % 2 == 0 else 0.0
    ACROSS: tl.constexpr = (S + P - 1) // P
    PARTS: tl.constexpr = ACROSS * ((S + R - 1) // R)
    program = tl.program_id(0)
    tile = program % tiles
    chunks = (D + CHUNK - 1) // CHUNK
    begin = ((program // tiles) % chunks) * CHUNK
    image = (program // (tiles * chunks)).to(tl.int64)

    lane = tile * N + tl.arange(0, N)
    h = lane // (W + 1) - 1
    w = lane % (W + 1) - 1
    corners = cells.corners_of(h, w, H, W, stride_h, stride_w)
    cell_count = (H + 1) * (W + 1)
    there_is = lane[None, None, :] < cell_count
    border = cells.Border(
        (w < 0)[None, None, :], (w == W - 1)[None, None, :], (h < 0)[None, None, :], (h == H - 1)[None, None, :]
    )
    corner_plane = B.to(tl.int64) * D * cell_count
    step = stride_d.to(tl.int64)
    map_start = image * (S * H) * (S * W)
    grad_mean += image * grad_mean_stride_b
    grad_variance += image * grad_variance_stride_b

    for part in range(PARTS):
        row = (part // ACROSS) * R
        column = (part % ACROSS) * P
        down = cells.share((row + tl.arange(0, R)[:, None, None]).to(ACC) + HALF, S)
        across = cells.share((column + tl.arange(0, P)[None, :, None]).to(ACC) + HALF, S)
        pixels = cells.Part(h, w, row, column, H, W)
        # A pixel that is not there has probability 0 (and, the number being finite, no NaN from ∞ − ∞).
        top = cells.load_pixels(cells.FineMap(row_max + map_start, S * W, 1), pixels, ABSENT, config)
        whole = cells.load_pixels(cells.FineMap(row_sum + map_start, S * W, 1), pixels, 1.0, config)
        per_sum = cells.quotient(tl.full([R, P, N], 1.0, ACC), whole)
        average = cells.load_pixels(cells.FineMap(mean + map_start, S * W, 1), pixels, 0.0, config)
        level = cells.load_pixels(cells.FineMap(variance + map_start, S * W, 1), pixels, 0.0, config)
        m_grad_mean = cells.FineMap(grad_mean, grad_mean_stride_y, grad_mean_stride_x)
        slope = per_sum * cells.load_pixels(m_grad_mean, pixels, 0.0, config)
        m_grad_variance = cells.FineMap(grad_variance, grad_variance_stride_y, grad_variance_stride_x)
        curve = per_sum * cells.load_pixels(m_grad_variance, pixels, 0.0, config)
        level *= curve

        out = grad_corners + (image * D + begin) * cell_count + lane[None, None, :]
        plane = logits + image * stride_b + begin * step
        here = cells.relative(cells.scores(plane, corners, across, down, ACC), top)
        if begin == 0:
            pending = _end_gradient(here, -average, slope, curve, level, S // 2)
        else:
            before = cells.relative(cells.scores(plane - step, corners, across, down, ACC), top)
            distance = ((begin - 1) * S + S // 2).to(ACC) - average
            _, pending = _interval_gradient(before, here, distance, slope, curve, level, S)
        distance = (begin * S + S // 2).to(ACC) - average
        for _ in range(begin, tl.minimum(begin + CHUNK, D - 1)):
            plane += step
            there = cells.relative(cells.scores(plane, corners, across, down, ACC), top)
            nearer, farther = _interval_gradient(here, there, distance, slope, curve, level, S)
            gradient = pending + nearer
            _store_corners(out, corner_plane, across, down, gradient, border, there_is, part, PARTS)
            pending = farther
            here = there
            distance += S
            out += cell_count
        if begin + CHUNK >= D:
            gradient = pending + _end_gradient(here, distance, slope, curve, level, S - S // 2)
            _store_corners(out, corner_plane, across, down, gradient, border, there_is, part, PARTS)


@triton.jit(
    do_not_specialize=[
        *("B", "D", "H", "W", "tiles", "stride_b", "stride_d", "stride_h", "stride_w"),
        *("grad_logits_stride_b", "grad_logits_stride_d", "grad_logits_stride_h", "grad_logits_stride_w"),
    ]
)
def gather(
    grad_corners, logits, grad_logits, B, D, H, W, tiles, stride_b, stride_d, stride_h, stride_w,
    grad_logits_stride_b, grad_logits_stride_d, grad_logits_stride_h, grad_logits_stride_w, LANES: tl.constexpr,
):  # fmt: skip
    """One program: LANES coarse pixels of one candidate. Each adds what the four cells around it hold for it.

    A logit that counts as LOWEST was not used itself, so its gradient is 0.
    """
    program = tl.program_id(0)
    tile = program % tiles
    plane = program // tiles
    lane = tile * LANES + tl.arange(0, LANES)
    h = lane // W
    w = lane % W
    inside = h < H
    cell_count = (H + 1) * (W + 1)
    corner_plane = B.to(tl.int64) * D * cell_count
    # Cell (h, w) has coarse pixel (h, w) as its upper left corner; the first row and column of cells are number −1.
    lower_right = grad_corners + plane.to(tl.int64) * cell_count + (h * (W + 1) + w)
    total = tl.load(lower_right + 3 * corner_plane, mask=inside, other=0.0)
    total += tl.load(lower_right + 2 * corner_plane + 1, mask=inside, other=0.0)
    total += tl.load(lower_right + corner_plane + (W + 1), mask=inside, other=0.0)
    total += tl.load(lower_right + (W + 1) + 1, mask=inside, other=0.0)
    image = (plane // D).to(tl.int64)
    candidate = (plane % D).to(tl.int64)
    h = h.to(tl.int64)
    w = w.to(tl.int64)
    source = logits + image * stride_b + candidate * stride_d + h * stride_h + w * stride_w
    total = tl.where(tl.load(source, mask=inside, other=0.0).to(total.dtype) < cells.LOWEST, 0.0, total)
    target = grad_logits + image * grad_logits_stride_b + candidate * grad_logits_stride_d
    target += h * grad_logits_stride_h + w * grad_logits_stride_w
    tl.store(target, total.to(grad_logits.dtype.element_ty), mask=inside)
