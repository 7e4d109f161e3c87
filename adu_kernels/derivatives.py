"""What autograd may ask of a kernel's operator, answered in one way for all of them.

The kernels have a first derivative in reverse mode. Whatever else is asked for (a second derivative, forward mode, a
rule for torch.func) is an error that names the operation and backend="torch", never a number. Left alone, a derivative
that autograd does not know of counts as zero; and PyTorch's own `once_differentiable` ties its error to no input, so
that `torch.autograd.grad` and `hessian` pass it by in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._triton.operators import library


def differentiable_once(
    operator: Any,
    gradient: Any,
    *,
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
    operation: Callable[..., str],
) -> None:
    """Registers the backward of `operator`, which calls the operator `gradient` with everything that it depends on.

    `gradient` gets the error that stands for its derivative, tied to all of its inputs, and a rule for batches of
    incoming gradients (`is_grads_batched`, `jacobian(vectorize=True)`): one after the other.
    setup_context: calls `keep`. backward: calls `kept`, once. operation: the public name, given `gradient`'s inputs.
    """

    def first_derivative(ctx: Any, *grad_outputs: Any) -> Any:
        if forward_ad._current_level >= 0 and not torch.compiler.is_compiling():
            raise RuntimeError(refusal(ctx.operation, "derivative in forward mode"))
        return backward(ctx, *grad_outputs)

    def remember(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.operation = operation(*inputs)

    def second_derivative(ctx: Any, *grad_outputs: Any) -> Any:
        raise RuntimeError(refusal(ctx.operation, "second derivative"))

    operator.register_autograd(first_derivative, setup_context=setup_context)
    gradient.register_autograd(second_derivative, setup_context=remember)
    _loop_over_batches(gradient)


def refusal(operation: str, what: str) -> str:
    return f"{operation}: the Triton kernels have no {what}: use backend='torch' where one is needed"


def keep(ctx: Any, operation: str, inputs: Sequence[Tensor | None], results: Sequence[Tensor] = ()) -> None:
    """Saves what the backward reads. Called once, in setup_context.

    operation: the public name. inputs: the caller's tensors, and results that are not given out; one that is changed in
    place before the backward makes it raise. results: what the caller gets and may change in place, as he may what a
    reference gives: `kept` then has them computed again. So they are saved without their version counter, and that is
    kept aside, without their memory. Tensors of inference mode (a teacher's, say) autograd refuses to save; whoever has
    one outside that mode cannot change it, so it is kept as it is.
    """
    watched = [_watched(result) for result in results]
    ctx.constants = [one if one is not None and one.is_inference() else None for one in inputs]
    plain = (None if constant is not None else one for one, constant in zip(inputs, ctx.constants, strict=True))
    ctx.save_for_backward(*plain, *(apart for apart, _ in watched))
    ctx.operation, ctx.given = operation, len(inputs)
    ctx.versions = [(mark, mark._version) for _, mark in watched if mark is not None]


def kept(ctx: Any, again: Callable[..., Sequence[Tensor]] | None = None) -> tuple[list[Any], list[Tensor]]:
    """(inputs, results) of `keep`. again(*inputs) computes the results anew.

    Called once in a backward: a checkpointed function's tensors can be asked for once.
    """
    try:
        saved = ctx.saved_tensors
    except RuntimeError as error:
        if "modified" not in str(error):
            raise
        raise RuntimeError(
            f"{ctx.operation}: a tensor it was given was changed in place before the backward, which reads it: give "
            f"it a clone, or change it out of place ({error})"
        ) from error
    inputs = [
        one if constant is None else constant for one, constant in zip(saved[: ctx.given], ctx.constants, strict=True)
    ]
    results = list(saved[ctx.given :])
    if again is not None and any(mark._version != version for mark, version in ctx.versions):
        with torch.no_grad():
            results = list(again(*inputs))
    return inputs, results


def _watched(result: Tensor) -> tuple[Tensor, Tensor | None]:
    """What to save of a result, and a tensor without elements that has its version counter, where one is needed."""
    if type(result) is not Tensor:
        return result.detach(), None  # traced: nothing happens in place
    if torch._C._len_torch_dispatch_stack():
        return result.clone(), None  # a mode sees every operator, and what follows is none
    mark = result.detach()
    mark.data = result.new_empty(0)  # the counter stays
    return result.data, mark  # the same memory under a counter of its own


def _loop_over_batches(operator: Any) -> None:
    """Teaches an operator both of PyTorch's ways to batch: it runs for one entry after the other.

    torch.vmap is one; `is_grads_batched` and `torch.autograd.functional` with vectorize=True have an older one, whose
    own loop takes no operator that returns a list.
    """

    def stacked(inputs: Any, dims: Any, size: int) -> Any:
        calls = [operator(*_entry(inputs, dims, index)) for index in range(size)]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls)
        return [torch.stack(one) for one in zip(*calls, strict=True)]

    @operator.register_vmap
    def rule(info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
        results = stacked(inputs, in_dims, info.batch_size)
        return results, 0 if isinstance(results, Tensor) else [0] * len(results)

    def older_rule(*inputs: Any) -> Any:
        level = max(_levels(inputs))
        plain, dims = _unbatched(inputs, level)
        results = stacked(plain, dims, max(_lengths(plain, dims)))
        if isinstance(results, Tensor):
            return torch._add_batch_dim(results, 0, level)
        return [torch._add_batch_dim(one, 0, level) for one in results]

    namespace, _, opname = operator._qualname.partition("::")
    library(namespace).impl(opname, older_rule, "Batched")


def _levels(value: Any) -> Iterator[int]:
    """The nested batches that the older batched tensors of `value` belong to: 1 is the outermost.

    torch counts them in a variable of the caller's thread, which on a GPU is not the backward's: the tensors know.
    """
    if isinstance(value, list | tuple):
        for one in value:
            yield from _levels(one)
    level = 0
    while _is_batched(value):
        level += 1
        if _is_batched_at(value, level):
            yield level
            value = torch._remove_batch_dim(value, level, 1, 0)


def _is_batched(value: Any) -> bool:
    return isinstance(value, Tensor) and torch._C._functorch.is_legacy_batchedtensor(value)


def _is_batched_at(value: Any, level: int) -> bool:
    """To a tensor outside that batch `_remove_batch_dim` gives a first dimension as long as is asked for."""
    if not _is_batched(value):
        return False
    one, two = (torch._remove_batch_dim(value, level, size, 0).shape[0] for size in (1, 2))
    return one == two


def _unbatched(value: Any, level: int) -> tuple[Any, Any]:
    """`value` outside the batch `level`, its entries first; and where a tensor has them: 0, else None."""
    if isinstance(value, list | tuple):
        pairs = [_unbatched(one, level) for one in value]
        return [plain for plain, _ in pairs], [dim for _, dim in pairs]
    return (torch._remove_batch_dim(value, level, 1, 0), 0) if _is_batched_at(value, level) else (value, None)


def _lengths(value: Any, dim: Any) -> Iterator[int]:
    if isinstance(value, list):
        for one, its_dim in zip(value, dim, strict=True):
            yield from _lengths(one, its_dim)
    elif dim is not None:
        yield value.shape[dim]


def _entry(value: Any, dim: Any, index: int) -> Any:
    if isinstance(value, list | tuple):
        dims = dim if isinstance(dim, list | tuple) else [dim] * len(value)
        return type(value)(_entry(one, its_dim, index) for one, its_dim in zip(value, dims, strict=True))
    return value.select(dim, index) if isinstance(value, Tensor) and dim is not None else value
