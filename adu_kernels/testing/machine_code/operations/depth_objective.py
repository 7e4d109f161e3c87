"""The per-pixel losses at the size of a student's crop, forward and backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .... import depth_objective, focal_response_loss, laplace_nll, silog_loss, teacher_gate, uncertainty_guide
from ..cases import Case, OperationCases, Work

BATCH, HEIGHT, WIDTH = 2, 352, 1216
PER_PIXEL = {"statistics": 83, "values": 174}
"""Instructions in the loops of the objective in fp32 on sm_90, as the operation's README counts them."""


def _maps(dtype: torch.dtype, height: int = HEIGHT, width: int = WIDTH) -> list[Tensor]:
    return [torch.empty(BATCH, 1, height, width, dtype=dtype) for _ in range(4)]


def train(
    dtype: torch.dtype, height: int = HEIGHT, width: int = WIDTH, transposed: bool = False, **options: Any
) -> None:
    depth, log_scale, teacher, target = _maps(dtype, height, width)
    if transposed:
        teacher = torch.empty(BATCH, 1, width, height, dtype=dtype).mT
    leaves = [depth.requires_grad_(), log_scale.requires_grad_()]
    torch.autograd.grad(depth_objective(*leaves, teacher, target, backend="triton", **options).total, leaves)


def train_alone(dtype: torch.dtype) -> None:
    depth, log_scale, _, target = _maps(dtype)
    leaves = [depth.requires_grad_(), log_scale.requires_grad_()]
    torch.autograd.grad(depth_objective(*leaves, None, target, backend="triton").total, leaves)


def evaluate(dtype: torch.dtype) -> None:
    depth_objective(*_maps(dtype), backend="triton")


def silog(dtype: torch.dtype) -> None:
    depth, _, _, target = _maps(dtype)
    torch.autograd.grad(silog_loss(depth.requires_grad_(), target, backend="triton"), depth)


def laplace(dtype: torch.dtype) -> None:
    depth, log_scale, _, target = _maps(dtype)
    torch.autograd.grad(laplace_nll(depth, log_scale.requires_grad_(), target, backend="triton"), log_scale)


def focal(dtype: torch.dtype) -> None:
    depth, weight, teacher, _ = _maps(dtype)
    torch.autograd.grad(focal_response_loss(depth.requires_grad_(), teacher, weight, backend="triton"), depth)


def guide(dtype: torch.dtype) -> None:
    log_scale = _maps(dtype)[0]
    uncertainty_guide(log_scale, torch.empty(log_scale.shape, dtype=torch.bool), backend="triton")


def gate(dtype: torch.dtype) -> None:
    teacher_gate(*_maps(dtype)[:2], backend="triton")


def work(**bytes_per_pixel: tuple[int, int]) -> dict[str, Work]:
    """By kernel: bytes read and written per pixel; their sum is the table "Least work" of the operation's README."""
    pixels = BATCH * HEIGHT * WIDTH
    return {kernel: Work(read * pixels, written * pixels) for kernel, (read, written) in bytes_per_pixel.items()}


def counted() -> dict[str, Work]:
    pixels = BATCH * HEIGHT * WIDTH
    return {
        kernel: replace(row, instructions=PER_PIXEL[kernel] * pixels)
        for kernel, row in work(statistics=(16, 0), values=(16, 8)).items()
    }


HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
OBJECTIVE = work(statistics=(16, 0), values=(16, 8))
OPERATION = OperationCases(
    "depth_objective",
    (
        Case("float32", lambda: train(SINGLE), work=counted()),
        Case("bfloat16", lambda: train(HALF), work=work(statistics=(8, 0), values=(8, 8))),
        Case("float32 per image", lambda: train(SINGLE, normalize="image"), work=OBJECTIVE),
        Case("float32 joint", lambda: train(SINGLE, joint=True), work=OBJECTIVE),
        Case("float32 every option", lambda: train(SINGLE, joint=True, beta_nll=0.5, gamma=1.5), work=OBJECTIVE),
        Case("float32 any strides", lambda: train(SINGLE, transposed=True), work=OBJECTIVE),
        Case(
            "float32 without a teacher",
            lambda: train_alone(SINGLE),
            work=work(statistics=(8, 0), values=(12, 8)),
        ),
        Case("float32 without gradients", lambda: evaluate(SINGLE), work=work(statistics=(16, 0), values=(16, 0))),
        Case("float64", lambda: train(DOUBLE), double=True),
        Case("silog float32", lambda: silog(SINGLE), work=work(statistics=(8, 0), values=(8, 4))),
        Case("laplace float32", lambda: laplace(SINGLE), work=work(statistics=(4, 0), values=(12, 4))),
        Case("focal float32", lambda: focal(SINGLE), work=work(statistics=(4, 0), values=(12, 4))),
        Case("guide float32", lambda: guide(SINGLE), work=work(statistics=(5, 0), weights=(5, 4))),
        Case("gate float32", lambda: gate(SINGLE), work=work(weights=(8, 4))),
    ),
    lambda height, width: train(SINGLE, height, width, normalize="image"),
    counting=("values",),
    size=f"{BATCH}×1×{HEIGHT}×{WIDTH}",
)
