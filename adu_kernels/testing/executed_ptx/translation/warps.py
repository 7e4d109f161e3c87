"""What the threads of a warp, or of a group of four warps, do together: shuffles, matrices, products of matrices."""

from __future__ import annotations

import re

from ..ptx.instructions import Instruction, Unsupported
from .code import Code

PRODUCTS: dict[tuple[str, tuple[str, ...]], str] = {
    ("m16n8k16", ("f32", "bf16", "bf16", "f32")): "halves",
    ("m16n8k16", ("f32", "f16", "f16", "f32")): "halves",
    ("m8n8k4", ("f64", "f64", "f64", "f64")): "small_doubles",
    ("m16n8k16", ("f64", "f64", "f64", "f64")): "doubles",
}
"""Shapes and types of `mma` that are known, and the machine's name for each."""
EVERY_LANE = ("-1", "0xffffffff", "0xFFFFFFFF")


def shuffle(code: Code, i: Instruction) -> str:
    """A value of another lane, of a whole warp."""
    if i.words[1] != "sync" or i.words[2] not in ("bfly", "idx") or i.operands[3] != "31":
        raise Unsupported(i.text)
    if i.operands[4] not in EVERY_LANE:
        raise Unsupported(i.text)
    value, by = code.read(i.name(1), "u4"), code.read(i.name(2), "u4")
    return f"m.warps.shuffle({i.words[2]!r}, {value}, {by}, {code.mask(i)}, {i.text!r})"


def reduce(code: Code, i: Instruction) -> str:
    if i.words[1:] != ["sync", "add", "s32"]:
        raise Unsupported(i.text)
    value, members = code.read(i.name(1), "i4"), code.read(i.name(2), "u4")
    return f"m.warps.sum({value}, {members}, {code.mask(i)}, {i.text!r})"


def _matrices(i: Instruction) -> tuple[int, bool]:
    """How many 8×8 matrices, and whether turned."""
    count = re.fullmatch(r"x([124])", i.words[4]) if len(i.words) > 4 else None
    if not count or i.words[1:4] != ["sync", "aligned", "m8n8"] or i.type != "b16" or "shared" not in i.words:
        raise Unsupported(i.text)
    return int(count[1]), "trans" in i.words


def load_matrix(code: Code, i: Instruction) -> None:
    count, turned = _matrices(i)
    address = i.address(1)
    place = f"{code.read(address.base, 'u4')}, {address.offset}"
    code.line(f"v = m.warps.load_matrix({place}, {count}, {turned}, {code.mask(i)}, {i.text!r})")
    for number, register in enumerate(i.several(0)):
        code.put(i, register, f"v[{number}]")


def store_matrix(code: Code, i: Instruction) -> None:
    _, turned = _matrices(i)
    address = i.address(0)
    place = f"{code.read(address.base, 'u4')}, {address.offset}"
    values = ", ".join(code.read(register, "u4") for register in i.several(1))
    code.line(f"m.warps.store_matrix({place}, [{values}], {turned}, {code.mask(i)}, {i.text!r})")


def multiply(code: Code, i: Instruction) -> None:
    """`mma.sync`: a · b + c of one warp."""
    kinds = tuple(i.words[-4:])
    known = i.words[1:3] == ["sync", "aligned"] and i.words[4:6] == ["row", "col"] and len(i.words) == 10
    if not known or (i.words[3], kinds) not in PRODUCTS:
        raise Unsupported(i.text)
    bits = "u8" if kinds[0] == "f64" else "u4"
    a, b, c = ("[" + ", ".join(code.read(r, bits) for r in i.several(k)) + "]" for k in (1, 2, 3))
    how = PRODUCTS[i.words[3], kinds]
    code.line(f"v = m.products.{how}({kinds[1]!r}, {a}, {b}, {c}, {code.mask(i)}, {i.text!r})")
    for number, register in enumerate(i.several(0)):
        code.put(i, register, f"v[{number}]")


def group(code: Code, i: Instruction) -> None:
    """`wgmma`: fences, groups, waits, and the product of a group of four warps with shared memory (sm_90)."""
    from ..ptx.group_results import groups_left

    if i.words[1] == "fence":
        return  # registers are ordered here as they are written; that it stands there, ptx/group_fences.py checks
    if i.words[1] == "commit_group":
        code.line(f"m.groups.commit({code.mask(i)})")
    elif i.words[1] == "wait_group":
        code.line(f"m.groups.wait({groups_left(i)}, {code.mask(i)})")
    else:
        _group_product(code, i)


def _group_product(code: Code, i: Instruction) -> None:
    shape = re.fullmatch(r"m64n(\d+)k16", i.words[4]) if len(i.words) == 8 else None
    known = i.words[1:4] == ["mma_async", "sync", "aligned"] and i.words[5] == "f32"
    if not shape or not known or i.words[6:] not in (["bf16", "bf16"], ["f16", "f16"]):
        raise Unsupported(i.text)
    _, a, b, keep, *rest = i.operands
    if rest[:2] != ["1", "1"] or not isinstance(b, str) or not isinstance(keep, str):  # factors of a and b
        raise Unsupported(i.text)
    turned = [word == "1" for word in rest[2:]]
    if isinstance(a, list):
        turned = [False, *turned]
        first = "[" + ", ".join(code.read(register, "u4") for register in a) + "]"
    else:
        first = code.read(i.name(1), "u8")
    old = "[" + ", ".join(code.read(register, "u4") for register in i.several(0)) + "]"
    kept = code.read(keep, "?") if keep.startswith("%") else str(keep != "0")
    code.line(
        f"v = m.groups.multiply({int(shape[1])}, {i.type!r}, {first}, {code.read(b, 'u8')}, {old}, {kept}, {turned}, "
        f"{code.mask(i)}, {i.text[:60]!r})"
    )
    for number, register in enumerate(i.several(0)):
        code.put(i, register, f"v[{number}]")
