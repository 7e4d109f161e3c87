"""Triton kernels of the disparity head. The README beside this file derives them; the names below are its names.

A cell lies between four coarse pixels (rows h, h + 1, columns w, w + 1) and holds s × s fine pixels, so cells run from
−1 to the last row and column, their corners clamped at the border. Along disparity an interval lies between two
candidates k, k + 1 and holds s fine disparities at equal steps of the logit. The softmax has a row per fine pixel: its
row_max is the largest fine logit there, its row_sum that of exp(logit − row_max).
"""

# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from .._triton.device import LOG2E, constant, dtype_of

LOWEST = tl.constexpr(-(2.0**100))  # what −inf counts as (reference.py): differences, interpolated values stay finite
LARGE = tl.constexpr(50.0)  # exponent of a sum of weights that no pixel has
ABSENT = tl.constexpr(1e38)  # as the largest logit of a pixel: whatever is relative to it has no weight
NOTHING = tl.constexpr(-(2.0**80))  # as in reference.py


class RegressionConfig(NamedTuple):
    """What `forward` and `backward` are compiled for."""

    SCALE: int
    """s, fine pixels per coarse one, along each axis."""
    SIDE: int
    """Fine columns of a cell per thread, forward; fine rows and columns, backward."""
    LANES: int
    """Cells per program, one per thread."""
    CANDIDATES: int
    """Coarse candidates per program, backward; 0 forward: all."""
    ACC: str


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
    """SIDE × SIDE fine pixels of each cell (h, w), from one of its fine rows and columns on."""

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
def _load(pointers, ACC: tl.constexpr):
    return tl.maximum(tl.load(pointers).to(ACC), LOWEST, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _corners(h, w, H, W, stride_h, stride_w):
    """The `Corners` of cell (h, w).

    Clamped at the border, and for lanes past the last cell too: every lane reads inside the tensor.
    """
    upper = tl.minimum(tl.maximum(h, 0), H - 1).to(tl.int64) * stride_h
    lower = tl.minimum(h + 1, H - 1).to(tl.int64) * stride_h
    left = tl.maximum(w, 0).to(tl.int64) * stride_w
    right = tl.minimum(w + 1, W - 1).to(tl.int64) * stride_w
    return Corners(upper + left, upper + right, lower + left, lower + right)


@triton.jit
def _quotient(a, b):
    """a / b, correctly rounded: in fp32 a plain `/` may be off by two units in the last place."""
    if a.dtype == tl.float32:
        quotient = tl.div_rn(a, b)
    else:
        quotient = a / b
    return quotient


@triton.jit
def _share(place, S: tl.constexpr):
    """place / S to the last bit: between logits 1000 apart its rounding is 1e-4 of a probability."""
    if S & (S - 1) == 0:
        share = place * (1.0 / S)
    else:
        share = _quotient(place, tl.full(place.shape, S, place.dtype))
    return share


@triton.jit
def _interval(here, there, S: tl.constexpr):
    """First and last fine logit between two candidates, and their difference over the interval."""
    difference = there - here
    inset: tl.constexpr = (0.5 if S % 2 == 0 else 1.0) / S
    first = here
    if S % 2 == 0:
        first = here + difference * inset
    last = first
    if S > 1:
        last = there - difference * inset
    return first, last, difference


@triton.jit
def _relative(scores, top):
    """Logits relative to their pixel's largest, in units of log₂. Both passes interpolate these, not the logits: near
    the largest the subtraction is exact, and no rounding of a large logit reaches a probability or tells them apart."""
    return (scores - top) * LOG2E


@triton.jit
def _fine_scores(plane, corners, across, down, ACC: tl.constexpr):
    """Logits of one candidate at SIDE fine columns × LANES cells; `down` is LANES, `across` SIDE × 1."""
    left_top = _load(plane + corners.upper_left, ACC)
    right_top = _load(plane + corners.upper_right, ACC)
    left = left_top + down * (_load(plane + corners.lower_left, ACC) - left_top)
    right = right_top + down * (_load(plane + corners.lower_right, ACC) - right_top)
    return left[None, :] + across * (right - left)[None, :]


@triton.jit(do_not_specialize=["D", "H", "W", "tiles", "stride_b", "stride_d", "stride_h", "stride_w"])
def forward(
    logits, mean, variance, row_max, row_sum,
    D, H, W, tiles, stride_b, stride_d, stride_h, stride_w, config: RegressionConfig,
):  # fmt: skip
    """One program: LANES (fine row, cell) pairs of one image, SIDE of the s fine columns of each cell."""
    S: tl.constexpr = constant(config.SCALE)
    P: tl.constexpr = constant(config.SIDE)
    N: tl.constexpr = constant(config.LANES)
    ACC: tl.constexpr = dtype_of(config.ACC)
    GROUPS: tl.constexpr = (S + P - 1) // P
    HALF: tl.constexpr = 0.5 if S % 2 == 0 else 0.0
    program = tl.program_id(0)
    group = program % GROUPS
    tile = (program // GROUPS) % tiles
    image = (program // (GROUPS * tiles)).to(tl.int64)

    lane = tile * N + tl.arange(0, N)
    y = lane // (W + 1)
    w = lane % (W + 1) - 1
    h = (y + (S - S // 2)) // S - 1
    down = (y - S // 2 - h * S).to(ACC)
    down = _share(down + HALF, S)
    corners = _corners(h, w, H, W, stride_h, stride_w)
    column = group * P + tl.arange(0, P)[:, None]
    across = _share(column.to(ACC) + HALF, S)

    image_base = logits + image * stride_b
    plane_step = stride_d.to(tl.int64)

    # First pass: the largest fine logit and where it is. Everything after is taken relative to both.
    plane = image_base
    here = _fine_scores(plane, corners, across, down, ACC)
    top = here
    place = tl.zeros([P, N], ACC)
    position = tl.full([], S // 2, ACC)
    for _ in tl.range(1, D, loop_unroll_factor=2):
        plane += plane_step
        there = _fine_scores(plane, corners, across, down, ACC)
        first, last, difference = _interval(here, there, S)
        larger = tl.maximum(first, last)
        better = larger > top
        top = tl.where(better, larger, top)
        place = tl.where(better, tl.where(difference > 0, position + (S - 1), position), place)
        position += S
        here = there
    # The last candidate's own half: only for odd s is it above its neighbours' points.
    better = here > top
    top = tl.where(better, here, top)
    place = tl.where(better, position, place)

    # Second pass: moments about that place, one interval at a time.
    plane = image_base
    here = _fine_scores(plane, corners, across, down, ACC)
    here = _relative(here, top)
    weight = tl.exp2(here)
    sum0 = tl.zeros([P, N], ACC)
    sum1 = tl.zeros([P, N], ACC)
    sum2 = tl.zeros([P, N], ACC)
    for j in tl.static_range(S // 2):  # the clamped end before the first candidate
        distance = j - place
        sum0 += weight
        sum1 += weight * distance
        sum2 += weight * distance * distance
    position = tl.full([], S // 2, ACC)
    for _ in tl.range(1, D, loop_unroll_factor=2):
        plane += plane_step
        there = _fine_scores(plane, corners, across, down, ACC)
        there = _relative(there, top)
        first, last, difference = _interval(here, there, S)
        # From the larger end down: no power can overflow, and every moment is a sum of non-negative terms.
        # A ratio is used once at a time: each of its uses adds what an exponential is off by.
        start = tl.minimum(tl.maximum(first, last), 2.0 * LARGE, propagate_nan=tl.PropagateNan.ALL)
        step = tl.abs(difference) * (-1.0 / S)
        term = tl.exp2(start)
        ratio = tl.exp2(step)
        moment0 = term
        moment1 = tl.zeros([P, N], ACC)
        moment2 = tl.zeros([P, N], ACC)
        for j in tl.static_range(1, S):
            if j % 2 == 0:
                term = tl.exp2(start + j * step)
            else:
                term *= ratio
            moment0 += term
            moment1 += j * term
            moment2 += (j * j) * term
        rises = difference > 0
        moment1 = tl.where(rises, -moment1, moment1)
        distance = tl.where(rises, position + (S - 1), position) - place
        about = distance * moment0 + moment1
        sum0 += moment0
        sum1 += about
        sum2 += distance * (about + moment1) + moment2
        position += S
        here = there
    weight = tl.exp2(here)
    for j in tl.static_range(S - S // 2):  # the last candidate and the clamped end after it
        distance = (position + j) - place
        sum0 += weight
        sum1 += weight * distance
        sum2 += weight * distance * distance

    # The largest logit weighs 1, unless it lies between logits so far apart (10⁹ and more) that rounding put it far
    # above or below 0. Then its place is all that is known.
    lost = (sum0 > 2.0**LARGE) | (sum0 < 1e-30)
    sum0 = tl.where(lost, 1.0, sum0)
    sum1 = tl.where(lost, 0.0, sum1)
    sum2 = tl.where(lost, 0.0, sum2)
    shift = _quotient(sum1, sum0)
    x = S * w[None, :] + S // 2 + column
    inside = (y[None, :] < S * H) & (x >= 0) & (x < S * W) & (column < S)
    pixel = image * (S * H) * (S * W) + (y[None, :].to(tl.int64) * (S * W) + x)
    tl.store(mean + pixel, place + shift, mask=inside)
    about_mean = tl.maximum(_quotient(sum2, sum0) - shift * shift, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(variance + pixel, about_mean, mask=inside)
    top = tl.where(lost | (top < NOTHING), ABSENT, top)  # no gradient comes from there
    tl.store(row_max + pixel, top, mask=inside)
    tl.store(row_sum + pixel, sum0, mask=inside)


@triton.jit
def _cell_scores(plane, corners, across, down, top, ACC: tl.constexpr):
    """Relative logits of one candidate at SIDE × SIDE fine pixels of LANES cells; `down` is SIDE × 1 × 1, `across`
    1 × SIDE × 1."""
    left_top = _load(plane + corners.upper_left, ACC)[None, None, :]
    right_top = _load(plane + corners.upper_right, ACC)[None, None, :]
    left = left_top + down * (_load(plane + corners.lower_left, ACC)[None, None, :] - left_top)
    right = right_top + down * (_load(plane + corners.lower_right, ACC)[None, None, :] - right_top)
    return _relative(left + across * (right - left), top)


@triton.jit
def _load_pixels(m, part, other: tl.constexpr, config):
    """SIDE × SIDE × LANES values of a `FineMap`: the part's pixels of each cell, `other` where none is.

    One load per pixel and not one for all: so each thread holds all pixels of its cell, whatever layout Triton would
    choose for such a load, and sums over them need no exchange between threads. The choosing below costs nothing then.
    """
    S: tl.constexpr = constant(config.SCALE)
    R: tl.constexpr = constant(config.SIDE)
    row = tl.arange(0, R)[:, None, None]
    column = tl.arange(0, R)[None, :, None]
    values = tl.full([R, R, config.LANES], other, dtype_of(config.ACC))
    for i in tl.static_range(R):
        for j in tl.static_range(R):
            y = S * part.h + (S // 2 + i) + part.first_row
            x = S * part.w + (S // 2 + j) + part.first_column
            inside = (y >= 0) & (y < S * part.height) & (x >= 0) & (x < S * part.width)
            inside = tl.where((part.first_row + i < S) & (part.first_column + j < S), inside, False)
            p_one = m.start + y.to(tl.int64) * m.stride_y + x.to(tl.int64) * m.stride_x
            one = tl.load(p_one, mask=inside, other=other)
            values = tl.where((row == i) & (column == j), one[None, None, :], values)
    return values


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
    """One program: CANDIDATES of LANES cells of one image; the s × s fine pixels of a cell in parts of SIDE × SIDE.

    Writes, per cell and candidate, what each of its corners receives: grad_corners is 4 × B × D × (H + 1) × (W + 1).
    """
    S: tl.constexpr = constant(config.SCALE)
    R: tl.constexpr = constant(config.SIDE)
    N: tl.constexpr = constant(config.LANES)
    CHUNK: tl.constexpr = constant(config.CANDIDATES)
    ACC: tl.constexpr = dtype_of(config.ACC)
    HALF: tl.constexpr = 0.5 if S % 2 == 0 else 0.0
    ACROSS: tl.constexpr = (S + R - 1) // R
    PARTS: tl.constexpr = ACROSS * ACROSS
    program = tl.program_id(0)
    tile = program % tiles
    chunks = (D + CHUNK - 1) // CHUNK
    begin = ((program // tiles) % chunks) * CHUNK
    image = (program // (tiles * chunks)).to(tl.int64)

    lane = tile * N + tl.arange(0, N)
    h = lane // (W + 1) - 1
    w = lane % (W + 1) - 1
    corners = _corners(h, w, H, W, stride_h, stride_w)
    cells = (H + 1) * (W + 1)
    there_is = lane[None, None, :] < cells
    border = Border(
        (w < 0)[None, None, :], (w == W - 1)[None, None, :], (h < 0)[None, None, :], (h == H - 1)[None, None, :]
    )
    corner_plane = B.to(tl.int64) * D * cells
    step = stride_d.to(tl.int64)
    map_start = image * (S * H) * (S * W)
    grad_mean += image * grad_mean_stride_b
    grad_variance += image * grad_variance_stride_b

    for part in range(PARTS):
        row = (part // ACROSS) * R
        column = (part % ACROSS) * R
        down = _share((row + tl.arange(0, R)[:, None, None]).to(ACC) + HALF, S)
        across = _share((column + tl.arange(0, R)[None, :, None]).to(ACC) + HALF, S)
        pixels = Part(h, w, row, column, H, W)
        # A pixel that is not there has probability 0 (and, the number being finite, no NaN from ∞ − ∞).
        top = _load_pixels(FineMap(row_max + map_start, S * W, 1), pixels, ABSENT, config)
        whole = _load_pixels(FineMap(row_sum + map_start, S * W, 1), pixels, 1.0, config)
        per_sum = _quotient(tl.full([R, R, N], 1.0, ACC), whole)
        average = _load_pixels(FineMap(mean + map_start, S * W, 1), pixels, 0.0, config)
        level = _load_pixels(FineMap(variance + map_start, S * W, 1), pixels, 0.0, config)
        m_grad_mean = FineMap(grad_mean, grad_mean_stride_y, grad_mean_stride_x)
        slope = per_sum * _load_pixels(m_grad_mean, pixels, 0.0, config)
        m_grad_variance = FineMap(grad_variance, grad_variance_stride_y, grad_variance_stride_x)
        curve = per_sum * _load_pixels(m_grad_variance, pixels, 0.0, config)
        level *= curve

        out = grad_corners + (image * D + begin) * cells + lane[None, None, :]
        plane = logits + image * stride_b + begin * step
        here = _cell_scores(plane, corners, across, down, top, ACC)
        if begin == 0:
            pending = _end_gradient(here, -average, slope, curve, level, S // 2)
        else:
            before = _cell_scores(plane - step, corners, across, down, top, ACC)
            distance = ((begin - 1) * S + S // 2).to(ACC) - average
            _, pending = _interval_gradient(before, here, distance, slope, curve, level, S)
        distance = (begin * S + S // 2).to(ACC) - average
        for _ in range(begin, tl.minimum(begin + CHUNK, D - 1)):
            plane += step
            there = _cell_scores(plane, corners, across, down, top, ACC)
            nearer, farther = _interval_gradient(here, there, distance, slope, curve, level, S)
            gradient = pending + nearer
            _store_corners(out, corner_plane, across, down, gradient, border, there_is, part, PARTS)
            pending = farther
            here = there
            distance += S
            out += cells
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
    cells = (H + 1) * (W + 1)
    corner_plane = B.to(tl.int64) * D * cells
    # Cell (h, w) has coarse pixel (h, w) as its upper left corner; the first row and column of cells are number −1.
    lower_right = grad_corners + plane.to(tl.int64) * cells + (h * (W + 1) + w)
    total = tl.load(lower_right + 3 * corner_plane, mask=inside, other=0.0)
    total += tl.load(lower_right + 2 * corner_plane + 1, mask=inside, other=0.0)
    total += tl.load(lower_right + corner_plane + (W + 1), mask=inside, other=0.0)
    total += tl.load(lower_right + (W + 1) + 1, mask=inside, other=0.0)
    image = (plane // D).to(tl.int64)
    candidate = (plane % D).to(tl.int64)
    h = h.to(tl.int64)
    w = w.to(tl.int64)
    source = logits + image * stride_b + candidate * stride_d + h * stride_h + w * stride_w
    total = tl.where(tl.load(source, mask=inside, other=0.0).to(total.dtype) < LOWEST, 0.0, total)
    target = grad_logits + image * grad_logits_stride_b + candidate * grad_logits_stride_d
    target += h * grad_logits_stride_h + w * grad_logits_stride_w
    tl.store(target, total.to(grad_logits.dtype.element_ty), mask=inside)
