"""A rule that the text alone can break: nobody touches the sums of a wgmma before they are waited for."""

from __future__ import annotations

import re

from .blocks import Block
from .instructions import Instruction

MOST_GROUPS = 8
"""Committed groups that may be in flight; ways through a loop are followed no further."""


class UsedTooEarly(Exception):
    """A register that a wgmma still writes was read or written."""


def check_results_are_waited_for(blocks: list[Block]) -> None:
    """Follows every way from a wgmma to a wait that covers it. Other wgmma may add to the same sums, and LLVM's copies
    at the end of a loop are let through: ptxas has to see through them. UsedTooEarly for anything else.
    """
    for number, block in enumerate(blocks):
        for position, instruction in enumerate(block.instructions):
            if instruction.words[:2] == ["wgmma", "mma_async"]:
                _follow(blocks, number, position + 1, set(instruction.several(0)))


def _follow(blocks: list[Block], number: int, position: int, sums: set[str]) -> None:
    seen, to_do = set(), [(number, position, 0)]
    while to_do:
        number, position, commits = to_do.pop()
        commits, waited = _through(blocks[number].instructions[position:], sums, commits)
        if waited or commits > MOST_GROUPS:
            continue
        for following in blocks[number].successors():
            if (following, commits) not in seen:
                seen.add((following, commits))
                to_do.append((following, 0, commits))


def _through(instructions: list[Instruction], sums: set[str], commits: int) -> tuple[int, bool]:
    """Groups committed by the end of these instructions, and whether a wait covered the sums before that."""
    for instruction in instructions:
        if instruction.base == "wgmma":
            commits += instruction.words[1] == "commit_group"
            if instruction.words[1] == "wait_group" and commits > groups_left(instruction):
                return commits, True
        elif instruction.base != "mov" and sums & set(re.findall(r"%r\d+", instruction.text)):
            raise UsedTooEarly(f"sums of a wgmma used before they are waited for: {instruction.text[:80]}")
    return commits, False


def groups_left(wait: Instruction) -> int:
    """How many groups a `wait_group` leaves in flight; one that lists registers stands in Triton's inline assembly."""
    count = wait.operands[0] if wait.operands else "0"
    return int(count) if isinstance(count, str) and count.isdigit() else 0
