"""What every kernel is held to, so that a new operation joins with a dozen lines.

An `Operation` names the public function and its reference; the functions below compare the two: values and gradients
within a stated error budget against fp64, any layout, unwritten memory made visible, bits that repeat in any order of
programs, registration, whole-graph tracing, compilations over image sizes. `suite.py` makes tests of them all. On a
machine without a GPU Triton's interpreter runs the kernels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import triton.language as tl
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from .._triton import runtime

DEVICE = "cuda" if torch.cuda.is_available() and not runtime.interpreting() else "cpu"
EPSILON = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}
"""ε of the error budget: some eight units in the last place of what is calculated in."""
ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-7 if runtime.interpreting() else 2**-8}
"""What storing a result in the type costs by itself: half a unit in the last place, relative; a whole one for bfloat16
in the interpreter, which cuts bits off where compiled code rounds."""


@dataclass(frozen=True)
class Operation:
    """A public operation, its plain PyTorch twin, and the options both are called with."""

    public: Callable[..., Any]
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    pre_activation: Callable[..., Any] | None = None
    """inputs → of each output the values at whose sign its derivative jumps, as ReLU's; None where there are none."""

    def triton(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return _tuple(self.public(*inputs, **self.options, backend="triton"))

    def torch(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return _tuple(self.reference(*inputs, **self.options))


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def leaves(inputs: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """The inputs as leaves that want a gradient, values and strides kept; in another dtype if one is given."""
    made = []
    for value in inputs:
        copy = torch.empty_strided(value.shape, value.stride(), dtype=dtype or value.dtype, device=DEVICE)
        made.append(copy.copy_(value.detach()).requires_grad_())
    return made


def values_and_gradients(
    run: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], grad_outputs: Sequence[Tensor]
) -> list[Tensor]:
    """What `run` gives, and the gradient of Σ grad_outputs · output in each input."""
    outputs = run(*inputs)
    weights = [u.to(dtype=o.dtype, device=o.device) for u, o in zip(grad_outputs, outputs, strict=True)]
    return [*outputs, *torch.autograd.grad(outputs, inputs, weights)]


def check_parity(operation: Operation, inputs: Sequence[Tensor], *, epsilon: float | None = None) -> None:
    """|ours − exact| ≤ 2 · |reference in the same dtype − exact| + ε · max(1, max|exact|), for outputs and gradients.

    Exact is the reference in fp64 on the same (rounded) inputs; the norm is the largest absolute difference. Memory
    that the kernels do not write shows as NaN.
    """
    dtype = inputs[0].dtype
    grad_outputs = [torch.randn_like(o, dtype=torch.float64).float() for o in operation.torch(*inputs)]
    allowed = EPSILON[dtype] if epsilon is None else epsilon
    if operation.pre_activation is not None:
        with torch.no_grad():
            behind = _tuple(operation.pre_activation(*leaves(inputs, torch.float64)))
        leave_out_kinks(grad_outputs, behind, allowed)
    with nan_filled_memory():
        ours = values_and_gradients(operation.triton, leaves(inputs), grad_outputs)
    same = values_and_gradients(operation.torch, leaves(inputs), grad_outputs)
    exact = values_and_gradients(operation.torch, leaves(inputs, torch.float64), grad_outputs)
    for number, (got, plain, want) in enumerate(zip(ours, same, exact, strict=True)):
        assert got.shape == plain.shape, (number, got.shape, plain.shape)
        assert got.dtype == plain.dtype, (number, got.dtype, plain.dtype)
        check_error_budget(got, plain, want, allowed + ROUNDING.get(got.dtype, 0.0), f"result {number}")


def leave_out_kinks(grad_outputs: Sequence[Tensor], pre_activations: Sequence[Tensor], epsilon: float) -> int:
    """Sets a gradient that comes in to 0 where the value before the activation is nearer to 0 than the error budget
    lets it be wrong, ε · max(1, max|value|): on which side it lies, and so its derivative, is rounding's to say. Among
    10⁸ values there are always some. How many were set.

    AssertionError where they are more than one in 1000 (and 2): then it would be the derivative that is not looked at.
    pre_activations: in fp64, of each output. A kink that inputs themselves stand at needs none of this: where they are
    compared unrounded, as a depth with its limits or its target, fp64 finds the same side.
    """
    total = 0
    for grad_output, value in zip(grad_outputs, pre_activations, strict=True):
        near = value.abs() <= epsilon * max(1.0, value.abs().max().item())
        count = int(near.sum())
        assert count <= max(2, value.numel() / 1000), f"{count} of {value.numel()} values lie at a kink"
        grad_output.masked_fill_(near.to(grad_output.device), 0.0)
        total += count
    return total


def check_error_budget(ours: Tensor, same_dtype: Tensor, exact: Tensor, epsilon: float, what: str = "result") -> None:
    """The budget of `check_parity` for one tensor. Infinities and NaN must stand where the exact result has them."""
    ours, same_dtype = ours.detach().double(), same_dtype.detach().double()
    finite = exact.isfinite()
    assert torch.equal(ours.isfinite(), finite), f"{what}: not finite in the same places"
    if not finite.any():
        return
    error = (ours - exact)[finite].abs().max().item()
    plain = (same_dtype - exact)[finite]
    plain_error = plain[plain.isfinite()].abs().max().item() if plain.isfinite().any() else 0.0
    allowed = 2 * plain_error + epsilon * max(1.0, exact[finite].abs().max().item())
    assert error <= allowed, f"{what}: error {error:.3e}, allowed {allowed:.3e} (the reference's is {plain_error:.3e})"


@contextmanager
def nan_filled_memory() -> Iterator[None]:
    """Whatever torch allocates without a value holds NaN: an element no kernel wrote cannot go unseen."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def layouts(value: Tensor) -> dict[str, Tensor]:
    """The same values in other strides; gaps between them hold NaN. Maps and volumes channels-last as well."""
    value = value.to(DEVICE)
    swapped = value.transpose(-1, -2).contiguous().transpose(-1, -2)
    spaced = torch.full((*value.shape[:-1], 2 * value.shape[-1] + 3), torch.nan, dtype=value.dtype, device=value.device)
    spaced[..., 1 : 1 + 2 * value.shape[-1] : 2] = value
    made = {"transposed": swapped, "spaced": spaced[..., 1 : 1 + 2 * value.shape[-1] : 2]}
    if value.ndim == 4:
        made["channels-last"] = value.contiguous(memory_format=torch.channels_last)
    if value.ndim == 5:
        made["channels-last"] = value.contiguous(memory_format=torch.channels_last_3d)
    return made


def check_layouts(
    operation: Operation, inputs: Sequence[Tensor], *, epsilon: float | None = None, same_bits: bool = True
) -> None:
    """Every layout of all inputs is held to the error budget, gradients included (`check_parity`).

    For another layout another kernel is compiled, which may add up in another order and fuse other products with other
    sums: equal bits are promised for the same call alone. The interpreter does neither, so that there every layout
    gives the bits of the contiguous one. same_bits: not so for an operation whose tiles lie as its maps do.
    """
    dtype = inputs[0].dtype
    grad_outputs = [torch.randn_like(o) for o in operation.torch(*inputs)]
    contiguous = values_and_gradients(operation.triton, leaves(inputs), grad_outputs)
    same = values_and_gradients(operation.torch, leaves(inputs), grad_outputs)
    exact = values_and_gradients(operation.torch, leaves(inputs, torch.float64), grad_outputs)
    allowed = EPSILON[dtype] if epsilon is None else epsilon
    kinds = [layouts(value) for value in inputs]
    for name in set.intersection(*(set(kind) for kind in kinds)):
        views = [kind[name].detach().requires_grad_() for kind in kinds]
        got = values_and_gradients(operation.triton, views, grad_outputs)
        for number, (ours, first, plain, want) in enumerate(zip(got, contiguous, same, exact, strict=True)):
            what = f"{name}: result {number}"
            check_error_budget(ours, plain, want, allowed + ROUNDING.get(ours.dtype, 0.0), what)
            assert not (same_bits and runtime.interpreting()) or torch.equal(ours, first), (
                f"{what} differs from the contiguous layout's"
            )


def same_but_for_rounding(one: Tensor, other: Tensor, what: str = "result") -> None:
    """Two compilations of one arithmetic, as for offsets of 32 and of 64 bits: equal bits where nothing is fused or
    reordered (the interpreter), torch's tolerances for the type where a compiler may do so.
    """
    if runtime.interpreting():
        assert torch.equal(one, other), f"{what} differs"
    else:
        torch.testing.assert_close(one, other, msg=lambda found: f"{what}: {found}")


def memory_beyond_int32(more: int) -> Tensor:
    """2³¹ + `more` fp16 elements without values. The test is skipped on a GPU that has not twice as much to give."""
    size = 2 * (2**31 + more)
    if DEVICE == "cuda" and torch.cuda.mem_get_info()[0] < 2 * size:
        import pytest

        pytest.skip(f"needs {2 * size / 2**30:.0f} GiB of free memory on the GPU")
    return torch.empty(size // 2, dtype=torch.float16, device=DEVICE)


def check_same_bits_twice(operation: Operation, inputs: Sequence[Tensor]) -> None:
    grad_outputs = [torch.randn_like(o) for o in operation.torch(*inputs)]
    first, second = (values_and_gradients(operation.triton, leaves(inputs), grad_outputs) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


@contextmanager
def program_order(order: Callable[[int], Sequence[int]]) -> Iterator[None]:
    """Triton's interpreter starts the n programs of a launch in the order `order(n)`, in place of 0, 1, 2, …

    Compiled kernels run in whatever order the hardware takes.
    """
    from triton.runtime.interpreter import InterpreterBuilder

    started = InterpreterBuilder.set_grid_idx
    orders: dict[int, Sequence[int]] = {}

    def set_grid_idx(builder: Any, x: int, y: int, z: int) -> None:
        count = builder.grid_dim[0]
        started(builder, orders.setdefault(count, order(count))[x], y, z)

    with patch.object(InterpreterBuilder, "set_grid_idx", set_grid_idx):
        yield


def _forwards(count: int) -> Sequence[int]:
    return range(count)


def _backwards(count: int) -> Sequence[int]:
    return range(count)[::-1]


def _shuffled(count: int) -> Sequence[int]:
    return random.Random(count).sample(range(count), count)


def same_bits_in_any_order(operation: Operation, inputs: Sequence[Tensor]) -> None:
    """Programs that run forwards, backwards and shuffled give the same bits: none adds to, overwrites or reads what
    another one writes. On a GPU the hardware chooses the order; there several runs must agree.
    """
    grad_outputs = [torch.randn_like(o) for o in operation.torch(*inputs)]
    runs = []
    for order in (_forwards, _backwards, _shuffled):
        with program_order(order), nan_filled_memory():
            runs.append(values_and_gradients(operation.triton, leaves(inputs), grad_outputs))
    for name, run in zip(("backwards", "shuffled"), runs[1:], strict=True):
        for number, (first, other) in enumerate(zip(runs[0], run, strict=True)):
            same = torch.allclose(first, other, rtol=0, atol=0, equal_nan=True)
            assert same, f"result {number} differs when programs run {name}"


def check_gradients(operation: Operation, inputs: Sequence[Tensor], *, fast: bool = False) -> None:
    """fp64 `gradcheck` of the real kernel; `fast` checks random directions in place of every element."""
    assert torch.autograd.gradcheck(operation.triton, leaves(inputs, torch.float64), fast_mode=fast)


def check_whole_graph(operation: Operation, inputs: Sequence[Tensor]) -> None:
    """Traced whole (fullgraph) forward and backward: by the kernels, with the same bits as without tracing.

    The gradients of the outputs lie in memory as the outputs do: tracing assumes that they do, and where they do not it
    copies them first, which makes another call of it.
    """
    torch._dynamo.reset()
    grad_outputs = [torch.randn_like(o) for o in operation.triton(*inputs)]
    operators: list[str] = []

    def noted(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        operators.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    traced = torch.compile(operation.triton, fullgraph=True, backend=noted)
    got = values_and_gradients(traced, leaves(inputs), grad_outputs)
    want = values_and_gradients(operation.triton, leaves(inputs), grad_outputs)
    assert any(name.startswith("adu_kernels") for name in operators), f"traced without the kernel: {operators}"
    for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        assert torch.equal(ours, theirs), (
            f"result {number} differs by {(ours - theirs).abs().max().item():.1e} when it is traced, in "
            f"{(ours != theirs).sum().item()} of {ours.numel()} elements; strides {ours.stride()}, {theirs.stride()}"
        )


class _Calls(TorchDispatchMode):
    """Notes the first call of every operator of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[Any, tuple[tuple, dict]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace.startswith("adu_kernels"):
            self.first.setdefault(func, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def check_registration(operation: Operation, inputs: Sequence[Tensor]) -> None:
    """`torch.library.opcheck` of every operator that forward and backward call, with the arguments they gave it."""
    given = leaves(inputs)
    with _Calls() as forward:
        outputs = operation.triton(*given)
    with _Calls() as backward:
        torch.autograd.grad(outputs, given, [torch.randn_like(o) for o in outputs])
    assert forward.first, "no registered operator was called: torch.compile could not trace the operation whole"
    for calls, differentiable in ((forward, True), (backward, False)):
        for operator, (arguments, options) in calls.first.items():

            def fresh(value: Tensor, differentiable: bool = differentiable) -> Tensor:
                copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
                return copy.copy_(value.detach()).requires_grad_(differentiable and value.requires_grad)

            torch.library.opcheck(operator, *tree_map_only(Tensor, fresh, (arguments, options)))


def compilations(run: Callable[..., tuple[Tensor, ...]], every_inputs: Iterable[Sequence[Tensor]]) -> dict[str, int]:
    """In how many specialisations each kernel starts, forward and backward, over inputs of several sizes.

    Counted by the constants of a launch. Whether Triton makes more of them, from sizes it finds divisible, is seen
    where it compiles: the machine-code gate counts that.
    """
    seen: dict[str, set[str]] = {}
    started = runtime.run

    def noted(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        constants = [a for a in arguments if isinstance(a, tl.constexpr)]
        seen.setdefault(kernel.__name__, set()).add(repr((constants, sorted(options.items()))))
        started(kernel, programs, *arguments, **options)

    with patch.object(runtime, "run", noted):
        for inputs in every_inputs:
            given = leaves(inputs)
            outputs = run(*given)
            torch.autograd.grad(outputs, given, [torch.ones_like(o) for o in outputs])
    return {kernel: len(constants) for kernel, constants in seen.items()}


def check_compilations(operation: Operation, every_inputs: Iterable[Sequence[Tensor]], *, most: int = 2) -> None:
    """However many sizes of image there are, each kernel is compiled `most` times."""
    counts = compilations(operation.triton, every_inputs)
    assert counts, "no kernel was started by adu_kernels._triton.runtime.run"
    assert max(counts.values()) <= most, f"kernels compiled more than {most} times: {counts}"


def saved_bytes(run: Callable[[], Any], inputs: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward, the inputs themselves left out, each storage once."""
    kept: dict[int, int] = {}
    given = {value.untyped_storage().data_ptr() for value in inputs}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = run()  # held until the sum is taken, so that no address is used twice
    total = sum(kept.values())
    del result
    return total
