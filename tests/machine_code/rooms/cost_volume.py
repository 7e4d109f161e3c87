"""The cost volumes at the size of a teacher's crop, in the layouts and options a user would have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adu_kernels import combined_volume, concatenation_volume, correlation_volume, groupwise_correlation_volume
from tests.machine_code.room import Case, Room

CHANNELS, GROUPS, DISPARITIES, THIN = 320, 40, 48, 12


def _maps(channels: int, dtype: torch.dtype, height: int, width: int, count: int, last: bool = True) -> list[Tensor]:
    layout = torch.channels_last if last else torch.contiguous_format
    made = (torch.empty(1, channels, height, width, dtype=dtype).to(memory_format=layout) for _ in range(count))
    return [m.requires_grad_() for m in made]


def _both_ways(volume: Tensor, maps: list[Tensor]) -> None:
    layout = torch.preserve_format
    torch.autograd.grad(volume, maps, torch.empty_like(volume, memory_format=layout))


def groupwise(dtype: torch.dtype, last: bool = True, height: int = 64, width: int = 128, **options: Any) -> None:
    maps = _maps(CHANNELS, dtype, height, width, 2, last)
    _both_ways(groupwise_correlation_volume(*maps, DISPARITIES, GROUPS, backend="triton", **options), maps)


def plain(dtype: torch.dtype, last: bool = True, height: int = 64, width: int = 128, **options: Any) -> None:
    maps = _maps(CHANNELS, dtype, height, width, 2, last)
    _both_ways(correlation_volume(*maps, DISPARITIES, backend="triton", **options), maps)


def concatenation(dtype: torch.dtype, last: bool = True, height: int = 64, width: int = 128) -> None:
    maps = _maps(32, dtype, height, width, 2, last)
    _both_ways(concatenation_volume(*maps, DISPARITIES, backend="triton"), maps)


def combined(dtype: torch.dtype, last: bool = True, height: int = 64, width: int = 128, **options: Any) -> None:
    maps = [*_maps(CHANNELS, dtype, height, width, 2, last), *_maps(THIN, dtype, height, width, 2, last)]
    _both_ways(combined_volume(*maps, DISPARITIES, GROUPS, backend="triton", **options), maps)


def at_size(height: int, width: int) -> None:
    combined(torch.bfloat16, height=height, width=width)
    plain(torch.bfloat16, height=height, width=width)


HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
ROOM = Room(
    "cost_volume",
    (
        Case("groupwise bfloat16", lambda: groupwise(HALF)),
        Case("groupwise float32", lambda: groupwise(SINGLE)),
        Case("groupwise bfloat16 contiguous", lambda: groupwise(HALF, last=False)),
        Case("groupwise bfloat16 cosine", lambda: groupwise(HALF, normalize="group", reduction="sum")),
        Case("groupwise bfloat16 cosine over all", lambda: groupwise(HALF, normalize="all")),
        Case("combined bfloat16", lambda: combined(HALF)),
        Case("combined float64", lambda: combined(DOUBLE), double=True),
        Case("concatenation bfloat16", lambda: concatenation(HALF)),
        Case("plain bfloat16", lambda: plain(HALF)),
        Case("plain bfloat16 contiguous", lambda: plain(HALF, last=False)),
        Case("plain float32", lambda: plain(SINGLE)),
        Case("plain float64", lambda: plain(DOUBLE), double=True),
        Case("plain bfloat16 cosine", lambda: plain(HALF, normalize="all")),
    ),
    at_size,
)
