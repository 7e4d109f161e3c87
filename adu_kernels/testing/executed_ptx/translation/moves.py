"""Moves, packing and unpacking, choices by a predicate, comparisons, logic of predicates."""

from __future__ import annotations

import re

from ..ptx.instructions import BITS, NUMPY, Instruction, Unsupported
from .code import Code

SIGNS = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">=",
}  # fmt: skip
LOGIC = {"and": "&", "or": "|", "xor": "^"}


def move(code: Code, i: Instruction) -> str:
    source, bits = i.name(1), f"u{BITS.get(i.type, 8) // 8}"
    if i.type == "pred":
        return code.read(source, "?") if source.startswith("%") else f"m.filled(np.bool_({int(source)}))"
    if source.startswith("%"):
        return code.read(source, bits)
    if source != "global_smem" and not re.match(r"-?\d", source):
        raise Unsupported(i.text)
    return f"m.filled({code.read(source, bits)})"


def pack(code: Code, i: Instruction) -> None:
    """`mov.b64 {low, high}, wide` and `mov.b64 wide, {low, high}`."""
    wide = BITS[i.type]
    to, source = i.operands
    if isinstance(to, list):
        part = wide // len(to)
        for number, register in enumerate(to):
            shifted = f"({code.read(i.name(1), f'u{wide // 8}')} >> np.uint{wide}({part * number}))"
            code.put(i, register, f"{shifted}.astype('u{part // 8}')")
        return
    assert isinstance(source, list)
    part = wide // len(source)
    pieces = (
        f"({code.read(register, f'u{part // 8}')}.astype('u{wide // 8}') << np.uint{wide}({part * number}))"
        for number, register in enumerate(source)
    )
    code.put(i, i.name(0), " | ".join(pieces))


def select(code: Code, i: Instruction) -> str:
    bits = f"u{BITS[i.type] // 8}"
    return f"np.where({code.read(i.name(3), '?')}, {code.read(i.name(1), bits)}, {code.read(i.name(2), bits)})"


def predicate_logic(code: Code, i: Instruction) -> str:
    if i.base == "not":
        return f"~{code.read(i.name(1), '?')}"
    if i.base not in LOGIC:
        raise Unsupported(i.text)
    return f"{code.read(i.name(1), '?')} {LOGIC[i.base]} {code.read(i.name(2), '?')}"


def compare(code: Code, i: Instruction) -> str:
    """`setp` of two values into one predicate. Of floats `lt` is false where one is NaN, `ltu` true."""
    how, combined = i.words[1], len(i.words) != 3
    if i.type == "pred" or combined or "|" in i.name(0) or len(i.operands) != 3:
        raise Unsupported(i.text)
    a, b, kind = code.typed(i, 1), code.typed(i, 2), NUMPY[i.type]
    if i.type == "bf16":
        a, b, kind = f"from_bf16({a})", f"from_bf16({b})", "f4"
    if kind[0] != "f":
        return f"{a} {SIGNS[how]} {b}"
    either_is_nan = f"(np.isnan({a}) | np.isnan({b}))"
    if how == "nan":
        return either_is_nan
    if how == "num":
        return f"~{either_is_nan}"
    if how == "ne":
        return f"({a} != {b}) & ~{either_is_nan}"
    if how == "equ":
        return f"({a} == {b}) | {either_is_nan}"
    if how in ("eq", "lt", "le", "gt", "ge"):
        return f"{a} {SIGNS[how]} {b}"
    opposite = {"neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
    if how not in opposite:
        raise Unsupported(i.text)
    return f"~({a} {opposite[how]} {b})"
