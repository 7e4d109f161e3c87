"""A rule that the text alone can break: a fence stands between what threads do to registers and a wgmma on them."""

from __future__ import annotations

import re

from .blocks import Block
from .instructions import Instruction

EVERY = "every register"
"""As long as there has been no fence at all."""


class UnfencedRegisters(Exception):
    """A wgmma may use its registers as they were before a thread's last access, or while it reads them."""


def check_registers_are_fenced(blocks: list[Block]) -> None:
    """Follows every way to each wgmma. UnfencedRegisters where its sums, or registers that hold its left side, were
    read or written since the last `wgmma.fence`, or where there was none (PTX ISA, "wgmma.fence"). That another wgmma
    adds to the same sums needs none."""
    touched: dict[int, set[str]] = {0: {EVERY}}
    to_do = [0]
    while to_do:
        number = to_do.pop()
        after = _through(blocks[number].instructions, touched[number])
        for following in blocks[number].successors():
            if following not in touched or after - touched[following]:
                touched[following] = touched.get(following, set()) | after
                to_do.append(following)


def _through(instructions: list[Instruction], touched: set[str]) -> set[str]:
    """Registers touched since the last fence, by the end of these instructions."""
    touched = set(touched)
    for instruction in instructions:
        if instruction.words[:2] == ["wgmma", "fence"]:
            touched.clear()
        elif instruction.words[:2] == ["wgmma", "mma_async"]:
            if touched & (_registers(instruction) | {EVERY}):
                raise UnfencedRegisters(f"registers used with no wgmma.fence since: {instruction.text[:80]}")
        elif instruction.base != "wgmma":
            touched |= _registers(instruction)
    return touched


def _registers(instruction: Instruction) -> set[str]:
    return set(re.findall(r"%r\d+", instruction.text))
