"""What a stereo pair says about a disparity, where nobody measured the depth.

Three figures, because each alone is won by something that is wrong: `left_right` by one disparity for every pixel,
`photometric` by a rough map that looks for the likest window pixel by pixel, and both by disparities that leave the
right view, which `outside` shows.
"""

from __future__ import annotations

from torch import Tensor

from adu_depth.distillation.left_right import left_right_consistent
from adu_depth.distillation.photometric import WINDOW, dissimilarity
from adu_depth.errors import InputError
from adu_depth.geometry import warp_right

PAIR_METRICS = ("photometric", "left_right", "outside")
PROXY_METRICS = ("proxy_epe", "proxy_d1")
"""epe and d1 against the disparities of a classical matcher, named so that nobody takes them for those of a truth."""
CHOOSABLE = ("photometric", "left_right", *PROXY_METRICS)
"""What may say which checkpoint is the best. `outside` may not: the best of it is no disparity at all."""
WORST = {"photometric": 2.0, "left_right": 100.0}
"""Where no pixel's match lies inside the right view, so that nothing can be compared."""


def pair_metrics(left: Tensor, right: Tensor, disparity: Tensor, right_disparity: Tensor) -> dict[str, float]:
    """How well a disparity explains a pair, and how well the right view's own disparity confirms it.

    photometric = mean of 1 − the local correlation of grey levels (`dissimilarity`, the structure term of SSIM) of the
    left view and of the right one warped by the disparity; left_right = percent of pixels with |d_L(x) − d_R(x − d_L)|
    above 1 px and above 5 %; both over the pixels whose x − d_L lies inside the right view. outside = percent of the
    pixels where it does not, which neither of the others looks at. All three: the lower, the better.

    Args:
        left, right: 3×H×W in [0, 1], rectified, 3×3 pixels at least.
        disparity: 1×H×W pixels of the left view. right_disparity: 1×H×W of the right view, where a point at column x is
            at x + d in the left one.

    Returns:
        The three numbers by name. Where no pixel lies inside, photometric and left_right are the worst there are.

    Raises:
        InputError: images smaller than 3×3, or maps of another size.

    Example:
        >>> left = torch.rand(3, 8, 32, generator=torch.Generator().manual_seed(0))
        >>> four = torch.full((1, 8, 32), 4.0)
        >>> figures = pair_metrics(left, left.roll(-4, dims=2), four, four)
        >>> round(figures["photometric"], 3), figures["left_right"], figures["outside"]  # 4 columns of 32 leave it
        (0.018, 0.0, 12.5)
    """
    least = WINDOW // 2 + 1
    if left.shape != right.shape or min(left.shape[-2:]) < least:
        raise InputError(
            f"pair: expected two views of one size, {least}×{least} pixels or larger, got {tuple(left.shape)} and "
            f"{tuple(right.shape)}"
        )
    expected = (1, *left.shape[-2:])
    for name, found in (("disparity", disparity), ("right_disparity", right_disparity)):
        if tuple(found.shape) != expected:
            raise InputError(f"{name}: expected the pair's size {expected}, got {tuple(found.shape)}")
    left, right, disparity, right_disparity = (
        values[None].detach().cpu().float() for values in (left, right, disparity, right_disparity)
    )
    warped, inside = warp_right(right, disparity)
    outside = 100.0 * float((~inside).double().mean())
    if not inside.any():
        return {**WORST, "outside": outside}
    unlike = dissimilarity(left, warped)[inside].double().mean()
    confirmed = left_right_consistent(disparity, right_disparity)[inside].double().mean()
    return {"photometric": float(unlike), "left_right": 100.0 * (1.0 - float(confirmed)), "outside": outside}
