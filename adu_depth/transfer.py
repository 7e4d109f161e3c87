"""The way from the CPU's memory to a device's, without waiting for the device."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import TypeVar

import torch
from torch import Tensor

from adu_depth.trees import numbers_as_tensors, tensors_of, with_tensors

Value = TypeVar("Value")
ALIGNMENT = 16
"""Bytes: a kernel of Triton's is compiled anew for memory that does not begin at a multiple of it."""


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's on `device`.

    To CUDA it goes through pinned memory: from pageable memory a copy waits, `non_blocking` or not. torch keeps pinned
    blocks for the next call, and this one until the copy is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def upload_together(value: Value, device: torch.device) -> Value:
    """`value` (see `trees`) with its tensors on `device`, by one copy for all of them.

    Its floats become tensors there too: what reads them reads memory, in which a later step finds its own. On the CPU
    nothing changes, floats included.
    """
    if device.type == "cpu":
        return value
    value = numbers_as_tensors(value)
    return unpacked(upload(packed(value), device), value)


def packed(value: object) -> Tensor:
    """The tensors of `value`, all on the CPU, one behind the other: bytes, each beginning at a multiple of 16."""
    tensors = tensors_of(value)
    *starts, end = _starts(tensors)
    buffer = torch.empty(end, dtype=torch.uint8, device="cpu")
    for tensor, start in zip(tensors, starts, strict=True):
        _part(buffer, start, tensor).copy_(tensor)
    return buffer


def unpacked(buffer: Tensor, like: Value) -> Value:
    """`like` with the tensors that lie in `buffer`, on whatever device: views of it. The inverse of `packed`."""
    tensors = tensors_of(like)
    *starts, _ = _starts(tensors)
    return with_tensors(like, [_part(buffer, start, t) for t, start in zip(tensors, starts, strict=True)])


def _starts(tensors: list[Tensor]) -> list[int]:
    """Where each begins, and where the last one ends."""
    return [0, *accumulate(-(-_bytes(t) // ALIGNMENT) * ALIGNMENT for t in tensors)]


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    return buffer[start : start + _bytes(like)].view(like.dtype).view(like.shape)


def _bytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * tensor.element_size()
