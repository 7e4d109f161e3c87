"""Loads, stores, parameters, atomics and asynchronous copies: calls of the machine, which checks each access."""

from __future__ import annotations

import re

from ..ptx.instructions import BITS, NUMPY, Instruction, Unsupported, register_kind
from .code import Code

PLAIN_WORDS = {"global", "shared", "cg", "ca", "volatile", "relaxed", "gpu", "v2", "v4", "v8"}
"""What may stand in a load or store besides its type; caches and scopes change nothing here."""


def _unit(i: Instruction) -> str:
    """The part of the machine that serves the instruction's address space."""
    if set(i.words[1:-1]) - PLAIN_WORDS or ("global" in i.words) == ("shared" in i.words) or i.type not in BITS:
        raise Unsupported(i.text)
    return "m.global_memory" if "global" in i.words else "m.shared"


def _place(code: Code, i: Instruction, position: int) -> str:
    address = i.address(position)
    return f"{code.read(address.base, 'u8' if 'global' in i.words else 'u4')}, {address.offset}"


def load(code: Code, i: Instruction) -> None:
    if i.words[1] == "param":
        kind = register_kind(i.name(0))
        code.put(i, i.name(0), f"m.parameter({i.address(1).base!r}, {i.type!r}, '{kind}')")
        return
    unit, registers, size = _unit(i), i.several(0), BITS[i.type] // 8
    code.line(f"v = {unit}.load({_place(code, i, 1)}, {size}, {code.mask(i)}, {i.text!r}, {len(registers)})")
    for number, register in enumerate(registers):
        kind, value = register_kind(register), f"v[{number}]"
        if int(kind[1]) != size:
            value = f"extended({value}.view('{NUMPY[i.type]}'), '{kind}')"
        code.put(i, register, value)


def store(code: Code, i: Instruction) -> None:
    unit, size = _unit(i), BITS[i.type] // 8
    values = ", ".join(code.read(register, f"u{size}") for register in i.several(1))
    code.line(f"{unit}.store({_place(code, i, 0)}, {size}, {code.mask(i)}, {i.text!r}, [{values}])")


def atomic(code: Code, i: Instruction) -> None:
    """Whole numbers added in device memory. Only `acq_rel` at the scope of the device orders programs."""
    known = {"global", "add", "acq_rel", "relaxed", "gpu", "sys"}
    if set(i.words[1:-1]) - known or not {"global", "add"} <= i.qualifiers or i.type not in ("u32", "s32"):
        raise Unsupported(i.text)
    orders = "acq_rel" in i.words
    value = code.read(i.name(2), "u4")
    code.put(
        i,
        i.name(0),
        f"m.global_memory.atomic_add({_place(code, i, 1)}, {value}, {code.mask(i)}, {orders}, {i.text!r})",
    )


def copy(code: Code, i: Instruction) -> None:
    """`cp.async` from device to shared memory, its groups and its waits."""
    if i.words[1] != "async":
        raise Unsupported(i.text)
    if "commit_group" in i.words:
        code.line(f"m.copies.commit({code.mask(i)})")
    elif "wait_all" in i.words:  # of what is in no group yet, too
        code.line(f"m.copies.commit({code.mask(i)})")
        code.line(f"m.copies.wait(0, {code.mask(i)})")
    elif "wait_group" in i.words:
        code.line(f"m.copies.wait({int(i.name(0))}, {code.mask(i)})")
    elif i.words[2] in ("ca", "cg") and i.words[3:5] == ["shared", "global"] and len(i.operands) in (3, 4):
        to, source, size = i.address(0), i.address(1), int(i.name(2), 0)
        given = code.read(i.name(3), "u4") if len(i.operands) > 3 else "None"
        code.line(
            f"m.copies.start({code.read(to.base, 'u4')}, {to.offset}, {code.read(source.base, 'u8')}, {source.offset}, "
            f"{size}, {given}, {code.mask(i)}, {i.text!r})"
        )
    else:
        raise Unsupported(i.text)


def fence(code: Code, i: Instruction) -> None:
    if i.words[1:] != ["proxy", "async", "shared::cta"]:
        raise Unsupported(i.text)
    code.line(f"m.groups.proxy_fence({code.mask(i)})")


def barrier(code: Code, i: Instruction) -> None:
    if i.words[1:] == ["warp", "sync"] and re.fullmatch(r"-1|0[xX][fF]{8}", i.name(0)):
        code.line(f"m.barriers.of_warps({code.mask(i)}, {i.text!r})")
    elif i.words[1:] == ["sync"] and i.operands in ([], ["0"]):
        code.line(f"m.barriers.of_programs({code.mask(i)}, {i.text!r})")
    else:
        raise Unsupported(i.text)
