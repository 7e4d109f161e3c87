"""Programs that run in step: one numpy element per thread. The lines that `translation` makes call this as `m`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ptx.blocks import END
from ..ptx.instructions import register_kind
from .approximate import Approximate
from .barriers import BatchBarriers
from .copies import Copies
from .device_access import DeviceAccess
from .faults import Fault
from .groups import Groups
from .products import Products
from .shared_memory import SharedMemory
from .warps import Warps

if TYPE_CHECKING:
    from .launch import Launch


class Batch:
    """programs: their numbers. Threads that part run the block that stands first and wait for each other there."""

    def __init__(self, launch: Launch, programs: Any) -> None:
        self.launch, self.programs, self.threads = launch, programs, launch.program.threads
        self.size = len(programs) * self.threads
        self.tid = np.tile(np.arange(self.threads, dtype="u4"), len(programs))
        self.lane = self.tid & np.uint32(31)
        self.ctaid = np.repeat(programs.astype("u4"), self.threads)
        self.ntid, self.nctaid = self.filled(np.uint32(self.threads)), self.filled(np.uint32(launch.programs))
        self.lanes = np.arange(self.size)
        self.program = self.ctaid.astype("i4")
        self.thread = self.program * self.threads + self.tid.astype("i4")
        """Numbered through the whole grid."""
        self.warp = self.thread // 32
        self._garbage = {kind: self._random(kind) for kind in ("u2", "u4", "u8", "?")}
        self._parameters: dict[tuple[str, str, str], Any] = {}
        self.barriers = BatchBarriers(self, launch.barriers)
        self.approximate = Approximate(launch.options.worst_approximations)
        self.global_memory, self.shared = DeviceAccess(self), SharedMemory(self)
        self.copies, self.warps = Copies(self), Warps(self)
        self.products, self.groups = Products(self), Groups(self)

    def run(self) -> None:
        program = self.launch.program
        registers = [self.garbage(register_kind(name)) for name in program.registers]
        executed: Counter[int] = Counter()
        at: Any = 0  # the block that all threads stand at, or one number per thread
        while not self._ended(at):
            number = at if isinstance(at, int) else int(at.min())
            mask = None if isinstance(at, int) else at == number
            taken = program.function(number, masked=mask is not None)(registers, self, mask)
            executed[number] += self.size // 32 if mask is None else int(mask.reshape(-1, 32).any(1).sum())
            at = self._moved(at, mask, number, taken)
        for number, times in executed.items():
            for kind, count in program.classes[number].items():
                self.launch.counts.instructions[kind] += times * count

    def _ended(self, at: Any) -> bool:
        return at >= END if isinstance(at, int) else bool((at >= END).all())

    def _moved(self, at: Any, mask: Any, number: int, taken: Any) -> Any:
        """Where the threads stand after block `number`."""
        block = self.launch.program.blocks[number]
        end = block.terminator
        if end is not None and end.base == "brx":
            target = np.array(block.table)[np.minimum(taken, len(block.table) - 1)]
        elif end is not None and end.predicate:
            target = np.where(taken, block.target, block.next)
        else:
            target = block.target if end is not None else block.next
        if mask is not None:
            target = np.where(mask, target, at)
        if isinstance(target, int):
            return target
        if (target == target[0]).all():
            return int(target[0])
        if mask is None:
            self.launch.counts.events["branches where threads part"] += 1
        return target

    # --- what the lines ask for ------------------------------------------------------------------------------------

    def filled(self, value: Any) -> Any:
        return np.full(self.size, value)

    def garbage(self, kind: str) -> Any:
        """What a register holds that nobody wrote."""
        return self._garbage[kind]

    def parameter(self, name: str, type_: str, kind: str) -> Any:
        key = name, type_, kind
        if key not in self._parameters:
            self._parameters[key] = self.filled(self.launch.parameter(name, type_, kind))
        return self._parameters[key]

    def whole_warps(self, mask: Any, text: str) -> Any:
        """Numbers, within the batch, of the warps that run an instruction which needs all of their threads."""
        if mask is None:
            return np.arange(self.size // 32)
        of_warp = mask.reshape(-1, 32)
        if (of_warp.any(1) != of_warp.all(1)).any():
            raise Fault(f"an instruction of whole warps that only some threads of a warp reach: {text}")
        return np.flatnonzero(of_warp.any(1))

    def chosen(self, mask: Any) -> Any:
        """Positions, within the batch, of the threads in the mask."""
        return self.lanes if mask is None else np.flatnonzero(mask)

    def spread(self, values: Any, mask: Any) -> Any:
        """Values of the threads in the mask as one per thread of the batch; what the others get, nobody reads."""
        if mask is None:
            return values
        whole = np.zeros(self.size, values.dtype)
        whole[mask] = values
        return whole

    def _random(self, kind: str) -> Any:
        if kind == "?":
            return self.launch.garbage.integers(0, 2, self.size).astype("?")
        return self.launch.garbage.integers(1, 1 << 8 * int(kind[1]), self.size, dtype=kind)
