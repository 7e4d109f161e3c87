"""What JPEG does to a picture: its blocks' frequencies, rounded to steps that the eye hardly sees."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.transfer import upload

BLOCK = 8
# The tables of ISO/IEC 10918-1, Annex K.1, at quality 50.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


_K, _N = np.arange(BLOCK)[:, None], np.arange(BLOCK)
_COSINES = np.cos(np.pi * _K * (2 * _N + 1) / 16) * np.where(_K == 0, 8**-0.5, 0.5)
_STEPS = np.array([_LUMINANCE, _CHROMINANCE, _CHROMINANCE])
_OFFSET = np.array([128.0, 0.0, 0.0]).reshape(3, 1, 1)  # of Y, Cb, Cr


def compress(picture: Tensor, quality: Tensor) -> Tensor:
    """B×3×H×W pictures in [0, 1] as JPEG of these qualities (B, 1 to 100; 0: as it is) would give them back, without
    halving the colours' resolution. The steps are scaled by quality as libjpeg scales them."""
    cosines, steps, to_ycc, to_rgb, offset = (
        upload(torch.from_numpy(np.asarray(table, dtype=np.float32)), picture.device)
        for table in (_COSINES, _STEPS, _TO_YCC, np.linalg.inv(_TO_YCC), _OFFSET)
    )
    height, width = picture.shape[-2:]
    padded = F.pad(picture, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    ycc = (torch.einsum("ij,bjhw->bihw", to_ycc, padded) * 255.0).round() - offset
    blocks = ycc.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).movedim(-3, -2)  # B×3×rows×columns×8×8
    scale = torch.where(quality < 50, 50.0 / quality.clamp_min(1.0), 2.0 - quality / 50.0)
    step = (steps * scale.reshape(-1, 1, 1, 1) + 0.5).floor().clamp(1.0, 255.0)[:, :, None, None]
    kept = ((cosines @ blocks @ cosines.T) / step).round() * step
    back = (cosines.T @ kept @ cosines).movedim(-2, -3).flatten(-4, -3).flatten(-2, -1)
    levels = (back + offset).round()
    rgb = (torch.einsum("ij,bjhw->bihw", to_rgb, levels) / 255.0).clamp(0.0, 1.0)[..., :height, :width]
    return torch.where(quality.reshape(-1, 1, 1, 1) > 0, rgb, picture)
