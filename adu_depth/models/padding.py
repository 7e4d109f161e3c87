"""Any image size: pad to whole cells of the coarsest map, crop what comes out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CELL = 32  # pixels per cell of the coarsest feature map


def pad_to_cells(image: Tensor) -> Tensor:
    """B×C×H×W padded on the right and below, by repeating the border, to multiples of 32 pixels.

    Both views of a pair are padded alike, so disparities and the principal point stay what they were.
    """
    height, width = image.shape[-2:]
    below, right = -height % CELL, -width % CELL
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def crop_map(values: Tensor, height: int, width: int, stride: int = 1) -> Tensor:
    """The ⌈height/stride⌉ × ⌈width/stride⌉ cells of a padded map that cover the image."""
    return values[..., : -(-height // stride), : -(-width // stride)]
