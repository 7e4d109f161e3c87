"""The first 3-D convolution over a concatenation volume, without the volume: exact, built on 2-D convolutions.

With m = x − d and j = kw − kd ∈ [−2, 2], a 3×3×3 tap of the output cell (d, x) reads the right map at column m + j
whatever d is, and the left map at column x + kw − 1, where the volume holds it if m + j ≥ 0. So

    out[d, x] = A[v, m][x] + F[v][m]

F: 3×5 convolutions of the right map, the taps with one j added up. A: 3×3 convolutions of the left map, the taps added
over kd; where the left half is masked only those with j ≥ −m, which for m ≥ 2 is all and for m ≤ −3 none. v: at the
first and last disparity the taps that lead out of the volume are left out. In the last column of the image F has no
taps with kw = 2: they lead out of it too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks

ALL_TAPS = 2  # from m = 2 on every tap of the left half is inside of the volume
NO_TAPS = -3  # up to m = −3 none is


def concat_free_conv3d(
    left: Tensor,
    right: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    num_disparities: int,
    mask_left: bool = True,
) -> Tensor:
    """conv3d(concatenation_volume(left, right, D, mask_left=…), weight, bias, padding=1), the volume never made.

    The volume is that of GC-Net (arXiv 1703.04309) and PSMNet (1803.08669); how it is done stands at the top.

    Args:
        left, right: B×C×H×W, floating, any strides, fastest channels-last.
        weight: O×2C×3×3×3.
        bias: O or None.
        num_disparities: D ≥ 1, may exceed W.
        mask_left: as in `concatenation_volume`.

    Returns:
        B×O×D×H×W in channels_last_3d; its differences from the convolution are those of the order of the sums.
        Differentiable in all four, any number of times: it is made of torch's operators.

    Raises:
        ValueError: a wrong shape or count; it names the argument.
        TypeError: a wrong type; it names the argument.

    Example:
        >>> left, right, weight = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 5, 8), torch.randn(6, 8, 3, 3, 3)
        >>> y = concat_free_conv3d(left, right, weight, num_disparities=7)
        >>> expected = torch.nn.functional.conv3d(concatenation_volume(left, right, 7), weight, padding=1)
        >>> y.shape, torch.allclose(y, expected, atol=1e-3)
        (torch.Size([1, 6, 7, 5, 8]), True)
    """
    checks.check_tensor("left", left, "B×C×H×W")
    checks.check_tensor("right", right, "B×C×H×W")
    checks.check_same_shape("right", right, "left", left)
    checks.check_tensor("weight", weight, "O×2C×3×3×3")
    channels = left.shape[1]
    if weight.shape[1:] != (2 * channels, 3, 3, 3):
        expected = checks.shown(("O", 2 * channels, 3, 3, 3))
        raise ValueError(f"weight: expected {expected}, got {checks.shown(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected {weight.shape[0]}, got {checks.shown(bias.shape)}")
    num_disparities = checks.check_count("num_disparities", num_disparities)
    mask_left = checks.check_flag("mask_left", mask_left)
    left_parts: dict[tuple[int, ...], _LeftPart] = {}
    right_parts: dict[tuple[int, ...], _RightPart] = {}
    slabs = []
    for d in range(num_disparities):
        depth_taps = tuple(kd for kd in range(3) if 0 <= d + kd - 1 < num_disparities)
        if depth_taps not in left_parts:
            left_parts[depth_taps] = _LeftPart(left, weight[:, :channels], bias, depth_taps, mask_left)
            right_parts[depth_taps] = _RightPart(right, weight[:, channels:], depth_taps)
        slabs.append(left_parts[depth_taps].slab(d) + right_parts[depth_taps].slab(d))
    return torch.stack(slabs, 1).permute(0, 4, 1, 2, 3)


class _LeftPart:
    """A[v, m] of one v, for every m; holds the bias. Maps are B×H×W×O, so that the volume is written channels-last."""

    def __init__(
        self, left: Tensor, weight: Tensor, bias: Tensor | None, depth_taps: tuple[int, ...], mask_left: bool
    ) -> None:
        self.width = left.shape[-1]
        shifts = range(NO_TAPS, ALL_TAPS + 1) if mask_left else (ALL_TAPS,)
        kernels = [_over_depth(weight, depth_taps, at_least=-m) for m in shifts]
        every_bias = None if bias is None else bias.repeat(len(kernels))
        maps = F.conv2d(left, torch.cat(kernels), every_bias, padding=1).permute(0, 2, 3, 1).chunk(len(kernels), -1)
        self.full = maps[-1]
        # Columns one by one: autograd puts them together again in one step, a slice for each would fill a whole map.
        self.columns = {m: part.unbind(2) for m, part in zip(shifts, maps[:-1], strict=False)}

    def slab(self, d: int) -> Tensor:
        """B×H×W×O at disparity d."""
        if not self.columns:
            return self.full
        first_full = min(d + ALL_TAPS, self.width)
        narrow = [self.columns[max(x - d, NO_TAPS)][x].unsqueeze(2) for x in range(first_full)]
        return torch.cat([*narrow, self.full[:, :, first_full:]], 2)


class _RightPart:
    """F[v] of one v, on columns −2 … W − 1, and the same without the taps that the last column lacks."""

    def __init__(self, right: Tensor, weight: Tensor, depth_taps: tuple[int, ...]) -> None:
        self.width = right.shape[-1]
        every, inner = (_along_diagonals(weight, depth_taps, columns) for columns in ((0, 1, 2), (0, 1)))
        padded = F.pad(right, (4, 2, 1, 1))
        self.map, last = F.conv2d(padded, torch.cat((every, inner))).permute(0, 2, 3, 1).chunk(2, -1)
        self.last = last.unbind(2)

    def slab(self, d: int) -> Tensor:
        """B×H×W×O at disparity d: column x is F at x − d, 0 where that is below −2."""
        kept = min(max(self.width - 1 - max(d - 2, 0), 0), self.width - 1)
        start = max(2 - d, 0)
        inner = F.pad(self.map[:, :, start : start + kept], (0, 0, self.width - 1 - kept, 0))
        last = self.width + 1 - d
        column = self.last[last] if last >= 0 else torch.zeros_like(self.last[0])
        return torch.cat((inner, column.unsqueeze(2)), 2)


def _over_depth(weight: Tensor, depth_taps: tuple[int, ...], at_least: int) -> Tensor:
    """O×C×3×3: the taps added over kd, those with kw − kd < at_least left out."""
    columns = []
    for kw in range(3):
        taps = [weight[:, :, kd, :, kw] for kd in depth_taps if kw - kd >= at_least]
        columns.append(torch.stack(taps).sum(0) if taps else torch.zeros_like(weight[:, :, 0, :, 0]))
    return torch.stack(columns, -1)


def _along_diagonals(weight: Tensor, depth_taps: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
    """O×C×3×5: the taps with one kw − kd added, from −2 to 2."""
    diagonals = []
    for j in range(-2, 3):
        taps = [weight[:, :, kd, :, kd + j] for kd in depth_taps if kd + j in columns]
        diagonals.append(torch.stack(taps).sum(0) if taps else torch.zeros_like(weight[:, :, 0, :, 0]))
    return torch.stack(diagonals, -1)
