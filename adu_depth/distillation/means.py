"""Means over the pixels that count."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, normalize: str) -> Tensor:
    """Mean of B×1×H×W values over a mask; exactly 0, with zero gradient, where it is empty.

    normalize: "batch" takes it over the batch's pixels, "image" over each image's, and then over all images, empty ones
    included: what an image contributes does not depend on the others, nor on which process has them.
    """
    kept = torch.where(mask, values, 0.0)
    if normalize == "batch":
        return kept.sum() / mask.sum().clamp(min=1)
    return (kept.sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)).mean()
