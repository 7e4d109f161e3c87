"""Sums over a billion pixels: depth of the reduction, counts beyond 2²⁴, offsets beyond 2³¹."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adu_kernels import depth_objective, reference, silog_loss
from adu_kernels._triton import runtime
from adu_kernels.testing.parity import memory_beyond_int32, same_but_for_rounding
from tests.kernels.depth_scenes import scene

pytest.importorskip("triton")
import triton
import triton.language as tl

from adu_kernels.depth_objective import kernels, launch, pixels, table

BILLION = 10**9
Array = np.ndarray[Any, Any]


# --- the arithmetic of `pixels.add` and `pixels.add_moments`, as numpy has it in fp32


def _add(total: Array, compensation: Array, value: Array) -> tuple[Array, Array]:
    new = total + value
    back = new - total
    return new, compensation + ((total - (new - back)) + (value - back))


def _moments(values: Array) -> tuple[float, float]:
    """Mean and variance of steps × lanes × V numbers, taken in as one program does, and merged."""
    one = np.float32(1)
    count, mean, compensation, m2, m2_compensation = (np.zeros(values.shape[1], np.float32) for _ in range(5))
    added = np.full(values.shape[1], values.shape[2], np.float32)
    for here in values:
        centre = here.sum(1) / added
        away = here - centre[:, None]
        step = (centre - mean) - compensation
        both = count + added
        share = added / both
        mean, compensation = _add(mean, compensation, step * share)
        m2, m2_compensation = _add(m2, m2_compensation, (away * away).sum(1) + step * step * (count * share))
        count = both
    mean, m2 = mean + compensation, m2 + m2_compensation
    anchor = mean.max()
    total = np.maximum(count.sum(), one)
    centre = anchor + (count * (mean - anchor)).sum() / total
    return float(centre), float((m2 + count * (mean - centre) ** 2).sum() / total)


@triton.jit
def _moments_kernel(mean_and_moment, values, steps, LANES: tl.constexpr, V: tl.constexpr):
    offsets = tl.arange(0, LANES)[:, None] * V + tl.arange(0, V)[None, :]
    count = tl.zeros([LANES], tl.float32)
    mean = tl.zeros([LANES], tl.float32)
    compensation = tl.zeros([LANES], tl.float32)
    m2 = tl.zeros([LANES], tl.float32)
    m2_compensation = tl.zeros([LANES], tl.float32)
    for step in range(steps):
        here = tl.load(values + step * LANES * V + offsets)
        count, mean, compensation, m2, m2_compensation = pixels.add_moments(
            count, mean, compensation, m2, m2_compensation, here, here == here, tl.float32
        )
    centre, spread = pixels.merge(count, mean + compensation, m2 + m2_compensation)
    tl.store(mean_and_moment, centre)
    tl.store(mean_and_moment + 1, spread / tl.sum(count, 0))


def _adversarial(steps: int) -> dict[str, Array]:
    """steps × lanes × V logarithms of ratios, as a program of the first launch may meet them."""
    generator = np.random.default_rng(0)
    shape = (steps, 16, 4)
    tiny = generator.uniform(1e-4, 2e-4, shape).astype(np.float32)
    huge_first, huge_everywhere = tiny.copy(), tiny.copy()
    huge_first[0, 0, 0] = 11.0
    huge_everywhere[0] = 11.0
    huge_last = huge_everywhere[::-1].copy()
    drawn = generator.normal(0.3, 0.7, shape).astype(np.float32)
    return {
        "one huge, many tiny": huge_first,
        "a huge one in every lane, then tiny ones": huge_everywhere,
        "tiny ones, then a huge one in every lane": huge_last,
        "constant": np.full(shape, 0.1, np.float32),
        "constant but for one": np.where(np.arange(tiny.size).reshape(shape) == 77, 11, 0.1).astype(np.float32),
        "sorted": np.sort(drawn.ravel()).reshape(shape),
        "sorted, far from zero": np.sort(drawn.ravel()).reshape(shape) * np.float32(1e-3) + np.float32(5),
        "signs alternate": drawn * np.float32(10) * (-1) ** np.arange(4, dtype=np.float32),
    }


@pytest.mark.parametrize("name", _adversarial(1))
def test_the_model_is_the_kernel(name: str) -> None:
    """Interpreted. Compiled, products are fused with sums, and no model can know which: there, as everywhere, mean and
    standard deviation are held to a unit in the last place of the largest number."""
    values = _adversarial(6)[name]
    got = torch.zeros(2)
    _moments_kernel[(1,)](got, torch.from_numpy(values).to(got.device), len(values), LANES=16, V=4)
    if runtime.interpreting():
        want = torch.tensor(_moments(values), dtype=torch.float32)
        torch.testing.assert_close(got, want, rtol=3e-7, atol=1e-12)
    (mean, variance), exact = got.tolist(), values.astype(np.float64)
    unit = 2**-23 * np.abs(exact).max()
    assert abs(mean - exact.mean()) <= unit
    assert abs(np.sqrt(variance) - exact.std()) <= unit


@pytest.mark.cpu
@pytest.mark.parametrize("name", _adversarial(1))
def test_silog_of_a_billion_pixels(name: str) -> None:
    """As many steps as a lane takes of 10⁹ pixels: the loss to 1e-6, and with it mean and variance."""
    rows = (table.SINGLE, table.LARGER)
    steps = max(-(-BILLION // (row.statistics * row.lanes * row.pixels)) for row in rows)
    assert steps > 1800
    values = _adversarial(steps)[name]
    exact = values.astype(np.float64)
    for focus in (0.85, 1.0):

        def loss(mean: float, variance: float, focus: float = focus) -> float:
            return 10 * np.sqrt(variance + (1 - focus) * mean**2 + 1e-6)

        assert loss(*_moments(values)) == pytest.approx(loss(exact.mean(), exact.var()), rel=1e-6)


@pytest.mark.cpu
def test_sums_of_a_billion_pixels() -> None:
    """The compensated sum of the scales, of the uncertainty and of the response: a huge term, then tiny ones."""
    for values in (v for series in _adversarial(2000).values() for v in (series, np.exp(series))):
        total = compensation = np.zeros(values.shape[1], np.float32)
        for here in values:
            total, compensation = _add(total, compensation, here.sum(1))
        exact = values.astype(np.float64).sum()
        assert abs(float((total + compensation).sum()) - exact) <= 1e-6 * max(abs(exact), np.abs(values).sum() * 1e-2)


@pytest.mark.parametrize("order", ["drawn", "sorted", "one huge", "constant"])
def test_terms_over_many_programs(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole, on 20 and 7 programs of small blocks: every term to 1e-6 of fp64."""
    small = table.Tile(lanes=runtime.WARP_SIZE, pixels=4, statistics=20, values=7, registers=None)
    monkeypatch.setattr(table, "SINGLE", small)
    depth, log_scale, teacher, target = (t.detach() for t in scene(5, torch.float32, (1, 1, 61, 51)))
    assert table.Division.of(launch.layout_of((depth,)), True, False).parts == 20
    target, teacher = target.clamp(min=1), teacher.clamp(min=2)
    if order == "sorted":
        depth, log_scale = (m.flatten().sort().values.view_as(m) for m in (depth, log_scale))
    elif order == "one huge":
        depth, log_scale = 1.3 * target, torch.full_like(log_scale, -5.0)
        depth[0, 0, 9, 9], log_scale[0, 0, 9, 9] = 80.0, 3.0
        target[0, 0, 9, 9] = 1e-3
    elif order == "constant":
        depth, log_scale, teacher, target = (torch.full_like(depth, v) for v in (3.0, -0.7, 4.0, 5.0))
    ours = depth_objective(depth, log_scale, teacher, target, backend="triton")
    exact = reference.depth_objective(*(m.double() for m in (depth, log_scale, teacher, target)))
    for one, other in zip(ours, exact, strict=True):
        assert abs(one.double() - other) <= 1e-6 * abs(other)


@pytest.mark.parametrize("images", [3, 9])
def test_more_images_than_programs(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`finish` takes several images at once, and several rounds for many."""
    small = table.Tile(runtime.WARP_SIZE, 4, statistics=6, values=5, registers=None)
    monkeypatch.setattr(table, "SINGLE", small)
    monkeypatch.setattr(table, "FINISHED_AT_ONCE", 4)
    maps = [t.detach() for t in scene(1, torch.float32, (images, 1, 13, 23))]
    ours, exact = (
        run(*maps, normalize="image", **backend)
        for run, backend in ((depth_objective, {"backend": "triton"}), (reference.depth_objective, {}))
    )
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-6, atol=0)


# --- counts and offsets


@triton.jit
def _count_kernel(number, divisor, counts, N: tl.constexpr):
    place = tl.arange(0, N)
    exact, rounded = kernels.total_count(counts + place, place < 5, tl.float32)
    tl.store(number, exact)
    tl.store(divisor, rounded)


def test_counts_are_exact_beyond_fp32_and_int32() -> None:
    number, divisor = torch.zeros(1, dtype=torch.int64), torch.zeros(1)
    for parts in ([2**24, 1, 1, 1, 0], [2**31 - 1, 2**31 - 1, 7, 0, 1], [0] * 5):
        _count_kernel[(1,)](number, divisor, torch.tensor(parts + [2**30] * 3, dtype=torch.int32), N=8)
        assert number.item() == sum(parts)
        assert divisor.item() == torch.tensor(max(sum(parts), 1)).float().item()


@triton.jit
def _place_kernel(out, block, start, length, height, width, FLAT: tl.constexpr):
    first, lane, exists, image, row, column = pixels.block_of(block, start, length, height, width, 4, 4, False, FLAT)
    offset = first + lane
    if not FLAT:
        offset = (image * height + row).to(tl.int64) * width + column
    o_out = tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(out + o_out, tl.where(exists, offset, -1))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("start", [0, 3 * 10**9 + 7])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (352, 1217), (1, 40000)])
def test_pixels_beyond_int32(flat: bool, start: int, height: int, width: int) -> None:
    """Block 2²⁹ of 16 pixels, the last ones of a segment that starts anywhere: every pixel is found."""
    block, out = torch.tensor(2**29), torch.zeros(16, dtype=torch.int64)
    length = 2**29 * 16 + 11
    _place_kernel[(1,)](out, block.item(), start, length, height, width, FLAT=flat)
    assert out.tolist() == [start + 2**29 * 16 + i if i < 11 else -1 for i in range(16)]


def test_maps_that_lie_beyond_int32() -> None:
    """The third image starts 2³¹ elements after the first; the memory between them is never touched."""
    storage = memory_beyond_int32(64)
    far = [storage[first:].as_strided((3, 1, 2, 5), (2**30, 10, 5, 1)) for first in (0, 32)]
    near = [t.detach() for t in scene(2, torch.float16, (3, 1, 2, 5))][::3]
    for apart, together in zip(far, near, strict=True):
        apart.copy_(together)

    def results(depth: Tensor, target: Tensor) -> list[Tensor]:
        depth = depth.detach().requires_grad_()
        loss = silog_loss(depth, target, backend="triton")
        return [loss, *torch.autograd.grad(loss, depth)]

    for ours, theirs in zip(results(*far), results(*near), strict=True):
        same_but_for_rounding(ours, theirs)


@pytest.mark.cpu
def test_the_launch_table_holds_whatever_the_size() -> None:
    """No more partial sums than a program reads at once, and no program without a block."""
    for images in (1, 2, 3, 16, 528, 529, 5000):
        for height, width in ((1, 1), (3, 5), (352, 1216)):
            for per_image in (False, True):
                layout = launch.layout_of((torch.empty(images, 1, height, width, device="meta"),))
                plan = table.Division.of(layout, True, per_image)
                blocks = -(-plan.length // (plan.tile.lanes * plan.tile.pixels))
                assert 1 <= max(plan.parts, plan.chunks) <= min(plan.most_parts, blocks)
                assert plan.most_parts <= table.FINISHED_AT_ONCE
                assert plan.segments * plan.length == images * height * width
