"""From linear light to the pictures of two cameras that are not quite alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic.config import PhotometryConfig
from adu_depth.data.synthetic.jpeg import compress
from adu_depth.data.synthetic.noise import hash_int, hash_normal

PARAMETERS = 10  # per view: gain of r, g, b; exponent; noise; its seed; blur; rolling; vignette; JPEG's quality
_NOISE, _JPEG = 4, 9


def draw_cameras(config: PhotometryConfig, rng: np.random.Generator, more: np.random.Generator) -> np.ndarray:
    """2×10 parameters of the left and the right camera; from `more` those that a plain camera does not have."""
    exposure, noise = rng.normal(0, config.exposure), rng.uniform(*config.noise)
    out = np.zeros((2, PARAMETERS))
    for view in range(2):
        differs = float(view == 1)
        gain = exposure + differs * (
            rng.normal(0, config.exposure_difference) + rng.normal(0, config.colour_difference, 3)
        )
        out[view, :3] = np.exp(gain)
        out[view, 3] = np.exp(differs * rng.normal(0, config.gamma_difference)) / 2.2
        out[view, _NOISE], out[view, 5] = noise, rng.integers(1 << 23)
        out[view, 6] = min(config.blur + more.uniform(*config.defocus), 0.5)
        out[view, 7] = more.normal(0, config.rolling)
    out[:, 8] = more.uniform(*config.vignette)
    (own,) = more.spawn(1)
    if own.random() < 0.5:
        out[:, _JPEG] = own.uniform(*config.jpeg)
    return out


def make_noisier(cameras: np.ndarray, gain: float) -> None:
    """Multiplies both cameras' noise, in place."""
    cameras[:, _NOISE] *= gain


def develop(linear: Tensor, camera: Tensor, plain: bool) -> Tensor:
    """B×3×H×W linear light → B×3×H×W picture in [0, 1]. camera: B×10 of `draw_cameras`. plain: none of the batch's
    cameras is rolling, has a vignette or compresses (`is_plain`)."""
    per_image = camera.reshape(-1, PARAMETERS, 1, 1, 1)
    exposed = blur(linear, per_image[:, 6]) * camera[:, :3, None, None]
    if not plain:
        exposed = exposed * _unevenness(linear.shape[-2], linear.shape[-1], per_image[:, 7], per_image[:, 8])
    # A shoulder keeps bright clouds and walls from clipping: x / (1 + x) scaled so that mid-grey stays.
    toned = (exposed * 1.35 / (1.0 + 0.35 * exposed)).clamp(1e-5, 1.0)
    picture = (toned.log() * per_image[:, 3]).exp()
    height, width = linear.shape[-2:]
    pixel = torch.arange(3 * height * width, dtype=torch.int32, device=linear.device).reshape(1, 3, height, width)
    grain = hash_normal(pixel ^ hash_int(camera[:, 5].int()).reshape(-1, 1, 1, 1)) * (
        per_image[:, 4] * (0.4 + 0.6 * picture)
    )
    noisy = (picture + grain).clamp(0.0, 1.0)
    return noisy if plain else compress(noisy, camera[:, _JPEG])


def is_plain(cameras: np.ndarray) -> bool:
    """Whether no camera of …×10 parameters has what only `draw_cameras`'s second generator gives."""
    return not cameras[..., 7:].any()


def _unevenness(height: int, width: int, rolling: Tensor, vignette: Tensor) -> Tensor:
    """B×1×H×W gain; rolling, vignette: B×1×1×1."""
    y = torch.linspace(-1, 1, height, device=rolling.device)[:, None]
    x = torch.linspace(-1, 1, width, device=rolling.device)
    return (rolling * y / 2).exp() * (1.0 - vignette * (x * x + y * y) / 2)


def blur(image: Tensor, side: Tensor) -> Tensor:
    """Three-tap blur along both axes; `side` (B×1×1×1) is the share that each neighbour gets."""
    for axis in (-1, -2):
        n = image.shape[axis]
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, n - 1), image.narrow(axis, n - 1, 1)], axis)
        image = image + (before + after - image - image) * side
    return image
