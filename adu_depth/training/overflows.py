"""Steps that fp16 skips because their gradients overflowed: no fault, unless it never ends.

The loss is scaled up so that small gradients do not vanish in half precision. Where large ones become infinite, all on
the device, AdamW leaves the weights as they are and the scale is halved; every 2000 good steps it is doubled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

MOST_IN_A_ROW = 40
"""Steps. By then the scale is 2⁻²⁴ where it began at 2¹⁶: gradients that overflow still are infinite by themselves."""


class Overflows:
    """Counts the skipped steps that follow one another."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def excuses(self, names: Iterable[str], values: Iterable[float]) -> bool:
        """Whether a step, by its terms, was skipped and is no fault. Ask for every step once, in their order."""
        bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if bad != ["gradient_norm"]:  # a term that is infinite is so whatever it is scaled by
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        return self.in_a_row < MOST_IN_A_ROW

    def explanation(self) -> str:
        """What there is to add to a fault's text; "" where it is no overflow."""
        if not self.in_a_row:
            return ""
        return f" (the {self.in_a_row}th step in a row whose gradients overflow fp16: no scale of the loss cures it)"
