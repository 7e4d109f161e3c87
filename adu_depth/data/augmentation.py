"""Changes to a batch that keep its geometry true, a function of (seed, step, process): a resumed run repeats them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adu_depth.errors import InputError


@dataclass(frozen=True)
class AugmentationConfig:
    """Probabilities per image and the range of the colour changes (BTS's and Monodepth's values)."""

    flip: float = 0.5
    """The student sees the mirrored left view; the teacher never does, its outputs are mirrored instead."""
    colour: float = 0.5
    """Gamma, brightness and per-channel gain, each factor from [1 − strength, 1 + strength]."""
    strength: float = 0.1

    def __post_init__(self) -> None:
        for name in ("flip", "colour"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation.{name} is a probability, 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.strength < 1:
            raise InputError(f"augmentation.strength must be at least 0 and below 1, got {self.strength}")


def draw_seed(seed: int, step: int, rank: int = 0) -> int:
    """One number from these three, unlike those of other steps and ranks."""
    return (seed * 1_000_003 + step) * 4099 + rank


def draw_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """A CPU generator that depends on these three numbers and on nothing else."""
    return torch.Generator().manual_seed(draw_seed(seed, step, rank))


def draw_flips(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Which images of a batch to mirror: bool, shape B."""
    return torch.rand(count, generator=generator) < probability


def flip_where(maps: Tensor, flips: Tensor) -> Tensor:
    """Mirrors the columns of those of B×C×H×W maps whose flag (bool, shape B, on the same device) is set."""
    return torch.where(flips.reshape(-1, 1, 1, 1), maps.flip(-1), maps)


def colour_jitter(images: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Gamma, brightness and channel gains of B×3×H×W images in [0, 1], each image its own; stays in [0, 1]."""
    count = images.shape[0]
    applied = (torch.rand(count, 1, generator=generator) < config.colour).float()
    factors = 1 + config.strength * applied * (2 * torch.rand(count, 5, generator=generator) - 1)
    factors = factors.to(images.device, images.dtype, non_blocking=True).reshape(count, 5, 1, 1)
    gamma, gain = factors[:, 0:1], factors[:, 1:2] * factors[:, 2:5]
    return (images.pow(gamma) * gain).clamp(0, 1)
