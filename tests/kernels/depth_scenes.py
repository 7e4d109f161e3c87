"""Inputs of the per-pixel losses for their tests."""

from __future__ import annotations

import torch
from torch import Tensor


def as_map(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def scene(
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, ...] = (3, 1, 4, 5),
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """depth, log_scale, teacher_depth, target: B×1×H×W, targets sparse, teachers nearly dense. device: where they lie;
    None: where tensors are made by default."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 1 + 60 * torch.rand(4, *shape, generator=generator, dtype=torch.float64, device="cpu")
    log_scale = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    depth, teacher, target, keep = drawn
    target = torch.where(keep < 30, target, 0)
    teacher = torch.where(keep > 10, teacher, 0)
    made = (t.to(dtype=dtype, device=device or torch.get_default_device()) for t in (depth, log_scale, teacher, target))
    depth, log_scale, teacher, target = made
    return depth.requires_grad_(), log_scale.requires_grad_(), teacher, target
