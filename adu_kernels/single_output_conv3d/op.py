"""The convolution with one output channel: checks, choice of the implementation, and the public function."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import checks
from ..backend import runs_kernels
from ..precision import autocast_dtype
from . import launch, reference

KERNEL = (3, 3, 3)


def single_output_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """`torch.nn.functional.conv3d(x, weight, bias, padding=1)` for 3×3×3 weights with one output channel.

    y[b,0,d,h,w] = bias + Σ_{c,i,j,k} weight[0,c,i,j,k] · x[b,c,d+i−1,h+j−1,w+k−1], x zero outside: 27 products for
    each element read, so that memory decides. The regression heads of PSMNet (arXiv 1803.08669) and GwcNet (1903.04025)
    are such convolutions.

    Args:
        x: B×C×D×H×W, floating, any strides, fastest channels_last_3d.
        weight: 1×C×3×3×3 of x's dtype and device, as nn.Conv3d holds it, any strides.
        bias: 1 number of x's dtype and device, or None. Under autocast all three are cast to its type first, as conv3d
            does (float64 is left alone).
        backend: "auto", "triton" or "torch".

    Returns:
        B×1×D×H×W in the dtype of x, or autocast's; sums are fp32 (fp64 for fp64). Differentiable in all three (once:
        the Triton kernels have no second derivative).

    Raises:
        ValueError: a wrong shape or device; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> x, weight = torch.ones(1, 2, 3, 3, 3), torch.ones(1, 2, 3, 3, 3)
        >>> single_output_conv3d(x, weight)[0, 0, 1]  # two channels × the taps that lie inside
        tensor([[24., 36., 24.],
                [36., 54., 36.],
                [24., 36., 24.]])
    """
    checks.check_tensor("x", x, "B×C×D×H×W")
    checks.check_tensor("weight", weight, "1×C×3×3×3")
    if weight.shape[1:] != (x.shape[1], *KERNEL):
        expected = checks.shown((1, x.shape[1], *KERNEL))
        raise ValueError(f"weight: expected {expected}, got {checks.shown(weight.shape)}")
    checks.check_same_device("weight", weight, "x", x)
    if bias is not None:
        checks.check_tensor("bias", bias, "1")
        checks.check_same_device("bias", bias, "x", x)
    x, weight, bias = _as_autocast_has_them(x, weight, bias)
    checks.check_same_dtype("weight", weight, "x", x)
    if bias is not None:
        checks.check_same_dtype("bias", bias, "x", x)
    if not runs_kernels("single_output_conv3d", backend, x):
        return reference.single_output_conv3d(x, weight, bias)
    return launch.single_output_conv3d(x, weight, bias)


def _as_autocast_has_them(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """In autocast's type where it is on; float64 it leaves as it is."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return x, weight, bias

    def cast(value: Tensor) -> Tensor:
        return value if value.dtype == torch.float64 else value.to(dtype)

    return cast(x), cast(weight), None if bias is None else cast(bias)
