"""Loads, stores and counters in device memory: bounds, alignment, races."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .device_memory import GAP, NOBODYS, ORIGIN
from .faults import Fault

if TYPE_CHECKING:
    from .batch import Batch


class DeviceAccess:
    def __init__(self, batch: Batch) -> None:
        self._batch, self._memory = batch, batch.launch.memory
        self._shadow, self._traffic = batch.launch.shadow, batch.launch.traffic

    def index(self, address: Any, offset: int, size: int, lanes: Any, kind: str, text: str) -> Any:
        """Positions in the memory of `size` bytes for each lane. Fault: out of bounds, misaligned, between elements."""
        index = np.broadcast_to(address, self._batch.size)[lanes].astype("i8") + (offset - ORIGIN)
        if not len(index):
            return index
        whole = len(self._memory.bytes)
        outside = (index < 0) | (index + size > whole)
        if outside.any():
            raise Fault(
                f"OUT OF BOUNDS {kind} at address {int(index[outside][0]) + ORIGIN:#x}, far from any tensor: {text}"
            )
        self._refuse_foreign(index, size, lanes, kind, text)
        if (index % size).any():
            raise Fault(f"MISALIGNED {kind} of {size} bytes: {text}")
        if self._traffic:
            self._traffic.device(kind, index, size, lanes)
        return index

    def _refuse_foreign(self, index: Any, size: int, lanes: Any, kind: str, text: str) -> None:
        belongs = self._memory.belongs[index[:, None] + np.arange(0, size, self._memory.finest)]
        if belongs.min() > GAP:
            return
        wrong = belongs == NOBODYS
        what = "OUT OF BOUNDS"
        if not wrong.any():
            if not self._shadow:
                return
            wrong, what = belongs == GAP, "BETWEEN THE ELEMENTS of tensors: a"
        row, column = np.argwhere(wrong)[0]
        thread, where = (
            int(self._batch.tid[lanes[row]]),
            self._memory.describe(int(index[row]) + int(column) * self._memory.finest),
        )
        raise Fault(f"{what} {kind} by thread {thread}, {where}: {text}")

    def load(self, address: Any, offset: int, size: int, mask: Any, text: str, count: int) -> list[Any]:
        lanes = self._batch.chosen(mask)
        index = self.index(address, offset, size * count, lanes, "load", text)
        if self._shadow and len(index):
            self._shadow.read(self._batch, self._shadow.words(index, size * count), lanes, text)
        first, view = index // size, self._memory.views[size]
        return [self._batch.spread(view[first + number], mask) for number in range(count)]

    def bytes_of(self, address: Any, offset: int, size: int, lanes: Any, text: str) -> Any:
        """Rows of `size` bytes, for an asynchronous copy."""
        index = self.index(address, offset, size, lanes, "load", text)
        if self._shadow and len(index):
            self._shadow.read(self._batch, self._shadow.words(index, size), lanes, text)
        return self._memory.bytes[index[:, None] + np.arange(size)]

    def store(self, address: Any, offset: int, size: int, mask: Any, text: str, values: list[Any]) -> None:
        batch, lanes = self._batch, self._batch.chosen(mask)
        index = self.index(address, offset, size * len(values), lanes, "store", text)
        if not len(index):
            return
        at = (index // size)[:, None] + np.arange(len(values))
        new, view = (
            np.stack([np.broadcast_to(value, batch.size)[lanes] for value in values], 1),
            self._memory.views[size],
        )
        twice = False
        if self._shadow:
            words = self._shadow.words(index, size * len(values))
            same = (view[at] == new).all(1)[:, None]
            twice = self._shadow.write(batch, words, lanes, text, same)
        view[at] = new
        if twice:
            if (view[at] != new).any():
                raise Fault(f"RACE device memory: two lanes of one store write different bits to one word: {text}")
            batch.launch.counts.events["device memory: lanes of one store write the same bits to one word"] += 1

    def atomic_add(self, address: Any, offset: int, value: Any, mask: Any, orders: bool, text: str) -> Any:
        """One lane after the other. orders: it acquires and releases, for the whole device."""
        batch, lanes = self._batch, self._batch.chosen(mask)
        index = self.index(address, offset, 4, lanes, "store", text)
        view, value = self._memory.views[4], np.broadcast_to(value, batch.size)
        before = np.zeros(batch.size, "u4")
        for lane, position in zip(lanes.tolist(), index.tolist(), strict=True):
            before[lane] = view[position // 4]
            view[position // 4] += value[lane]
            if self._shadow and not self._shadow.unwritten(np.array([position // self._shadow.grain])):
                raise Fault(f"RACE device memory: an atomic on a word that this launch also stores to: {text}")
            if orders:
                program = int(batch.program[lane])
                passed = int(batch.barriers.passed[program])
                batch.launch.order.counted(position, program, int(batch.thread[lane]), passed)
        batch.launch.counts.events["atomics" if orders else "atomics that order nothing"] += len(lanes)
        return before
