"""Attention adaptation: checks, choice of the implementation, and the public function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .. import checks
from ..backend import dispatch
from ..precision import without_autocast
from . import launch, reference
from .table import library_is_faster


def attention_adaptation(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None = None,
    softmax_scale: float | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """Attention of many queries over few pooled keys: O = softmax(Q·Kᵀ·scale + bias)·V (our reconstruction, METHOD §3).

    Args:
        query: B×heads×N×d, floating, any strides.
        key, value: B×heads×M×d of query's dtype and device, any strides.
        key_bias: B×M or None, floating, in natural-log units, added to every query's score of that key. −inf masks the
            key: nothing of it, NaN included, reaches the output or a gradient. So does, in fp32, any bias below
            −2.4e38, which `torch.finfo(torch.float32).min` is. An image with every key masked gives 0 and zero
            gradients.
        softmax_scale: a number; None is 1/√d.
        backend: "auto", "triton" or "torch". "triton" takes heads of up to 128 channels; for wider ones "auto" is the
            reference. Without a bias "auto" is torch's own attention where `table.py` has a measurement that it is
            faster.

    Returns:
        B×heads×N×d in query's dtype; sums and softmax in fp32 (fp64 for fp64) whatever autocast says. The kernels
        multiply half precision on matrix units, the probabilities rounded to it as well, and fp32 in true fp32 (no
        tf32). Their output lies in memory as query does (tokens × channels, or channels × tokens), dense; the
        reference's is contiguous. Differentiable in query, key, value and key_bias (once: the kernels have no second
        derivative).

    Raises:
        ValueError: a wrong shape or device; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> query, key = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 2, 1)
        >>> value, bias = torch.tensor([2.0, 6.0]).view(1, 1, 2, 1), torch.tensor([[0.0, -torch.inf]])
        >>> attention_adaptation(query, key, value), attention_adaptation(query, key, value, bias)
        (tensor([[[[4.]]]]), tensor([[[[2.]]]]))
    """
    _check_heads(query, key, value)
    if key_bias is not None:
        _check_bias(key_bias, key)
    if softmax_scale is not None:
        softmax_scale = checks.check_number("softmax_scale", softmax_scale)
    triton_twin: Callable[..., Tensor] | None = launch.attention_adaptation
    if backend == "auto" and query.shape[3] > launch.WIDEST_HEAD:
        triton_twin = None
    run = dispatch(
        "attention_adaptation", backend, query, torch_twin=reference.attention_adaptation, triton_twin=triton_twin
    )
    if backend == "auto" and run is triton_twin and key_bias is None and library_is_faster(query, key, value):
        with without_autocast(query):
            return scaled_dot_product_attention(query, key, value, scale=softmax_scale)
    return run(query, key, value, key_bias, softmax_scale)


def _check_heads(query: Any, key: Any, value: Any) -> None:
    checks.check_tensor("query", query, "B×heads×N×d")
    checks.check_tensor("key", key, "B×heads×M×d")
    checks.check_tensor("value", value, "B×heads×M×d")
    batch, heads, _, width = query.shape
    if key.shape != (batch, heads, key.shape[2], width):
        expected = checks.shown((batch, heads, "M", width))
        raise ValueError(f"key: expected {expected} like query, got {checks.shown(key.shape)}")
    checks.check_same_shape("value", value, "key", key)
    for name, tensor in (("key", key), ("value", value)):
        checks.check_same_dtype(name, tensor, "query", query)
        checks.check_same_device(name, tensor, "query", query)


def _check_bias(key_bias: Any, key: Tensor) -> None:
    checks.check_tensor("key_bias", key_bias, "B×M")
    expected = (key.shape[0], key.shape[2])
    if key_bias.shape != expected:
        raise ValueError(f"key_bias: expected B×M, {checks.shown(expected)}, got {checks.shown(key_bias.shape)}")
    checks.check_same_device("key_bias", key_bias, "key", key)
