"""Every way into an operation that autograd offers, and what a kernel owes there: the reference's result, or a
RuntimeError that names the operation and backend="torch". Never another number.

A path takes `run`, the operation as a function of one tensor that all its inputs are cut from (`on_one_tensor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, autograd
from torch.autograd.functional import hessian, jacobian, jvp
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .parity import Operation

Run = Callable[[Tensor], tuple[Tensor, ...]]


def on_one_tensor(run: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> Run:
    shapes = [value.shape for value in inputs]
    ends = [0, *accumulate(math.prod(shape) for shape in shapes)]
    return lambda flat: run(*(flat[a:b].view(shape) for (a, b), shape in zip(pairwise(ends), shapes, strict=True)))


def _leaf(flat: Tensor) -> Tensor:
    return flat.clone().requires_grad_()


def _weights(value: Tensor) -> Tensor:
    return torch.arange(1.0, value.numel() + 1, dtype=value.dtype, device=value.device).cos().view(value.shape)


def _linear(outputs: Sequence[Tensor]) -> Tensor:
    return sum((output * _weights(output)).sum() for output in outputs)  # type: ignore[return-value]


def _curved(outputs: Sequence[Tensor]) -> Tensor:
    return _linear(outputs) + sum(0.1 * output.square().sum() for output in outputs)


def _vector(outputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([output.flatten()[-1:] for output in outputs])


def _gradient(total: Tensor, leaf: Tensor, **options: Any) -> Tensor:
    return autograd.grad(total, leaf, **options)[0]


# First derivatives: the kernel's are the reference's.


def _with_a_graph(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    return _gradient(_curved(run(leaf)), leaf, create_graph=True)


def _twice(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    total = _curved(run(leaf))
    total.backward(retain_graph=True)
    total.backward()
    return leaf.grad  # type: ignore[return-value]


def _checkpointed(run: Run, flat: Tensor, **options: Any) -> Tensor:
    leaf = _leaf(flat)
    return _gradient(_curved(checkpoint(run, leaf, **options)), leaf)


def _reentrant(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    _curved(checkpoint(run, leaf, use_reentrant=True)).backward()
    return leaf.grad  # type: ignore[return-value]


def _save_operators(context: Any, operator: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    ours = operator.namespace.startswith("adu_kernels")
    return CheckpointPolicy.MUST_SAVE if ours else CheckpointPolicy.PREFER_RECOMPUTE


def _hooked(run: Run, flat: Tensor, hooks: Callable[[], Any]) -> Tensor:
    leaf = _leaf(flat)
    with hooks():
        total = _curved(run(leaf))
    return _gradient(total, leaf)


def _packed_as_numbers() -> Any:
    return autograd.graph.saved_tensors_hooks(_as_numbers, _from_numbers)


def _as_numbers(value: Tensor) -> tuple[Any, torch.dtype, torch.device]:
    return value.tolist(), value.dtype, value.device


def _from_numbers(packed: tuple[Any, torch.dtype, torch.device]) -> Tensor:
    numbers, dtype, device = packed
    return torch.tensor(numbers, dtype=dtype, device=device)


def _batched(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    output = run(leaf)[0]
    return _gradient(output, leaf, grad_outputs=torch.stack([_weights(output), -output]), is_grads_batched=True)


def _mapped(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    output = run(leaf)[0]
    grad_outputs = torch.stack([_weights(output), -output]).detach()
    return torch.func.vmap(lambda one: _gradient(output, leaf, grad_outputs=one))(grad_outputs)


def _changed_result(run: Run, flat: Tensor, number: int) -> Tensor:
    leaf = _leaf(flat)
    outputs = list(run(leaf))
    outputs[number % len(outputs)] *= 4
    return _gradient(_curved(outputs), leaf)


def _changed_results_unseen(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    outputs = run(leaf)
    total = _linear(outputs)
    with torch.no_grad():
        for output in outputs:
            output.zero_()
    return _gradient(total, leaf)


def _changed_and_packed(run: Run, flat: Tensor) -> Tensor:
    """Hooks that keep the very memory: what torch checks with its version counters it leaves to them."""
    return _hooked(lambda leaf: [output.mul_(2) for output in run(leaf)], flat, _kept_as_they_are)  # type: ignore[arg-type, return-value]


def _kept_as_they_are() -> Any:
    return autograd.graph.saved_tensors_hooks(lambda value: value, lambda value: value)


def _vectorised_jacobian(run: Run, flat: Tensor) -> Tensor:
    return jacobian(lambda leaf: _vector(run(leaf)), flat, vectorize=True)


SAME: dict[str, Callable[[Run, Tensor], Tensor]] = {
    "create_graph": _with_a_graph,
    "backward twice": _twice,
    "checkpoint": partial(_checkpointed, use_reentrant=False),
    "reentrant checkpoint": _reentrant,
    "selective checkpoint": partial(
        _checkpointed,
        use_reentrant=False,
        context_fn=partial(create_selective_checkpoint_contexts, _save_operators),
    ),
    "save_on_cpu": partial(_hooked, hooks=autograd.graph.save_on_cpu),
    "packed as numbers": partial(_hooked, hooks=_packed_as_numbers),
    "is_grads_batched": _batched,
    "vmap of a backward": _mapped,
    "vectorised jacobian": _vectorised_jacobian,
    "first result in place": partial(_changed_result, number=0),
    "last result in place": partial(_changed_result, number=-1),
    "results in place, no_grad": _changed_results_unseen,
    "results in place, packed as they are": _changed_and_packed,
}


# Whatever is beyond: the reference's, or refused by name.


def _second(run: Run, flat: Tensor, total: Callable[[Sequence[Tensor]], Tensor] = _linear, **options: Any) -> Tensor:
    leaf = _leaf(flat)
    gradient = _gradient(total(run(leaf)), leaf, create_graph=True)
    return _gradient(_linear([gradient]), leaf, **options)


def _penalty(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    _gradient(_curved(run(leaf)), leaf, create_graph=True).square().sum().backward()
    return leaf.grad  # type: ignore[return-value]


def _second_of_hooked(run: Run, flat: Tensor, hooks: Callable[[], Any]) -> Tensor:
    leaf = _leaf(flat)
    with hooks():
        total = _curved(run(leaf))
    return _gradient(_linear([_gradient(total, leaf, create_graph=True)]), leaf)


def _dual(run: Run, flat: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(_curved(run(forward_ad.make_dual(flat, _weights(flat))))).tangent
        return torch.zeros(()) if tangent is None else tangent


def _dual_grad_output(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    output = run(leaf)[0]
    with forward_ad.dual_level():
        grad_outputs = forward_ad.make_dual(torch.ones_like(output), _weights(output))
        tangent = forward_ad.unpack_dual(_gradient(output, leaf, grad_outputs=grad_outputs)).tangent
        return torch.zeros(()) if tangent is None else tangent


def _of_scalar(transform: Callable[..., Any], run: Run, flat: Tensor) -> Tensor:
    return transform(lambda leaf: _curved(run(leaf)))(flat)


def _of_a_stack(transform: Callable[..., Any], run: Run, flat: Tensor) -> Tensor:
    return torch.func.vmap(transform(lambda leaf: _curved(run(leaf))))(torch.stack([flat, flat]))


RIGHT_OR_REFUSED: dict[str, Callable[[Run, Tensor], Tensor]] = {
    "Hessian-vector product": _second,
    "its curved total": partial(_second, total=_curved),
    "allow_unused": partial(_second, total=_curved, materialize_grads=True),
    "gradient penalty": _penalty,
    "checkpointed, twice": lambda run, flat: _second(lambda leaf: checkpoint(run, leaf, use_reentrant=False), flat),
    "saved on the CPU, twice": partial(_second_of_hooked, hooks=autograd.graph.save_on_cpu),
    "hessian": lambda run, flat: hessian(lambda leaf: _linear(run(leaf)), flat),
    "vectorised hessian": lambda run, flat: hessian(lambda leaf: _linear(run(leaf)), flat, vectorize=True),
    "functional.jvp": lambda run, flat: jvp(lambda leaf: _curved(run(leaf)), flat, _weights(flat))[1],
    "forward mode": _dual,
    "forward mode of a leaf": lambda run, flat: _dual(run, _leaf(flat)),
    "forward mode of grad_output": _dual_grad_output,
    "torch.func.grad": partial(_of_scalar, torch.func.grad),
    "torch.func.vjp": lambda run, flat: torch.func.vjp(run, flat)[1](tuple(map(_weights, run(flat))))[0],
    "torch.func.jvp": lambda run, flat: torch.func.jvp(lambda leaf: _curved(run(leaf)), (flat,), (_weights(flat),))[1],
    "torch.func.hessian": partial(_of_scalar, torch.func.hessian),
    "vmap": partial(_of_a_stack, lambda run: run),
    "vmap of grad": partial(_of_a_stack, torch.func.grad),
}


def check_autograd_paths(operation: Operation, inputs: Sequence[Tensor], name: str) -> None:
    """All of the paths above, in fp64, and inputs that are changed in place. name: the operation's, in its messages."""
    flat = torch.cat([value.detach().double().flatten() for value in inputs])
    kernel, reference = on_one_tensor(operation.triton, inputs), on_one_tensor(operation.torch, inputs)
    for path, result in SAME.items():
        _compare(path, result(kernel, flat), result(reference, flat))
    for path, result in RIGHT_OR_REFUSED.items():
        _right_or_refused(path, result, kernel, reference, flat, name, "use backend='torch' where one is needed")
    for change in (_changed_input, _changed_input_unseen):
        _right_or_refused(
            change.__name__, change, kernel, reference, flat, name, "changed in place before the backward"
        )


def _changed_input(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    values = leaf * 1
    outputs = [output * 1 for output in run(values)]
    values *= 3
    return _gradient(_linear(outputs), leaf)


def _changed_input_unseen(run: Run, flat: Tensor) -> Tensor:
    leaf = _leaf(flat)
    total = _linear(run(leaf))
    with torch.no_grad():
        leaf.mul_(3)
    return _gradient(total, leaf)


def _right_or_refused(
    path: str,
    result: Callable[[Run, Tensor], Tensor],
    kernel: Run,
    reference: Run,
    flat: Tensor,
    name: str,
    message: str,
) -> None:
    try:
        got = result(kernel, flat)
    except RuntimeError as error:
        if str(error).startswith(name) and message in str(error):
            return
        try:
            result(reference, flat)
        except RuntimeError:
            return  # no operation does it: a tensor changed before another operation's backward, say
        raise AssertionError(f"{path}: the reference does it, the kernel raised {error}") from error
    _compare(path, got, result(reference, flat))


def _compare(path: str, got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10, msg=lambda found: f"{path}: {found}")
