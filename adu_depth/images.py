"""What an image is to everything here: red, green and blue, floats in [0, 1]. Checked where one is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adu_depth.errors import InputError

OVERSHOOT = 0.25
"""How far beyond [0, 1] a filter that resamples or sharpens may lead."""
LEVELS = {torch.uint8: 255.0, torch.uint16: 65535.0}
"""The types that say by themselves what white is."""


def from_levels(view: Tensor) -> Tensor:
    """uint8 or uint16 levels as float32 in [0, 1], the same bits on every device; floats come back as they are."""
    white = LEVELS.get(view.dtype)
    if white is None:
        return view
    # By a number, CUDA multiplies with its reciprocal, which is another float for half of the levels.
    return view.to(torch.float32).div_(torch.full((), white, device=view.device))


def check_image(name: str, image: Any, layout: str = "B×3×H×W") -> None:
    """InputError unless `image` is a floating-point tensor of this layout, "B×3×H×W" or "3×H×W", with pixels.

    No value is read, so nothing waits for a GPU: see `check_range`.
    """
    expected = f"{name}: expected a {layout} floating-point tensor in [0, 1]"
    if not isinstance(image, Tensor):
        raise InputError(f"{expected}, got {type(image).__name__}")
    got = f"got {tuple(image.shape)} {image.dtype}"
    if image.ndim != layout.count("×") + 1 or image.shape[-3] != 3 or not image.numel():
        raise InputError(f"{expected}, {got}{_advice(tuple(image.shape))}")
    if not image.is_floating_point():
        levels = LEVELS.get(image.dtype)
        raise InputError(f"{expected}, {got}" + (f": divide it by {levels:.0f}" if levels else ""))


def check_range(name: str, image: Tensor) -> None:
    """InputError where values are no numbers, or show that the image is not in [0, 1]. Reads them: waits for a GPU."""
    low, high = torch.aminmax(image.detach().float())
    if not bool(torch.isfinite(low + high)):
        count = int((~torch.isfinite(image)).sum())
        raise InputError(
            f"{name}: expected numbers in [0, 1], got NaN or infinity in {count} of {image.numel()} values"
        )
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise InputError(
            f"{name}: expected values in [0, 1], got {float(low):g} to {float(high):g}: divide by the value of white "
            "(255 of 8-bit images), and leave means and deviations to the network"
        )


def image_batch(name: str, image: Any) -> Tensor:
    """One image as 1×3×H×W float32 in [0, 1].

    image: an H×W×3 array of uint8 or uint16, or a tensor 3×H×W or 1×3×H×W of uint8, uint16 or floats in [0, 1].
    Integers are scaled by what their type can hold. Any strides. InputError, naming what came, for everything else:
    other types, which do not say what white is, floats outside of [0, 1], NaN, grey images, alpha, several images.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype not in (np.uint8, np.uint16):
            expected = f"{name}: expected an H×W×3 array of uint8 or uint16, RGB"
            raise InputError(f"{expected}, got {image.dtype} of shape {image.shape}{_advice(image.shape[::-1])}")
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    elif not isinstance(image, Tensor):
        raise InputError(f"{name}: expected an H×W×3 array or a 3×H×W tensor, got {type(image).__name__}")
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim == 4 and batch.shape[0] > 1:
        raise InputError(f"{name}: expected one image, 3×H×W, got {batch.shape[0]}: {tuple(image.shape)}")
    if batch.dtype == torch.uint16:
        refuse_unscaled(image.cpu().numpy(), name)
    batch = from_levels(batch)
    check_image(name, batch)
    check_range(name, batch)
    return batch.float()


def refuse_unscaled(pixels: np.ndarray, name: Any) -> None:
    """InputError for 16-bit pixels that hold a camera's 10 or 12 bits as they came: the picture would be all but black.

    A dark picture whose values were brought to 16 bits shows it: they are multiples of 16, or of 257.
    """
    largest = int(pixels.max())
    if 0 < largest <= 4095 and (pixels % 16).any() and (pixels % 257).any():
        bits = max(10, largest.bit_length())
        raise InputError(
            f"{name}: 16 bits per channel, but no value above {largest}: a camera's {bits} bits that were not brought "
            f"to 16; multiply the values by {1 << (16 - bits)}, or save the images with 8 bits"
        )


def _advice(shape: tuple[int, ...]) -> str:
    """What to do about a shape, its channels expected third from last."""
    if len(shape) >= 3 and shape[-3] != 3:
        if shape[-1] == 3:
            return ": the channels stand last; permute them to the front"
        if shape[-3] in (1, 4):
            return {1: ": repeat grey three times", 4: ": leave the alpha channel out"}[shape[-3]]
    return ""
