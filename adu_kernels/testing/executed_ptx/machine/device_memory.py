"""The tensors of a launch in one flat array, with guards between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

GUARD = 4096
ALIGNMENT = 256
ORIGIN = 0x7F0000000000
"""Address of the array's first byte: far from zero and beyond 32 bits, as a GPU's are."""
NOBODYS, GAP, ELEMENT = 0, 1, 2


class Placed(NamedTuple):
    """Where a tensor lies: storage, offset and strides in bytes."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int


class DeviceMemory:
    """Each storage starts at its own address modulo 256, so that alignment is what it is.

    storages: bytes, one-dimensional uint8; writable ones get their bytes back by `copy_back`.
    """

    def __init__(self, storages: Sequence[np.ndarray], tensors: Sequence[Placed]) -> None:
        self.storages, self.starts, end = storages, [], GUARD
        for storage in storages:
            end += (storage.ctypes.data - end) % ALIGNMENT
            self.starts.append(end)
            end = -(-(end + storage.nbytes + GUARD) // ALIGNMENT) * ALIGNMENT
        self.bytes = np.random.default_rng(1).integers(0, 256, end, dtype="u1")
        self.belongs = np.full(end, NOBODYS, "u1")
        """Of each byte: NOBODYS, a GAP of a storage between elements of tensors, or of an ELEMENT."""
        for storage, start in zip(storages, self.starts, strict=True):
            self.bytes[start : start + storage.nbytes] = storage
            self.belongs[start : start + storage.nbytes] = GAP
        self.finest = 1 if any(tensor.itemsize == 1 for tensor in tensors) else 2
        """Bytes that always belong together."""
        for tensor in tensors:
            self._mark(tensor)
        self.views: dict[int, Any] = {width: self.bytes.view(f"u{width}") for width in (1, 2, 4, 8)}

    def _mark(self, tensor: Placed) -> None:
        if 0 in tensor.shape:
            return
        first = self.belongs[self.starts[tensor.storage] + tensor.offset :]
        shape, strides = (*tensor.shape, tensor.itemsize), (*tensor.strides, 1)
        np.lib.stride_tricks.as_strided(first, shape, strides)[...] = ELEMENT

    def address(self, storage: int, offset: int) -> int:
        return ORIGIN + self.starts[storage] + offset

    def describe(self, index: int) -> str:
        """A byte in words: "byte 400 of 400 of storage 1"."""
        nearest = min(range(len(self.starts)), key=lambda k: abs(self.starts[k] - index)) if self.starts else None
        if nearest is None:
            return f"byte {index}, where there is no tensor"
        for number, start in enumerate(self.starts):
            if start <= index:
                nearest = number
        return f"byte {index - self.starts[nearest]} of {self.storages[nearest].nbytes} of storage {nearest}"

    def copy_back(self) -> None:
        for storage, start in zip(self.storages, self.starts, strict=True):
            if storage.flags.writeable:
                storage[:] = self.bytes[start : start + storage.nbytes]
