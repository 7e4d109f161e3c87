"""Group normalisation and cosine features: checks, choice of the implementation, and the public functions."""

from __future__ import annotations

from torch import Tensor

from .. import checks
from ..backend import runs_kernels
from . import launch, reference, unit_launch

ACTIVATIONS = ("none", "relu")


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Group normalisation (arXiv 1803.08494) with the sum and the activation that follow it, in one operation.

    y = act(weight_c · (x − mean_g) / √(variance_g + eps) + bias_c + residual), mean and (biased) variance of each image
    and group over its C/num_groups channels and all positions, in fp32 (fp64 for fp64) by a form that loses nothing
    where the mean is large.

    Args:
        x: B×C×H×W or B×C×D×H×W, floating, any strides; channels-last is the fast layout.
        num_groups: the whole number of groups, a divisor of C. C makes it an instance norm, 1 a layer norm over
            channels and positions.
        weight, bias: C each, floating, or None for 1 and 0.
        eps: ≥ 0, added to the variance.
        activation: "none" or "relu", after the sum.
        residual: None, or a map of x's shape that is added before the activation; its dtype and strides may differ.
        backend: "auto", "triton" or "torch".

    Returns:
        y in x's dtype, whatever autocast says, laid out as x is. Differentiable in x, weight, bias and residual (once:
        the Triton kernels have no second derivative). Kept for the backward are x, weight and bias, three numbers per
        group and, only where there are both a residual and ReLU, a bit per element.

    Raises:
        ValueError: a wrong shape, number, device or activation; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> x = torch.randn(2, 32, 8, 16, 24).to(memory_format=torch.channels_last_3d)
        >>> y = group_norm(x, 8, torch.ones(32), torch.zeros(32), activation="relu")
        >>> y.shape, y.is_contiguous(memory_format=torch.channels_last_3d)
        (torch.Size([2, 32, 8, 16, 24]), True)
    """
    checks.check_tensor("x", x, "B×C×H×W", "B×C×D×H×W")
    num_groups = checks.check_count("num_groups", num_groups)
    checks.check_divides_channels("num_groups", num_groups, "x", x)
    channels = x.shape[1]
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            checks.check_tensor(name, value, "C")
            if value.shape != (channels,):
                raise ValueError(f"{name}: expected one value per channel of x, {channels}, got {value.shape[0]}")
            checks.check_same_device(name, value, "x", x)
    eps = checks.check_number("eps", eps, low=0.0)
    checks.check_choice("activation", activation, ACTIVATIONS)
    if residual is not None:
        checks.check_tensor("residual", residual, "B×C×H×W", "B×C×D×H×W")
        checks.check_same_shape("residual", residual, "x", x)
        checks.check_same_device("residual", residual, "x", x)
    run = launch.group_norm if runs_kernels("group_norm", backend, x) else reference.group_norm
    return run(x, num_groups, weight, bias, eps, activation=activation, residual=residual)


def cosine_features(x: Tensor, eps: float = 1e-5, *, backend: str = "auto") -> Tensor:
    """Features whose correlation is the cosine of what is peculiar to their image: instance norm, then unit length.

    n = (x − mean) / √(variance + eps), mean and (biased) variance of each image and channel over all positions,
    y = √C · n / max(‖n‖₂, 1e-12), the length over the channels of a position (our reconstruction, METHOD §2); sums in
    fp32 (fp64 for fp64). The mean over channels of y_left · y_right is a cosine.

    Args:
        x: B×C×H×W or B×C×D×H×W, floating, any strides; channels-last is the fast layout.
        eps: ≥ 0, added to the variance.
        backend: "auto", "triton" or "torch". The kernels take up to 8192 channels.

    Returns:
        y in x's dtype, whatever autocast says, laid out as x is. Differentiable in x (once: the Triton kernels have no
        second derivative). Kept for the backward are x and three numbers per image and channel.

    Raises:
        ValueError: a wrong shape or number; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> y = cosine_features(torch.randn(2, 32, 8, 16))
        >>> torch.allclose(y.square().sum(1), torch.tensor(32.0), rtol=1e-4)
        True
    """
    checks.check_tensor("x", x, "B×C×H×W", "B×C×D×H×W")
    eps = checks.check_number("eps", eps, low=0.0)
    run = unit_launch.cosine_features if runs_kernels("cosine_features", backend, x) else reference.cosine_features
    return run(x, eps)
