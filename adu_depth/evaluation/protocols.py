"""Which part of an image an evaluation looks at. Each window is a published one; fractions are of height and width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adu_depth.errors import InputError


@dataclass(frozen=True)
class Window:
    """Rows int(top·H) to int(bottom·H), columns int(left·W) to int(right·W), ends excluded."""

    top: float
    bottom: float
    left: float
    right: float

    def mask(self, height: int, width: int) -> Tensor:
        """H×W bool, true inside."""
        inside = torch.zeros(height, width, dtype=torch.bool)
        rows = slice(int(self.top * height), int(self.bottom * height))
        inside[rows, int(self.left * width) : int(self.right * width)] = True
        return inside


# Windows of the ground truth as it is loaded; the "Garg" of papers that first crop KITTI to 352×1216 is another one.
PROTOCOLS = {
    "none": Window(0.0, 1.0, 0.0, 1.0),
    "garg": Window(0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al., 1603.04992
    "eigen": Window(0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al., 1406.2283
}


def window_mask(protocol: str, height: int, width: int) -> Tensor:
    """H×W bool, the pixels a protocol looks at. Raises InputError for an unknown name."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    return PROTOCOLS[protocol].mask(height, width)
