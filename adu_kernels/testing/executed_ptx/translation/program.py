"""A kernel's PTX as Python functions, one per basic block, made when a block first runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ..ptx.blocks import Block
from ..ptx.group_fences import check_registers_are_fenced
from ..ptx.group_results import check_results_are_waited_for
from ..ptx.instructions import BITS, Instruction, Unsupported
from ..ptx.parser import parse
from ..ptx.undefined import check_predicates_are_set
from . import bits, numbers
from .classes import instruction_class
from .code import Code
from .contraction import contract
from .families import translate

HELPERS = {
    name: function
    for module in (bits, numbers)
    for name, function in vars(module).items()
    if callable(function) and getattr(function, "__module__", "") == module.__name__
}


class Program:
    """contracted: a product that nothing but one sum uses is fused with it, as ptxas may."""

    def __init__(self, ptx: str, *, contracted: bool = False) -> None:
        kernel = parse(ptx)
        self.name, self.parameters, self.threads = kernel.name, kernel.parameters, kernel.threads
        self.blocks: list[Block] = kernel.blocks
        check_results_are_waited_for(self.blocks)
        if self.works_in_groups():
            check_registers_are_fenced(self.blocks)
        check_predicates_are_set(self.blocks)
        if contracted:
            contract(self.blocks)
        self.registers: dict[str, int] = {}
        self.classes = [Counter(instruction_class(i) for i in block.instructions) for block in self.blocks]
        """Instructions of each block by class."""
        self._constants: list[Any] = []
        self._functions: dict[tuple[int, bool], Callable[..., Any]] = {}
        for number in range(len(self.blocks)):  # all of it, so that what is not known is told before anything runs
            self._source(number, masked=True)

    def instructions(self) -> list[Instruction]:
        return [instruction for block in self.blocks for instruction in block.instructions]

    def works_in_groups(self) -> bool:
        """Whether four warps multiply together (wgmma)."""
        return any(instruction.base == "wgmma" for instruction in self.instructions())

    def smallest_access(self) -> int:
        """Bytes of its narrowest load or store."""
        sizes = [BITS[i.type] // 8 for i in self.instructions() if i.base in ("ld", "st") and i.words[1] != "param"] + [
            2 for i in self.instructions() if i.base in ("ldmatrix", "stmatrix")
        ]
        return min([4, *sizes])

    def function(self, number: int, *, masked: bool) -> Callable[..., Any]:
        """f(R, m, M) of a block; it returns where a branch goes: a predicate, or the index of a table."""
        if (number, masked) not in self._functions:
            scope: dict[str, Any] = {"K": self._constants, "np": np, **HELPERS}
            exec(compile(self._source(number, masked), f"<{self.name}, block {number}>", "exec"), scope)
            self._functions[number, masked] = scope["f"]
        return self._functions[number, masked]

    def _source(self, number: int, masked: bool) -> str:
        code = Code(self.registers, self._constants, masked)
        for instruction in self.blocks[number].instructions:
            try:
                translate(code, instruction)
            except (KeyError, IndexError, ValueError) as error:
                raise Unsupported(f"{self.name}: {instruction.text}") from error
        return "def f(R, m, M):\n " + "\n ".join([*code.lines, "return None"])
