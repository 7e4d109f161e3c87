"""How the kernels walk through a level: which axis their lanes follow, how wide they load, which cells nest.

Nothing here needs Triton, reads a value or measures anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._triton import runtime
from .._triton.layout import INT32_LIMIT, ceil_div, needs_int64

WIDE_LOAD = 16
"""Bytes a thread loads at once where the layout allows it."""


@dataclass(frozen=True)
class _Shape:
    threads: int

    @property
    def warps(self) -> int:
        return self.threads // runtime.WARP_SIZE


@dataclass(frozen=True)
class LossShape(_Shape):
    """How a program of the loss and of its gradient is cut."""

    last_lanes: int
    """Vectors of a channels-last tile."""
    last_tiles: int
    """Tiles a channels-last program visits."""
    first_lanes: int
    """Vectors side by side of a channels-first block."""
    first_channels: int
    """Channels a channels-first program walks through."""
    unroll: int
    """Of them, under way at once."""
    narrow: int
    """Elements of each map a thread has under way where rows start anywhere."""


@dataclass(frozen=True)
class FinishShape(_Shape):
    values: int
    """Partial sums that are added at once."""


@dataclass(frozen=True)
class PoolShape(_Shape):
    columns: int
    """Pixels across of a tile of nested cells; it is as high as the coarsest cell."""
    cells: int
    """Cells of a program where they do not nest."""
    span: int
    """Columns of each of these read at a time."""


# Chosen from the machine code (README), no row is measured yet. Both layouts have 128 bytes per thread under way: four
# vectors of each map. 16 channels: the weights, read once for all of them, are 6 % of what a 2-byte program reads.
# Narrow loads: with 32 under way in place of 16 the sums need 163 registers in place of 128.
LOSS = LossShape(threads=128, last_lanes=512, last_tiles=4, first_lanes=128, first_channels=16, unroll=4, narrow=16)
FINISH = FinishShape(threads=256, values=2048)
POOL = PoolShape(threads=128, columns=128, cells=16, span=32)
LARGEST_CELL = 64
"""Beyond it a tile of nested cells would not stay in registers."""


@dataclass(frozen=True)
class Level:
    """One level as the kernels see it: positions in at most three axes, outermost first, and strides along them."""

    sizes: tuple[int, int, int]
    channels: int
    strides: tuple[tuple[int, ...], ...]
    """Of adapted, teacher, (gradient): three of positions, then the channels'. Of the weight, last: three."""
    channels_last: bool
    vector: int
    """Elements of a wide load; channels-first: where `wide` says so, else 1."""
    wide: bool

    @property
    def flat(self) -> bool:
        """All positions lie at one stride."""
        return self.sizes[:2] == (1, 1)

    @property
    def positions(self) -> int:
        return self.sizes[0] * self.sizes[1] * self.sizes[2]

    @property
    def lanes(self) -> int:
        return LOSS.last_lanes if self.channels_last else LOSS.first_lanes

    @property
    def programs(self) -> int:
        if self.channels_last:
            return ceil_div(self.positions * (self.channels // self.vector), LOSS.last_lanes * LOSS.last_tiles)
        blocks = ceil_div(self.positions, LOSS.first_lanes * self.vector)
        return blocks * ceil_div(self.channels, LOSS.first_channels)


def level(maps: Sequence[Tensor], weight: Tensor | None) -> Level:
    """maps: adapted, teacher, and in the backward the gradient, all B×C×H×W. weight: B×1×H×W."""
    adapted = maps[0]
    channels = adapted.shape[1]
    shape = (adapted.shape[0], *adapted.shape[2:])
    strides: list[tuple[int, ...]] = [(m.stride(0), m.stride(2), m.stride(3)) for m in maps]
    strides.append((0, 0, 0) if weight is None else (weight.stride(0), weight.stride(2), weight.stride(3)))
    sizes, strides = _merged(shape, strides)
    own, across = strides[:-1], [m.stride(1) for m in maps]
    vector = WIDE_LOAD // max(m.element_size() for m in maps)
    channels_last = channels > 1 and adapted.stride(1) == 1
    if channels_last:
        steps = [channels, *(s for one in own for s in one)]
        wide = all(s == 1 for s in across) and _divides(vector, steps)
        vector = vector if wide else 1
    else:
        steps = [sizes[2], *across, *(s for one in strides for s in one[:2])]
        wide = all(one[2] == 1 for one in (own if weight is None else strides)) and _divides(vector, steps)
    full = [(*one, c) for one, c in zip(own, across, strict=True)]
    return Level(sizes, channels, (*full, strides[-1]), channels_last, vector, wide)


def constants(levels: Sequence[Level], tensors: Sequence[Tensor], weighted: bool) -> dict[str, Any]:
    """What the kernels are compiled for, but for the accumulator's type."""
    return {
        "LEVELS": len(levels),
        "CHANNELS": tuple(one.channels for one in levels),
        "LAST": tuple(one.channels_last for one in levels),
        "VECTOR": tuple(one.vector for one in levels),
        "LANES": tuple(one.lanes for one in levels),
        "TILES": LOSS.last_tiles,
        "CHUNK": LOSS.first_channels,
        "UNROLL": LOSS.unroll,
        "NARROW": LOSS.narrow,
        "WEIGHTED": weighted,
        "FLAT": all(one.flat for one in levels if one.channels_last),
        "INT64": needs_int64(tensors) or any(one.positions * one.channels >= INT32_LIMIT for one in levels),
    }


Numbers = tuple[tuple[int, ...], ...]


def passed(levels: Sequence[Level]) -> tuple[Numbers, ...]:
    """What varies with the image, per level: the shape (see kernels.py), then each map's strides, then the weight's."""
    shapes, first = [], 0
    for one in levels:
        shapes.append((first, *one.sizes, one.vector if one.wide else 0))
        first += one.programs
    return tuple(encoded(numbers) for numbers in (shapes, *zip(*(one.strides for one in levels), strict=True)))


def spans(levels: Sequence[Level]) -> Numbers:
    """Per level its first program, one past its last, and its elements."""
    found, first = [], 0
    for one in levels:
        found.append((first, first + one.programs, one.positions * one.channels))
        first += one.programs
    return encoded(found)


def encoded(numbers: Iterable[Iterable[int]]) -> Numbers:
    """Numbers a kernel takes in tuples, as 2n + 3: `decoded` in kernels.py turns them back.

    In tuples Triton compiles anew for a 1 and for what 16 divides, `do_not_specialize` or not; odd numbers from 3 on
    are neither.
    """
    return tuple(tuple(2 * number + 3 for number in one) for one in numbers)


def _merged(
    sizes: Sequence[int], strides: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, int, int], list[tuple[int, ...]]]:
    """Position axes with neighbours made one where no tensor has a gap between them; three again, 1s in front."""
    axes: list[tuple[int, list[int]]] = []
    for axis, size in enumerate(sizes):
        steps = [one[axis] for one in strides]
        if size == 1:
            continue
        if axes and axes[-1][1] == [size * step for step in steps]:
            axes[-1] = (axes[-1][0] * size, steps)
        else:
            axes.append((size, steps))
    axes = [(1, [0] * len(strides))] * (3 - len(axes)) + axes
    a, b, c = (size for size, _ in axes)
    return (a, b, c), [tuple(steps[number] for _, steps in axes) for number in range(len(strides))]


def nested_cells(image: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The order of `sizes`, finest first, if each is the image over a power of two up to LARGEST_CELL; else nothing."""
    cells = [image[0] // size[0] for size in sizes]
    for size, k in zip(sizes, cells, strict=True):
        if not 1 <= k <= LARGEST_CELL or k & (k - 1) or (size[0] * k, size[1] * k) != image:
            return []
    return sorted(range(len(sizes)), key=cells.__getitem__)


def row_vector(weight: Tensor) -> int:
    """Elements that load at once along the rows of a B×1×H×W map."""
    vector = WIDE_LOAD // weight.element_size()
    steps = [weight.shape[3], *(weight.stride(axis) for axis in (0, 2) if weight.shape[axis] > 1)]
    return vector if weight.stride(3) == 1 and _divides(vector, steps) else 1


def _divides(vector: int, numbers: Sequence[int]) -> bool:
    return all(number % vector == 0 for number in numbers)
