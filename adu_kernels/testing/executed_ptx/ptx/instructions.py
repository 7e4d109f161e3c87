"""One PTX instruction: its words, its operands, and how wide its types are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

BITS = {
    "b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16, "b32": 32, "u32": 32, "s32": 32,
    "f32": 32, "f16x2": 32, "bf16x2": 32, "b64": 64, "u64": 64, "s64": 64, "f64": 64,
}  # fmt: skip
NUMPY = {
    "b8": "u1", "u8": "u1", "s8": "i1", "b16": "u2", "u16": "u2", "s16": "i2", "f16": "f2", "bf16": "u2", "b32": "u4",
    "u32": "u4", "s32": "i4", "f32": "f4", "b64": "u8", "u64": "u8", "s64": "i8", "f64": "f8",
}  # fmt: skip
"""The numpy type that holds a value of a PTX type; numpy has no bfloat16, whose bits stand in a uint16."""
REGISTERS = {"%p": "?", "%rs": "u2", "%r": "u4", "%rd": "u8"}
"""Registers are raw bits; the type of an instruction says what they mean."""


class Unsupported(Exception):
    """PTX that nobody has written the execution of: added when a kernel needs it, never guessed."""


class Address(NamedTuple):
    """`[base+offset]`: a register or a name, and bytes."""

    base: str
    offset: int


Operand = str | list[str] | Address
"""A register or a number as written; `{a, b}`; `[a+4]`."""


@dataclass
class Instruction:
    """`@predicate word.word.type operand, operand;`"""

    text: str
    words: list[str]
    operands: list[Operand]
    predicate: str | None = None
    negated: bool = False

    @property
    def base(self) -> str:
        return self.words[0]

    @property
    def type(self) -> str:
        return self.words[-1]

    @property
    def qualifiers(self) -> set[str]:
        """The words between name and type."""
        return set(self.words[1:-1])

    def name(self, position: int) -> str:
        """An operand that must be a register or a number."""
        operand = self.operands[position]
        if not isinstance(operand, str):
            raise Unsupported(self.text)
        return operand

    def address(self, position: int) -> Address:
        operand = self.operands[position]
        if not isinstance(operand, Address):
            raise Unsupported(self.text)
        return operand

    def several(self, position: int) -> list[str]:
        """An operand that may be one register or a list of them."""
        operand = self.operands[position]
        if isinstance(operand, Address):
            raise Unsupported(self.text)
        return operand if isinstance(operand, list) else [operand]


def register_kind(register: str) -> str:
    """Its numpy type: "%rd3" → "u8"."""
    prefix = register.rstrip("0123456789")
    if prefix not in REGISTERS:
        raise Unsupported(f"a register of an unknown kind: {register}")
    return REGISTERS[prefix]


def parse_instruction(text: str) -> Instruction:
    """One instruction without its semicolon. Unsupported where it is none."""
    found = re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*)", text)
    if not found:
        raise Unsupported(text)
    negated, predicate, words, operands = found.groups()
    split = words.replace(".shared::cta.", ".shared.").split(".")  # a program's own shared memory, there is no other
    return Instruction(text, split, _operands(operands), predicate, negated == "!")


def _operands(text: str) -> list[Operand]:
    return [_operand(piece.strip()) for piece in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", text)]


def _operand(piece: str) -> Operand:
    if piece.startswith("{"):
        return [name.strip() for name in piece[1:-1].split(",")]
    if piece.startswith("["):
        found = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]", piece)
        if not found:
            raise Unsupported(piece)
        return Address(found[1], int(found[2] or "0", 0))
    return piece
