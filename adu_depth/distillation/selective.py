"""Selective distillation: the teacher is followed where it is nearer to the ground truth than the student (METHOD §10).

After Selective Distillation (arXiv 2205.08668), whose two masks a decoder learns; this one is a rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adu_depth.distillation.means import masked_mean
from adu_kernels.precision import accumulation_dtype


def selective_loss(
    depth: Tensor, teacher: Tensor, target: Tensor, min_depth: float, max_depth: float, normalize: str
) -> Tensor:
    """Σ m·|d − d_t| / Σ m in metres, m = 1 where |d_t − g| < |d − g|, and else 0.

    Where there is no ground truth nobody knows who is nearer, and m is 0. Whatever stands there reaches neither loss
    nor gradient. m has no gradient.

    Args:
        depth, teacher, target: B×1×H×W metres, the student's, the teacher's and the ground truth; the student's alone
            has a gradient. What the teacher says outside of [min_depth, max_depth] counts as their nearer end.
        min_depth, max_depth: metres, the range of ground truth that counts.
        normalize: "batch" or "image", see `masked_mean`.

    Returns:
        A scalar of at least 0; exactly 0 where no pixel is selected.

    Example:
        >>> maps = torch.tensor([[2.0, 4.0, 3.0], [3.0, 5.0, 3.0], [4.0, 4.0, 0.0]]).reshape(3, 1, 1, 1, 3)
        >>> depth, teacher, truth = maps
        >>> selective_loss(depth, teacher, truth, 0.5, 80.0, "batch")  # of the first pixel alone: nearer by 1 m
        tensor(1.)
    """
    teacher, target = teacher.detach(), target.detach()
    teacher = teacher.to(accumulation_dtype(teacher))  # half precision would round the ends of the range
    known = (target >= min_depth) & (target <= max_depth) & torch.isfinite(teacher) & (teacher > 0)
    student, taught, truth = (torch.where(known, maps, min_depth) for maps in (depth, teacher, target))
    taught = taught.clamp(min_depth, max_depth)
    chosen = known & ((taught - truth).abs() < (student.detach() - truth).abs())
    return masked_mean((student - taught).abs(), chosen, normalize)
