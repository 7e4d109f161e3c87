"""Which family of instructions an instruction belongs to, and the one place that says so."""

from __future__ import annotations

from collections.abc import Callable

from ..ptx.instructions import Instruction
from . import conversions, floats, integers, memory, moves, warps
from .code import Code

STATEMENTS: dict[str, Callable[[Code, Instruction], None]] = {
    "ld": memory.load, "st": memory.store, "atom": memory.atomic, "cp": memory.copy, "fence": memory.fence,
    "bar": memory.barrier, "ldmatrix": warps.load_matrix, "stmatrix": warps.store_matrix, "mma": warps.multiply,
    "wgmma": warps.group,
}  # fmt: skip
"""Instructions that write lines of their own."""
VALUES: dict[str, Callable[[Code, Instruction], str]] = {
    "mov": moves.move, "cvt": conversions.convert, "shfl": warps.shuffle, "redux": warps.reduce, "setp": moves.compare,
    "selp": moves.select,
}  # fmt: skip
"""Instructions that are one expression for the bits of their destination; arithmetic goes by its type."""


def translate(code: Code, i: Instruction) -> None:
    """The lines of one instruction. Unsupported for one that is not known."""
    if i.base in ("bra", "ret"):
        if i.predicate:
            code.line(f"return {'~' if i.negated else ''}{code.register(i.predicate)}")
    elif i.base == "brx" and i.words[1:] == ["idx"] and not i.predicate:
        code.line(f"return {code.read(i.name(0), 'u4')}")
    elif i.base in STATEMENTS:
        STATEMENTS[i.base](code, i)
    elif i.base == "mov" and any(isinstance(operand, list) for operand in i.operands):
        moves.pack(code, i)
    else:
        code.put(i, i.name(0), _value(code, i))


def _value(code: Code, i: Instruction) -> str:
    if i.base in VALUES:
        return VALUES[i.base](code, i)
    if i.type == "pred":
        return moves.predicate_logic(code, i)
    if i.type in ("f32", "f64"):
        return floats.floating(code, i)
    if i.type in ("f16", "bf16"):
        return floats.half(code, i)
    return integers.integer(code, i)
