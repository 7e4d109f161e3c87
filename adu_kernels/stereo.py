"""What the operations on a rectified pair of feature maps share: options, checks, which implementation runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import checks
from .backend import dispatch

REDUCTIONS = ("mean", "sum", "sqrt")
VIEWS = ("left", "right")


def check_pair(left_name: str, left: Any, right_name: str, right: Any) -> None:
    """Two B×C×H×W maps of one shape, dtype and device."""
    checks.check_tensor(left_name, left, "B×C×H×W")
    checks.check_tensor(right_name, right, "B×C×H×W")
    checks.check_same_shape(right_name, right, left_name, left)
    checks.check_same_dtype(right_name, right, left_name, left)
    checks.check_same_device(right_name, right, left_name, left)


def channels_per_group(channels: int, num_groups: int) -> int:
    """K = C / G, a ValueError that names both where G does not divide C."""
    if channels % num_groups != 0:
        raise ValueError(f"num_groups: expected a divisor of the {channels} channels of left, got {num_groups}")
    return channels // num_groups


def reduction_factor(reduction: str, per_group: int) -> float:
    """What a sum of products over a group is multiplied by."""
    return {"mean": 1.0 / per_group, "sum": 1.0, "sqrt": per_group**-0.5}[reduction]


def view_sign(view: str) -> int:
    """The other map is read at column − sign·d."""
    return 1 if view == "left" else -1


def runs_kernels(operation: str, backend: str, tensor: Tensor) -> bool:
    """Which implementation `dispatch` takes."""
    return dispatch(operation, backend, tensor, torch_twin=lambda: False, triton_twin=lambda: True)()
