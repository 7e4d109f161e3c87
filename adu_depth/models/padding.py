"""Any image size: pad to whole cells of the coarsest map, crop what comes out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from adu_depth.errors import InputError

CELL = 32  # pixels per cell of the coarsest feature map


def check_image(name: str, image: Tensor) -> None:
    """InputError unless `image` is a B×3×H×W floating-point tensor."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InputError(
            f"{name}: expected a B×3×H×W floating-point tensor in [0, 1], got {tuple(image.shape)} {image.dtype}"
        )


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
