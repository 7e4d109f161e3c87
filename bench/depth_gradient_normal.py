"""The loss of arXiv 1803.08673. Least bytes: adu_kernels/depth_gradient_normal/README.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from bench.harness.case import Case, Work
from bench.harness.suite import Suite, dtype_name, labelled

HALF, SINGLE = torch.bfloat16, torch.float32
FLOPS, FLOPS_BACKWARD = 45, 60
"""Per pixel, a logarithm or a root counted as one: for the roofline's place alone."""


@dataclass(frozen=True)
class Shape:
    batch: int
    height: int
    width: int


KITTI = Shape(8, 384, 1248)
LIGHT = Shape(8, 228, 304)
SMALL = Shape(2, 96, 320)
TINY = Shape(1, 5, 9)


@dataclass(frozen=True)
class DepthGradientNormalBenchmark(Suite):
    """depth_gradient_normal_loss with a dense target."""

    @property
    def name(self) -> str:
        return "depth-gradient-normal"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [loss_case(KITTI, SINGLE, headline=True), loss_case(LIGHT, SINGLE), loss_case(KITTI, HALF)]
        else:
            found = [loss_case(SMALL if size == "small" else TINY, SINGLE)]
        return [*found, loss_case(TINY, SINGLE, overhead=True)]


def loss_case(shape: Shape, dtype: torch.dtype, *, headline: bool = False, overhead: bool = False) -> Case:
    pixels = shape.batch * shape.height * shape.width
    what = f"depth, gradient and normal loss{' (call overhead)' if overhead else ''}"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {labelled(B=shape.batch)}, {shape.height}×{shape.width}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=adu_kernels.depth_gradient_normal_loss,
        reference=reference.depth_gradient_normal_loss,
        draw=_maps(shape, dtype),
        gradients=1,
        work=Work(2 * dtype.itemsize * pixels, 3 * dtype.itemsize * pixels, FLOPS * pixels, FLOPS_BACKWARD * pixels),
        headline=headline,
        overhead=overhead,
    )


def _maps(shape: Shape, dtype: torch.dtype) -> Callable[[torch.device], list[Tensor]]:
    """A depth, a little off, and a room that is known everywhere."""

    def draw(device: torch.device) -> list[Tensor]:
        target = torch.empty((shape.batch, 1, shape.height, shape.width), device=device).uniform_(0.5, 10.0)
        depth = target + 0.3 * torch.randn_like(target)
        return [depth.to(dtype), target.to(dtype)]

    return draw
