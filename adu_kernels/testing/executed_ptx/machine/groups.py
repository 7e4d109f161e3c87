"""`wgmma` of sm_90: four warps multiply what lies in shared memory, while they go on. It is calculated at once; what it
reads stays locked until it is waited for, and needs a proxy fence after ordinary stores. One program at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Fault
from .products import as_numbers
from .shadow import NOBODY

if TYPE_CHECKING:
    from .batch import Batch

GROUP = 128
"""Threads of a group."""
SWIZZLES = {1: (128, 7), 2: (64, 3), 3: (32, 1), 0: (16, 0)}
"""By the layout's number in a descriptor: bytes of a row, and the bits of the row that move 16-byte pieces."""


class Groups:
    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._reading: list[tuple[int, Any]] = []
        """Groups committed since, and the words that are read."""

    def proxy_fence(self, mask: Any) -> None:
        """`fence.proxy.async`: wgmma will see ordinary stores from before it."""
        if mask is not None:
            raise Fault("fence.proxy.async by some threads of a program")
        shadow = self._batch.shared.shadow
        if shadow:
            shadow.unfenced[:] = False

    def commit(self, mask: Any) -> None:
        self._everybody(mask, "wgmma.commit_group")
        self._reading = [(groups + 1, words) for groups, words in self._reading]

    def wait(self, left: int, mask: Any) -> None:
        """What groups that are waited for have read may be written again: after a barrier, for each thread knows only
        that its own warps' products are done."""
        self._everybody(mask, "wgmma.wait_group")
        shadow, barriers = self._batch.shared.shadow, self._batch.barriers
        done = [words for groups, words in self._reading if groups > left]
        self._reading = [(groups, words) for groups, words in self._reading if groups <= left]
        if not shadow:
            return
        program = self._batch.programs[0]
        for words in done:
            shadow.locked[words] = False
            shadow.readers.whole_program(words, program, barriers.passed[program])
        for _, words in self._reading:
            shadow.locked[words] = True

    def multiply(
        self, columns: int, kind: str, a: Any, b: Any, old: list[Any], keep: Any, turned: list[bool], mask: Any,
        text: str,
    ) -> list[Any]:  # fmt: skip
        """m64nNk16: a (registers, or a descriptor of shared memory) · b (a descriptor), added to the old sums where
        `keep`. Each warp of a group holds 16 rows, as `mma` does."""
        self._everybody(mask, text)
        groups = self._batch.size // GROUP
        if isinstance(a, list):
            held = as_numbers(np.stack(a, -1).view("u2").reshape(groups * 4, 8, 4, 4, 2), kind)
            left = held.reshape(groups * 4, 8, 4, 2, 2, 2).transpose(0, 4, 1, 3, 2, 5).reshape(groups, 64, 16)
        else:
            left = as_numbers(self._operand(a, 64, turned[0], text), kind)
        right = as_numbers(self._operand(b, columns, turned[1], text), kind)
        sums = np.stack([register.view("f4") for register in old], -1).reshape(groups * 4, 8, 4, columns // 8, 2, 2)
        sums = sums.transpose(0, 4, 1, 3, 2, 5).reshape(groups, 64, columns)
        kept = np.broadcast_to(keep, self._batch.size)[::GROUP][:, None, None]
        new = (np.where(kept, sums, 0) + left @ right.swapaxes(1, 2)).astype("f4")
        new = new.reshape(groups * 4, 2, 8, columns // 8, 4, 2).transpose(0, 2, 4, 3, 1, 5)
        self._batch.launch.counts.events["wgmma"] += groups
        return [np.ascontiguousarray(column).view("u4") for column in new.reshape(self._batch.size, columns // 2).T]

    def _everybody(self, mask: Any, text: str) -> None:
        if mask is not None:
            raise Fault(f"an instruction of a group of warps in divergent code: {text}")

    def _operand(self, descriptor: Any, rows: int, turned: bool, text: str) -> Any:
        """Bits of rows × 16 numbers of each group that a descriptor names (PTX ISA, "Matrix Descriptor")."""
        shared = self._batch.shared
        if (descriptor.reshape(-1, 32) != descriptor[::32, None]).any():
            raise Fault(f"descriptors that differ within a warp: {text}")
        at = _addresses(descriptor[::GROUP].astype("i8"), rows, turned, text)
        if int(at.max()) + 2 > shared.bytes_of_program:
            raise Fault(
                f"OUT OF BOUNDS: a descriptor reaches past {shared.bytes_of_program} bytes of shared memory: {text}"
            )
        at = at + shared.starts[::GROUP][:, None, None]
        if shared.shadow:
            self._note(np.unique(at // shared.shadow.grain), text)
        return shared.views[2][at // 2]

    def _note(self, words: Any, text: str) -> None:
        shadow, barriers = self._batch.shared.shadow, self._batch.barriers
        assert shadow is not None
        writer = shadow.writers.program[words]
        if (writer == NOBODY).any():
            raise Fault(f"UNWRITTEN: a wgmma reads shared memory that nobody wrote: {text}")
        if shadow.in_flight[words].any():
            raise Fault(f"shared memory: a wgmma reads bytes that cp.async still copies: {text}")
        if (shadow.writers.barriers[words] == barriers.passed[writer]).any():
            raise Fault(f"RACE shared memory: a wgmma reads what was written since the last barrier: {text}")
        if shadow.unfenced[words].any():
            raise Fault(f"a wgmma reads what was written without fence.proxy.async since: {text}")
        self._reading.append((0, words))
        shadow.locked[words] = True


def _addresses(descriptor: Any, rows: int, turned: bool, text: str) -> Any:
    """Of rows × 16 elements of two bytes, within a program's shared memory. turned: rows lie side by side."""
    if ((descriptor >> 49) & 7).any():
        raise Fault(f"a descriptor with a base offset: {text}")
    fields = ((descriptor & 0x3FFF) << 4, (descriptor >> 16 & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4)
    start, across, step = (field[:, None, None] for field in fields)
    mode = int(descriptor[0] >> 62 & 3)
    pitch, bits = SWIZZLES[mode]
    r, k = np.arange(rows)[:, None], np.arange(16)[None, :]
    if mode == 0:
        piece = r % 8 * 2 + k % 8 * 16 if turned else r % 8 * 16 + k % 8 * 2
        at = start + (r // 8) * step + (k // 8) * across + piece
    elif not turned:
        at = start + (r // 8) * step + r % 8 * pitch + k * 2
    else:
        wide = pitch // 2
        at = start + (r // wide) * across + r % wide * 2 + (k // 8) * step + k % 8 * pitch
    return at ^ ((at >> 7 & bits) << 4)
