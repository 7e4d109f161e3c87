"""The Triton volumes as two PyTorch operators, so that compilation, export and autograd see one node each way."""

from __future__ import annotations

import torch
from torch import Tensor

from .._triton.layout import empty_like_map
from ..derivatives import differentiable_once, keep, kept
from .plan import Request, new_volume


@torch.library.custom_op("adu_kernels::cost_volume", mutates_args=())
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
) -> Tensor:
    """Correlation of the first pair, then concatenation of the second; either pair may be absent."""
    from . import launching  # Triton is needed only where a kernel runs

    request = Request(num_disparities, num_groups, plain, normalize, reduction, mask_left, view, eps, eps_rule)
    return launching.forward(left, right, left_thin, right_thin, request)


@cost_volume.register_fake
def _(left, right, left_thin, right_thin, *request):  # type: ignore[no-untyped-def]
    return new_volume(left, left_thin, Request(*request))


@torch.library.custom_op("adu_kernels::cost_volume_backward", mutates_args=())
def cost_volume_backward(
    upstream: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
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
) -> list[Tensor]:
    """Gradients of those of the four maps that are there and needed, in order."""
    from . import launching

    request = Request(num_disparities, num_groups, plain, normalize, reduction, mask_left, view, eps, eps_rule)
    grads = launching.backward(upstream, left, right, left_thin, right_thin, request, needed)
    return [g for g in grads if g is not None]


@cost_volume_backward.register_fake
def _(upstream, left, right, left_thin, right_thin, needed, *request):  # type: ignore[no-untyped-def]
    maps = (left, right, left_thin, right_thin)
    return [empty_like_map(m) for m, need in zip(maps, needed, strict=True) if m is not None and need]


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    # Of the concatenated pair the backward asks how it lies in memory, and no value.
    keep(ctx, _operation(None, *inputs[:4], None, *inputs[4:]), inputs[:2])
    ctx.thin = [None if one is None else (one.shape, one.stride()) for one in inputs[2:4]]
    ctx.request = inputs[4:]


def _differentiate(ctx, upstream):  # type: ignore[no-untyped-def]
    needed = list(ctx.needs_input_grad[:4])
    wide, _ = kept(ctx)
    thin = [None if one is None else upstream.new_empty_strided(*one) for one in ctx.thin]
    grads = iter(cost_volume_backward(upstream, *wide, *thin, needed, *ctx.request))
    return *(next(grads) if need else None for need in needed), *(None for _ in ctx.request)


def _operation(upstream, left, right, left_thin, right_thin, needed, num_disparities, num_groups, plain, *rest) -> str:  # type: ignore[no-untyped-def]
    if left is None:
        return "concatenation_volume"
    if left_thin is not None:
        return "combined_volume"
    return "correlation_volume" if plain else "groupwise_correlation_volume"


differentiable_once(
    cost_volume, cost_volume_backward, setup_context=_keep, backward=_differentiate, operation=_operation
)


def groupwise_correlation_volume(
    left: Tensor, right: Tensor, num_disparities: int, num_groups: int, *,
    normalize: str = "none", reduction: str = "mean", view: str = "left", eps: float = 1e-12, eps_rule: str = "max",
) -> Tensor:  # fmt: skip
    return cost_volume(
        left, right, None, None, num_disparities, num_groups, False, normalize, reduction, True, view, eps, eps_rule
    )


def correlation_volume(
    left: Tensor, right: Tensor, num_disparities: int, *,
    normalize: str = "none", reduction: str = "mean", view: str = "left", eps: float = 1e-12, eps_rule: str = "max",
) -> Tensor:  # fmt: skip
    return cost_volume(
        left, right, None, None, num_disparities, 1, True, normalize, reduction, True, view, eps, eps_rule
    )


def concatenation_volume(
    left: Tensor, right: Tensor, num_disparities: int, *, mask_left: bool = True, view: str = "left"
) -> Tensor:
    return cost_volume(None, None, left, right, num_disparities, 1, False, "none", "mean", mask_left, view, 1.0, "max")


def combined_volume(
    left: Tensor, right: Tensor, left_thin: Tensor, right_thin: Tensor, num_disparities: int, num_groups: int, *,
    normalize: str = "none", reduction: str = "mean", mask_left: bool = True, view: str = "left",
    eps: float = 1e-12, eps_rule: str = "max",
) -> Tensor:  # fmt: skip
    return cost_volume(
        left, right, left_thin, right_thin, num_disparities, num_groups, False, normalize, reduction, mask_left, view,
        eps, eps_rule,
    )  # fmt: skip
