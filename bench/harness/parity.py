"""No speed without parity: values and gradients within the project's error budget against the reference in fp64.

The budget is that of the kernel tests: |ours − exact| ≤ 2·|reference in the same type − exact| + ε·max(1, max|exact|),
largest differences, for every output and every gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adu_kernels.testing.parity import EPSILON, ROUNDING, check_error_budget, leave_out_kinks, nan_filled_memory
from bench.harness.case import Case, Item, differentiable, outputs_of


class Refused(Exception):
    """An implementation is wrong, so its speed is of no interest. The message says where and by how much."""


@dataclass(frozen=True)
class Exact:
    """What every implementation of a case is compared with, on one set of inputs."""

    item: Item
    grad_outputs: list[Tensor]
    same: list[Tensor]
    """Outputs, then gradients, of the reference in the case's own type."""
    exact: list[Tensor]
    """The same in fp64."""
    outputs: int
    """How many of these are outputs."""
    kinks: int = 0
    """Elements of the gradients that come in that are 0, where a derivative jumps."""


def exact_results(case: Case, item: Item) -> Exact:
    reference = bound(case.reference, case)
    grad_outputs, kinks = drawn_grad_outputs(case, item)
    double = _in_double(item)
    wide = Item(double, tuple(t.requires_grad_() for t in double[: case.gradients]))
    same = values_and_gradients(reference, item, grad_outputs)
    exact = values_and_gradients(reference, wide, grad_outputs)
    return Exact(item, grad_outputs, same, exact, len(grad_outputs), kinks)


def drawn_grad_outputs(case: Case, item: Item) -> tuple[list[Tensor], int]:
    """The gradients that come in, the same for every implementation; and how many of their elements are 0 because a
    derivative jumps there."""
    with torch.no_grad():
        outputs = outputs_of(bound(case.reference, case)(*item.tensors))
    generator = torch.Generator(outputs[0].device).manual_seed(1)
    found = [torch.randn(o.shape, generator=generator, device=o.device) for o in outputs]
    if case.pre_activation is None:
        return found, 0
    with torch.no_grad():
        behind = outputs_of(bound(case.pre_activation, case)(*_in_double(item)))
    return found, leave_out_kinks(found, behind, _epsilon(case))


def _in_double(item: Item) -> tuple[Tensor, ...]:
    return tuple(t.detach().double() if t.is_floating_point() else t for t in item.tensors)


def _epsilon(case: Case) -> float:
    return EPSILON[case.dtype] if case.epsilon is None else case.epsilon


def check_parity(case: Case, run: Callable[..., Any], known: Exact, poison: bool = False) -> dict[str, float]:
    """Relative errors {"forward", "backward"} of `run` (‖ours − exact‖/‖exact‖, the worst); raises Refused.

    poison: fill fresh memory with NaN first, so that what a kernel does not write is seen.
    """
    with nan_filled_memory() if poison else nullcontext():
        ours = values_and_gradients(run, known.item, known.grad_outputs)
    if len(ours) != len(known.exact):
        raise Refused(f"expected {known.outputs} outputs as the reference gives, got {len(ours) - case.gradients}")
    errors = {"forward": 0.0, "backward": 0.0}
    epsilon = _epsilon(case)
    for number, (got, plain, want) in enumerate(zip(ours, known.same, known.exact, strict=True)):
        is_output = number < known.outputs
        what = f"output {number}" if is_output else f"gradient {number - known.outputs}"
        if got.shape != want.shape:
            raise Refused(f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}")
        try:
            check_error_budget(got, plain, want, epsilon + ROUNDING.get(got.dtype, 0.0), what)
        except AssertionError as error:
            raise Refused(str(error)) from None
        key = "forward" if is_output else "backward"
        errors[key] = max(errors[key], relative_error(got, want))
    return errors


def relative_error(got: Tensor, want: Tensor) -> float:
    finite = want.isfinite()
    size = torch.where(finite, want, 0).norm().item()
    difference = torch.where(finite, got.detach().double() - want, 0).norm().item()
    return difference / size if size else difference


def values_and_gradients(run: Callable[..., Any], item: Item, grad_outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, then the gradient of Σ grad_outputs·output in every leaf."""
    outputs = outputs_of(run(*item.tensors))
    if not item.leaves:
        return list(outputs)
    if not differentiable(outputs):
        raise Refused("no output has a gradient")
    wanted = [(o, u.to(o.dtype)) for o, u in zip(outputs, grad_outputs, strict=False) if o.requires_grad]
    gradients = torch.autograd.grad([o for o, _ in wanted], item.leaves, [u for _, u in wanted], allow_unused=True)
    if any(g is None for g in gradients):
        raise Refused("an input that needs a gradient gets none")
    return [*(o.detach() for o in outputs), *gradients]


def bound(call: Callable[..., Any], case: Case, **more: Any) -> Callable[..., Any]:
    """`call` with the case's options: a function of tensors alone, as torch.compile likes it."""
    options = {**case.options, **more}
    return lambda *tensors: call(*tensors, **options)
