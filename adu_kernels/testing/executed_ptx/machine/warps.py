"""What the threads of a warp do together: shuffles, sums, 8×8 matrices between registers and shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Fault

if TYPE_CHECKING:
    from .batch import Batch


class Warps:
    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def shuffle(self, how: str, value: Any, by: Any, mask: Any, text: str) -> Any:
        """The value of lane `lane ^ by` ("bfly") or `by` ("idx")."""
        batch = self._batch
        batch.whole_warps(mask, text)
        by = np.broadcast_to(by, batch.size)
        source = batch.lane ^ by if how == "bfly" else by & np.uint32(31)
        source = np.where(source < 32, source, batch.lane)
        return np.broadcast_to(value, batch.size)[(batch.lanes & ~31) + source.astype("i8")]

    def sum(self, value: Any, members: Any, mask: Any, text: str) -> Any:
        """`redux`: every lane gets the sum over its warp."""
        batch = self._batch
        batch.whole_warps(mask, text)
        if (np.broadcast_to(members, batch.size) != np.uint32(0xFFFFFFFF)).any():
            raise Fault(f"redux over a part of a warp: {text}")
        sums = np.broadcast_to(value, batch.size).reshape(-1, 32).sum(1, dtype="i4")
        return np.repeat(sums, 32).view("u4")

    def load_matrix(self, address: Any, offset: int, count: int, turned: bool, mask: Any, text: str) -> list[Any]:
        """Lanes 8k to 8k + 7 give the rows of matrix k; every lane gets two of its elements per matrix."""
        batch, shared = self._batch, self._batch.shared
        warps, lanes = self._rows(count, mask, text)
        index = shared.index(address, offset, 16, lanes, text)
        shared.read(index, 16, lanes, text, whole_warp=True)
        halves: Any = shared.views[2][(index // 2)[:, None] + np.arange(8)].reshape(len(warps), count, 8, 8)
        if turned:
            halves = halves.swapaxes(2, 3)
        pairs = np.ascontiguousarray(halves).view("u4").reshape(len(warps), count, 32)
        result = np.zeros((count, batch.size // 32, 32), "u4")
        result[:, warps] = pairs.swapaxes(0, 1)
        return list(result.reshape(count, batch.size))

    def store_matrix(self, address: Any, offset: int, values: list[Any], turned: bool, mask: Any, text: str) -> None:
        batch, shared, count = self._batch, self._batch.shared, len(values)
        warps, lanes = self._rows(count, mask, text)
        index = shared.index(address, offset, 16, lanes, text)
        held = np.stack([np.broadcast_to(value, batch.size).reshape(-1, 32)[warps] for value in values], 1)
        halves: Any = np.ascontiguousarray(held).view("u2").reshape(len(warps), count, 8, 8)
        if turned:
            halves = halves.swapaxes(2, 3)
        shared.write(index, 2, halves.reshape(-1, 8), lanes, text)

    def _rows(self, count: int, mask: Any, text: str) -> tuple[Any, Any]:
        """The warps, and the lanes of each that give rows."""
        warps = self._batch.whole_warps(mask, text)
        return warps, (warps[:, None] * 32 + np.arange(8 * count)).ravel()
