"""The scale of an fp16 run's loss as named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.amp import GradScaler

from adu_depth.tensor_files import Form

SCALE, GROWTH = "scaler.scale", "scaler.growth_tracker"
"""The scale, and the steps since it last changed."""
FORMS = {SCALE: Form((), "F32"), GROWTH: Form((), "I32")}


def scaler_tensors(scaler: GradScaler) -> dict[str, Tensor]:
    state = scaler.state_dict()
    return {
        SCALE: torch.tensor(state["scale"], dtype=torch.float32, device="cpu"),
        GROWTH: torch.tensor(state["_growth_tracker"], dtype=torch.int32, device="cpu"),
    }


def scaler_faults(saved: Mapping[str, Tensor]) -> str:
    """What is wrong with a state of the right forms, in words; "" if nothing is."""
    scale, growth = float(saved[SCALE]), int(saved[GROWTH])
    if not 0 <= scale < float("inf"):
        return f"{SCALE}: expected a finite number of 0 or more, got {scale}"
    return "" if growth >= 0 else f"{GROWTH}: expected 0 or more, got {growth}"


def restore_scaler(scaler: GradScaler, saved: Mapping[str, Tensor]) -> None:
    state = scaler.state_dict() | {"scale": float(saved[SCALE]), "_growth_tracker": int(saved[GROWTH])}
    scaler.load_state_dict(state)
