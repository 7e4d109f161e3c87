"""The Triton kernels of group normalisation against the reference: interpreted on a CPU, or on a GPU."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from adu_kernels import cosine_features, group_norm, reference
from adu_kernels.group_norm import launch, table
from adu_kernels.testing import parity
from adu_kernels.testing.suite import OperationTests, Shapes

pytest.importorskip("triton")
DEVICE = parity.DEVICE


def _operation(
    groups: int, *, weight: bool = True, residual: bool = False, relu: bool = False, eps: float = 1e-5
) -> parity.Operation:
    """As a function of x, weight and bias where there are, and the residual where there is one."""

    def bound(function: Any, activation: str) -> Any:
        def call(x: Tensor, *others: Tensor, **more: Any) -> Tensor:
            scale, shift = others[:2] if weight else (None, None)
            return function(
                x, groups, scale, shift, eps, activation=activation, residual=others[-1] if residual else None, **more
            )

        return call

    activation = "relu" if relu else "none"
    before = bound(reference.group_norm, "none") if relu else None
    return parity.Operation(bound(group_norm, activation), bound(reference.group_norm, activation), {}, before)


def _inputs(
    *shape: int, weight: bool = True, residual: bool = False, dtype: torch.dtype = torch.float32, last: bool = False
) -> list[Tensor]:
    def made() -> Tensor:
        value = torch.randn(shape).to(device=DEVICE, dtype=dtype)
        layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
        return value.contiguous(memory_format=layout) if last else value

    parameters = [torch.randn(shape[1], device=DEVICE) for _ in range(2)] if weight else []
    return [made(), *parameters, *([made()] if residual else [])]


class Layouts:
    """Tiles lie as the maps do, so that sums are added up in another order in another layout."""

    def test_every_layout(self: Any) -> None:
        """The maps' own; weight and bias have one."""
        x, weight, bias, *residual = self.draw(self.small, torch.float32)

        def bound(function: Any) -> Any:
            return lambda a, *b: function(a, weight.to(DEVICE), bias.to(DEVICE), *b)

        operation = parity.Operation(
            lambda *maps, backend: bound(lambda *all_of: self.operation.public(*all_of, backend=backend))(*maps),
            bound(self.operation.reference),
        )
        parity.check_layouts(operation, [x, *residual], same_bits=False)


class TestGroupNorm(Layouts, OperationTests):
    operation = _operation(2, relu=True)
    name = "group_norm"
    shapes: ClassVar[dict[str, Shapes]] = {
        "one position": ((2, 8, 1, 1), (8,), (8,)),
        "odd": ((2, 8, 5, 7), (8,), (8,)),
        "aligned": ((1, 8, 8, 16), (8,), (8,)),
        "more than one program": ((2, 8, 3, 29, 23), (8,), (8,)),
    }
    small = ((2, 8, 3, 5), (8,), (8,))


class TestWithResidual(Layouts, OperationTests):
    operation = _operation(2, residual=True, relu=True)
    name = "group_norm"
    shapes: ClassVar[dict[str, Shapes]] = {
        "one position": ((2, 6, 1, 1), (6,), (6,), (2, 6, 1, 1)),
        "odd": ((2, 6, 5, 7), (6,), (6,), (2, 6, 5, 7)),
        "aligned": ((1, 6, 2, 4, 16), (6,), (6,), (1, 6, 2, 4, 16)),
        "more than one program": ((1, 6, 31, 47), (6,), (6,), (1, 6, 31, 47)),
    }
    small = ((2, 6, 3, 5), (6,), (6,), (2, 6, 3, 5))


class TestCosineFeatures(OperationTests):
    operation = parity.Operation(cosine_features, reference.cosine_features)
    shapes: ClassVar[dict[str, Shapes]] = {
        "one channel": ((2, 1, 4, 5),),
        "odd": ((2, 8, 5, 7),),
        "aligned": ((1, 8, 8, 16),),
        "more than one program": ((2, 8, 3, 29, 23),),
    }
    small = ((2, 5, 3, 4),)

    def test_compilations(self) -> None:
        """One per number of channels, so they are compared with one."""
        draws = (self.draw(shape, torch.float32) for shape in list(self.shapes.values())[1:])
        parity.check_compilations(self.operation, draws)

    def test_every_layout(self) -> None:
        parity.check_layouts(self.operation, self.draw(self.small, torch.float32), same_bits=False)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("shape", [(1, 320, 3, 5), (1, 600, 2, 3), (2, 40, 1, 1), (1, 7, 2, 3, 4)])
def test_cosine_features(shape: tuple[int, ...], last: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        (x,) = _inputs(*shape, weight=False, dtype=dtype, last=last)
        parity.check_parity(TestCosineFeatures.operation, [x])


def test_a_large_mean_of_features_does_not_cancel() -> None:
    (x,) = _inputs(1, 32, 9, 13, weight=False, last=True)
    parity.check_parity(TestCosineFeatures.operation, [x + 1e4])


def test_a_position_of_zeros_stays_zero() -> None:
    """Constant maps: there is nothing to make longer, and no NaN."""
    x = torch.full((1, 6, 3, 4), 2.5, device=DEVICE)
    parity.check_parity(TestCosineFeatures.operation, [x])
    assert cosine_features(x, backend="triton").abs().max() == 0


def test_more_channels_than_a_tile_holds_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="x: expected at most 8192 channels, got 1×8193×1×1: use backend='torch'"):
        cosine_features(torch.zeros(1, 8193, 1, 1, device=DEVICE), backend="triton")


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 12, 5, 3), 4),  # three channels to a group: lanes left over
        ((1, 40, 4, 6), 5),
        ((2, 3, 9, 4), 1),
        ((1, 600, 3, 5), 1),  # a group that one tile cannot hold
        ((1, 320, 3, 4), 320),  # an instance norm
        ((1, 2, 3, 4, 5), 2),  # fewer lanes than a byte has signs
        ((2, 36, 2, 5), 12),
    ],
)
def test_parity(shape: tuple[int, ...], groups: int, last: bool) -> None:
    for relu, residual, weight in itertools.product((False, True), repeat=3):
        operation = _operation(groups, weight=weight, residual=residual, relu=relu)
        parity.check_parity(operation, _inputs(*shape, weight=weight, residual=residual, last=last))


@pytest.mark.parametrize(("shape", "groups"), [((2, 20, 3, 7), 20), ((1, 12, 5, 3), 4), ((1, 600, 2, 3), 2)])
def test_statistics_put_together_by_a_launch_of_their_own(
    shape: tuple[int, ...], groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MOST_PARTS", 0)
    for last in (False, True):
        inputs = _inputs(*shape, residual=True, last=last)
        parity.check_parity(_operation(groups, residual=True, relu=True), inputs)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3), groups=st.integers(1, 5), each=st.integers(1, 9), last=st.booleans(),
    size=st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 5)] * 3)),
    relu=st.booleans(), residual=st.booleans(), weight=st.booleans(),
)  # fmt: skip
def test_parity_at_any_size(
    batch: int, groups: int, each: int, last: bool, size: tuple[int, ...], relu: bool, residual: bool, weight: bool
) -> None:
    inputs = _inputs(batch, groups * each, *size, weight=weight, residual=residual, last=last)
    parity.check_parity(_operation(groups, weight=weight, residual=residual, relu=relu), inputs, epsilon=4e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_parity_in_other_types(dtype: torch.dtype, last: bool) -> None:
    for residual in (False, True):
        inputs = _inputs(2, 16, 3, 5, 4, residual=residual, dtype=dtype, last=last)
        parity.check_parity(_operation(4, residual=residual, relu=True), inputs)


def test_types_may_differ() -> None:
    x, weight, bias, residual = _inputs(2, 8, 5, 6, residual=True, dtype=torch.bfloat16)
    for mixed in ((x, weight.half(), bias.double(), residual.float()), (x.float(), weight, bias.bfloat16(), residual)):
        for relu in (False, True):
            operation = _operation(2, residual=True, relu=relu)
            got, want = (
                parity.values_and_gradients(run, parity.leaves(mixed), [torch.ones_like(x, dtype=torch.float32)])
                for run in (operation.triton, operation.torch)
            )
            for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
                assert ours.dtype == theirs.dtype, number
                torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("offset", [1e3, -3e4])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_a_large_mean_does_not_cancel(offset: float, last: bool) -> None:
    """What fp32 keeps of x itself is exact in the comparison: the budget is that of fp64 on the same values."""
    x, weight, bias = _inputs(2, 8, 19, 31, last=last)
    for row in (x + offset, torch.where(torch.rand_like(x) < 0.01, x + offset, x)):
        parity.check_parity(_operation(4), [row, weight, bias])


def test_a_first_value_far_away_does_not_cancel() -> None:
    x, weight, bias = _inputs(1, 8, 37, 41, last=True)
    x[:, :, 0, 0] = 1e4
    parity.check_parity(_operation(4), [x, weight, bias])


def test_constant_maps() -> None:
    """The variance is 0: y is the bias, and gradients are multiplied by 1/√eps."""
    x, weight, bias = _inputs(1, 4, 6, 7)
    parity.check_parity(_operation(2, eps=1e-3), [torch.full_like(x, 3.7), weight, bias], epsilon=1e-4)


def test_nan_and_infinity_stay_in_their_group() -> None:
    x, weight, bias = _inputs(2, 8, 9, 11, last=True)
    x[0, 1, 2, 3], x[1, 7, 8, 10] = torch.nan, torch.inf
    got, want = (run(x, weight, bias)[0] for run in (_operation(4, relu=True).triton, _operation(4, relu=True).torch))
    assert torch.equal(got.isnan(), want.isnan())
    torch.testing.assert_close(got, want, equal_nan=True)


def test_relu_keeps_nan() -> None:
    x, weight, bias, residual = _inputs(1, 4, 3, 5, residual=True)
    residual[0, 0, 0, 0] = torch.nan
    got, want = (run(x, weight, bias, residual)[0] for run in _both_ways())
    torch.testing.assert_close(got, want, equal_nan=True)


def _both_ways() -> tuple[Any, Any]:
    operation = _operation(2, residual=True, relu=True)
    return operation.triton, operation.torch


@pytest.mark.parametrize("relu", [False, True])
def test_unusual_gradients(relu: bool) -> None:
    """Of a sum (strides of 0), in another layout, and none for what needs none."""
    x, weight, bias, residual = _inputs(2, 16, 3, 4, 5, residual=True, last=True)
    for graded in ((0,), (1,), (3,), (0, 1, 2, 3)):
        found = []
        for run in (_operation(4, residual=True, relu=relu).triton, _operation(4, residual=True, relu=relu).torch):
            given = [t.detach().clone() for t in (x, weight, bias, residual)]
            for number in graded:
                given[number].requires_grad_()
            (y,) = run(*given)
            wanted = [given[number] for number in graded]
            found.append([
                *torch.autograd.grad(y.sum(), wanted, retain_graph=True),
                *torch.autograd.grad(y, wanted, torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y)),
            ])  # fmt: skip
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_parameters_with_gaps_between_their_numbers() -> None:
    """Every other number of a tensor, and one number for all channels."""
    x, _, _ = _inputs(2, 8, 3, 5)
    found = []
    for run in (group_norm, reference.group_norm):
        numbers, one = torch.linspace(-1, 1, 16, device=DEVICE).requires_grad_(), torch.full((1,), 0.3, device=DEVICE)
        one.requires_grad_()
        options = {"backend": "triton"} if run is group_norm else {}
        y = run(x, 4, numbers[::2], one.expand(8), activation="relu", **options)
        found.append([y, *torch.autograd.grad(y.square().sum(), [numbers, one])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_saved_tensors_may_come_back_in_another_layout() -> None:
    """As `save_on_cpu` with pinned memory hands them back. The signs lie as the forward's tiles, not as those would."""
    x, weight, bias, residual = _inputs(2, 64, 3, 5, residual=True, last=True)
    found = []
    for hooks in (nullcontext(), saved_tensors_hooks(torch.Tensor.contiguous, lambda kept: kept)):
        given = [x.detach().requires_grad_(), residual.detach().requires_grad_()]
        with hooks:
            (y,) = _operation(4, residual=True, relu=True).triton(given[0], weight, bias, given[1])
        found.append(torch.autograd.grad(y.square().sum(), given))
    for other, plain in zip(*found, strict=True):
        torch.testing.assert_close(other, plain)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_graph_runs_where_there_is_no_triton(strict: bool) -> None:
    class Both(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return cosine_features(group_norm(x, 2, activation="relu", backend="triton"), backend="triton")

    graph = torch.export.export(Both(), (torch.randn(1, 8, 3, 4, device=DEVICE),), strict=strict).graph
    assert not [node for node in graph.nodes if "adu_kernels" in str(node.target)]


def test_signs_are_written_only_where_a_backward_may_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, residual = _inputs(2, 8, 3, 5, residual=True, last=True)
    written: list[int] = []
    sizes = table.sign_bytes
    monkeypatch.setattr(table, "sign_bytes", lambda *given: written.append(1) or sizes(*given))
    operation = _operation(4, residual=True, relu=True)
    values = [operation.triton(x, weight, bias, residual)]
    with torch.no_grad():
        values.append(operation.triton(x, weight.requires_grad_(), bias, residual))
    assert not written
    values.append(operation.triton(x, weight, bias, residual))
    assert written
    for (one,) in values:
        assert torch.equal(one, values[0][0])
    weight.requires_grad_(False)


def test_more_partial_sums_than_32_bits_count_are_refused_by_name() -> None:
    like = torch.empty(0, device="meta")
    assert launch.new_partials(like, 4, 2**10, 2**18).numel() == 2**30
    with pytest.raises(ValueError, match=r"x: 4294967296 partial sums .* use backend='torch'"):
        launch.new_partials(like, 4, 2**10, 2**20)


def test_the_signs_are_all_that_is_kept_of_the_result() -> None:
    x, weight, bias, residual = (t.requires_grad_() for t in _inputs(1, 32, 8, 16, 16, residual=True, last=True))
    given = [x, weight, bias, residual]
    kept = {
        (relu, bool(more)): parity.saved_bytes(
            lambda relu=relu, more=more: _operation(8, residual=bool(more), relu=relu).triton(x, weight, bias, *more),
            given,
        )
        for relu in (False, True)
        for more in ((), (residual,))
    }
    statistics = 3 * 4 * 8
    assert kept == {
        (False, False): statistics, (True, False): statistics, (False, True): statistics,
        (True, True): statistics + x.numel() // 8,
    }  # fmt: skip


def test_few_groups_are_cut_into_many_programs() -> None:
    """One image of a volume, 8 groups, its channels in one block: every multiprocessor has work."""
    x = torch.empty(1, 32, 48, 64, 128, dtype=torch.bfloat16, device="meta").to(memory_format=torch.channels_last_3d)
    layout = table.layout_of([x])
    for shape in (table.STATISTICS, table.NORMALISE, table.GRADIENT_SUMS, table.INPUT_GRADIENT):
        tile = table.tile_of(x, 8, shape.elements, layout.channels_last)
        cut = table.cut_of(shape, tile, 1, 8, layout.positions)
        assert 0.5 * shape.programs <= cut.blocks * cut.chunks <= shape.programs
        chunk = cut.tiles * tile.positions
        assert (cut.chunks - 1) * chunk < layout.positions <= cut.chunks * chunk


def test_beyond_int32() -> None:
    """One image whose last elements lie 2³¹ elements from its first: those of a small one, spread out."""
    memory = parity.memory_beyond_int32(128)
    step = 2**31 // 3 + 8
    x = memory.as_strided((1, 16, 4, 4), (0, 1, step, 16))
    x.copy_(torch.randn(1, 16, 4, 4))
    y = group_norm(x, 4, activation="relu", backend="triton")
    torch.testing.assert_close(y, reference.group_norm(x.contiguous(), 4, activation="relu"), rtol=2e-3, atol=2e-3)


def test_nan_takes_its_whole_position_with_it() -> None:
    """The length of such a position is no number, and neither is what is divided by it, in any channel."""
    (x,) = _inputs(1, 8, 3, 5, weight=False, last=True)
    x[0, 2, 1, 1] = torch.nan
    got, want = (run(x)[0] for run in (TestCosineFeatures.operation.triton, TestCosineFeatures.operation.torch))
    assert torch.equal(got.isnan(), want.isnan())
