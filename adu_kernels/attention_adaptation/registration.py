"""The Triton attention as two PyTorch operators, so that compilation and autograd see one node each way."""

from __future__ import annotations

import torch
from torch import Tensor

from ..derivatives import differentiable_once, keep, kept
from . import layout

WIDEST_HEAD = 128
"""Channels per head that the kernels take: the accumulators of more would not stay in registers."""


@torch.library.custom_op("adu_kernels::attention_adaptation", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for the backward, per query, the largest score and log₂ Σ exp2(score − largest)."""
    from . import launching  # Triton is needed only where a kernel runs

    return launching.forward(query, key, value, key_bias, scale)


@attention.register_fake
def _(query, key, value, key_bias, scale):  # type: ignore[no-untyped-def]
    return layout.new_output(query)


@torch.library.custom_op("adu_kernels::attention_adaptation_backward", mutates_args=())
def attention_backward(
    upstream: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    out: Tensor,
    peak: Tensor,
    log_mass: Tensor,
    scale: float,
    needed: list[bool],
) -> list[Tensor]:
    """Gradients of those of query, key, value and key_bias that are needed, in order."""
    from . import launching

    return launching.backward(upstream, query, key, value, key_bias, out, peak, log_mass, scale, needed)


@attention_backward.register_fake
def _(upstream, query, key, value, key_bias, out, peak, log_mass, scale, needed):  # type: ignore[no-untyped-def]
    grads = [layout.like(tensor) for tensor, need in zip((query, key, value), needed[:3], strict=True) if need]
    return [*grads, key_bias.new_empty(key_bias.shape)] if needed[3] else grads


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    out, peak, log_mass = output
    keep(ctx, "attention_adaptation", [*tensors, peak, log_mass], [out])
    ctx.mark_non_differentiable(peak, log_mass)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, upstream, *_):  # type: ignore[no-untyped-def]
    needed = list(ctx.needs_input_grad[:4])
    if upstream is None:
        return (None,) * 5
    (*tensors, peak, log_mass), (out,) = kept(ctx, lambda *inputs: attention(*inputs[:4], ctx.scale)[:1])
    grads = iter(attention_backward(upstream, *tensors, out, peak, log_mass, ctx.scale, needed))
    return *(next(grads) if need else None for need in needed), None


differentiable_once(
    attention,
    attention_backward,
    setup_context=_keep,
    backward=_differentiate,
    operation=lambda *_: "attention_adaptation",
)


def attention_adaptation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    softmax_scale: float | None = None,
) -> Tensor:
    if query.shape[-1] > WIDEST_HEAD:
        raise ValueError(
            f"query: expected at most {WIDEST_HEAD} channels per head with backend='triton', got {query.shape[-1]}"
        )
    scale = query.shape[-1] ** -0.5 if softmax_scale is None else float(softmax_scale)
    out, *_ = attention(query, key, value, key_bias, scale)
    return out
