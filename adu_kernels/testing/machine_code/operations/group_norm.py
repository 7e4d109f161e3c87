"""Group normalisation of aggregated volumes and of feature maps, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from .... import cosine_features, group_norm
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


def work(itemsize: int, residual: bool = False, chunks: int = 512) -> dict[str, Work]:
    """ "Least bytes" of the operation's README, each kernel by itself: nothing is found in a cache.

    chunks: into which `gradient_sums` cuts the positions."""
    values = BATCH * CHANNELS * DEPTH * HEIGHT * WIDTH
    x, signs = itemsize * values, values // 8 if residual else 0
    return {
        "statistics": Work(x, 0, flops=3 * values),
        "normalise": Work(x * (1 + residual), x + signs, flops=(3 + residual) * values),
        "gradient_sums": Work(2 * x + signs, x * residual, flops=7 * values),
        "totals": Work(4 * (2 * chunks + 1) * CHANNELS, 8 * (GROUPS + CHANNELS)),
        "input_gradient": Work(2 * x, x, flops=8 * values),
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
        Case("bfloat16", lambda: train(HALF, VOLUME), work=work(2)),
        Case("bfloat16 residual", lambda: train(HALF, VOLUME, residual=True), work=work(2, True)),
        Case("bfloat16 no activation", lambda: train(HALF, VOLUME, activation="none"), work=work(2)),
        Case("bfloat16 contiguous", lambda: train(HALF, VOLUME, last=False), work=work(2, chunks=256)),
        Case("float32", lambda: train(SINGLE, VOLUME), work=work(4)),
        Case("float32 residual", lambda: train(SINGLE, VOLUME, residual=True), work=work(4, True)),
        Case("bfloat16 C 64", lambda: train(HALF, (2, 64, 24, 32, 64))),
        Case("bfloat16 instance norm", lambda: train(HALF, (2, 320, 64, 128), 320)),
        Case("bfloat16 C 48", lambda: train(HALF, (2, 48, 96, 312))),
        Case("cosine features bfloat16", lambda: features(HALF, (2, 320, 64, 128))),
        Case("cosine features float32", lambda: features(SINGLE, (2, 320, 64, 128))),
        Case("float64", lambda: train(DOUBLE, (1, 32, 12, 16)), double=True),
    ),
    at_size=at_size,
    size=f"{BATCH}×{CHANNELS}×{DEPTH}×{HEIGHT}×{WIDTH}, {GROUPS} groups",
)
