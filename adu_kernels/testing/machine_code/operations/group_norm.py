"""Group normalisation of aggregated volumes and of feature maps, forward and backward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .... import cosine_features, group_norm
from ....group_norm import table, unit_launch
from ..cases import Case, OperationCases, Work

BATCH, CHANNELS, GROUPS, DEPTH, HEIGHT, WIDTH = 1, 32, 8, 48, 64, 128
HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


def _map(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    layout = torch.contiguous_format
    if last:
        layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    return torch.empty(shape, dtype=dtype).to(memory_format=layout)


def train(
    dtype: torch.dtype, shape: tuple[int, ...], groups: int = GROUPS, *,
    last: bool = True, residual: bool = False, activation: str = "relu",
) -> None:  # fmt: skip
    x = _map(shape, dtype, last).requires_grad_()
    weight, bias = (torch.empty(shape[1], requires_grad=True) for _ in range(2))
    more = [_map(shape, dtype, last).requires_grad_()] if residual else []
    y = group_norm(x, groups, weight, bias, activation=activation, residual=more[0] if more else None, backend="triton")
    torch.autograd.grad(y, [x, weight, bias, *more], torch.empty_like(y))


VOLUME = (BATCH, CHANNELS, DEPTH, HEIGHT, WIDTH)


def _cut(row: table.LaunchShape, shape: tuple[int, ...], groups: int, last: bool) -> table.Cut:
    x = torch.empty(shape, device="meta")
    tile = table.tile_of(x, groups, row.elements, last)
    return table.cut_of(row, tile, shape[0], groups, math.prod(shape[2:]))


def work(
    itemsize: int, residual: bool = False, shape: tuple[int, ...] = VOLUME, groups: int = GROUPS, last: bool = True
) -> dict[str, Work]:
    """ "Least bytes" of the operation's README, each kernel by itself: nothing is found in a cache."""
    values, x = math.prod(shape), itemsize * math.prod(shape)
    statistics, per_group, per_channel = 12 * shape[0] * groups, 8 * shape[0] * groups, 8 * shape[0] * shape[1]
    parameters = 8 * shape[1]
    parts = 16 * shape[0] * groups * _cut(table.STATISTICS, shape, groups, last).chunks
    sums = per_channel * _cut(table.GRADIENT_SUMS, shape, groups, last).chunks
    signs = values // 8 if residual else 0
    return {
        "statistics": Work(x, parts, flops=3 * values),
        "join": Work(parts, statistics),
        "normalise": Work(
            x * (1 + residual) + parameters + parts, x + signs + statistics, flops=(3 + residual) * values
        ),
        "gradient_sums": Work(2 * x + signs + parameters + statistics, x * residual + sums, flops=7 * values),
        "totals": Work(sums + parameters // 2, per_group + per_channel),
        "input_gradient": Work(
            2 * x + parameters + statistics + per_group + per_channel, x + parameters, flops=8 * values
        ),
    }


FEATURES, WIDER, MAPS = (2, 320, 64, 128), (2, 64, 24, 32, 64), (2, 48, 96, 312)


def _some(found: dict[str, Work]) -> dict[str, Work]:
    """Where groups are few: without `join`."""
    return {kernel: one for kernel, one in found.items() if kernel != "join"}


def features_work(itemsize: int) -> dict[str, Work]:
    """A channel is a group; nothing of the normalised map is kept."""
    values, x, channels = math.prod(FEATURES), itemsize * math.prod(FEATURES), FEATURES[1]
    statistics, per_channel = 12 * FEATURES[0] * channels, 8 * FEATURES[0] * channels
    tile = unit_launch._tile(unit_launch.UNIT_SUMS, torch.empty(FEATURES, device="meta"))
    chunks = table.cut_of(unit_launch.UNIT_SUMS, tile, FEATURES[0], channels, math.prod(FEATURES[2:])).chunks
    shared = work(itemsize, shape=FEATURES, groups=channels)
    return {
        "statistics": shared["statistics"],
        "join": shared["join"],
        "unit_length": Work(x + statistics, x, flops=5 * values),
        "unit_gradient_sums": Work(2 * x + statistics, per_channel * chunks, flops=12 * values),
        "totals": Work(per_channel * chunks, 2 * per_channel),
        "unit_input_gradient": Work(2 * x + statistics + per_channel, x, flops=13 * values),
    }


def features(dtype: torch.dtype, shape: tuple[int, ...], last: bool = True) -> None:
    x = _map(shape, dtype, last).requires_grad_()
    y = cosine_features(x, backend="triton")
    torch.autograd.grad(y, x, torch.empty_like(y))


def at_size(height: int, width: int) -> None:
    """Contiguous: channels-last is compiled once, for its channels alone say how wide it loads."""
    train(SINGLE, (BATCH, CHANNELS, height, width), last=False)


OPERATION = OperationCases(
    name="group_norm",
    cases=(
        Case("bfloat16", lambda: train(HALF, VOLUME), work=_some(work(2))),
        Case("bfloat16 residual", lambda: train(HALF, VOLUME, residual=True), work=_some(work(2, True))),
        Case("bfloat16 no activation", lambda: train(HALF, VOLUME, activation="none"), work=_some(work(2))),
        Case("bfloat16 contiguous", lambda: train(HALF, VOLUME, last=False), work=_some(work(2, last=False))),
        Case("float32", lambda: train(SINGLE, VOLUME), work=_some(work(4))),
        Case("float32 residual", lambda: train(SINGLE, VOLUME, residual=True), work=_some(work(4, True))),
        Case("bfloat16 C 64", lambda: train(HALF, WIDER), work=_some(work(2, shape=WIDER))),
        Case("bfloat16 instance norm", lambda: train(HALF, FEATURES, 320), work=work(2, shape=FEATURES, groups=320)),
        Case("bfloat16 C 48", lambda: train(HALF, MAPS), work=_some(work(2, shape=MAPS))),
        Case("cosine features bfloat16", lambda: features(HALF, FEATURES), work=features_work(2)),
        Case("cosine features float32", lambda: features(SINGLE, FEATURES), work=features_work(4)),
        Case("float64", lambda: train(DOUBLE, (1, 32, 12, 16)), double=True),
    ),
    at_size=at_size,
    size=f"{BATCH}×{CHANNELS}×{DEPTH}×{HEIGHT}×{WIDTH}, {GROUPS} groups",
)
