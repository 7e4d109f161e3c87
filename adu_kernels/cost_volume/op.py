"""Stereo cost volumes: checks, choice of the implementation, and the public functions."""

from __future__ import annotations

from torch import Tensor

from .. import checks
from ..backend import runs_kernels
from ..stereo import REDUCTIONS, VIEWS
from . import reference
from .launch import VolumeOptions, cost_volume

NORMALIZATIONS = ("none", "group", "all")
EPS_RULES = ("max", "add")


def groupwise_correlation_volume(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    num_groups: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
    backend: str = "auto",
) -> Tensor:
    """Group-wise correlation of a rectified pair of feature maps (GwcNet, arXiv 1903.04025).

    V[b,g,d,h,w] = (1/K) Σ over the K = C/G channels c of group g of left[b,c,h,w] · right[b,c,h,w−d]; 0 where w < d.

    Args:
        left, right: B×C×H×W, one floating dtype, one device, any strides; channels-last is the fast layout. A point at
            column x of the left map is at x − d in the right one, d in columns of the map.
        num_disparities: D ≥ 1, may exceed W.
        num_groups: G ≥ 1, divides C.
        normalize: "none"; "group" divides each pixel's K channels of a group by their norm, "all" its C channels by
            theirs (cosine).
        reduction: the products of a group are summed and multiplied by 1/K ("mean"), 1 ("sum") or 1/√K ("sqrt").
        view: "left", or "right", the volume of the right view: V_R[d,h,x] = V_L[d,h,x+d], 0 where x + d ≥ W.
        eps: > 0, at least 1e-15, the smallest norm; read where something is normalised.
        eps_rule: "max" divides by the norm and counts a vector no longer than `eps` as 0, with zero gradient
            (F.normalize everywhere but there); "add" divides by norm + eps.
        backend: "auto", "triton" or "torch".

    Returns:
        B×G×D×H×W in the inputs' dtype; sums are taken in fp32 (fp64 for fp64). Differentiable in left and right (once:
        the Triton kernels have no second derivative). They write channels_last_3d where left is channels_last, else
        contiguous; the reference contiguous.

    Raises:
        ValueError: a wrong shape, device, count or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> row = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 2, 1, 4)  # both views, both channels
        >>> groupwise_correlation_volume(row, row, num_disparities=2, num_groups=1)[0, 0, :, 0]
        tensor([[ 1.,  4.,  9., 16.],
                [ 0.,  2.,  6., 12.]])
    """
    options = _check_groups(left, right, num_disparities, num_groups, normalize, reduction, True, view, eps, eps_rule)
    if not runs_kernels("groupwise_correlation_volume", backend, left):
        return reference.groupwise_correlation_volume(
            left, right, options.num_disparities, options.num_groups,
            normalize=normalize, reduction=reduction, view=view, eps=options.eps, eps_rule=eps_rule,
        )  # fmt: skip
    return cost_volume(left, right, None, None, *options)[0]


def correlation_volume(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
    backend: str = "auto",
) -> Tensor:
    """Correlation of a rectified pair of feature maps, averaged over the channels (DispNetC, arXiv 1512.02134).

    V[b,d,h,w] = (1/C) Σ_c left[b,c,h,w] · right[b,c,h,w−d]; 0 where w < d.

    Args:
        left, right: B×C×H×W, one floating dtype, one device, any strides; channels-last is the fast layout.
        num_disparities: D ≥ 1, may exceed W.
        normalize, reduction, view, eps, eps_rule: as in `groupwise_correlation_volume`, with one group of all C
            channels.
        backend: "auto", "triton" or "torch".

    Returns:
        B×D×H×W in the inputs' dtype; sums are taken in fp32 (fp64 for fp64). Differentiable in left and right (once:
        the Triton kernels have no second derivative). They write channels_last where left is channels_last, else
        contiguous; the reference contiguous.

    Raises:
        ValueError: a wrong shape, device, count or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> right = torch.randn(1, 16, 4, 12)
        >>> left = right.roll(3, dims=3)  # the left view sees everything three columns further right
        >>> cosines = correlation_volume(left, right, num_disparities=5, normalize="all", reduction="sum")
        >>> cosines.shape, cosines.argmax(1)[..., 3:].unique()
        (torch.Size([1, 5, 4, 12]), tensor([3]))
    """
    checks.check_pair("left", left, "right", right)
    num_disparities = checks.check_count("num_disparities", num_disparities)
    eps = _check_correlation(normalize, reduction, view, eps, eps_rule)
    if not runs_kernels("correlation_volume", backend, left):
        return reference.correlation_volume(
            left, right, num_disparities,
            normalize=normalize, reduction=reduction, view=view, eps=eps, eps_rule=eps_rule,
        )  # fmt: skip
    options = VolumeOptions(
        num_disparities, plain=True, normalize=normalize, reduction=reduction, view=view, eps=eps, eps_rule=eps_rule
    )
    return cost_volume(left, right, None, None, *options)[0]


def concatenation_volume(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    *,
    mask_left: bool = True,
    view: str = "left",
    backend: str = "auto",
) -> Tensor:
    """Left features beside the shifted right ones (GC-Net, arXiv 1703.04309; PSMNet, arXiv 1803.08669).

    V[b,:C,d,h,w] = left[b,:,h,w], V[b,C:,d,h,w] = right[b,:,h,w−d]; both 0 where w < d.

    Args:
        left, right: B×C×H×W, one floating dtype, one device, any strides; channels-last is the fast layout.
        num_disparities: D ≥ 1, may exceed W.
        mask_left: False keeps left[b,:,h,w] at every d (IGEV, ACVNet). In the right view it is the right map that
            stays.
        view: "left", or "right": V[b,:C,d,h,x] = left[b,:,h,x+d], V[b,C:,d,h,x] = right[b,:,h,x]; both 0 where
            x + d ≥ W.
        backend: "auto", "triton" or "torch".

    Returns:
        B×2C×D×H×W in the inputs' dtype, values copied exactly. Differentiable in left and right (once: the Triton
        kernels have no second derivative). They write channels_last_3d where left is channels_last, else contiguous;
        the reference contiguous.

    Raises:
        ValueError: a wrong shape, device, count or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> left, right = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(2, 1, 1, 1, 3)
        >>> concatenation_volume(left, right, num_disparities=2)[0, :, 1, 0]  # at disparity 1
        tensor([[0., 2., 3.],
                [0., 4., 5.]])
    """
    checks.check_pair("left", left, "right", right)
    num_disparities = checks.check_count("num_disparities", num_disparities)
    mask_left = checks.check_flag("mask_left", mask_left)
    checks.check_choice("view", view, VIEWS)
    if not runs_kernels("concatenation_volume", backend, left):
        return reference.concatenation_volume(left, right, num_disparities, mask_left=mask_left, view=view)
    options = VolumeOptions(num_disparities, mask_left=mask_left, view=view)
    return cost_volume(None, None, left, right, *options)[0]


def combined_volume(
    left: Tensor,
    right: Tensor,
    left_thin: Tensor,
    right_thin: Tensor,
    num_disparities: int,
    num_groups: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    mask_left: bool = True,
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
    backend: str = "auto",
) -> Tensor:
    """Group-wise correlation of one pair and concatenation of a second, thinner pair, in one volume (GwcNet-gc).

    GwcNet is arXiv 1903.04025. Both parts are made by one launch and written into one buffer.

    Args:
        left, right: B×C×H×W, one floating dtype, one device, any strides; channels-last is the fast layout.
        left_thin, right_thin: B×C'×H×W, the same B, H, W, dtype and device; any strides.
        num_disparities: D ≥ 1, may exceed W.
        num_groups: G ≥ 1, divides C.
        normalize, reduction, eps, eps_rule: of the correlation, as in `groupwise_correlation_volume`.
        mask_left: of the concatenation, as in `concatenation_volume`.
        view: "left" or "right", of both.
        backend: "auto", "triton" or "torch".

    Returns:
        B×(G+2C')×D×H×W in the inputs' dtype: channels [0, G) as `groupwise_correlation_volume`, the rest as
        `concatenation_volume`. Differentiable in all four maps (once: the Triton kernels have no second derivative).
        They write channels_last_3d where left is channels_last, else contiguous; the reference contiguous.

    Raises:
        ValueError: a wrong shape, device, count or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> left, right, left_thin, right_thin = torch.randn(2, 32, 4, 8).split((12, 12, 4, 4), dim=1)
        >>> volume = combined_volume(left, right, left_thin, right_thin, num_disparities=6, num_groups=3)
        >>> volume.shape, torch.equal(volume[:, 3:], concatenation_volume(left_thin, right_thin, 6))
        (torch.Size([2, 11, 6, 4, 8]), True)
    """
    options = _check_groups(
        left, right, num_disparities, num_groups, normalize, reduction, mask_left, view, eps, eps_rule
    )
    _check_thin(left_thin, right_thin, left)
    if not runs_kernels("combined_volume", backend, left):
        return reference.combined_volume(
            left, right, left_thin, right_thin, options.num_disparities, options.num_groups, normalize=normalize,
            reduction=reduction, mask_left=options.mask_left, view=view, eps=options.eps, eps_rule=eps_rule,
        )  # fmt: skip
    return cost_volume(left, right, left_thin, right_thin, *options)[0]


def volume_with_scores(
    left: Tensor,
    right: Tensor,
    left_thin: Tensor | None,
    right_thin: Tensor | None,
    num_disparities: int,
    num_groups: int,
    *,
    normalize: str = "none",
    reduction: str = "mean",
    mask_left: bool = True,
    view: str = "left",
    eps: float = 1e-12,
    eps_rule: str = "max",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """A combined volume, or a group-wise one, and the mean of its correlation over the groups.

    scores[b,d,h,w] = (1/G) Σ over the groups g of volume[b,g,d,h,w]: how well a pixel fits at each disparity, from
    which a network's matching can start. The volume is GwcNet's (arXiv 1903.04025). The kernels add the gradient of
    scores to the volume's as they read it; it is not added in memory.

    Args:
        left, right: B×C×H×W, one floating dtype, one device, any strides; channels-last is the fast layout.
        left_thin, right_thin: None and None for a volume as `groupwise_correlation_volume` makes it; B×C'×H×W for one
            as `combined_volume` does.
        num_disparities: D ≥ 1, may exceed W.
        num_groups: G ≥ 1, divides C.
        normalize, reduction, eps, eps_rule: of the correlation, as in `groupwise_correlation_volume`.
        mask_left: of the concatenation, as in `concatenation_volume`.
        view: "left" or "right", of both.
        backend: "auto", "triton" or "torch".

    Returns:
        volume, as `groupwise_correlation_volume` or `combined_volume` returns it, and scores, B×D×H×W, contiguous, in
        the inputs' dtype: sums are taken in fp32 (fp64 for fp64), of the group-wise products or of the volume's rounded
        ones. Differentiable in all maps that are given (once: the Triton kernels have no second derivative).

    Raises:
        ValueError: a wrong shape, device, count or name; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> left, right = torch.randn(2, 1, 32, 4, 8).unbind()
        >>> volume, scores = volume_with_scores(left, right, None, None, num_disparities=6, num_groups=8)
        >>> volume.shape, scores.shape, torch.allclose(scores, correlation_volume(left, right, 6), atol=1e-6)
        (torch.Size([1, 8, 6, 4, 8]), torch.Size([1, 6, 4, 8]), True)
    """
    options = _check_groups(
        left, right, num_disparities, num_groups, normalize, reduction, mask_left, view, eps, eps_rule
    )
    if left_thin is not None or right_thin is not None:
        _check_thin(left_thin, right_thin, left)
    if not runs_kernels("volume_with_scores", backend, left):
        return reference.volume_with_scores(
            left, right, left_thin, right_thin, options.num_disparities, options.num_groups, normalize=normalize,
            reduction=reduction, mask_left=options.mask_left, view=view, eps=options.eps, eps_rule=eps_rule,
        )  # fmt: skip
    return cost_volume(left, right, left_thin, right_thin, *options._replace(scores=True))  # type: ignore[no-any-return]


def _check_thin(left_thin: Tensor | None, right_thin: Tensor | None, left: Tensor) -> None:
    checks.check_pair("left_thin", left_thin, "right_thin", right_thin)
    assert left_thin is not None  # it was a tensor
    batch, _, height, width = left.shape
    if left_thin.shape != (batch, left_thin.shape[1], height, width):
        expected = checks.shown((batch, "C'", height, width))
        raise ValueError(f"left_thin: expected {expected} like left, got {checks.shown(left_thin.shape)}")
    checks.check_same_dtype("left_thin", left_thin, "left", left)
    checks.check_same_device("left_thin", left_thin, "left", left)


def _check_groups(
    left: Tensor,
    right: Tensor,
    num_disparities: int,
    num_groups: int,
    normalize: str,
    reduction: str,
    mask_left: bool,
    view: str,
    eps: float,
    eps_rule: str,
) -> VolumeOptions:
    """The options of a volume with a group-wise part."""
    checks.check_pair("left", left, "right", right)
    num_disparities = checks.check_count("num_disparities", num_disparities)
    num_groups = checks.check_count("num_groups", num_groups)
    checks.check_divides_channels("num_groups", num_groups, "left", left)
    eps = _check_correlation(normalize, reduction, view, eps, eps_rule)
    mask_left = checks.check_flag("mask_left", mask_left)
    return VolumeOptions(
        num_disparities, num_groups, normalize=normalize, reduction=reduction, mask_left=mask_left, view=view,
        eps=eps, eps_rule=eps_rule,
    )  # fmt: skip


def _check_correlation(normalize: str, reduction: str, view: str, eps: float, eps_rule: str) -> float:
    """eps, as a Python number."""
    checks.check_choice("normalize", normalize, NORMALIZATIONS)
    checks.check_choice("reduction", reduction, REDUCTIONS)
    checks.check_choice("view", view, VIEWS)
    eps = checks.check_number("eps", eps, low=1e-15)  # its square must stay above the smallest fp32
    checks.check_choice("eps_rule", eps_rule, EPS_RULES)
    return eps
