"""The loss of arXiv 1803.08673 is defined once, in adu_kernels (tests/kernels/test_depth_gradient_normal.py)."""

from __future__ import annotations

import adu_kernels
from adu_depth.distillation import gradient_normal_loss


def test_it_is_the_operation() -> None:
    for name in gradient_normal_loss.__all__:
        assert getattr(gradient_normal_loss, name) is getattr(adu_kernels, name)
