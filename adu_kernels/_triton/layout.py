"""How tensors lie in memory, as launches must know it. Nothing here needs Triton."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

INT32_LIMIT = 2**31
MOST_LAYOUTS = 1024
"""That are remembered of one kind of launch, before all are forgotten."""
WIDEST_VECTOR = 16
"""Elements; what a stride is a multiple of beyond this changes no load."""


def ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def power_of_two(number: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << max(number - 1, 0).bit_length()


def is_channels_last(features: Tensor) -> bool:
    """Whether a B×C×H×W map has its channels next to each other in memory (slices of such a map too)."""
    return features.shape[1] > 1 and features.stride(1) == 1 and not features.is_contiguous()


def empty_like_map(features: Tensor) -> Tensor:
    """Unwritten memory for a B×C×H×W map's gradient: channels-last where the map is, else contiguous."""
    layout = torch.channels_last if is_channels_last(features) else torch.contiguous_format
    return torch.empty_like(features, memory_format=layout)


def needs_int64(tensors: Sequence[Tensor]) -> bool:
    """Whether an element of one of the tensors lies 2³¹ elements or further from its first."""
    return any(reach(t.shape, t.stride()) >= INT32_LIMIT for t in tensors)


def reach(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from a tensor's first to the one that lies furthest from it, in memory."""
    return sum((size - 1) * abs(stride) for size, stride in zip(shape, strides, strict=True))


def unit_stride(tensors: Sequence[Tensor], axis: int) -> bool:
    """Whether neighbours along the axis are neighbours in memory, in each of the tensors."""
    return all(t.shape[axis] == 1 or t.stride(axis) == 1 for t in tensors)


def stride_divisor(tensors: Sequence[Tensor], unit_axis: int) -> int:
    """The largest power of two up to 16 that divides every stride but the unit one; axes of size 1 do not count."""
    strides = [t.stride(axis) for t in tensors for axis in range(t.dim()) if axis != unit_axis and t.shape[axis] > 1]
    return math.gcd(WIDEST_VECTOR, *strides)


def divided_strides(tensors: Sequence[Tensor], divisor: int, unit_axis: int = 1) -> list[int]:
    """Strides of each tensor; all but the unit axis's in units of `divisor` elements, which divides them."""
    return [s if axis == unit_axis else s // divisor for t in tensors for axis, s in enumerate(t.stride())]


def by_layout(plan: Callable[P, R]) -> Callable[P, R]:
    """Remembers what `plan` says: of tensors it may read shape, strides and dtype alone, and nothing beside its
    arguments (a launch table may change: its row is handed in). All of the sizes of one call are then one look-up.
    `cache_clear`, as functools' caches have it, forgets all."""
    known: dict[Any, R] = {}

    @wraps(plan)
    def remembered(*arguments: P.args, **options: P.kwargs) -> R:
        key = (_described(arguments), *options.items())
        found = known.get(key)
        if found is None:
            if len(known) >= MOST_LAYOUTS:
                known.clear()
            found = known[key] = plan(*arguments, **options)
        return found

    remembered.cache_clear = known.clear  # type: ignore[attr-defined]
    return remembered


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if type(value) in (tuple, list):
        return tuple([_described(one) for one in value])
    if type(value) is dict:
        return tuple([(name, _described(one)) for name, one in value.items()])
    return value


class MapLayout(NamedTuple):
    """What a kernel is told, when it is compiled, of how maps lie in memory."""

    CONTIGUOUS_C: bool
    """The channels of a pixel are neighbours."""
    CONTIGUOUS_W: bool
    """The channels are not, the columns of a row are."""
    STRIDE_DIVISOR: int
    """The strides, but that of neighbouring channels, arrive in units of so many elements."""


def map_layout(maps: Sequence[Tensor]) -> MapLayout:
    """Of all of these B×C×H×W maps, or B×C×D×H×W volumes."""
    if unit_stride(maps, 1):
        return MapLayout(True, False, stride_divisor(maps, 1))
    return MapLayout(False, unit_stride(maps, -1), 1)


def merged_axes(
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
