"""The learning rate over a run, as a factor of its peak."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["poly", "cosine", "constant", "step"]


def learning_rate_factor(step: int, steps: int, warmup_steps: int, decay: Decay, power: float = 0.9) -> float:
    """Factor for step 0 … steps−1: linear warm-up from 1/warmup_steps, then polynomial or half-cosine decay to 0,
    or a tenth after each quarter of the rest ("step")."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if decay == "poly":
        return (1.0 - progress) ** power
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if decay == "step":
        return 0.1 ** math.floor(4 * progress)
    return 1.0
