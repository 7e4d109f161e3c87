"""Values made of tensors (dataclasses, tuples, dictionaries of them), taken as one: their tensors, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def map_tensors(value: Value, change: Callable[[Tensor], Any]) -> Value:
    """`value` with every tensor in it passed through `change`, always in the same order; the rest stays."""
    return _rebuilt(value, change)  # type: ignore[no-any-return]


def tensors_of(value: object) -> list[Tensor]:
    """Its tensors, in the order of `map_tensors`."""
    found: list[Tensor] = []
    map_tensors(value, found.append)
    return found


def with_tensors(value: Value, tensors: list[Tensor]) -> Value:
    """`value` with these in the places of its own tensors."""
    rest = iter(tensors)
    return map_tensors(value, lambda _: next(rest))


def numbers_as_tensors(value: Value) -> Value:
    """`value` with its floats as fp32 tensors of the CPU without dimensions."""
    return _rebuilt(value, lambda tensor: tensor, lambda number: torch.tensor(number, device="cpu"))  # type: ignore[no-any-return]


def form_of(value: object) -> Hashable:
    """What two values have in common if one can stand in the other's memory: shapes, strides, types, all that is no
    tensor."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple(form_of(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, dict):
        return tuple((key, form_of(part)) for key, part in value.items())
    if isinstance(value, tuple | list):
        return tuple(map(form_of, value))
    return value  # type: ignore[return-value]


def _rebuilt(value: Any, change: Callable[[Tensor], Any], of_number: Callable[[float], Any] | None = None) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, float) and of_number is not None:
        return of_number(value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _rebuilt(getattr(value, f.name), change, of_number) for f in fields(value)})
    if isinstance(value, dict):
        return {key: _rebuilt(part, change, of_number) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_rebuilt(part, change, of_number) for part in value)
    return value
