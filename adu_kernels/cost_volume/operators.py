"""The Triton volumes as two PyTorch operators: compilation, export and autograd see one node each way."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._triton.layout import empty_like_map
from .._triton.operators import operator
from ..derivatives import differentiable_once, keep, kept
from .launch import VolumeOptions, new_outputs, run_backward, run_forward


@operator("adu_kernels::cost_volume")
def cost_volume(
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    num_disparities: int,
    num_groups: int,
    plain: bool,
    normalize: str,
    reduction: str,
    mask_left: bool,
    view: str,
    eps: float,
    eps_rule: str,
    scores: bool,
) -> tuple[Tensor, Tensor]:
    """Correlation of the first pair, then concatenation of the second; either pair may be absent. And the mean over
    the groups, empty where it is not asked for."""
    options = VolumeOptions(
        num_disparities, num_groups, plain, normalize, reduction, mask_left, view, eps, eps_rule, scores
    )
    return run_forward((left, right, left_thin, right_thin), options)


@cost_volume.register_fake
def _(left, right, left_thin, right_thin, *options):  # type: ignore[no-untyped-def]
    return new_outputs(left, left_thin, VolumeOptions(*options))


@operator("adu_kernels::cost_volume_backward")
def cost_volume_backward(
    grad_output: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    grad_scores: Tensor | None,
    needed: list[bool],
    num_disparities: int,
    num_groups: int,
    plain: bool,
    normalize: str,
    reduction: str,
    mask_left: bool,
    view: str,
    eps: float,
    eps_rule: str,
    scores: bool,
) -> list[Tensor]:
    """Gradients of those of the four maps that are there and needed, in order."""
    options = VolumeOptions(
        num_disparities, num_groups, plain, normalize, reduction, mask_left, view, eps, eps_rule, scores
    )
    return run_backward(grad_output, (left, right, left_thin, right_thin), needed, options, grad_scores)


@cost_volume_backward.register_fake
def _(grad_output, left, right, left_thin, right_thin, grad_scores, needed, *options):  # type: ignore[no-untyped-def]
    maps = (left, right, left_thin, right_thin)
    return [empty_like_map(m) for m, need in zip(maps, needed, strict=True) if m is not None and need]


def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    # Of the concatenated pair the backward asks how it lies in memory, and no value.
    keep(ctx, _operation(None, *inputs[:4], None, None, *inputs[4:]), inputs[:2])
    ctx.concatenated = [None if one is None else (one.shape, one.stride()) for one in inputs[2:4]]
    ctx.options = inputs[4:]
    ctx.set_materialize_grads(False)
    ctx.volume_shape = output[0].shape


def backward(ctx: Any, grad_output: Tensor | None, grad_scores: Tensor | None) -> tuple:
    needed = list(ctx.needs_input_grad[:4])
    correlated, _ = kept(ctx)
    given = grad_output if grad_output is not None else grad_scores
    if given is None:
        return (None,) * (4 + len(ctx.options))
    if grad_output is None:  # a zero that is read again and again, in place of a volume of them
        grad_output = given.new_zeros(()).expand(ctx.volume_shape)
    concatenated = [None if one is None else given.new_empty_strided(*one) for one in ctx.concatenated]
    if not VolumeOptions(*ctx.options).scores:
        grad_scores = None  # of an output that is empty
    grads = iter(cost_volume_backward(grad_output, *correlated, *concatenated, grad_scores, needed, *ctx.options))
    return *(next(grads) if need else None for need in needed), *(None for _ in ctx.options)


def _operation(
    grad_output: Any, left: Any, right: Any, left_thin: Any, right_thin: Any, grad_scores: Any, needed: Any,
    *options: Any,
) -> str:  # fmt: skip
    """The public name, from what `cost_volume_backward` takes."""
    if VolumeOptions(*options).scores:
        return "volume_with_scores"
    if left is None:
        return "concatenation_volume"
    if left_thin is not None:
        return "combined_volume"
    return "correlation_volume" if VolumeOptions(*options).plain else "groupwise_correlation_volume"


differentiable_once(
    cost_volume, cost_volume_backward, setup_context=setup_context, backward=backward, operation=_operation
)
