"""The 3-D convolution with one output channel, as regression heads have it.

Least work: adu_kernels/single_output_conv3d/README.md.
"""

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


@dataclass(frozen=True)
class Shape:
    batch: int
    channels: int
    depth: int
    height: int
    width: int


CROP = Shape(8, 32, 48, 64, 128)
KITTI = Shape(4, 32, 48, 96, 312)
HALVED = Shape(8, 64, 24, 32, 64)
SMALL = Shape(1, 8, 8, 16, 32)
TINY = Shape(1, 3, 2, 4, 5)


@dataclass(frozen=True)
class SingleOutputConv3dBenchmark(Suite):
    """single_output_conv3d beside conv3d, channels-last."""

    @property
    def name(self) -> str:
        return "single-output-conv3d"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [
                convolution_case(CROP, HALF, headline=True),
                convolution_case(HALVED, HALF),
                convolution_case(KITTI, HALF),
                convolution_case(CROP, SINGLE),
                convolution_case(CROP, HALF, contiguous=True),
            ]
        else:
            found = [convolution_case(SMALL if size == "small" else TINY, SINGLE)]
        return [*found, convolution_case(TINY, SINGLE, overhead=True)]


def convolution_case(
    shape: Shape, dtype: torch.dtype, *, headline: bool = False, contiguous: bool = False, overhead: bool = False
) -> Case:
    positions = shape.batch * shape.depth * shape.height * shape.width
    x, y, products = positions * shape.channels, positions, 2 * 27 * positions * shape.channels
    label = labelled(B=shape.batch, C=shape.channels, D=shape.depth)
    what = f"3-D convolution to one channel{' (call overhead)' if overhead else ''}{' contiguous' * contiguous}"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}, {shape.height}×{shape.width}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=adu_kernels.single_output_conv3d,
        reference=reference.single_output_conv3d,
        draw=_inputs(shape, dtype, torch.contiguous_format if contiguous else torch.channels_last_3d),
        gradients=2,
        work=Work(dtype.itemsize * (x + y), dtype.itemsize * (2 * x + y), products, 2 * products, matrix=True),
        headline=headline,
        variant=contiguous,
        overhead=overhead,
    )


def _inputs(shape: Shape, dtype: torch.dtype, layout: torch.memory_format) -> Callable[[torch.device], list[Tensor]]:
    def draw(device: torch.device) -> list[Tensor]:
        size = (shape.batch, shape.channels, shape.depth, shape.height, shape.width)
        x = torch.randn(size, device=device, dtype=dtype).contiguous(memory_format=layout)
        weight = (27 * shape.channels) ** -0.5 * torch.randn(1, shape.channels, 3, 3, 3, device=device)
        return [x, weight.to(dtype).contiguous(memory_format=layout)]

    return draw
