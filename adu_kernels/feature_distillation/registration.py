"""The Triton loss as two PyTorch operators, so that compilation, export and autograd see one node each way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..derivatives import differentiable_once, keep, kept
from ..precision import accumulation_dtype


@torch.library.custom_op("adu_kernels::feature_distillation", mutates_args=())
def feature_distillation(
    adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The losses of L levels, and 2/(elements · power) of each, which the backward needs. weights: L, or none."""
    from . import launching  # Triton is needed only where a kernel runs

    return launching.forward(adapted, teacher, weights)


@feature_distillation.register_fake
def _(adapted, teacher, weights):  # type: ignore[no-untyped-def]
    dtype = accumulation_dtype(*adapted, *teacher)
    return adapted[0].new_empty(len(adapted), dtype=dtype), adapted[0].new_empty(len(adapted), dtype=dtype)


@torch.library.custom_op("adu_kernels::feature_distillation_backward", mutates_args=())
def feature_distillation_backward(
    upstream: Tensor, slopes: Tensor, adapted: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Tensor]:
    """The gradients of the adapted maps, in their dtypes."""
    from . import launching

    return launching.backward(upstream, slopes, adapted, teacher, weights)


@feature_distillation_backward.register_fake
def _(upstream, slopes, adapted, teacher, weights):  # type: ignore[no-untyped-def]
    return [torch.empty_like(one) for one in adapted]


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    adapted, teacher, weights = inputs
    ctx.levels, ctx.weighted = len(adapted), len(weights)
    keep(ctx, "feature_distillation_losses", [output[1], *adapted, *teacher, *weights])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, upstream, _):  # type: ignore[no-untyped-def]
    (slopes, *maps), _ = kept(ctx)
    adapted, teacher, weights = maps[: ctx.levels], maps[ctx.levels : 2 * ctx.levels], maps[2 * ctx.levels :]
    nothing = [None] * ctx.levels, [None] * ctx.weighted
    if upstream is None:
        return [None] * ctx.levels, *nothing
    return feature_distillation_backward(upstream, slopes, adapted, teacher, weights), *nothing


differentiable_once(
    feature_distillation,
    feature_distillation_backward,
    setup_context=_keep,
    backward=_differentiate,
    operation=lambda *_: "feature_distillation_losses",
)


@torch.library.custom_op("adu_kernels::pooled_guide", mutates_args=())
def pooled_guide(weight: Tensor, heights: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """Adaptive averages of B×1×H×W at each size. Has no gradient."""
    from . import launching

    return launching.pool(weight, _pooled(weight, heights, widths))


@pooled_guide.register_fake
def _pooled(weight: Tensor, heights: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    dtype = accumulation_dtype(weight)
    return [weight.new_empty((weight.shape[0], 1, h, w), dtype=dtype) for h, w in zip(heights, widths, strict=True)]
