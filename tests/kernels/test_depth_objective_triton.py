"""The Triton kernels of the per-pixel losses against the references; interpreted where there is no GPU."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental.proxy_tensor import make_fx

import adu_kernels
from adu_kernels import depth_objective, focal_response_loss, laplace_nll, reference, silog_loss, uncertainty_guide
from adu_kernels.depth_objective import launch, op
from adu_kernels.testing import parity
from adu_kernels.testing.suite import OperationTests, Shapes
from tests.kernels.depth_scenes import scene

pytest.importorskip("triton")

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "attenuate": {"guide": "attenuate", "guide_strength": 0.9},
    "no guide": {"guide": "none"},
    "ramp on the device": {"guide_strength": torch.tensor(0.3, dtype=torch.float64, device="cpu")},
    "no gate": {"gate": False},
    "detached focus": {"detach_focal": True, "beta": 3.0},
    "gamma": {"gamma": 2.5},
    "detached focus, gamma": {"gamma": 1.5, "detach_focal": True},
    "joint": {"joint": True},
    "beta nll": {"beta_nll": 0.5},
    "joint, beta nll": {"joint": True, "beta_nll": 1.0},
    "variance focus": {"variance_focus": 1.0},
    "range": {"min_depth": 2.0, "max_depth": 30.0},
    "weights": {"weights": (0.0, 2.0, 3.0)},
    "no uncertainty": {"weights": (1.0, 0.0, 0.0)},
}
every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
either_way = pytest.mark.parametrize("normalize", ["batch", "image"])
with_teacher = pytest.mark.parametrize("taught", [True, False], ids=["teacher", "alone"])


def _given(like: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher and target for a depth of this shape, beside it: numbers that every dtype holds exactly."""
    _, _, teacher, target = scene(7, torch.bfloat16, tuple(like.shape), like.device)
    return teacher.to(like.dtype), target.to(like.dtype)


def _objective(
    run: Callable[..., Any], taught: bool = True, **options: Any
) -> Callable[..., adu_kernels.ObjectiveTerms]:
    def objective(depth: Tensor, log_scale: Tensor, **backend: str) -> adu_kernels.ObjectiveTerms:
        teacher, target = _given(depth)
        moved = {k: v.to(depth.device) if isinstance(v, Tensor) else v for k, v in options.items()}
        return run(depth, log_scale, teacher if taught else None, target, **moved, **backend)

    return objective


def _total(taught: bool = True, **options: Any) -> parity.Operation:
    public, twin = (_objective(run, taught, **options) for run in (depth_objective, reference.depth_objective))
    return parity.Operation(
        lambda *maps, backend: public(*maps, backend=backend).total, lambda *maps: twin(*maps).total
    )


def _leaves(shape: tuple[int, ...] = (2, 1, 5, 7), dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [t.detach() for t in scene(3, dtype, shape)[:2]]


class TestObjective(OperationTests):
    operation = _total()
    name = "depth_objective"
    shapes: ClassVar = {
        "one": ((1, 1, 1, 1),) * 2,
        "odd": ((2, 1, 5, 7),) * 2,
        "aligned": ((1, 1, 4, 16),) * 2,
        "more than one program": ((2, 1, 29, 47),) * 2,
    }
    small: ClassVar = ((2, 1, 3, 5),) * 2

    def draw(self, shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
        return _leaves(shapes[0], dtype)

    def test_traced_whole(self) -> None:
        maps = self.draw(self.small, torch.float32)
        teacher, target = _given(maps[0])  # drawn outside of what is traced
        options = {"normalize": "image" if isinstance(self, TestObjectivePerImage) else "batch"}
        operation = parity.Operation(
            lambda d, s, backend: depth_objective(d, s, teacher, target, **options, backend=backend).total,
            lambda d, s: reference.depth_objective(d, s, teacher, target, **options).total,
        )
        parity.check_whole_graph(operation, maps)

    def test_gradcheck(self) -> None:
        """Where nothing is held constant but what does not depend on the input."""
        depth, log_scale = self.draw(self.small, torch.float64)
        free = _total(guide="none", joint=True, gamma=1.5)
        parity.check_gradients(free, [depth, log_scale], fast=True)


class TestObjectivePerImage(TestObjective):
    """Another number of images may be another compilation."""

    operation = _total(normalize="image")
    shapes: ClassVar = {name: ((2, *sizes[0][1:]),) * 2 for name, sizes in TestObjective.shapes.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@either_way
@every_variant
def test_every_variant(options: dict[str, Any], normalize: str, dtype: torch.dtype) -> None:
    """Terms, total and both gradients, in fp64, so that the budget is some units in the last place, and in fp32."""
    maps = _leaves(dtype=dtype)
    parity.check_parity(_total(**options, normalize=normalize), maps)
    ours = _objective(depth_objective, **options, normalize=normalize)(*maps, backend="triton")
    exact = _objective(reference.depth_objective, **options, normalize=normalize)(*maps)
    for name in ("silog", "uncertainty", "response"):
        one, other = getattr(ours, name), getattr(exact, name)
        torch.testing.assert_close(one, other, rtol=1e-13 if dtype == torch.float64 else 2e-6, atol=0)
        assert not one.requires_grad


@with_teacher
@every_variant
def test_gradcheck_in_depth(options: dict[str, Any], taught: bool) -> None:
    """Guide and β-NLL's factor depend on the scale alone. The parts held constant need another proof: see parity."""
    if options.get("detach_focal"):
        options = {**options, "detach_focal": False}
    log_scale = _leaves(dtype=torch.float64)[1]
    run = _objective(depth_objective, taught, **{**options, "joint": True})
    depth = _leaves(dtype=torch.float64)[0]
    operation = parity.Operation(lambda d, backend: run(d, log_scale, backend=backend).total, reference.silog_loss)
    parity.check_gradients(operation, [depth], fast=True)


def test_without_a_teacher() -> None:
    parity.check_parity(_total(taught=False), _leaves())
    assert _objective(depth_objective, taught=False)(*_leaves(), backend="triton").response == 0


@either_way
def test_single_losses(normalize: str) -> None:
    depth, log_scale = _leaves()
    teacher, target = _given(depth)
    weight = torch.rand_like(depth)
    for make in (
        lambda run: lambda d, **o: run.silog_loss(d, target, 0.7, normalize=normalize, **o),
        lambda run: lambda d, **o: run.laplace_nll(d, log_scale, target, True, normalize=normalize, **o),
        lambda run: lambda d, **o: run.focal_response_loss(d, teacher, normalize=normalize, **o),
        lambda run: lambda d, **o: run.focal_response_loss(d, teacher, weight, 4.0, 1.5, normalize=normalize, **o),
    ):
        operation = parity.Operation(make(adu_kernels), make(reference))
        parity.check_parity(operation, [depth])
        parity.check_gradients(operation, [depth], fast=True)
    scale_alone = parity.Operation(
        lambda s, **o: laplace_nll(depth, s, target, normalize=normalize, **o),
        lambda s: reference.laplace_nll(depth, s, target, normalize=normalize),
    )
    parity.check_parity(scale_alone, [log_scale])
    parity.check_gradients(scale_alone, [log_scale], fast=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights(dtype: torch.dtype) -> None:
    _, log_scale = _leaves(dtype=dtype)
    teacher, target = _given(log_scale)
    for layout in (log_scale, *parity.layouts(log_scale).values()):
        for options in ({}, {"guide": "attenuate", "strength": 1.0}, {"guide": "none"}, {"normalize": "image"}):
            with parity.nan_filled_memory():
                ours = uncertainty_guide(layout, teacher > 0, **options, backend="triton")
            plain = reference.uncertainty_guide(layout, teacher > 0, **options)
            exact = reference.uncertainty_guide(layout.double(), teacher > 0, **options)
            assert ours.dtype == plain.dtype
            parity.check_error_budget(ours, plain, exact, parity.EPSILON[dtype], str(options))
    for layout in (target, *parity.layouts(target).values()):
        for sharpness in (5.0, 0.0, 11.0):
            with parity.nan_filled_memory():
                ours = adu_kernels.teacher_gate(teacher, layout, sharpness, backend="triton")
            plain = reference.teacher_gate(teacher, layout, sharpness)
            exact = reference.teacher_gate(teacher.double(), layout.double(), sharpness)
            assert ours.dtype == plain.dtype
            parity.check_error_budget(ours, plain, exact, parity.EPSILON[dtype], str(sharpness))


def test_a_ramp_of_any_type() -> None:
    maps = _leaves()
    want = _objective(depth_objective, guide_strength=0.25)(*maps, backend="triton").total
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        ramp = torch.tensor(0.25, dtype=dtype)
        got = _objective(depth_objective, guide_strength=ramp)(*maps, backend="triton").total
        parity.same_but_for_rounding(got, want, str(dtype))


def test_a_ramp_of_numbers_is_compiled_once() -> None:
    """And once more at most, when the compiler sees that the number changes."""
    maps = _leaves()
    teacher, target = _given(maps[0])
    counter = CompileCounter()
    torch._dynamo.reset()

    def total(strength: float) -> Tensor:
        return depth_objective(*maps, teacher, target, guide_strength=strength, backend="triton").total

    compiled = torch.compile(total, backend=counter, fullgraph=True)
    for step in range(4):
        torch.testing.assert_close(compiled(0.1 + 0.2 * step), total(0.1 + 0.2 * step), rtol=1e-6, atol=0)
    assert counter.frame_count <= 2


def test_maps_of_different_types_and_strides() -> None:
    depth, log_scale, teacher, target = (t.detach() for t in scene(shape=(2, 1, 5, 7)))
    maps = (
        depth.bfloat16().mT.contiguous().mT,
        log_scale.half(),
        teacher.float(),
        target[:1].expand(2, 1, 5, 7).half(),
    )
    results = []
    for backend, kinds in (("triton", (0, 1)), ("torch", (0, 1)), ("torch", (2, 3))):
        leaves = [m.double() if 2 in kinds else m for m in maps]
        for leaf in leaves[:2]:
            leaf.requires_grad_()
        total = depth_objective(*leaves, backend=backend).total
        results.append([total, *torch.autograd.grad(total, leaves[:2])])
    for ours, plain, exact in zip(*results, strict=True):
        assert ours.dtype == plain.dtype
        parity.check_error_budget(ours, plain, exact, 1e-6 + parity.ROUNDING.get(ours.dtype, 0))


def test_a_weight_of_any_strides() -> None:
    depth, _ = _leaves()
    teacher, _ = _given(depth)
    for weight in (
        torch.rand(2, 1, 7, 5).to(depth.device).mT,
        torch.rand(1, 1, 5, 1).to(depth.device).expand_as(depth),
    ):
        operation = parity.Operation(
            lambda d, backend, w=weight: focal_response_loss(d, teacher, w, backend=backend),
            lambda d, w=weight: reference.focal_response_loss(d, teacher, w),
        )
        parity.check_parity(operation, [depth])


def test_broadcast_maps_are_read_where_they_lie() -> None:
    """Stride 0 in every axis, beside the same values written out."""
    written = [torch.full((2, 1, 5, 7), value) for value in (3.0, -0.5, 4.0, 5.0)]
    spread = [torch.tensor(value).expand(2, 1, 5, 7) for value in (3.0, -0.5, 4.0, 5.0)]
    for ours, theirs in zip(
        depth_objective(*spread, backend="triton"), depth_objective(*written, backend="triton"), strict=True
    ):
        parity.same_but_for_rounding(ours, theirs)


# --- what is computed, kept and returned


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True), (False, False)])
def test_only_needed_gradients_are_made(needed: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    losses = launch.losses
    monkeypatch.setattr(launch, "losses", lambda *a, **o: (made.append([t.numel() for t in a[3][2:]]), losses(*a, **o)))
    depth, log_scale = _leaves()
    teacher, target = _given(depth)
    leaves = [m.requires_grad_(need) for m, need in zip((depth, log_scale), needed, strict=True)]
    total, *terms = depth_objective(*leaves, teacher, target, backend="triton")
    assert not any(term.requires_grad for term in terms)
    with torch.no_grad():
        without = depth_objective(*leaves, teacher, target, backend="triton").total
    assert made == [[70 * need for need in needed], [0, 0]]
    parity.same_but_for_rounding(total.detach(), without)
    assert total.requires_grad == any(needed)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if wanted:
        want = reference.depth_objective(*leaves, teacher, target).total
        for ours, theirs in zip(torch.autograd.grad(total, wanted), torch.autograd.grad(want, wanted), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_two_gradients_are_kept_and_no_map() -> None:
    maps = [m.requires_grad_() for m in _leaves((1, 1, 32, 40))]
    kept = parity.saved_bytes(lambda: _total().triton(*maps), maps)
    assert kept == 2 * 4 * 32 * 40
    assert parity.saved_bytes(lambda: _total().torch(*maps), maps) > 5 * kept


def test_two_launches_and_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []
    run = launch.runtime.run
    monkeypatch.setattr(
        launch.runtime, "run", lambda kernel, *a, **o: (launched.append(kernel.__name__), run(kernel, *a, **o))
    )
    terms = _objective(depth_objective)(*(m.requires_grad_() for m in _leaves()), backend="triton")
    terms.total.backward()
    assert launched == ["statistics", "values"]


def test_the_uncertainty_trains_the_scale_alone_unless_joint() -> None:
    depth, log_scale = (m.requires_grad_() for m in _leaves())
    target = _given(depth)[1]
    loss = laplace_nll(depth, log_scale, target, backend="triton")
    assert torch.autograd.grad(loss, (depth, log_scale), allow_unused=True)[0] is None
    assert not laplace_nll(depth, log_scale.detach(), target, backend="triton").requires_grad


def test_no_gradient_to_teacher_target_and_weight() -> None:
    depth, log_scale = (m.requires_grad_() for m in _leaves())
    teacher, target = (m.requires_grad_() for m in _given(depth))
    weight = torch.rand_like(teacher).requires_grad_()
    loss = depth_objective(depth, log_scale, teacher, target, backend="triton").total
    (loss + focal_response_loss(depth, teacher, weight, backend="triton")).backward()
    assert (teacher.grad, target.grad, weight.grad) == (None, None, None)
    constant = depth_objective(depth.detach(), log_scale.detach(), teacher, target, backend="triton").total
    assert not constant.requires_grad
    assert not uncertainty_guide(log_scale, teacher > 0, backend="triton").requires_grad


def test_an_upstream_gradient_scales_both() -> None:
    maps = [m.requires_grad_() for m in _leaves(dtype=torch.float16)]
    total = _total().triton(*maps)[0]
    once, more = (torch.autograd.grad(total, maps, total.new_tensor(u), retain_graph=True) for u in (1.0, 512.0))
    for one, many in zip(once, more, strict=True):
        torch.testing.assert_close(many.float(), 512 * one.float(), rtol=0.01, atol=512 * 2**-24)
        assert torch.count_nonzero(many) > torch.count_nonzero(one) * 0.9


def test_a_second_derivative_is_refused() -> None:
    depth, log_scale = (m.requires_grad_() for m in _leaves())
    (grad,) = torch.autograd.grad(_total().triton(depth, log_scale)[0], depth, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative: use backend='torch'"):
        grad.square().sum().backward()


# --- tracing, capture, dispatch

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "index", "index_put", "equal", "is_nonzero", "unique2"}


def _operators(run: Callable[..., Any], *inputs: Tensor) -> set[str]:
    """Names of the operators that a call comes down to."""
    graph = make_fx(run, tracing_mode="fake")(*inputs).graph
    return {node.target._schema.name.split("::")[1] for node in graph.nodes if hasattr(node.target, "_schema")}


@pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.cpu), "triton"])
@pytest.mark.parametrize("grad", [True, False])
def test_no_operator_depends_on_a_value(backend: str, grad: bool) -> None:
    maps = [*(t.detach() for t in scene(dtype=torch.float32)), torch.tensor(0.3)]

    def step(*maps: Tensor, **options: Any) -> list[Tensor]:
        depth, log_scale, teacher, target, ramp = maps
        leaves = [depth.detach().requires_grad_(grad), log_scale.detach().requires_grad_(grad)]
        terms = depth_objective(*leaves, teacher, target, guide_strength=ramp, backend=backend, **options)
        return [*terms, *(torch.autograd.grad(terms.total, leaves) if grad else ())]

    for options in ({}, {"normalize": "image", "joint": True, "beta_nll": 0.5, "gamma": 1.5}, {"guide": "none"}):
        operators = _operators(functools.partial(step, **options), *maps)
        assert not operators & WAITS
        assert ("depth_losses" in operators) == (backend == "triton")


@pytest.mark.cpu
def test_a_wait_would_be_seen() -> None:
    assert "_local_scalar_dense" in _operators(lambda x: x * x.sum().item(), torch.ones(2))
    assert "index" in _operators(lambda x: torch.zeros_like(x)[x > 0], torch.ones(2))


@pytest.mark.parametrize("normalize", ["batch", "image"])
def test_opcheck_of_every_operator(normalize: str) -> None:
    depth, log_scale, teacher, target = scene(dtype=torch.float32)
    numbers = [float(n) for n in launch.Numbers(silog=1.0, uncertainty=1.0, response=10.0, beta=10.0, strength=0.5)]
    arguments = (
        depth, log_scale, teacher, target, None, None, numbers,
        True, True, 1, True, True, False, normalize == "image", True, True,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.adu_kernels.depth_losses.default, arguments)
    known = (teacher > 0).view(torch.uint8)
    for given in (
        (log_scale.detach(), known, None, torch.tensor(0.3), numbers, 1, normalize == "image"),
        (None, teacher, target, None, numbers, 0, False),
    ):
        torch.library.opcheck(torch.ops.adu_kernels.response_weights.default, given)


@pytest.mark.parametrize(
    "name", ["silog_loss", "laplace_nll", "focal_response_loss", "uncertainty_guide", "teacher_gate", "depth_objective"]
)
def test_auto_has_a_kernel_to_take_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dispatch` gives "auto" the Triton twin of a CUDA tensor (test_public_face); each operation hands it one,
    with the arguments of its reference."""
    handed: dict[str, Any] = {}

    def dispatch(operation: str, backend: str, tensor: Tensor, **twins: Any) -> Any:
        handed.update(operation=operation, backend=backend, **twins)
        return twins["torch_twin"]

    monkeypatch.setattr(op, "dispatch", dispatch)
    depth, log_scale, teacher, target = scene()
    second = {
        "laplace_nll": (log_scale, target), "depth_objective": (log_scale, teacher, target),
        "uncertainty_guide": (teacher > 0,),
    }.get(name, (target,))  # fmt: skip
    getattr(adu_kernels, name)(depth, *second)
    assert handed["operation"] == name
    assert handed["backend"] == "auto"
    assert handed["triton_twin"] is getattr(launch, {"depth_objective": "objective"}.get(name, name))
    ours, theirs = (inspect.signature(handed[twin]).parameters.values() for twin in ("triton_twin", "torch_twin"))
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


def test_a_cpu_tensor_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"backend='triton': expected tensors on a GPU, got cpu"):
        silog_loss(torch.ones(1, 1, 2, 2, device="cpu"), torch.ones(1, 1, 2, 2, device="cpu"), backend="triton")


@pytest.mark.gpu
def test_captured_in_a_cuda_graph() -> None:
    """Forward and backward with a ramp on the device, replayed on new values, twice: the bits of a call outside."""
    depth, log_scale, teacher, target = (t.detach() for t in scene(0, torch.float32, (2, 1, 96, 320)))
    ramp = torch.tensor(0.0)
    maps = [depth.requires_grad_(), log_scale.requires_grad_()]

    def step() -> list[Tensor]:
        terms = depth_objective(*maps, teacher, target, guide_strength=ramp, backend="triton")
        return [*terms, *torch.autograd.grad(terms.total, maps)]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in (1, 2):
        with torch.no_grad():
            for kept, new in zip((*maps, teacher, target), scene(seed, torch.float32, (2, 1, 96, 320)), strict=True):
                kept.copy_(new)
            ramp.fill_(0.25 * seed)
        graph.replay()
        for ours, theirs in zip(captured, step(), strict=True):
            assert torch.equal(ours, theirs)
