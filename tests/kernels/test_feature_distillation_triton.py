"""The Triton kernels of the feature distillation loss against the reference: interpreted on a CPU, or on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adu_kernels import feature_distillation_loss, feature_distillation_losses, reference
from adu_kernels._triton import runtime
from adu_kernels.feature_distillation import launch
from adu_kernels.testing import parity
from tests.kernels import plans

pytest.importorskip("triton")
DEVICE = parity.DEVICE
SINGLE = torch.float32
LAST, FIRST = torch.channels_last, torch.contiguous_format
both_layouts = pytest.mark.parametrize("layout", [LAST, FIRST], ids=["last", "first"])


def _map(*shape: int, dtype: torch.dtype = SINGLE, layout: torch.memory_format = FIRST) -> Tensor:
    return torch.randn(shape).to(device=DEVICE, dtype=dtype).contiguous(memory_format=layout)


def _weight(like: Tensor, dtype: torch.dtype = SINGLE) -> Tensor:
    batch, _, height, width = like.shape
    return (0.25 + torch.rand(batch, 1, height, width)).to(device=DEVICE, dtype=dtype)


def _operation(teacher: Tensor, weight: Tensor | None) -> parity.Operation:
    """The loss as a function of the adapted map alone."""

    def bound(function: Any) -> Any:
        return lambda adapted, **more: function(adapted, teacher, weight, **more)

    return parity.Operation(bound(feature_distillation_loss), bound(reference.feature_distillation_loss))


def _levels(teacher: list[Tensor], weights: list[Tensor] | None) -> parity.Operation:
    def bound(function: Any) -> Any:
        return lambda *adapted, **more: function(adapted, teacher, weights, **more)

    return parity.Operation(bound(feature_distillation_losses), bound(reference.feature_distillation_losses))


SHAPES = [
    (2, 16, 4, 8),  # every load wide
    (2, 5, 3, 7),  # primes, none wide
    (1, 1, 1, 1),
    (2, 64, 1, 1),
    (1, 1, 5, 9),
    (1, 40, 2, 6),  # more channels than a program walks through; rows too short for wide loads
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("theirs", [LAST, FIRST], ids=["teacher last", "teacher first"])
@both_layouts
def test_parity(shape: tuple[int, ...], theirs: torch.memory_format, layout: torch.memory_format) -> None:
    adapted, teacher = _map(*shape, layout=layout), _map(*shape, layout=theirs)
    parity.check_parity(_operation(teacher, _weight(adapted)), [adapted])


def test_a_silent_teacher_does_not_divide_by_zero() -> None:
    for layout in (LAST, FIRST):
        adapted = 1e-3 * _map(2, 8, 2, 4, layout=layout)
        parity.check_parity(_operation(torch.zeros_like(adapted), None), [adapted])


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parity_in_other_types(dtype: torch.dtype, layout: torch.memory_format) -> None:
    adapted, teacher = (_map(2, 24, 4, 6, dtype=dtype, layout=layout) for _ in range(2))
    parity.check_parity(_operation(teacher, None), [adapted])
    parity.check_parity(_operation(teacher, _weight(adapted)), [adapted])


@both_layouts
@pytest.mark.parametrize(
    ("mine", "theirs", "guide"),
    [
        (torch.bfloat16, SINGLE, SINGLE),
        (SINGLE, torch.float16, torch.bfloat16),
        (torch.float16, torch.bfloat16, torch.float16),
        (SINGLE, torch.float64, SINGLE),
    ],
)
def test_parity_of_mixed_types(
    mine: torch.dtype, theirs: torch.dtype, guide: torch.dtype, layout: torch.memory_format
) -> None:
    adapted, teacher = _map(2, 16, 2, 8, dtype=mine, layout=layout), _map(2, 16, 2, 8, dtype=theirs, layout=layout)
    parity.check_parity(_operation(teacher, _weight(adapted, guide)), [adapted])


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_parity_at_any_size(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 36), st.integers(1, 6), st.integers(1, 9)))
    mine, theirs = (data.draw(st.sampled_from([LAST, FIRST])) for _ in range(2))
    adapted, teacher = _map(*shape, layout=mine), _map(*shape, layout=theirs)
    parity.check_parity(_operation(teacher, _weight(adapted) if data.draw(st.booleans()) else None), [adapted])


def test_several_programs() -> None:
    """More positions and channels than one program visits, in either layout."""
    for layout in (LAST, FIRST):
        adapted, teacher = (_map(2, 36, 13, 24, dtype=torch.bfloat16, layout=layout) for _ in range(2))
        assert launch.level((adapted, teacher), None).programs > 1
        parity.check_parity(_operation(teacher, _weight(adapted)), [adapted])


@both_layouts
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 1, 2), (1, 18, 1, 3)])
def test_gradcheck_of_the_kernels(shape: tuple[int, ...], weighted: bool, layout: torch.memory_format) -> None:
    adapted, teacher = (_map(*shape, dtype=torch.float64, layout=layout) for _ in range(2))
    operation = _operation(teacher, _weight(adapted) if weighted else None)
    parity.check_gradients(operation, [adapted], fast=shape[1] > 2)


def _crop(map: Tensor, height: int, width: int) -> Tensor:
    return map[..., :height, :width]


STRIDED = {
    "crop": lambda m: _crop(m, 3, 5),
    "crop with aligned rows": lambda m: _crop(m, 3, 4),
    "channels of a wider map": lambda m: torch.cat([m, m], 1)[:, : m.shape[1]],
    "every second column": lambda m: m[..., ::2],
    "transposed": lambda m: m.transpose(2, 3),
    "one for all positions": lambda m: m[:, :, :1, :1].expand_as(m),
    "one for all images": lambda m: m[:1].expand_as(m),
}


@both_layouts
@pytest.mark.parametrize("cut", STRIDED)
@pytest.mark.parametrize("which", ["both maps", "teacher", "weight"])
def test_any_strides(cut: str, which: str, layout: torch.memory_format) -> None:
    adapted, teacher = (STRIDED[cut](_map(2, 8, 4, 8, layout=layout)) for _ in range(2))
    weight = STRIDED[cut](_weight(_map(2, 8, 4, 8)))
    if cut.startswith("one for all") or which != "both maps":  # such a map is no leaf of its own shape
        adapted = adapted.contiguous(memory_format=layout)
    if which == "weight":
        teacher = teacher.contiguous(memory_format=layout)
    if which == "teacher":
        weight = weight.contiguous()
    loose = weight.expand(-1, 1, -1, -1) if weight.shape[1] == 1 else weight[:, :1]
    parity.check_parity(_operation(teacher, loose), [adapted])


def test_weights_whose_rows_start_anywhere() -> None:
    """Beside maps whose rows may be loaded at once."""
    weight = _crop(_weight(_map(2, 8, 4, 5)), 3, 4)
    parity.check_parity(_operation(_map(2, 8, 3, 4), weight), [_map(2, 8, 3, 4)])


@pytest.mark.cpu
def test_loads_are_wide_where_the_layout_allows_it() -> None:
    def level(dtype: torch.dtype, layout: torch.memory_format, cut: Any = lambda m: m) -> tuple[bool, bool, int, bool]:
        maps = [cut(torch.empty(2, 48, 6, 12, dtype=dtype).contiguous(memory_format=layout)) for _ in range(2)]
        found = launch.level(maps, torch.empty(2, 1, *maps[0].shape[2:]))
        return found.channels_last, found.wide, found.vector, found.flat

    assert level(torch.bfloat16, LAST) == (True, True, 8, True)
    assert level(SINGLE, LAST) == (True, True, 4, True)
    assert level(SINGLE, LAST, STRIDED["crop"]) == (True, True, 4, False)
    assert level(SINGLE, LAST, lambda m: m[:, :47]) == (True, False, 1, True)
    assert level(torch.bfloat16, FIRST) == (False, True, 8, False)
    assert level(SINGLE, FIRST, lambda m: _crop(m, 3, 8)) == (False, True, 4, False)
    assert level(SINGLE, FIRST, lambda m: _crop(m, 3, 5)) == (False, False, 4, False)
    assert level(SINGLE, FIRST, lambda m: m.transpose(2, 3)) == (False, False, 4, False)
    for map in (_crop(torch.empty(1, 8, 4, 8), 4, 5), _crop(torch.empty(1, 8, 4, 9), 4, 8), torch.empty(1, 8, 1, 6)):
        assert not launch.level((map, map), None).wide, "rows of 5, rows 9 apart, channels 6 apart"


def test_levels_at_once_are_levels_alone() -> None:
    """Layouts, types and sizes of all kinds side by side; a program works on one level alone."""
    adapted = [
        _map(2, 16, 4, 8, dtype=torch.bfloat16, layout=LAST),
        _map(1, 7, 3, 5),
        _map(2, 20, 2, 4, layout=LAST)[..., :3],
        _map(3, 8, 2, 2, dtype=torch.float16),
    ]
    teacher = [torch.randn_like(one.float()) for one in adapted]
    for weights in (None, [_weight(one) for one in adapted]):
        together, alone = parity.leaves(adapted), parity.leaves(adapted)
        losses = feature_distillation_losses(together, teacher, weights, backend="triton")
        singles = [
            feature_distillation_loss(mine, theirs, None if weights is None else weights[i], backend="triton")
            for i, (mine, theirs) in enumerate(zip(alone, teacher, strict=True))
        ]
        upstream = torch.tensor([1.0, -2.0, 0.5, 3.0], device=DEVICE)
        parity.same_but_for_rounding(losses, torch.stack(singles))
        got = torch.autograd.grad(losses, together, upstream)
        want = torch.autograd.grad(singles, alone, list(upstream))
        for ours, theirs in zip(got, want, strict=True):
            parity.same_but_for_rounding(ours, theirs)


def test_parity_of_several_levels() -> None:
    shapes = [(2, 8, 2, 4), (2, 12, 1, 2)]
    for layout in (LAST, FIRST):
        adapted, teacher = ([_map(*shape, layout=layout) for shape in shapes] for _ in range(2))
        parity.check_parity(_levels(teacher, [_weight(one) for one in adapted]), adapted)
    doubles = [_map(*shape, dtype=torch.float64) for shape in shapes]
    parity.check_gradients(_levels([m.float() for m in teacher], None), doubles, fast=True)


def test_a_level_that_wants_no_gradient() -> None:
    adapted, teacher = [_map(1, 4, 2, 2), _map(1, 4, 2, 2).requires_grad_()], [_map(1, 4, 2, 2) for _ in range(2)]
    losses = [feature_distillation_losses(adapted, teacher, backend=name) for name in ("triton", "torch")]
    got, want = (torch.autograd.grad(one.sum(), adapted[1])[0] for one in losses)
    torch.testing.assert_close(got, want)


def test_a_teacher_and_a_weight_that_want_gradients_get_none() -> None:
    adapted, teacher, weight = (
        _map(1, 4, 2, 2),
        _map(1, 4, 2, 2).requires_grad_(),
        torch.ones(1, 1, 2, 2, device=parity.DEVICE).requires_grad_(),
    )
    assert not feature_distillation_loss(adapted, teacher, weight, backend="triton").requires_grad
    feature_distillation_loss(adapted.requires_grad_(), teacher, weight, backend="triton").backward()
    assert adapted.grad is not None
    assert teacher.grad is None
    assert weight.grad is None


def test_one_fp64_map_makes_all_losses_fp64() -> None:
    maps = [_map(1, 4, 2, 2), _map(1, 4, 2, 2)]
    for backend in ("triton", "torch"):
        teacher = [maps[0] + 1, maps[1].double() + 1]
        assert feature_distillation_losses(maps, teacher, backend=backend).dtype == torch.float64
    traced = [[one.to("meta") for one in each] for each in (maps, teacher)]
    assert feature_distillation_losses(*traced, backend="triton").dtype == torch.float64


COUNT = 2 * 32 * 16 * 32
ADVERSARIAL: dict[str, Callable[[], Tensor]] = {
    "one huge, many tiny": lambda: torch.full((COUNT,), 1e-4).index_fill(0, torch.tensor([COUNT // 3]), 1e4),
    "the same everywhere": lambda: torch.full((COUNT,), 0.1),
    "ascending": lambda: torch.linspace(0, 1, COUNT) ** 8,
    "descending": lambda: torch.linspace(1, 0, COUNT) ** 8,
    "over many magnitudes": lambda: torch.exp(20 * torch.randn(COUNT)).clamp(1e-12, 1e12),
}


@both_layouts
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_sums_are_exact_to_a_millionth(kind: str, layout: torch.memory_format) -> None:
    teacher = ADVERSARIAL[kind]().reshape(2, 32, 16, 32).to(DEVICE).contiguous(memory_format=layout)
    adapted = 3 * teacher
    got = feature_distillation_loss(adapted, teacher, backend="triton").double()
    exact = reference.feature_distillation_loss(adapted.double(), teacher.double())
    assert abs(got / exact - 1) <= 1e-6


def _finish(error: Tensor, power: Tensor, elements: int) -> tuple[Tensor, Tensor]:
    """Loss and slope of one level from the partial sums of its programs."""
    from adu_kernels.feature_distillation import kernels

    losses, slopes = torch.empty(2, 1, device=DEVICE)
    spans, programs = launch.encoded([(0, len(error), elements)]), len(error)
    runtime.run(
        kernels.finish, 1, torch.cat([error, power]), losses, slopes, spans, programs,
        config=kernels.FinishConfig(1, launch.FINISH.values, 1e-6, "fp32"), num_warps=launch.FINISH.warps,
    )  # fmt: skip
    return losses.double(), slopes.double()


def test_sums_of_a_thousand_million_values_are_exact_to_a_millionth() -> None:
    """Their 16 384 values per program are as above; here are as many partial sums as there would be."""
    programs, elements = 61_035, 61_035 * 16_384
    error, power = torch.full((2, programs), 1e-4, device=DEVICE)
    error[0], power[-1] = 3e3, 7e3
    loss, slope = _finish(error, power, elements)
    mean = power.double().sum() / elements + 1e-6
    assert abs(loss / (error.double().sum() / elements / mean) - 1) <= 1e-6
    assert abs(slope / (2 / elements / mean) - 1) <= 1e-6


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of ∞ − ∞
def test_a_partial_sum_that_overflows_stays_infinite() -> None:
    error = torch.ones(3 * launch.FINISH.values, device=DEVICE)
    error[5] = math.inf
    assert _finish(error, torch.ones_like(error), 1000)[0].item() == math.inf


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the interpreter's, of ∞ − ∞
def test_values_no_number_can_hold() -> None:
    """NaN stays NaN, under a weight of 0 too; an infinite distance stays infinite."""
    for layout in (LAST, FIRST):
        adapted, teacher = (_map(2, 8, 4, 8, layout=layout) for _ in range(2))
        weight = _weight(adapted)
        weight[1, 0, 2, 3] = 0
        for value, where in ((math.nan, adapted), (math.nan, teacher), (math.inf, adapted)):
            before = where[1, 3, 2, 3].item()
            where[1, 3, 2, 3] = value
            for used in (weight, None) if math.isnan(value) else (None,):
                losses = [
                    feature_distillation_loss(adapted, teacher, used, backend=name) for name in ("triton", "torch")
                ]
                assert torch.equal(*losses) or torch.stack(losses).isnan().all()
            where[1, 3, 2, 3] = before


@both_layouts
def test_permuting_the_batch_permutes_the_gradients(layout: torch.memory_format) -> None:
    """Small whole numbers: every sum is exact, so that the order of images cannot show in the last bit."""
    adapted, teacher = (torch.randint(-8, 9, (4, 12, 3, 4), device=DEVICE).float() for _ in range(2))
    weight = torch.randint(1, 5, (4, 1, 3, 4), device=DEVICE) / 4
    order = torch.tensor([2, 0, 3, 1], device=DEVICE)

    def run(*maps: Tensor) -> tuple[Tensor, Tensor]:
        mine, theirs = (m.contiguous(memory_format=layout) for m in maps[:2])
        (leaf,) = parity.leaves([mine])
        loss = feature_distillation_loss(leaf, theirs, maps[2], backend="triton")
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    loss, gradient = run(adapted, teacher, weight)
    other_loss, other_gradient = run(adapted[order], teacher[order], weight[order])
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient[order], other_gradient)


@both_layouts
def test_same_bits_twice(layout: torch.memory_format) -> None:
    adapted, teacher = (_map(2, 36, 8, 12, layout=layout) for _ in range(2))
    parity.check_same_bits_twice(_operation(teacher, _weight(adapted)), [adapted])


@both_layouts
def test_same_bits_in_any_order_of_programs(layout: torch.memory_format) -> None:
    adapted, teacher = (_map(2, 18, 13, 24, dtype=torch.bfloat16, layout=layout) for _ in range(2))
    parity.same_bits_in_any_order(_operation(teacher, _weight(adapted)), [adapted])


@both_layouts
def test_gradients_keep_the_layout_of_the_map(layout: torch.memory_format) -> None:
    adapted = _map(2, 6, 3, 5, layout=layout).requires_grad_()
    loss = feature_distillation_loss(adapted, _map(2, 6, 3, 5), backend="triton")
    assert torch.autograd.grad(loss, adapted)[0].stride() == adapted.stride()


def test_upstream_gradients_of_any_strides() -> None:
    adapted, teacher = [_map(1, 4, 2, 2).requires_grad_() for _ in range(3)], [_map(1, 4, 2, 2) for _ in range(3)]
    for upstream in (torch.tensor(0.7, device=DEVICE).expand(3), torch.randn(6, device=DEVICE)[::2]):
        losses = [feature_distillation_losses(adapted, teacher, backend=name) for name in ("triton", "torch")]
        got, want = (torch.autograd.grad(one, adapted, upstream) for one in losses)
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_autocast_changes_no_bit() -> None:
    adapted, teacher = (_map(2, 8, 3, 4) for _ in range(2))
    expected = feature_distillation_loss(adapted, teacher, backend="triton")
    with torch.autocast(DEVICE, torch.bfloat16):
        assert torch.equal(feature_distillation_loss(adapted, teacher, backend="triton"), expected)


@both_layouts
def test_int64_gives_the_same_numbers(layout: torch.memory_format) -> None:
    adapted, teacher = (_map(2, 20, 3, 8, layout=layout) for _ in range(2))
    weight = _weight(adapted)

    def run() -> list[Tensor]:
        leaves = parity.leaves([adapted])
        return parity.values_and_gradients(_operation(teacher, weight).triton, leaves, [torch.ones(())])

    short = run()
    with plans.offsets_of_64_bits(launch):
        wide = run()
    for one, two in zip(short, wide, strict=True):
        parity.same_but_for_rounding(one, two)


@both_layouts
def test_maps_that_lie_beyond_int32(layout: torch.memory_format) -> None:
    """The third image of a batch starts 2³¹ elements after the first; the memory between them is never touched."""
    storage = parity.memory_beyond_int32(128)
    near = _map(3, 8, 1, 4, dtype=torch.float16, layout=layout)
    far = storage.as_strided(near.shape, (2**30, *near.stride()[1:]))
    far.copy_(near)
    teacher = _map(3, 8, 1, 4)
    assert launch.loss_config([launch.level((far, teacher), None)], [far, teacher], []).INT64
    torch.testing.assert_close(
        feature_distillation_loss(far, teacher, backend="triton"), reference.feature_distillation_loss(near, teacher)
    )


@pytest.mark.parametrize("levels", [1, 3])
def test_two_launches_forward_one_backward_and_nothing_kept(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    run = runtime.run
    monkeypatch.setattr(
        runtime, "run", lambda kernel, *rest, **more: (started.append(kernel.__name__), run(kernel, *rest, **more))
    )
    adapted = [_map(1, 4, 2, 2).requires_grad_() for _ in range(levels)]
    teacher = [_map(1, 4, 2, 2) for _ in range(levels)]
    losses = feature_distillation_losses(adapted, teacher, backend="triton")
    torch.autograd.grad(losses.sum(), adapted)
    assert started == ["sums", "finish", "gradients"]
    inputs = [*adapted, *teacher]
    kept = parity.saved_bytes(lambda: feature_distillation_losses(adapted, teacher, backend="triton"), inputs)
    assert kept == 4 * levels  # 2/(elements · power) of each level


DATA_DEPENDENT = ("_local_scalar_dense", "item", "nonzero", "masked_select", "_unique", "is_nonzero", "equal")


class _Recorded(TorchDispatchMode):
    """Every operator that runs inside, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_no_operator_reads_a_value_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the host does around the kernels, forward and backward: allocations and nothing else."""
    monkeypatch.setattr(runtime, "run", lambda *arguments, **options: None)
    adapted, teacher, weight = _map(2, 4, 3, 5, layout=LAST), _map(2, 4, 3, 5), torch.rand(2, 1, 3, 5, device=DEVICE)
    with _Recorded() as recorded:
        losses, slopes = launch.forward([adapted], [teacher], [weight])
        launch.gradients(losses, slopes, [adapted], [teacher], [weight])
    assert recorded.names
    assert set(recorded.names) <= {"new_empty", "empty_like", "empty"}


def test_the_traced_graph_holds_no_data_dependent_operator() -> None:
    seen: list[str] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module.forward

    adapted, teacher = [_map(2, 4, 3, 5), _map(2, 6, 2, 3)], [_map(2, 4, 3, 5), _map(2, 6, 2, 3)]
    torch._dynamo.reset()
    for backend_name in ("triton", "torch"):
        torch.compile(feature_distillation_losses, fullgraph=True, backend=backend)(
            adapted, teacher, backend=backend_name
        )
    assert any("feature_distillation" in name for name in seen)
    assert not [name for name in seen if any(word in name.split(".") for word in DATA_DEPENDENT)]


def test_opcheck() -> None:
    adapted, teacher = [_map(2, 4, 3, 5).requires_grad_(), _map(1, 3, 2, 2)], [_map(2, 4, 3, 5), _map(1, 3, 2, 2)]
    weights = [_weight(one) for one in adapted]
    torch.library.opcheck(torch.ops.adu_kernels.feature_distillation.default, (adapted, teacher, weights))
    torch.library.opcheck(torch.ops.adu_kernels.feature_distillation.default, (adapted, teacher, []))
    fixed = [one.detach() for one in adapted]
    losses, slopes = torch.ops.adu_kernels.feature_distillation(fixed, teacher, weights)
    arguments = (torch.randn_like(losses), slopes, fixed, teacher, weights)
    torch.library.opcheck(torch.ops.adu_kernels.feature_distillation_backward.default, arguments)


def test_traced_whole() -> None:
    adapted, teacher = [_map(2, 8, 3, 4, layout=LAST), _map(2, 6, 2, 3)], [_map(2, 8, 3, 4), _map(2, 6, 2, 3)]
    parity.check_whole_graph(_levels(teacher, [_weight(one) for one in adapted]), adapted)
    parity.check_whole_graph(_operation(teacher[0], None), adapted[:1])


@pytest.mark.gpu
def test_captured_in_a_cuda_graph() -> None:
    adapted = [
        _map(2, 64, 8, 12, dtype=torch.bfloat16, layout=LAST).requires_grad_(),
        _map(2, 7, 4, 6).requires_grad_(),
    ]
    teacher = [torch.randn_like(one) for one in adapted]

    def step() -> tuple[Tensor, tuple[Tensor, ...]]:
        losses = feature_distillation_losses(adapted, teacher)
        return losses, torch.autograd.grad(losses.sum(), adapted)

    step()  # compiles outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses, gradients = step()
    with torch.no_grad():
        for one in (*adapted, *teacher):
            one.copy_(torch.randn_like(one))
    graph.replay()
    want_losses, want_gradients = step()
    assert torch.equal(losses, want_losses)
    assert all(torch.equal(got, want) for got, want in zip(gradients, want_gradients, strict=True))


@pytest.mark.gpu
def test_a_thousand_million_values_on_a_card() -> None:
    teacher = torch.full((16, 64, 1024, 1024), 1e-3, dtype=torch.bfloat16, device="cuda").contiguous(memory_format=LAST)
    teacher[3, 5, 100, 100] = 1e4
    got = feature_distillation_loss(torch.zeros_like(teacher), teacher)
    power = float(teacher[0, 0, 0, 0]) ** 2 * (teacher.numel() - 1) + float(teacher[3, 5, 100, 100]) ** 2
    mean = power / teacher.numel()
    assert abs(got.double().item() / (mean / (mean + 1e-6)) - 1) <= 1e-6


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "adapted: expected a sequence", lambda x: feature_distillation_losses(x, [x])),
        (
            ValueError,
            "teacher: expected one map per level of adapted, 1, got 2",
            lambda x: feature_distillation_losses([x], [x, x]),
        ),
        (
            ValueError,
            "weights: expected one map per level of adapted, 1, got 2",
            lambda x: feature_distillation_losses([x], [x], [x, x]),
        ),
        (ValueError, "adapted: expected at least one level", lambda x: feature_distillation_losses([], [])),
        (ValueError, r"teacher\[1\]: .*adapted\[1\]", lambda x: feature_distillation_losses([x, x], [x, x[:, 1:]])),
        (ValueError, r"weights\[0\]: expected B×1×H×W", lambda x: feature_distillation_losses([x], [x], [x])),
        (ValueError, r"adapted: expected at least one element", lambda x: feature_distillation_loss(x[:0], x[:0])),
        (ValueError, r"adapted\[0\]: .*at least one element", lambda x: feature_distillation_losses([x[..., :0]], [x])),
    ],
)
def test_bad_levels_are_named(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(2, 4, 3, 5))
