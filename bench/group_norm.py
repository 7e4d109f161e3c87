"""Group normalisation with residual and ReLU. Least bytes: adu_kernels/group_norm/README.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import adu_kernels
from adu_kernels import reference as references
from bench.harness.case import Case, Work
from bench.harness.suite import Suite, dtype_name, labelled

HALF, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Shape:
    """Of a volume; depth 1: of a feature map."""

    batch: int
    channels: int
    depth: int
    height: int
    width: int
    groups: int = 8


CROP = Shape(8, 32, 48, 64, 128)
HALVED = Shape(8, 64, 24, 32, 64)
KITTI = Shape(4, 32, 48, 96, 312)
MAP = Shape(16, 64, 1, 128, 256)
SMALL = Shape(1, 32, 12, 16, 32)
TINY = Shape(1, 8, 2, 3, 5, 2)
OVERHEAD = Shape(1, 8, 1, 8, 8, 2)


@dataclass(frozen=True)
class GroupNormBenchmark(Suite):
    """Group normalisation, an optional residual and ReLU, beside PyTorch's under autocast."""

    @property
    def name(self) -> str:
        return "group-norm"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [
                norm_case(CROP, HALF, headline=True),
                norm_case(CROP, HALF, residual=True),
                norm_case(CROP, SINGLE),
                norm_case(HALVED, HALF),
                norm_case(KITTI, HALF),
                norm_case(MAP, HALF),
                norm_case(CROP, HALF, channels_last=False, variant=True),
            ]
        else:
            found = [norm_case(SMALL if size == "small" else TINY, SINGLE, residual=True)]
        return [*found, norm_case(OVERHEAD, SINGLE, overhead=True)]


def eager(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, *, groups: int) -> Tensor:
    """What a network calls without the operation. Autocast makes the normalisation fp32 and contiguous."""
    with torch.autocast(x.device.type, HALF, enabled=x.dtype == HALF):
        y = F.group_norm(x, groups, weight, bias)
        return F.relu(y if residual is None else y + residual).to(x.dtype)


def ours(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, *, groups: int, backend: str = "auto"
) -> Tensor:
    return adu_kernels.group_norm(
        x, groups, weight, bias, activation="relu", residual=residual, backend=backend
    )  # fmt: skip


def before_relu(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, *, groups: int) -> Tensor:
    return references.group_norm(x, groups, weight, bias, residual=residual)


def norm_case(
    shape: Shape,
    dtype: torch.dtype,
    *,
    residual: bool = False,
    channels_last: bool = True,
    headline: bool = False,
    variant: bool = False,
    overhead: bool = False,
) -> Case:
    values = shape.batch * shape.channels * shape.depth * shape.height * shape.width
    moved = dtype.itemsize * values
    label = labelled(B=shape.batch, C=shape.channels, G=shape.groups)
    what = f"group norm{' with residual' if residual else ''}{' (call overhead)' if overhead else ''}"
    across = "×".join(str(n) for n in (shape.depth, shape.height, shape.width) if n > 1)
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}, {across}{'' if channels_last else ', contiguous'}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=partial(ours, groups=shape.groups),
        reference=partial(eager, groups=shape.groups),
        pre_activation=partial(before_relu, groups=shape.groups),
        draw=_maps(shape, dtype, residual, channels_last),
        gradients=4 if residual else 3,
        work=Work(
            (3 + residual) * moved,  # x twice, y; the residual
            (5 + residual) * moved,  # x and the gradient twice, x's; the residual's, in place of one of the others
            (5 + residual) * values,
            15 * values,
        ),
        headline=headline,
        variant=variant,
        overhead=overhead,
    )


def _maps(
    shape: Shape, dtype: torch.dtype, residual: bool, channels_last: bool
) -> Callable[[torch.device], list[Tensor]]:
    def draw(device: torch.device) -> list[Tensor]:
        size = (shape.batch, shape.channels, shape.depth, shape.height, shape.width)
        layout = torch.channels_last_3d if channels_last else torch.contiguous_format
        maps = [
            torch.randn(size, device=device).to(dtype).contiguous(memory_format=layout) for _ in range(1 + residual)
        ]
        if shape.depth == 1:
            maps = [one.squeeze(2) for one in maps]
        parameters = [torch.randn(shape.channels, device=device) for _ in range(2)]
        return [maps[0], *parameters, *maps[1:]]

    return draw
