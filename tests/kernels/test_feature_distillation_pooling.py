"""The guide's pooling against adaptive average pooling: by hand, and the Triton kernels against the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adu_kernels import pooled_guide, reference
from adu_kernels._triton import runtime
from adu_kernels.feature_distillation import launch
from adu_kernels.testing import parity
from tests.kernels import plans

pytest.importorskip("triton")
NESTED = ((2, 1, 32, 160), [(4, 20), (2, 10), (1, 5)])
ANY = ((2, 1, 7, 11), [(2, 4), (5, 3), (7, 11), (1, 1), (9, 13)])
both_kinds = pytest.mark.parametrize(("shape", "sizes"), [NESTED, ANY], ids=["nested", "any"])


def _weight(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return (0.25 + 4 * torch.rand(shape)).to(device=parity.DEVICE, dtype=dtype)


def _check(weight: Tensor, sizes: list[tuple[int, int]]) -> None:
    with parity.nan_filled_memory():
        ours = pooled_guide(weight, sizes, backend="triton")
    same, exact = (reference.pooled_guide(w, sizes) for w in (weight, weight.double()))
    assert len(ours) == len(sizes)
    for got, plain, want in zip(ours, same, exact, strict=True):
        assert (got.shape, got.dtype, got.stride()) == (plain.shape, plain.dtype, plain.contiguous().stride())
        parity.check_error_budget(got, plain, want, parity.EPSILON[weight.dtype])


def test_by_hand() -> None:
    weight = torch.tensor([[1.0, 3.0, 5.0, 7.0], [1.0, 3.0, 5.0, 11.0]]).view(1, 1, 2, 4)
    for backend in ("torch", "triton"):
        two, one = pooled_guide(weight, [(1, 2), (1, 1)], backend=backend)
        assert two.flatten().tolist() == [2.0, 7.0]
        assert one.item() == 4.5
        (overlapping,) = pooled_guide(weight, [(1, 3)], backend=backend)  # columns 0–1, 1–2, 2–3
        assert overlapping.flatten().tolist() == [2.0, 4.0, 7.0]


@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_parity(shape: tuple[int, ...], sizes: list[tuple[int, int]], dtype: torch.dtype) -> None:
    _check(_weight(shape, dtype), sizes)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 2), st.just(1), st.integers(1, 30), st.integers(1, 70)),
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
)
def test_parity_at_any_size(shape: tuple[int, ...], sizes: list[tuple[int, int]]) -> None:
    _check(_weight(shape), sizes)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_parity_of_nested_cells(data: st.DataObject) -> None:
    """Any order, one cell twice, cells of a single pixel."""
    cells = data.draw(st.lists(st.sampled_from([1, 2, 4, 8, 16, 64]), min_size=1, max_size=3))
    height, width = (max(cells) * data.draw(st.integers(1, 3)) for _ in range(2))
    sizes = [(height // k, width // k) for k in cells]
    assert launch.nested_cells((height, width), sizes)
    _check(_weight((2, 1, height, width)), sizes)


@both_kinds
def test_any_strides(shape: tuple[int, ...], sizes: list[tuple[int, int]]) -> None:
    weight = _weight(shape)
    want = pooled_guide(weight, sizes, backend="triton")
    views = {
        **parity.layouts(weight),
        "crop": F.pad(weight, (0, 3, 0, 2), value=math.nan)[..., : shape[2], : shape[3]],
        "odd start": F.pad(weight, (1, 3), value=math.nan)[..., 1 : 1 + shape[3]],
    }
    for name, view in views.items():
        for ours, theirs in zip(pooled_guide(view, sizes, backend="triton"), want, strict=True):
            parity.same_but_for_rounding(ours, theirs, name)
    images = weight[:1].expand(3, -1, -1, -1)
    for ours, theirs in zip(pooled_guide(images, sizes, backend="triton"), want, strict=True):
        parity.same_but_for_rounding(ours, theirs[:1].expand_as(ours))


@both_kinds
def test_one_launch_and_the_same_bits_twice(
    shape: tuple[int, ...], sizes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, started, run = _weight(shape), [], runtime.run
    monkeypatch.setattr(runtime, "run", lambda kernel, *rest, **more: (started.append(1), run(kernel, *rest, **more)))
    first = pooled_guide(weight, sizes, backend="triton")
    assert len(started) == 1
    for one, two in zip(first, pooled_guide(weight, sizes, backend="triton"), strict=True):
        assert torch.equal(one, two)


@both_kinds
def test_a_nan_stays_in_its_cells(shape: tuple[int, ...], sizes: list[tuple[int, int]]) -> None:
    weight = _weight(shape)
    weight[1, 0, 5, 9] = math.nan
    pairs = zip(pooled_guide(weight, sizes, backend="triton"), reference.pooled_guide(weight, sizes), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.isnan(), theirs.isnan())


@pytest.mark.cpu
def test_cells_that_do_not_nest_are_seen() -> None:
    image = (64, 160)
    assert launch.nested_cells(image, [(2, 5), (8, 20), (4, 10)]) == [1, 2, 0]  # cells of 8, 16 and 32
    for sizes in ([(2, 10)], [(8, 21)], [(8, 20), (3, 5)], [(128, 320)], [(64, 161)], [(1, 2)]):
        assert not launch.nested_cells(image, sizes)
    assert not launch.nested_cells((48, 96), [(16, 32)])  # cells of 3


def test_int64_gives_the_same_numbers() -> None:
    for shape, sizes in (NESTED, ((2, 1, 5, 7), [(2, 3), (5, 4)])):
        weight = _weight(shape)
        short = pooled_guide(weight, sizes, backend="triton")
        with plans.offsets_of_64_bits(launch):
            wide = pooled_guide(weight, sizes, backend="triton")
        for one, two in zip(wide, short, strict=True):
            parity.same_but_for_rounding(one, two)


@both_kinds
def test_registration(shape: tuple[int, ...], sizes: list[tuple[int, int]]) -> None:
    heights, widths = ([size[axis] for size in sizes] for axis in (0, 1))
    torch.library.opcheck(torch.ops.adu_kernels.pooled_guide.default, (_weight(shape), heights, widths))
    torch._dynamo.reset()
    weight = _weight(shape).requires_grad_()
    traced = torch.compile(pooled_guide, fullgraph=True, backend="aot_eager")(weight, sizes, backend="triton")
    for one, two in zip(traced, pooled_guide(weight, sizes, backend="triton"), strict=True):
        assert torch.equal(one, two)
        assert not one.requires_grad


@pytest.mark.gpu
@both_kinds
def test_captured_in_a_cuda_graph(shape: tuple[int, ...], sizes: list[tuple[int, int]]) -> None:
    weight = _weight(shape)
    pooled_guide(weight, sizes)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pooled = pooled_guide(weight, sizes)
    weight.copy_(_weight(shape))
    graph.replay()
    for one, two in zip(pooled, pooled_guide(weight, sizes), strict=True):
        assert torch.equal(one, two)


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "weight: expected B×1×H×W, got 1×2×4×4", lambda w: pooled_guide(w.expand(1, 2, 4, 4), [(1, 1)])),
        (ValueError, "sizes: expected at least one level", lambda w: pooled_guide(w, [])),
        (TypeError, "sizes: expected a sequence", lambda w: pooled_guide(w, 3)),
        (ValueError, r"sizes\[1\]: expected \(height, width\), got 2", lambda w: pooled_guide(w, [(1, 1), 2])),
        (ValueError, r"sizes\[0\], width: expected a whole number ≥ 1, got 0", lambda w: pooled_guide(w, [(2, 0)])),
        (TypeError, r"sizes\[0\], height: .*1.5", lambda w: pooled_guide(w, [(1.5, 2)])),
    ],
)
def test_bad_input_is_named(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(1, 1, 4, 4))
