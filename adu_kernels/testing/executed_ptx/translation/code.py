"""Python of one basic block, as it grows: names of registers, constants, masks.

Registers are raw bits in numpy arrays, one element a thread; an instruction views them as its type. Arrays are never
written in place, so that a move shares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ptx.instructions import NUMPY, Instruction, Unsupported, register_kind

SPECIAL_REGISTERS = {
    "%tid.x": "m.tid", "%ctaid.x": "m.ctaid", "%nctaid.x": "m.nctaid", "%ntid.x": "m.ntid", "%laneid": "m.lane",
}  # fmt: skip
UNARY = {"neg": "np.negative({0})", "abs": "np.abs({0})"}
"""Of whole numbers with a sign and of floats alike."""


class Code:
    """Lines of one block. `masked`: some threads are elsewhere; those that are here stand in M.

    In the lines R is the list of registers, K the constants, m the batch of programs that runs, M the mask.
    """

    def __init__(self, registers: dict[str, int], constants: list[Any], masked: bool) -> None:
        self.lines: list[str] = []
        self._registers, self._constants, self._masked = registers, constants, masked

    def line(self, text: str) -> None:
        self.lines.append(text)

    def register(self, name: str) -> str:
        return f"R[{self._registers.setdefault(name, len(self._registers))}]"

    def constant(self, value: Any) -> str:
        self._constants.append(value)
        return f"K[{len(self._constants) - 1}]"

    def mask(self, instruction: Instruction) -> str:
        """Which threads run the instruction; "None": all of them."""
        if not instruction.predicate:
            return "M" if self._masked else "None"
        predicate = ("~" if instruction.negated else "") + self.register(instruction.predicate)
        return f"(M & {predicate})" if self._masked else predicate

    def put(self, instruction: Instruction, destination: str, expression: str) -> None:
        """The bits into a register, for the threads that run the instruction; the others keep theirs."""
        if destination == "_":
            return
        register, mask = self.register(destination), self.mask(instruction)
        if mask != "None":
            expression = f"np.where({mask}, {expression}, {register})"
        self.line(f"{register} = {expression}")

    def read(self, operand: str, kind: str) -> str:
        """An operand viewed as this numpy type; of a wider register its low bits."""
        if operand in SPECIAL_REGISTERS:
            return f"{SPECIAL_REGISTERS[operand]}.view('{kind}')"
        if operand == "global_smem":  # where the shared memory of a program starts
            return self.number("0", kind)
        if not operand.startswith("%"):
            return self.number(operand, kind)
        register, have, want = self.register(operand), np.dtype(register_kind(operand)), np.dtype(kind)
        if have == want or want.kind == "?":
            return register
        if have.itemsize < want.itemsize:
            raise Unsupported(f"{operand} as {kind}")
        if have.itemsize > want.itemsize:
            narrowed = f"{register}.astype('u{want.itemsize}')"
            return narrowed if want.kind == "u" else f"{narrowed}.view('{kind}')"
        return f"{register}.view('{kind}')"

    def typed(self, instruction: Instruction, position: int) -> str:
        """An operand in the instruction's own type."""
        return self.read(instruction.name(position), NUMPY[instruction.type])

    def number(self, text: str, kind: str) -> str:
        """A number as PTX writes it: 12, 0x1F, 0f3F800000 (the bits of a float), 0d…."""
        want = np.dtype(kind)
        if text.startswith(("0f", "0d")):
            bits = np.array(int(text[2:], 16), "u4" if text[1] == "f" else "u8")
            if bits.dtype.itemsize != want.itemsize:
                raise Unsupported(f"{text} as {kind}")
            return self.constant(bits.view(kind)[()])
        if want.kind == "f":
            raise Unsupported(f"the whole number {text} as {kind}")
        whole = int(text.rstrip("U"), 0) & ((1 << 8 * want.itemsize) - 1)
        return self.constant(np.array(whole, f"u{want.itemsize}").view(kind)[()])
