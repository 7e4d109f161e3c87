"""The student's per-pixel losses. Least bytes: adu_kernels/depth_objective/README.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import adu_kernels
from adu_kernels import reference
from bench.harness.case import Call, Case, Work
from bench.harness.suite import Suite, labelled

FLOPS = {"depth objective": 60, "silog": 12, "laplace nll": 16, "focal response": 20}
"""Per pixel, both ways together, a logarithm or an exponential counted as one: for the roofline's place alone."""


@dataclass(frozen=True)
class Shape:
    """Of the maps."""

    batch: int
    height: int
    width: int


CROP = Shape(8, 256, 512)
KITTI = Shape(8, 384, 1248)
SMALL = Shape(2, 96, 320)
TINY = Shape(1, 5, 9)
OVERHEAD = Shape(1, 8, 8)


@dataclass(frozen=True)
class Loss:
    """Which maps a loss reads, and how often: values per pixel forward (read), backward (read and written)."""

    function: str
    maps: tuple[str, ...]
    gradients: int
    forward: int
    backward: int


# Where a slope depends on a sum over the batch, the maps are read twice (README): for the sums, then for the slopes.
LOSSES = {
    "depth objective": Loss("depth_objective", ("depth", "log_scale", "teacher_depth", "target"), 2, 10, 4),
    "silog": Loss("silog_loss", ("depth", "target"), 1, 4, 2),
    "laplace nll": Loss("laplace_nll", ("depth", "log_scale", "target"), 2, 3, 4),
    "focal response": Loss("focal_response_loss", ("depth", "teacher_depth"), 1, 2, 3),
}


@dataclass(frozen=True)
class DepthObjectiveBenchmark(Suite):
    """Supervision, uncertainty and response distillation of a depth map, together and one by one."""

    @property
    def name(self) -> str:
        return "depth-objective"

    def cases(self, size: str, device: torch.device) -> list[Case]:
        if size == "gpu":
            found = [loss_case("depth objective", KITTI, headline=True), loss_case("depth objective", CROP)]
            found += [loss_case(name, KITTI) for name in LOSSES if name != "depth objective"]
        else:
            found = [loss_case(name, SMALL if size == "small" else TINY) for name in LOSSES]
        return [*found, loss_case("depth objective", OVERHEAD, overhead=True)]


def loss_case(name: str, shape: Shape, *, headline: bool = False, overhead: bool = False) -> Case:
    loss = LOSSES[name]
    pixels = shape.batch * shape.height * shape.width
    return Case(
        name=f"{name}{' (call overhead)' if overhead else ''}, fp32, {labelled(B=shape.batch)}, "
        f"{shape.height}×{shape.width}",
        dtype=torch.float32,
        shape={**shape.__dict__},
        kernel=_in_order(getattr(adu_kernels, loss.function), loss.maps),
        reference=_in_order(getattr(reference, loss.function), loss.maps),
        draw=_maps(shape, loss),
        gradients=loss.gradients,
        work=Work(
            4 * loss.forward * pixels, 4 * loss.backward * pixels, FLOPS[name] // 2 * pixels, FLOPS[name] // 2 * pixels
        ),
        options={"joint": True} if name in ("depth objective", "laplace nll") else {},
        headline=headline,
        overhead=overhead,
    )


def _in_order(function: Call, names: Sequence[str]) -> Call:
    def call(*maps: Tensor, **options: object) -> object:
        return function(**dict(zip(names, maps, strict=True)), **options)

    return call


def _maps(shape: Shape, loss: Loss) -> Callable[[torch.device], list[Tensor]]:
    """Depths of a street: metres from 2 to 80; a LiDAR's target on 8 % of the pixels; every pixel taught."""

    def draw(device: torch.device) -> list[Tensor]:
        size = (shape.batch, 1, shape.height, shape.width)

        def depth() -> Tensor:
            return torch.exp(torch.empty(size, device=device).uniform_(0.7, 4.3))

        drawn = {
            "depth": depth(),
            "log_scale": torch.randn(size, device=device) - 1,
            "teacher_depth": depth(),
            "target": torch.where(torch.rand(size, device=device) < 0.08, depth(), 0.0),
        }
        return [drawn[name] for name in loss.maps]

    return draw
