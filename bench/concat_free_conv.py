"""The first 3-D convolution without the concatenation volume. Least work: adu_kernels/concat_free_conv/README.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_kernels.concat_free_conv.module import concat_free_conv3d
from adu_kernels.reference import concatenation_volume
from bench.harness.case import Case, Work
from bench.harness.suite import Suite, dtype_name, labelled

HALF, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Shape:
    """Of the thin maps, the disparities and the convolution's outputs."""

    batch: int
    channels: int
    height: int
    width: int
    disparities: int
    outputs: int


CROP_12 = Shape(8, 12, 64, 128, 48, 32)
CROP_32 = Shape(8, 32, 64, 128, 48, 32)
SMALL = Shape(1, 4, 24, 64, 16, 8)
TINY = Shape(1, 2, 3, 8, 4, 2)


@dataclass(frozen=True)
class ConcatFreeConvBenchmark(Suite):
    """ConcatFreeConv3d beside conv3d over the volume, which it equals; plain torch operations, so it has a CPU row."""

    @property
    def name(self) -> str:
        return "concat-free-conv"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            return [
                convolution_case(CROP_32, HALF, headline=True),
                convolution_case(CROP_12, HALF),
                convolution_case(CROP_12, SINGLE),
            ]
        return [convolution_case(SMALL if size == "small" else TINY, SINGLE)]


def convolution_case(shape: Shape, dtype: torch.dtype, *, headline: bool = False) -> Case:
    cells = shape.batch * shape.height * shape.width
    flops = 2 * cells * shape.channels * shape.outputs * (9 * 18 + 15 * 6)
    maps, output = 2 * cells * shape.channels, cells * shape.disparities * shape.outputs
    label = labelled(B=shape.batch, C=shape.channels, D=shape.disparities, O=shape.outputs)
    return Case(
        name=f"3-D convolution of a concatenation, {dtype_name(dtype)}, {label}, {shape.height}×{shape.width}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=concat_free_conv3d,
        reference=over_volume,
        draw=_inputs(shape, dtype),
        gradients=4,
        work=Work(
            dtype.itemsize * (maps + output), dtype.itemsize * (2 * maps + output), flops, 2 * flops, matrix=True
        ),
        options={"num_disparities": shape.disparities},
        one_form=True,
        headline=headline,
    )


def over_volume(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor, num_disparities: int) -> Tensor:
    return F.conv3d(concatenation_volume(left, right, num_disparities), weight, bias, padding=1)


def _inputs(shape: Shape, dtype: torch.dtype) -> Callable[[torch.device], list[Tensor]]:
    def draw(device: torch.device) -> list[Tensor]:
        size = (shape.batch, shape.channels, shape.height, shape.width)
        maps = [torch.randn(size, device=device).to(dtype) for _ in range(2)]
        fan = (2 * shape.channels * 27) ** -0.5
        weight = fan * torch.randn(shape.outputs, 2 * shape.channels, 3, 3, 3, device=device)
        return [*maps, weight.to(dtype), torch.randn(shape.outputs, device=device).to(dtype)]

    return draw
