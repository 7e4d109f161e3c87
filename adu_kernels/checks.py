"""Checks of what a caller gives. Every message names the argument, what was expected and what came.

They read types, shapes, dtypes and devices alone, never a tensor's values, so none waits for the GPU (but for a number
that is given as a tensor).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Weights = TypeVar("Weights", bound=tuple[float, ...])


def shown(shape: Sequence[int | str]) -> str:
    """A shape as it is written in messages: 2×3×4; a letter stands for any size."""
    return "×".join(str(n) for n in shape) or "a scalar"


def check_tensor(name: str, value: Any, layout: str, *other_layouts: str) -> None:
    """A floating tensor with as many dimensions as one of the layouts ("B×C×H×W") has, none of them empty.

    A "1" in a layout is a dimension that must be 1.
    """
    if not isinstance(value, Tensor):
        expected = " or ".join((layout, *other_layouts))
        raise TypeError(f"{name}: expected a tensor {expected}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")
    shape = value.shape
    if not (_fits(shape, layout) or any(_fits(shape, one) for one in other_layouts)):
        expected = " or ".join((layout, *other_layouts))
        raise ValueError(f"{name}: expected {expected}, got {shown(shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name}: expected at least one element per dimension, got {shown(shape)}")


def _fits(shape: Sequence[int], layout: str) -> bool:
    if len(shape) != layout.count("×") + 1:
        return False
    return "1" not in layout or all(axis != "1" or n == 1 for n, axis in zip(shape, layout.split("×"), strict=True))


def check_mask(name: str, value: Any, like_name: str, like: Tensor) -> None:
    """A bool tensor of the shape and on the device of `like`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a bool tensor, got {type(value).__name__}")
    if value.dtype != torch.bool:
        raise TypeError(f"{name}: expected a bool tensor, got {value.dtype}")
    check_same_shape(name, value, like_name, like)
    check_same_device(name, value, like_name, like)


def check_same_shape(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    if value.shape != like.shape:
        raise ValueError(f"{name}: expected the shape of {like_name}, {shown(like.shape)}, got {shown(value.shape)}")


def check_same_dtype(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    if value.dtype != like.dtype:
        raise TypeError(f"{name}: expected the dtype of {like_name}, {like.dtype}, got {value.dtype}")


def check_same_device(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    if value.device != like.device:
        raise ValueError(f"{name}: expected the device of {like_name}, {like.device}, got {value.device}")


def check_pair(left_name: str, left: Any, right_name: str, right: Any) -> None:
    """Two B×C×H×W maps of one shape, dtype and device."""
    check_tensor(left_name, left, "B×C×H×W")
    check_tensor(right_name, right, "B×C×H×W")
    check_same_shape(right_name, right, left_name, left)
    check_same_dtype(right_name, right, left_name, left)
    check_same_device(right_name, right, left_name, left)


def plain_number(value: Any) -> Any:
    """numpy's scalars, and arrays and tensors without dimensions, as Python's numbers; anything else as it is.

    A tensor's number is read, which waits for a GPU.
    """
    if type(value) in (int, float, bool):  # by far the most; the other questions cost as much as a check
        return value
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0):
        return value.item()
    return value


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """A whole number of at least `minimum`, of any kind that `plain_number` knows; it is returned as Python's."""
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int | torch.SymInt):
        raise TypeError(f"{name}: expected a whole number ≥ {minimum}, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name}: expected a whole number ≥ {minimum}, got {value}")
    return value  # type: ignore[return-value]  # traced, a size may be symbolic


def check_divides_channels(name: str, value: int, of_name: str, of: Tensor) -> None:
    channels = of.shape[1]
    if channels % value:
        raise ValueError(f"{name}: expected a divisor of {of_name}'s {channels} channels, got {value}")


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high], of any kind that `plain_number` knows; it is returned as Python's."""
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        raise TypeError(f"{name}: expected a finite number in [{low}, {high}], got {value!r} ({kind})")
    if not (low <= value <= high and abs(value) != math.inf):
        raise ValueError(f"{name}: expected a finite number in [{low}, {high}], got {value}")
    return value


def check_weights(weights: Any, kind: type[Weights]) -> Weights:
    """Weights of 0 or more, given in the order of a NamedTuple's fields or as a mapping with these keys, as that."""
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise ValueError(f"weights: expected the keys {', '.join(names)}, got {', '.join(map(str, weights))}")
        values = [weights[name] for name in names]
    elif isinstance(weights, Sequence) and not isinstance(weights, str):
        if len(weights) != len(names):
            raise ValueError(f"weights: expected ({', '.join(names)}), got {len(weights)} values")
        values = list(weights)
    else:
        raise TypeError(f"weights: expected ({', '.join(names)}) or a mapping, got {type(weights).__name__}")
    checked = (check_number(f"weights.{name}", value, low=0.0) for name, value in zip(names, values, strict=True))
    return kind(*checked)  # type: ignore[arg-type]  # mypy takes it for a plain tuple


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        expected = ", ".join(f"'{choice}'" for choice in choices)
        raise ValueError(f"{name}: expected one of {expected}, got {value!r}")


def check_flag(name: str, value: Any) -> bool:
    """True or False, of any kind that `plain_number` knows; it is returned as Python's."""
    value = plain_number(value)
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r} ({type(value).__name__})")
    return value
