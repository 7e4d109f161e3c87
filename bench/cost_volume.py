"""Cost volumes. Least bytes and flops: the table in adu_kernels/cost_volume/README.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

import adu_kernels
from adu_kernels import reference
from bench.harness.case import Case, Work
from bench.harness.suite import Suite, dtype_name, labelled, normal

OPERATIONS = {
    "groupwise": "groupwise_correlation_volume",
    "cosine": "groupwise_correlation_volume",
    "combined": "combined_volume",
    "plain": "correlation_volume",
    "concatenation": "concatenation_volume",
}


@dataclass(frozen=True)
class Shape:
    """Of both maps of a pair, and of what is made of them."""

    batch: int
    height: int
    width: int
    channels: int
    groups: int
    disparities: int
    thin: int
    """Channels of each map that is concatenated."""

    def pairs(self) -> int:
        """Pairs of columns that exist: the cells that are not zero by definition."""
        return self.batch * self.height * sum(max(self.width - d, 0) for d in range(self.disparities))


CROP = Shape(8, 64, 128, 320, 40, 48, 12)
KITTI = Shape(8, 96, 312, 320, 40, 48, 12)
SMALL = Shape(1, 24, 64, 64, 8, 16, 4)
TINY = Shape(1, 3, 12, 8, 2, 4, 2)
OVERHEAD = Shape(1, 8, 8, 8, 2, 4, 2)
HALF, SINGLE = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class CostVolumeBenchmark(Suite):
    """Cost volumes: group-wise, cosine, combined, plain correlation, concatenation."""

    @property
    def name(self) -> str:
        return "cost-volume"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        return list(_cases(size))


def _cases(size: str) -> Iterator[Case]:
    if size == "gpu":
        yield volume_case("groupwise", CROP, HALF, headline=True)
        yield volume_case("groupwise", CROP, SINGLE)
        for operation in ("combined", "plain", "cosine", "concatenation"):
            yield volume_case(operation, CROP, HALF)
        yield volume_case("groupwise", KITTI, HALF)
        yield volume_case("groupwise", KITTI, SINGLE, variant=True)
        yield volume_case("groupwise", CROP, HALF, channels_last=False, variant=True)
        yield volume_case("combined", KITTI, HALF, variant=True)
    else:
        for operation in OPERATIONS:
            yield volume_case(operation, SMALL if size == "small" else TINY, SINGLE)
    yield volume_case("groupwise", OVERHEAD, SINGLE, overhead=True)


def volume_case(
    operation: str,
    shape: Shape,
    dtype: torch.dtype,
    *,
    channels_last: bool = True,
    headline: bool = False,
    variant: bool = False,
    overhead: bool = False,
) -> Case:
    thin_only, combined = operation == "concatenation", operation == "combined"
    wide = (shape.batch, shape.channels, shape.height, shape.width)
    thin = (shape.batch, shape.thin, shape.height, shape.width)
    maps = [thin] * 2 if thin_only else [wide, wide, thin, thin] if combined else [wide] * 2
    options: dict[str, object] = {"num_disparities": shape.disparities}
    if operation in ("groupwise", "cosine", "combined"):
        options["num_groups"] = shape.groups
    if operation == "cosine":
        options |= {"normalize": "group", "reduction": "sum"}
    layout = "" if channels_last else ", contiguous"
    label = labelled(B=shape.batch, C=shape.thin if thin_only else shape.channels, D=shape.disparities)
    what = f"{operation} volume{' (call overhead)' if overhead else ''}"
    return Case(
        name=f"{what}, {dtype_name(dtype)}, {label}, {shape.height}×{shape.width}{layout}",
        dtype=dtype,
        shape={**shape.__dict__},
        kernel=getattr(adu_kernels, OPERATIONS[operation]),
        reference=getattr(reference, OPERATIONS[operation]),
        draw=normal(maps, dtype, channels_last),
        gradients=len(maps),
        work=least_work(operation, shape, dtype.itemsize),
        options=options,
        headline=headline,
        variant=variant,
        overhead=overhead,
    )


def least_work(operation: str, shape: Shape, itemsize: int) -> Work:
    """The README's table; plain correlation is group-wise with one group, and a product of matrices."""
    cells, pairs = shape.batch * shape.height * shape.width, shape.pairs()
    groups = 1 if operation == "plain" else shape.groups
    correlation = Work(
        itemsize * cells * (2 * shape.channels + groups * shape.disparities),
        itemsize * cells * (4 * shape.channels + groups * shape.disparities),
        2 * shape.channels * pairs,
        4 * shape.channels * pairs,
        matrix=operation == "plain",
    )
    each_way = itemsize * cells * (2 * shape.thin + 2 * shape.thin * shape.disparities)
    concatenation = Work(each_way, each_way, 0, 2 * shape.thin * pairs)
    if operation == "concatenation":
        return concatenation
    if operation != "combined":
        return correlation
    return Work(
        correlation.forward_bytes + concatenation.forward_bytes,
        correlation.backward_bytes + concatenation.backward_bytes,
        correlation.forward_flops,
        correlation.backward_flops + concatenation.backward_flops,
    )
