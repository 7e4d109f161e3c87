"""The feature loss. Least bytes: adu_kernels/feature_distillation/README.md."""

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
    """Of one level's features."""

    batch: int
    channels: int
    height: int
    width: int


LEVEL = Shape(8, 256, 48, 156)
COARSE = Shape(8, 512, 12, 39)
SMALL = Shape(2, 64, 24, 80)
TINY = Shape(1, 5, 4, 7)
OVERHEAD = Shape(1, 8, 8, 8)


@dataclass(frozen=True)
class FeatureDistillationBenchmark(Suite):
    """Weighted squared distance of two feature maps in units of the teacher's power."""

    @property
    def name(self) -> str:
        return "feature-distillation"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [
                distance_case(LEVEL, HALF, headline=True),
                distance_case(LEVEL, SINGLE),
                distance_case(LEVEL, HALF, channels_last=False, variant=True),
                distance_case(COARSE, HALF),
            ]
        else:
            found = [distance_case(SMALL if size == "small" else TINY, SINGLE)]
        return [*found, distance_case(OVERHEAD, SINGLE, overhead=True)]


def distance_case(
    shape: Shape,
    dtype: torch.dtype,
    *,
    channels_last: bool = True,
    headline: bool = False,
    variant: bool = False,
    overhead: bool = False,
) -> Case:
    cells = shape.batch * shape.height * shape.width
    values = cells * shape.channels
    label = labelled(B=shape.batch, C=shape.channels)
    what = f"feature distillation{' (call overhead)' if overhead else ''}"
    layout = "" if channels_last else ", contiguous"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}, {shape.height}×{shape.width}{layout}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=adu_kernels.feature_distillation_loss,
        reference=reference.feature_distillation_loss,
        draw=_features(shape, dtype, channels_last),
        gradients=1,
        work=Work(
            2 * dtype.itemsize * values + 4 * cells,
            3 * dtype.itemsize * values + 4 * cells,
            5 * values,
            3 * values,
        ),
        headline=headline,
        variant=variant,
        overhead=overhead,
    )


def _features(shape: Shape, dtype: torch.dtype, channels_last: bool) -> Callable[[torch.device], list[Tensor]]:
    def draw(device: torch.device) -> list[Tensor]:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        size = (shape.batch, shape.channels, shape.height, shape.width)
        maps = [torch.randn(size, device=device).to(dtype).contiguous(memory_format=layout) for _ in range(2)]
        return [*maps, torch.rand(shape.batch, 1, shape.height, shape.width, device=device)]

    return draw
