"""`cp.async`: the bytes are taken when it is issued and land when its group is waited for; until then nobody may touch
where they go, and it holds garbage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Fault

if TYPE_CHECKING:
    from .batch import Batch


@dataclass
class _Flight:
    """Copies of one instruction, a row each."""

    lanes: Any
    index: Any
    data: Any
    group: Any
    """Number of the group, of its thread's, that each belongs to."""

    def those(self, chosen: Any) -> _Flight:
        return _Flight(self.lanes[chosen], self.index[chosen], self.data[chosen], self.group[chosen])


class Copies:
    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._flying: list[_Flight] = []
        self._groups: Any = np.zeros(batch.size, "i4")
        """Groups that each thread has committed."""

    def start(
        self, to: Any, to_offset: int, source: Any, source_offset: int, size: int, given: Any, mask: Any, text: str
    ) -> None:
        """given: bytes that are really read, none or all; where none, zeros land."""
        batch, shared, lanes = self._batch, self._batch.shared, self._batch.chosen(mask)
        if not len(lanes):
            return
        index = shared.index(to, to_offset, size, lanes, text)
        wanted = np.broadcast_to(size if given is None else given, batch.size)[lanes]
        if ((wanted != 0) & (wanted != size)).any():
            raise Fault(f"cp.async of a part of its bytes: {text}")
        data, real = np.zeros((len(lanes), size), "u1"), wanted > 0
        data[real] = batch.global_memory.bytes_of(source, source_offset, size, lanes[real], text)
        if shared.shadow:
            words = shared.shadow.words(index, size)
            if shared.shadow.write(batch, words, lanes, text):
                raise Fault(f"RACE shared memory: two lanes of one cp.async write one word: {text}")
            shared.shadow.in_flight[words] = True
            shared.bytes[index[:, None] + np.arange(size)] = batch.launch.garbage.integers(
                0, 256, data.shape, dtype="u1"
            )
        self._flying.append(_Flight(lanes, index, data, self._groups[lanes].copy()))

    def commit(self, mask: Any) -> None:
        self._groups = self._groups + 1 if mask is None else np.where(mask, self._groups + 1, self._groups)

    def wait(self, left: int, mask: Any) -> None:
        """Lands all but the newest `left` groups of each thread."""
        flying, self._flying = self._flying, []
        for flight in flying:
            done = flight.group < self._groups[flight.lanes] - left
            if mask is not None:
                done &= mask[flight.lanes]
            if done.any():
                self._land(flight.those(done))
            if not done.all():
                self._flying.append(flight.those(~done))

    def _land(self, flight: _Flight) -> None:
        shared, size = self._batch.shared, flight.data.shape[1]
        if shared.shadow:
            words = shared.shadow.words(flight.index, size)
            shared.shadow.in_flight[words] = False
            fenced = not self._batch.launch.options.copies_need_fences
            shared.shadow.write(self._batch, words, flight.lanes, "cp.async landing", fenced=fenced)
        shared.bytes[flight.index[:, None] + np.arange(size)] = flight.data
