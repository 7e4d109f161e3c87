"""A spinning scanner's sparse depth: which pixels a beam crosses, what it returns there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adu_depth.data.synthetic.config import LidarConfig
from adu_depth.data.synthetic.noise import hash_int, hash_normal, hash_uniform

Point = list[Tensor]


def _lines_between(low: Tensor, high: Tensor) -> Tensor:
    """Whether a whole number lies in the interval between the two."""
    return low.floor() != high.floor()


def beam_hits(world: Point, pixel: Tensor, config: LidarConfig, phase: Tensor, width: int) -> Tensor:
    """Whether a beam meets the patch of surface a pixel shows.

    world: metres from the scanner (x right, y up, z ahead), N×128 each; pixel: metres a pixel spans there, taken
    upright and facing the scanner. phase: where the scanner's turn starts, in steps. width: of the image.
    """
    elevation_step, azimuth_step = config.steps(width)
    top = float(np.deg2rad(config.elevation[1]))
    x, y, z = world
    flat = (x * x + z * z).sqrt()
    half = 0.5 * pixel
    beams = float(np.deg2rad(config.elevation[1] - config.elevation[0])) / elevation_step + 0.5
    above, below = ((top - torch.atan((y + s * half) / flat)) / elevation_step + 0.5 for s in (1, -1))
    on_row = _lines_between(above, below) & (below > 0.5) & (above < beams)
    ahead = z.clamp_min(0.1)
    left, right = (torch.atan((x + s * half) / ahead) / azimuth_step + phase for s in (-1, 1))
    return on_row & _lines_between(left, right)


def returns(depth: Tensor, distance: Tensor, hit: Tensor, config: LidarConfig, seed: Tensor, pixel: Tensor) -> Tensor:
    """Measured depth, 0 = none. distance: metres from the scanner; seed: N×1 int32; pixel: int32 index of each."""
    key = pixel ^ hash_int(seed)
    seen = hit & (distance <= config.max_range) & (hash_uniform(key ^ 0x2545F491) >= config.drop_out)
    spread = config.noise + config.noise_relative * distance
    return torch.where(seen, depth * (1.0 + hash_normal(key) * spread / distance.clamp_min(0.1)), 0.0)
