"""The attention of the feature adapter, in plain PyTorch: what the kernels are held to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..precision import accumulation_dtype, without_autocast

LOG2E = math.log2(math.e)
"""A bias that has no number in units of log₂, in which the kernels work, masks its key as −inf does."""


def attention_adaptation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    softmax_scale: float | None = None,
) -> Tensor:
    """softmax(query·keyᵀ·scale + bias)·value; 0 for an image whose keys are all masked by a bias of −inf.

    Two products and a softmax rather than torch's scaled_dot_product_attention: that one's GPU backward with a bias is
    not deterministic, its half-precision forms differ from device to device, and how it treats masked rows depends on
    the version. Autograd keeps one N×M matrix, the probabilities.
    """
    dtype = accumulation_dtype(query)
    scale = query.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    with without_autocast(query):
        q, k, v = query.to(dtype) * scale, key.to(dtype), value.to(dtype)
        if key_bias is None:
            return (torch.softmax(q @ k.mT, dim=-1) @ v).to(query.dtype)

        bias = key_bias.to(dtype)[:, None, None, :]  # B×1×1×M
        masked = bias * LOG2E == -torch.inf
        # A masked key's own numbers must not matter either: 0·NaN would be NaN.
        k = k.masked_fill(masked.mT, 0)
        v = v.masked_fill(masked.mT, 0)
        # A softmax over −inf alone is NaN: with no key open let it average the values, which are all 0 by now.
        bias = bias.masked_fill(masked.all(-1, keepdim=True), 0)
        return (torch.softmax(q @ k.mT + bias, dim=-1) @ v).to(query.dtype)
