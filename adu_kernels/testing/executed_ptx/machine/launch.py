"""One launch of a program: its grid, its memory, what holds for all of its programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ptx.instructions import BITS
from ..translation.program import Program
from .barriers import Barriers
from .batch import Batch
from .counts import Counts
from .device_memory import DeviceMemory
from .faults import Fault
from .options import Options
from .program_order import ProgramOrder
from .shadow import Shadow
from .traffic import Traffic


class Launch:
    """programs: how many, a grid of one dimension. arguments: of the kernel's parameters, tensors as addresses.
    shared_bytes: of each program.
    """

    def __init__(
        self, program: Program, memory: DeviceMemory, arguments: list[Any], shared_bytes: int, programs: int,
        options: Options,
    ) -> None:  # fmt: skip
        self.program, self.memory, self.programs, self.options = program, memory, programs, options
        self.shared_bytes = -(-max(shared_bytes, 16) // 16) * 16
        self.counts, self.order = Counts(), ProgramOrder()
        self.barriers = Barriers(programs, program.threads)
        self.grain = program.smallest_access()
        self.shadow: Shadow | None = Shadow(len(memory.bytes), self.grain, "device memory") if options.checked else None
        self.traffic: Traffic | None = Traffic(self.counts, len(memory.bytes)) if options.counted else None
        self.garbage = np.random.default_rng(options.seed)
        self._arguments = dict(zip(program.parameters, arguments, strict=True))

    def run(self) -> Counts:
        """All programs; what they write stands in `memory` then."""
        order = self.options.starting_order(self.programs)
        together = 1 if self.program.works_in_groups() else self.options.together
        with np.errstate(all="ignore"):
            for first in range(0, self.programs, together):
                Batch(self, np.array(order[first : first + together])).run()
        if self.traffic:
            self.traffic.finish()
        self.counts.memory["programs"] += self.programs
        self.counts.memory["warps"] += self.programs * self.program.threads // 32
        return self.counts

    def parameter(self, name: str, type_: str, kind: str) -> Any:
        """The bits of an argument, in a register of this numpy type."""
        declared = self.program.parameters[name]
        size = BITS[declared] // 8
        if BITS[type_] // 8 != size:
            raise Fault(f"parameter {name}: declared as {declared}, read as {type_}")
        value = self._arguments[name]
        if declared in ("f32", "f64"):
            bits = np.array(value, f"f{size}").view(f"u{size}")[()]
        else:
            bits = np.array(int(value) & ((1 << 8 * size) - 1), f"u{size}")[()]
        wide = int(kind[1])
        if wide == size:
            return bits
        return bits.view(f"i{size}").astype(f"i{wide}").view(f"u{wide}") if type_[0] == "s" else bits.astype(f"u{wide}")
