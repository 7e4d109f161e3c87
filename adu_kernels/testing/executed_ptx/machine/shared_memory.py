"""Shared memory of the programs of a batch: garbage at first; bounds, alignment, races, bytes that nobody wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Fault
from .shadow import Shadow

if TYPE_CHECKING:
    from .batch import Batch


class SharedMemory:
    def __init__(self, batch: Batch) -> None:
        launch = batch.launch
        self._batch, self.bytes_of_program = batch, launch.shared_bytes
        size = len(batch.programs) * launch.shared_bytes
        self.bytes = launch.garbage.integers(0, 256, size, dtype="u1")
        self.views: dict[int, Any] = {width: self.bytes.view(f"u{width}") for width in (1, 2, 4, 8)}
        self.starts = np.repeat(np.arange(len(batch.programs)) * launch.shared_bytes, batch.threads)
        """Of each thread: where the memory of its program begins."""
        self.shadow: Shadow | None = Shadow(size, launch.grain, "shared memory") if launch.options.checked else None
        self._traffic = launch.traffic

    def index(self, address: Any, offset: int, size: int, lanes: Any, text: str) -> Any:
        """Positions of `size` bytes for each lane. Fault: out of bounds, misaligned."""
        index = np.broadcast_to(address, self._batch.size)[lanes].astype("i8") + offset
        if not len(index):
            return index
        first, last = int(index.min()), int(index.max()) + size
        if first < 0 or last > self.bytes_of_program:
            raise Fault(f"OUT OF BOUNDS: bytes {first} to {last} of {self.bytes_of_program} of shared memory: {text}")
        if (index % size).any():
            raise Fault(f"MISALIGNED access to {size} bytes of shared memory: {text}")
        if self._traffic:
            self._traffic.shared(index, size, lanes)
        return index + self.starts[lanes]

    def load(self, address: Any, offset: int, size: int, mask: Any, text: str, count: int) -> list[Any]:
        lanes = self._batch.chosen(mask)
        index = self.index(address, offset, size * count, lanes, text)
        self.read(index, size * count, lanes, text)
        first, view = index // size, self.views[size]
        return [self._batch.spread(view[first + number], mask) for number in range(count)]

    def read(self, index: Any, size: int, lanes: Any, text: str, *, whole_warp: bool = False) -> None:
        """Notes a read, of bytes that somebody wrote."""
        if self.shadow and len(index):
            words = self.shadow.words(index, size)
            self.shadow.read(self._batch, words, lanes, text, whole_warp=whole_warp)
            if self.shadow.unwritten(words):
                raise Fault(f"UNWRITTEN: read of shared memory that nobody wrote: {text}")

    def store(self, address: Any, offset: int, size: int, mask: Any, text: str, values: list[Any]) -> None:
        lanes = self._batch.chosen(mask)
        index = self.index(address, offset, size * len(values), lanes, text)
        if len(index):
            new = np.stack([np.broadcast_to(value, self._batch.size)[lanes] for value in values], 1)
            self.write(index, size, new, lanes, text)

    def write(self, index: Any, size: int, new: Any, lanes: Any, text: str) -> None:
        """Rows of values of `size` bytes. Fault: where two lanes put different bits into one word, for which of them
        stays is undefined."""
        at, view = (index // size)[:, None] + np.arange(new.shape[1]), self.views[size]
        twice = False
        if self.shadow:
            same = (view[at] == new).all(1)[:, None]
            twice = self.shadow.write(self._batch, self.shadow.words(index, size * new.shape[1]), lanes, text, same)
        view[at] = new
        if twice:
            if (view[at] != new).any():
                raise Fault(f"RACE shared memory: two lanes of one store write different bits to one word: {text}")
            self._batch.launch.counts.events["shared memory: lanes of one store write the same bits to one word"] += 1
