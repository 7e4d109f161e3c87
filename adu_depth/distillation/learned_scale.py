"""Self-distillation with a learned scale: the teacher's depth, as likely as the student's own scale can make it
(METHOD §10).

After SUB-Depth (arXiv 2111.09692), |d − d_t|/u + ln u with a map u that the network learns. Here u is the Laplace scale
of ln depth that the student predicts anyway, so that the distance is one of ln depth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adu_kernels import laplace_nll
from adu_kernels.precision import accumulation_dtype


def learned_scale_loss(
    depth: Tensor,
    log_scale: Tensor,
    teacher: Tensor,
    min_depth: float,
    max_depth: float,
    normalize: str,
    *,
    backend: str = "auto",
) -> Tensor:
    """Mean of |ln d − ln d_t|/u + ln u over the pixels where the teacher knows a depth, with or without ground truth.

    u = exp of the log scale clamped to [−6, 3], from 2.5 ‰ of a depth to twenty times it: never 0. It is
    `adu_kernels.laplace_nll` with the teacher in the place of the truth, training depth and scale.

    Args:
        depth, teacher: B×1×H×W metres. The teacher's has no gradient; it is known where it is finite and positive, and
            counts as the nearer end where it lies outside of [min_depth, max_depth].
        log_scale: B×1×H×W, natural log of the Laplace scale of ln depth.
        min_depth, max_depth: metres; no gradient for a depth outside.
        normalize: "batch" or "image", see `masked_mean`.
        backend: "auto", "triton" or "torch".

    Returns:
        A scalar, below 0 where the scale is small and right; exactly 0 where the teacher knows nothing.

    Example:
        >>> depth, teacher, log_scale = torch.tensor([[2.0, 4.0], [4.0, 0.0], [0.0, 0.0]]).reshape(3, 1, 1, 1, 2)
        >>> learned_scale_loss(depth, log_scale, teacher, 0.5, 80.0, "batch")  # off by ln 2 where 1 was expected
        tensor(0.6931)
    """
    teacher = teacher.to(accumulation_dtype(teacher))  # an end rounded to half precision may lie outside of the range
    known = torch.isfinite(teacher) & (teacher > 0)
    taught = torch.where(known, teacher.clamp(min_depth, max_depth), 0.0)
    return laplace_nll(
        depth,
        log_scale,
        taught,
        joint=True,
        min_depth=min_depth,
        max_depth=max_depth,
        normalize=normalize,
        backend=backend,
    )
