"""A rule that the text alone can break: whether memory is touched hangs on a predicate that something sets."""

from __future__ import annotations

import re

from .blocks import Block

MEMORY = ("ld", "st", "cp", "atom")


class UndefinedPredicate(Exception):
    """A load or a store may or may not happen: nothing decides it."""


def check_predicates_are_set(blocks: list[Block]) -> None:
    """LLVM leaves a register unset where it takes a value for undefined, which is right only where nothing hangs on it.
    UndefinedPredicate for a load, a store, a copy or an atomic."""
    instructions = [instruction for block in blocks for instruction in block.instructions]
    written = {
        name
        for instruction in instructions
        if instruction.operands and isinstance(instruction.operands[0], str)
        for name in re.findall(r"%p\d+", instruction.operands[0])
    }
    for instruction in instructions:
        if instruction.base in MEMORY and instruction.predicate and instruction.predicate not in written:
            raise UndefinedPredicate(f"nothing sets the predicate of {instruction.text}")
