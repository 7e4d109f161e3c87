"""The cost volumes' Triton kernels against the reference: values, gradients, layouts, bits, memory, registration."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from adu_kernels._triton import runtime
from adu_kernels.cost_volume import launch, table
from adu_kernels.cost_volume.launch import VolumeOptions
from adu_kernels.testing.parity import (
    Operation,
    check_layouts,
    check_parity,
    check_whole_graph,
    leaves,
    memory_beyond_int32,
    same_bits_in_any_order,
    same_but_for_rounding,
    saved_bytes,
)
from tests.kernels import plans

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _operation(name: str, *counts: int, **options: Any) -> Operation:
    """The operation with its counts filled in: the parity kit hands over tensors alone."""

    def bound(function: Any) -> Any:
        return lambda *maps, **more: function(*maps, *counts, **more)

    return Operation(bound(getattr(adu_kernels, name)), bound(getattr(reference, name)), options)


def _maps(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, last: bool = False) -> list[Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    return [torch.randn(shape).to(dtype).contiguous(memory_format=layout) for shape in shapes]


WIDE, THIN = (1, 6, 2, 9), (1, 4, 2, 9)
COSINE = {"normalize": "group", "reduction": "sum"}
COSINE_OF_ALL = {"normalize": "all", "reduction": "sqrt", "eps": 1e-3, "eps_rule": "add"}
CASES: dict[str, tuple[Operation, tuple]] = {
    "groupwise": (_operation("groupwise_correlation_volume", 5, 3), (WIDE, WIDE)),
    "groupwise right": (_operation("groupwise_correlation_volume", 5, 3, view="right", reduction="sum"), (WIDE, WIDE)),
    "groupwise cosine": (_operation("groupwise_correlation_volume", 5, 3, **COSINE), (WIDE, WIDE)),
    "groupwise cosine right": (_operation("groupwise_correlation_volume", 3, 2, view="right", **COSINE), (WIDE, WIDE)),
    "groupwise cosine of all": (_operation("groupwise_correlation_volume", 5, 3, **COSINE_OF_ALL), (WIDE, WIDE)),
    "plain": (_operation("correlation_volume", 5), (WIDE, WIDE)),
    "plain right": (_operation("correlation_volume", 5, view="right", reduction="sqrt"), (WIDE, WIDE)),
    "plain cosine": (_operation("correlation_volume", 5, **COSINE), (WIDE, WIDE)),
    "plain cosine right": (_operation("correlation_volume", 5, view="right", **COSINE_OF_ALL), (WIDE, WIDE)),
    "concatenation": (_operation("concatenation_volume", 5), (THIN, THIN)),
    "concatenation right": (_operation("concatenation_volume", 5, view="right"), (THIN, THIN)),
    "concatenation kept": (_operation("concatenation_volume", 5, mask_left=False), (THIN, THIN)),
    "concatenation kept right": (_operation("concatenation_volume", 5, mask_left=False, view="right"), (THIN, THIN)),
    "combined": (_operation("combined_volume", 4, 3), (WIDE, WIDE, THIN, THIN)),
    "combined, every option": (
        _operation("combined_volume", 4, 3, view="right", mask_left=False, **COSINE),
        (WIDE, WIDE, THIN, THIN),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


@every_case
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_parity(name: str, last: bool) -> None:
    operation, shapes = CASES[name]
    check_parity(operation, _maps(*shapes, last=last))


@pytest.mark.parametrize("name", ["groupwise", "groupwise cosine", "plain", "concatenation"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_parity_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    operation, shapes = CASES[name]
    check_parity(operation, _maps(*shapes, dtype=dtype, last=True))


@pytest.mark.parametrize(
    ("shape", "disparities", "groups"),
    [
        ((1, 4, 1, 1), 3, 2),  # one pixel, more disparities than columns
        ((2, 3, 1, 5), 9, 3),  # D > W, one channel a group
        ((1, 14, 1, 3), 2, 2),  # 7 channels a group
        ((1, 40, 1, 4), 3, 1),  # many channels
        ((1, 34, 1, 2), 3, 2),  # 17 channels a group
        ((1, 1, 3, 7), 1, 1),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_odd_sizes(shape: tuple[int, ...], disparities: int, groups: int, last: bool) -> None:
    check_parity(
        _operation("groupwise_correlation_volume", disparities, groups), _maps(shape, shape, last=last), epsilon=4e-7
    )


def test_a_row_of_several_tiles() -> None:
    """More columns and disparities than a block of the banded product, and than the items of one program."""
    check_parity(
        _operation("correlation_volume", 70), _maps((1, 3, 1, 75), (1, 3, 1, 75), dtype=torch.bfloat16, last=True)
    )
    check_parity(_operation("correlation_volume", 35, view="right"), _maps((1, 3, 1, 70), (1, 3, 1, 70)))
    check_parity(_operation("groupwise_correlation_volume", 2, 2), _maps((1, 2, 1, 300), (1, 2, 1, 300), last=True))
    check_parity(_operation("concatenation_volume", 2), _maps((1, 3, 1, 70), (1, 3, 1, 70)))


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_drawn_shapes_and_options(data: st.DataObject) -> None:
    groups, per_group, thin = (data.draw(st.integers(1, 3)) for _ in range(3))
    rows, width, disparities = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 7))
    options = {
        "normalize": data.draw(st.sampled_from(["none", "group", "all"])),
        "reduction": data.draw(st.sampled_from(["mean", "sum", "sqrt"])),
        "mask_left": data.draw(st.booleans()),
        "view": data.draw(st.sampled_from(["left", "right"])),
    }
    wide, narrow = (1, groups * per_group, rows, width), (1, thin, rows, width)
    maps = _maps(wide, wide, narrow, narrow, dtype=torch.float64, last=data.draw(st.booleans()))
    check_parity(_operation("combined_volume", disparities, groups, **options), maps, epsilon=1e-12)


@pytest.mark.parametrize("name", ["groupwise", "groupwise cosine", "plain", "concatenation", "combined"])
def test_every_layout(name: str) -> None:
    operation, shapes = CASES[name]
    check_layouts(operation, _maps(*shapes))


@pytest.mark.parametrize("name", ["groupwise", "plain", "combined"])
def test_the_same_bits_in_any_order_of_programs(name: str) -> None:
    operation, shapes = CASES[name]
    same_bits_in_any_order(operation, _maps(*shapes, last=True))


SMALL_WIDE, SMALL_THIN = (1, 2, 1, 3), (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("options", "view"),
    [({}, "left"), ({}, "right"), (COSINE, "left"), (COSINE_OF_ALL, "right")],
    ids=["none", "none right", "group", "all right"],
)
def test_gradcheck_of_the_kernels(options: dict, view: str) -> None:
    maps = _maps(SMALL_WIDE, SMALL_WIDE, SMALL_THIN, SMALL_THIN, dtype=torch.float64)
    for operation, inputs in (
        (_operation("combined_volume", 2, 1, view=view, mask_left=view == "left", **options), maps),
        (_operation("correlation_volume", 2, view=view, **options), maps[:2]),
    ):
        # fast_mode: products of the whole Jacobian with random vectors; the interpreter is slow
        assert torch.autograd.gradcheck(
            operation.triton, leaves(inputs), fast_mode=True, check_undefined_grad=False, nondet_tol=0.0
        )


@pytest.mark.parametrize("name", ["groupwise cosine", "plain", "combined"])
def test_traced_whole(name: str) -> None:
    operation, shapes = CASES[name]
    check_whole_graph(operation, _maps(*shapes, last=True))


def test_a_compiler_that_takes_every_graph_for_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo of torch 2.11 takes `torch.compiler.is_exporting()` for True whatever it compiles. Every Dynamo does so
    with `is_dynamo_compiling()`, False when it is called: here it stands for the other question that is asked."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", torch.compiler.is_dynamo_compiling)
    operation, shapes = CASES["plain"]
    check_whole_graph(operation, _maps(*shapes))


@pytest.mark.parametrize(("plain", "last"), [(False, True), (True, False)])
def test_registration(plain: bool, last: bool) -> None:
    left, right, left_thin, right_thin = _maps(WIDE, WIDE, THIN, THIN, last=last)
    counts = (3, 1 if plain else 3, plain, "none", "mean", True, "left", 1e-12, "max", False)
    maps = [left, right, None, None] if plain else [left, right, left_thin, right_thin]
    for m in maps:
        if m is not None:
            m.requires_grad_()
    torch.library.opcheck(torch.ops.adu_kernels.cost_volume.default, (*maps, *counts))
    volume, _ = torch.ops.adu_kernels.cost_volume(*maps, *counts)
    arguments = (
        torch.randn_like(volume.detach()),
        *[m if m is None else m.detach() for m in maps],
        None,
        [m is not None for m in maps],
    )
    torch.library.opcheck(torch.ops.adu_kernels.cost_volume_backward.default, (*arguments, *counts))


@pytest.mark.parametrize("last", [False, True])
def test_memory_format_follows_the_left_map(last: bool) -> None:
    left, right, left_thin, right_thin = (m.requires_grad_() for m in _maps(WIDE, WIDE, THIN, THIN, last=last))
    five = torch.channels_last_3d if last else torch.contiguous_format
    four = torch.channels_last if last else torch.contiguous_format
    volume = adu_kernels.combined_volume(left, right, left_thin, right_thin, 4, 3, backend="triton")
    assert volume.is_contiguous(memory_format=five)
    plain = adu_kernels.correlation_volume(left, right, 4, backend="triton")
    assert plain.is_contiguous(memory_format=four)
    for gradient in torch.autograd.grad(volume.sum(), (left, right_thin)):
        assert gradient.is_contiguous(memory_format=four)


def test_a_slice_of_a_channels_last_map_is_channels_last() -> None:
    both = torch.randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last)
    volume = adu_kernels.groupwise_correlation_volume(both[:, :4], both[:, 4:], 2, 2, backend="triton")
    assert volume.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(volume, reference.groupwise_correlation_volume(both[:, :4], both[:, 4:], 2, 2))


class _Launches:
    """What would be started; with `really`, also starts it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, really: bool) -> None:
        self.seen: list[tuple[str, dict]] = []
        started = runtime.run

        def run(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
            self.seen.append((kernel.__name__, options))
            if really:
                started(kernel, programs, *arguments, **options)

        monkeypatch.setattr(runtime, "run", run)


@pytest.mark.parametrize("name", ["combined", "plain", "plain cosine", "groupwise cosine of all"])
def test_one_launch_each_way_and_nothing_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, shapes = CASES[name]
    maps = [m.requires_grad_() for m in _maps(*shapes, last=True)]
    launches = _Launches(monkeypatch, really=True)
    assert saved_bytes(lambda: operation.triton(*maps), maps) == 0
    assert len(launches.seen) == 1
    (volume,) = operation.triton(*maps)
    torch.autograd.grad(volume, maps, torch.ones_like(volume))
    assert len(launches.seen) == 3


@pytest.mark.parametrize("needed", [0, 1, 2, 3])
@pytest.mark.parametrize("view", ["left", "right"])
def test_a_gradient_alone(needed: int, view: str) -> None:
    maps = _maps(WIDE, WIDE, THIN, THIN, last=True)
    maps[needed].requires_grad_()
    volumes = (
        adu_kernels.combined_volume(*maps, 4, 3, view=view, backend="triton"),
        reference.combined_volume(*maps, 4, 3, view=view),
    )
    upstream = torch.randn_like(volumes[1])
    got, want = (torch.autograd.grad(v, maps[needed], upstream)[0] for v in volumes)
    torch.testing.assert_close(got, want)


def test_upstream_gradients_of_any_strides() -> None:
    maps = [m.requires_grad_() for m in _maps(WIDE, WIDE, last=True)]
    for function in (
        partial(adu_kernels.groupwise_correlation_volume, num_disparities=4, num_groups=3),
        partial(adu_kernels.correlation_volume, num_disparities=4),
    ):
        volumes = [function(*maps, backend=backend) for backend in ("triton", "torch")]
        strided = torch.randn(*volumes[0].shape[:-1], 2 * 9)[..., ::2]
        for upstream in (strided, torch.ones(()).expand_as(volumes[0])):
            got, want = (torch.autograd.grad(v, maps, upstream, retain_graph=True) for v in volumes)
            torch.testing.assert_close(got, want)


def test_columns_without_a_partner_reach_nothing() -> None:
    left, right = torch.ones(1, 2, 1, 6), torch.ones(1, 2, 1, 6)
    left[..., 0] = torch.nan
    right[..., 5] = torch.inf
    for options in ({}, {"normalize": "group"}):
        volume = adu_kernels.groupwise_correlation_volume(left, right, 3, 2, backend="triton", **options)
        assert volume[:, :, 1:, 0, 0].count_nonzero() == 0
        assert not volume[:, :, 1:].isnan().any()
    maps = [m.contiguous(memory_format=torch.channels_last).requires_grad_() for m in (left, right)]
    volume = adu_kernels.groupwise_correlation_volume(*maps, 3, 2, backend="triton")
    (dleft,) = torch.autograd.grad(volume[:, :, :, :, :5].sum(), maps[0])
    assert dleft[..., :5].isfinite().all()


def test_fp16_products_do_not_overflow() -> None:
    big = torch.full((1, 320, 1, 2), 240.0, dtype=torch.float16)
    for groups in (1, 2):
        volume = adu_kernels.groupwise_correlation_volume(big, big, 1, groups, backend="triton")
        assert volume.unique().tolist() == [57600.0]


@pytest.mark.parametrize("normalize", ["group", "all"])
def test_a_zero_vector_correlates_with_nothing(normalize: str) -> None:
    left, right = torch.ones(1, 4, 1, 2), torch.ones(1, 4, 1, 2)
    left[..., 0] = 0
    left.requires_grad_()
    volume = adu_kernels.groupwise_correlation_volume(left, right, 1, 2, normalize=normalize, backend="triton")
    assert volume[..., 0].count_nonzero() == 0
    volume.sum().backward()
    assert left.grad is not None
    assert left.grad[..., 0].count_nonzero() == 0


@pytest.mark.cpu
def test_int64_is_chosen_where_a_tensor_reaches_beyond_int32(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = _Launches(monkeypatch, really=False)

    def chosen(batch: int, disparities: int, groups: int, plain: bool) -> bool:
        left, right = (torch.empty(batch, 8, 64, 128, device="meta") for _ in range(2))
        options = VolumeOptions(disparities, groups, plain)
        volume, _ = launch.run_forward((left, right, None, None), options)
        launch.run_backward(volume, (left, right, None, None), (True, True, False, False), options)
        forward, backward = (options["config"].INT64 for _, options in launches.seen[-2:])
        assert forward == backward
        return forward

    assert not chosen(8, 48, 4, False)
    assert chosen(2**31 // (48 * 4 * 64 * 128) + 1, 48, 4, False)
    assert not chosen(2**31 // (48 * 4 * 64 * 128), 48, 4, False)
    assert chosen(2**31 // (48 * 64 * 128) + 1, 48, 1, True)
    assert not chosen(2**31 // (48 * 64 * 128), 48, 1, True)


@pytest.mark.parametrize("plain", [False, True])
def test_maps_that_lie_beyond_int32(plain: bool) -> None:
    """The third image of a batch starts 2³¹ elements after the first; the memory between them is never touched."""
    storage = memory_beyond_int32(64)
    far = [storage[first:].as_strided((3, 2, 1, 5), (2**30, 1, 10, 2)) for first in (0, 32)]
    near = _maps((3, 2, 1, 5), (3, 2, 1, 5), dtype=torch.float16)
    for apart, together in zip(far, near, strict=True):
        apart.copy_(together)
    name, counts = ("correlation_volume", (3,)) if plain else ("groupwise_correlation_volume", (3, 2))
    operation = _operation(name, *counts)
    same_but_for_rounding(operation.triton(*far)[0], operation.triton(*near)[0])


@pytest.mark.parametrize("plain", [False, True])
def test_int64_gives_the_same_numbers(plain: bool) -> None:
    left, right, left_thin, right_thin = _maps(WIDE, WIDE, THIN, THIN, last=True)
    maps = (left, right, None, None) if plain else (left, right, left_thin, right_thin)
    options = VolumeOptions(4, 1 if plain else 3, plain)
    grad_output, needed = torch.randn_like(launch.new_volume(left, maps[2], options)), [m is not None for m in maps]

    def run() -> list[torch.Tensor]:
        return [launch.run_forward(maps, options)[0], *launch.run_backward(grad_output, maps, needed, options)]

    narrow = run()
    with plans.offsets_of_64_bits(table):
        wide = run()
    for one, two in zip(narrow, wide, strict=True):
        same_but_for_rounding(one, two)


def test_autocast_changes_no_bit() -> None:
    left, right = _maps(WIDE, WIDE, last=True)
    expected = adu_kernels.groupwise_correlation_volume(left, right, 3, 2, backend="triton")
    with torch.autocast(left.device.type, torch.bfloat16):
        got = adu_kernels.groupwise_correlation_volume(left, right, 3, 2, backend="triton")
    assert torch.equal(got, expected)


def test_an_exported_graph_holds_the_pad_and_stack_form() -> None:
    class Volume(torch.nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return adu_kernels.combined_volume(left, right, left, right, 3, 2, backend="triton")

    left, right = _maps(WIDE, WIDE)
    program = torch.export.export(Volume(), (left, right))
    assert not any("adu_kernels" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(left, right), Volume()(left, right))
