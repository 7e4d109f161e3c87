"""Finds sums across lanes in which two lanes round one number differently.

A butterfly adds a lane's own value to the one it is sent. If the own value is a product and the compiler fuses it into
the sum, each lane rounds the other's product and not its own: the two store different bits to one place, and which of
them stays is undefined. PTX says so: a fused multiply-add whose addend came by `shfl`, or a product and such a sum that
carry no `.rn` and that ptxas may fuse.
"""

from __future__ import annotations

import re

_INSTRUCTION = re.compile(r"^\s*(?:@!?%p\w+\s+)?([a-z][\w.:]*)\s+(.*?);", re.MULTILINE)
_REGISTER = re.compile(r"%\w+")


def fused_lane_sums(ptx: str) -> int:
    """Multiply-adds, done or allowed, that take another lane's number for their addend."""
    sent: set[str] = set()
    products: set[str] = set()
    count = 0
    for name, operands in _INSTRUCTION.findall(ptx):
        registers = _REGISTER.findall(operands)
        if name.startswith("shfl.sync"):
            sent.add(registers[0])
        elif name.startswith("mov.b"):  # moved, taken apart or put together: doubles are sent in halves
            written, read = (_REGISTER.findall(side) for side in _sides(operands))
            if sent.intersection(read):
                sent.update(written)
        elif re.fullmatch(r"mul(\.ftz)?\.(f32|f64)", name):
            products.add(registers[0])
        elif re.fullmatch(r"fma\.rn(\.ftz)?\.(f16|bf16|f16x2|bf16x2|f32|f32x2|f64)", name):
            count += registers[-1] in sent
        elif re.fullmatch(r"add(\.ftz)?\.(f32|f64)", name):
            count += bool(sent.intersection(registers[1:]) and products.intersection(registers[1:]))
    return count


def _sides(operands: str) -> tuple[str, str]:
    """Target and source of a move; either may be a vector in braces."""
    written, read = re.match(r"(\{.*?\}|%\w+)\s*,\s*(.*)", operands, re.DOTALL).groups()  # type: ignore[union-attr]
    return written, read
