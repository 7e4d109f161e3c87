"""A launch as the model sees it: what it moves and computes, and how long the GPU takes for that at the least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from adu_kernels.testing.fake_cuda.recorder import TensorInfo
from adu_kernels.testing.gpu_specs import COPY_SHARE, MATRIX_SHARE, Gpu

LAYOUT_SHARE = 0.4
"""Of a copy's rate, where one side is strided. An assumption."""
REACHED = 0.6
"""Of the rate of a large matrix product that convolutions and products of everyday sizes reach. An assumption."""

Unit = Literal["matrix", "tf32", "vector", "issue"]


@dataclass(frozen=True)
class Launch:
    """A kernel, or `count` alike. kind: what the table calls it. padded: operations with what tiles waste.

    share: of a copy's rate that its bytes move at. reached: of the unit's rate. cycles: it takes at least so many.
    """

    kind: str
    bytes: float = 0.0
    flops: float = 0.0
    unit: Unit = "vector"
    padded: float = 0.0
    share: float = 1.0
    reached: float = REACHED
    cycles: float = 0.0
    count: int = 1

    def least(self, gpu: Gpu) -> float:
        """Seconds."""
        return max(self.bytes / (COPY_SHARE * gpu.bandwidth), self.flops / rate(gpu, self.unit))

    def likely(self, gpu: Gpu) -> float:
        """Seconds."""
        moving = self.bytes / (self.share * COPY_SHARE * gpu.bandwidth)
        computing = max(self.padded, self.flops) / (self.reached * rate(gpu, self.unit))
        return max(moving, computing, self.cycles / gpu.clock)


def rate(gpu: Gpu, unit: Unit) -> float:
    """Operations a second."""
    if unit == "issue":
        return gpu.issue
    if unit == "vector":
        return gpu.vector
    return MATRIX_SHARE * gpu.matrix / (2 if unit == "tf32" else 1)


def size(tensors: Sequence[TensorInfo]) -> float:
    return float(sum(t.bytes for t in tensors))


def full(tensor: TensorInfo) -> int:
    """Elements, repeated ones too."""
    return prod(tensor.shape)


def relayout(tensor: TensorInfo) -> Launch:
    """The copy to another layout that a kernel's caller makes first."""
    return Launch("layout", 2.0 * tensor.bytes, share=LAYOUT_SHARE)
