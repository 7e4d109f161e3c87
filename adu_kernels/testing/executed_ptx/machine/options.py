"""How a launch is executed: what may differ from run to run on a GPU, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Order = Literal["forwards", "backwards", "shuffled"]


@dataclass(frozen=True)
class Options:
    """A result may not depend on `order`, `together` or `seed`: a GPU promises none of them."""

    order: Order = "forwards"
    """In which programs start."""
    together: int = 16
    """Programs that run in step; 1: one after the other."""
    seed: int = 0
    """Of the garbage in registers and shared memory, and of the shuffled order."""
    checked: bool = True
    """Whether races, waits and bounds of tensors are watched. Alignment and bounds of memory always are."""
    counted: bool = False
    """Whether sectors and bank conflicts are counted."""
    worst_approximations: bool = False
    """Whether every `.approx` instruction is off by as much as the ISA allows."""
    copies_need_fences: bool = True
    """Whether a wgmma may read what `cp.async` brought only after a proxy fence, as the ISA asks. Triton 3.6 moves that
    fence in front of the loop."""
    contracted: bool = False
    """Whether products and sums that the compiler left apart are fused, as ptxas may."""

    def starting_order(self, programs: int) -> list[int]:
        if self.order == "forwards":
            return list(range(programs))
        if self.order == "backwards":
            return list(range(programs))[::-1]
        return np.random.default_rng(self.seed).permutation(programs).tolist()
