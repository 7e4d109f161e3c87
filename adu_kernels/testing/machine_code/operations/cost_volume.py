"""The cost volumes at the size of a teacher's crop, in the layouts and options a user would have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .... import (
    combined_volume,
    concatenation_volume,
    correlation_volume,
    groupwise_correlation_volume,
    volume_with_scores,
)
from ..cases import Case, OperationCases, Work, beyond_int32, in_parts

CHANNELS, GROUPS, DISPARITIES, THIN, CONCATENATED = 320, 40, 48, 12, 32
HEIGHT, WIDTH = 64, 128


def _maps(
    channels: int, dtype: torch.dtype, height: int, width: int, count: int, last: bool = True, far: bool = False
) -> list[Tensor]:
    if far:
        return beyond_int32(count, channels, height, width, dtype)
    layout = torch.channels_last if last else torch.contiguous_format
    made = (torch.empty(1, channels, height, width, dtype=dtype).to(memory_format=layout) for _ in range(count))
    return [m.requires_grad_() for m in made]


def _both_ways(volume: Tensor, maps: list[Tensor]) -> None:
    layout = torch.preserve_format
    torch.autograd.grad(volume, maps, torch.empty_like(volume, memory_format=layout))


def groupwise(dtype: torch.dtype, last: bool = True, height: int = HEIGHT, width: int = WIDTH, **options: Any) -> None:
    maps = _maps(CHANNELS, dtype, height, width, 2, last)
    _both_ways(groupwise_correlation_volume(*maps, DISPARITIES, GROUPS, backend="triton", **options), maps)


def plain(
    dtype: torch.dtype, last: bool = True, height: int = HEIGHT, width: int = WIDTH, disparities: int = DISPARITIES,
    far: bool = False, **options: Any,
) -> None:  # fmt: skip
    maps = _maps(CHANNELS, dtype, height, width, 2, last, far)
    _both_ways(correlation_volume(*maps, disparities, backend="triton", **options), maps)


def concatenation(dtype: torch.dtype, last: bool = True, height: int = HEIGHT, width: int = WIDTH) -> None:
    maps = _maps(CONCATENATED, dtype, height, width, 2, last)
    _both_ways(concatenation_volume(*maps, DISPARITIES, backend="triton"), maps)


def combined(
    dtype: torch.dtype, last: bool = True, height: int = HEIGHT, width: int = WIDTH, far: bool = False, **options: Any
) -> None:
    maps = [*_maps(CHANNELS, dtype, height, width, 2, last, far), *_maps(THIN, dtype, height, width, 2, last, far)]
    _both_ways(combined_volume(*maps, DISPARITIES, GROUPS, backend="triton", **options), maps)


def with_scores(dtype: torch.dtype, last: bool = True, **options: Any) -> None:
    maps = [*_maps(CHANNELS, dtype, HEIGHT, WIDTH, 2, last), *_maps(THIN, dtype, HEIGHT, WIDTH, 2, last)]
    outputs = volume_with_scores(*maps, DISPARITIES, GROUPS, backend="triton", **options)
    given = [torch.empty_like(o, memory_format=torch.preserve_format) for o in outputs]
    torch.autograd.grad(outputs, maps, given)


def at_size(height: int, width: int) -> None:
    combined(torch.bfloat16, height=height, width=width)
    plain(torch.bfloat16, height=height, width=width)


def work(
    itemsize: int, channels: int = 0, groups: int = 0, thin: int = 0, *, disparities: int = DISPARITIES,
    normalized: bool = False, matrix: tuple[bool, bool] = (False, False), counted: bool = False, batch: int = 1,
    kernels: tuple[str, str] = ("volume_forward", "volume_backward"),
) -> dict[str, Work]:  # fmt: skip
    """The table "Least work" of the operation's README, and its instructions per cell where it has counted them.

    normalized: two squares and a product per channel for either map's norm; matrix: forward, backward.
    """
    pixels = batch * HEIGHT * WIDTH
    pairs = batch * HEIGHT * sum(max(WIDTH - d, 0) for d in range(disparities))
    maps = 2 * itemsize * pixels * (channels + thin)
    volume = itemsize * pixels * (groups + 2 * thin) * disparities
    norms = 4 * channels * pixels if normalized else 0
    cells = pixels * groups * disparities if counted else 0
    read_again = 2 * itemsize * pixels * channels  # the gradient of a concatenation needs no map
    return {
        kernels[0]: Work(maps, volume, 2 * channels * pairs + norms, matrix[0], instructions=round(21.5 * cells)),
        kernels[1]: Work(
            read_again + volume, maps, (4 * channels + 2 * thin) * pairs + 2 * norms, matrix[1],
            instructions=45 * cells,
        ),
    }  # fmt: skip


def scores_work(itemsize: int, matrix: bool = True) -> dict[str, Work]:
    """Of maps of 2 bytes the scores are a correlation of their own, on matrix units."""
    scores = itemsize * HEIGHT * WIDTH * DISPARITIES
    found = work(itemsize, CHANNELS, GROUPS, THIN)
    backward = found["volume_backward"]
    found["volume_backward"] = replace(backward, read=backward.read + scores)
    if matrix:
        found |= {"band_forward": work(itemsize, CHANNELS, 1, matrix=(True, False))["volume_forward"]}
    return found


GROUPWISE = {"channels": CHANNELS, "groups": GROUPS}
PLAIN: dict[str, Any] = {"channels": CHANNELS, "groups": 1, "kernels": ("band_forward", "band_backward")}
UNITS = {"matrix": (True, True)}
HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
OPERATION = OperationCases(
    "cost_volume",
    (
        Case("groupwise bfloat16", lambda: groupwise(HALF), work=work(2, **GROUPWISE, counted=True)),
        Case("groupwise float32", lambda: groupwise(SINGLE), work=work(4, **GROUPWISE, counted=True)),
        Case("groupwise bfloat16 contiguous", lambda: groupwise(HALF, last=False), work=work(2, **GROUPWISE)),
        Case(
            "groupwise bfloat16 cosine",
            lambda: groupwise(HALF, normalize="group", reduction="sum"),
            work=work(2, **GROUPWISE, normalized=True),
        ),
        Case(
            "groupwise bfloat16 cosine over all",
            lambda: groupwise(HALF, normalize="all"),
            work=work(2, **GROUPWISE, normalized=True),
        ),
        Case("combined bfloat16", lambda: combined(HALF), work=work(2, **GROUPWISE, thin=THIN)),
        Case("combined bfloat16 with scores", lambda: with_scores(HALF), work=scores_work(2)),
        Case("combined float32 with scores", lambda: with_scores(SINGLE), work=scores_work(4, matrix=False)),
        Case(
            "combined bfloat16 beyond int32",
            lambda: combined(HALF, far=True),
            work=work(2, **GROUPWISE, thin=THIN, batch=3),
        ),
        Case("combined float64", lambda: combined(DOUBLE), double=True),
        Case("concatenation bfloat16", lambda: concatenation(HALF), work=work(2, thin=CONCATENATED)),
        Case("plain bfloat16", lambda: plain(HALF), work=work(2, **PLAIN, **UNITS)),
        Case(
            "plain bfloat16 few disparities",
            lambda: plain(HALF, disparities=24),
            work=work(2, **PLAIN, **UNITS, disparities=24),
        ),
        Case("plain bfloat16 beyond int32", lambda: plain(HALF, far=True), work=work(2, **PLAIN, **UNITS, batch=3)),
        Case("plain bfloat16 contiguous", lambda: plain(HALF, last=False), work=work(2, **PLAIN, **UNITS)),
        Case("plain float32", lambda: plain(SINGLE), work=in_parts(work(4, **PLAIN))),
        Case("plain float64", lambda: plain(DOUBLE), double=True),
        Case(
            "plain bfloat16 cosine",
            lambda: plain(HALF, normalize="all"),
            work=work(
                2,
                **PLAIN | {"kernels": ("band_forward", "volume_backward")},
                normalized=True,
                matrix=(True, False),
            ),
        ),
    ),
    at_size,
    size=f"1×{CHANNELS}×{HEIGHT}×{WIDTH}, G {GROUPS}, D {DISPARITIES}; concatenated 2×{THIN}, alone 2×{CONCATENATED}",
)
