"""Whole numbers and bits."""

from __future__ import annotations

from ..ptx.instructions import BITS, NUMPY, Instruction, Unsupported
from .code import UNARY, Code

PLAIN = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^"}


def integer(code: Code, i: Instruction) -> str:
    """The bits of the result. Unsupported for what is not known."""
    if i.base == "add" and i.type in ("s16x2", "u16x2") and not i.qualifiers:
        a, b = (f"({code.read(i.name(position), 'u4')})" for position in (1, 2))
        return f"(({a} + {b}) & 0xFFFF) | (({a} & 0xFFFF0000) + ({b} & 0xFFFF0000))"  # no half carries into the other
    if i.type not in NUMPY or "f" in i.type:
        raise Unsupported(i.text)
    bits, kind = BITS[i.type], NUMPY[i.type]
    unsigned, signed = f"u{bits // 8}", f"i{bits // 8}"

    def read(position: int, kind: str = unsigned) -> str:
        return code.read(i.name(position), kind)

    if i.base in ("mul", "mad"):
        return _product(code, i)
    if i.base == "lop3" and bits == 32:
        return f"look_up_logic({read(1)}, {read(2)}, {read(3)}, {int(i.name(4), 0)})"
    if i.qualifiers:
        raise Unsupported(i.text)
    if i.base in PLAIN:
        return f"{read(1)} {PLAIN[i.base]} {read(2)}"
    if i.base == "not":
        return f"~{read(1)}"
    if i.base in UNARY:
        return f"{UNARY[i.base].format(read(1, signed))}.view('{unsigned}')"
    if i.base == "shl":
        return f"shift_left({read(1)}, {read(2, 'u4')})"
    if i.base == "shr":
        return f"shift_right({read(1, kind)}, {read(2, 'u4')}).view('{unsigned}')"
    if i.base == "div":
        return f"quotient({read(1, kind)}, {read(2, kind)}).view('{unsigned}')"
    if i.base == "rem":
        return f"remainder({read(1, kind)}, {read(2, kind)}).view('{unsigned}')"
    if i.base in ("min", "max"):
        return f"np.{i.base}imum({read(1, kind)}, {read(2, kind)}).view('{unsigned}')"
    if i.base == "popc":
        return f"count_ones({read(1)})"
    if i.base == "clz":
        return f"count_leading_zeros({read(1)})"
    if i.base == "bfe":
        return f"bit_field({read(1, kind)}, {read(2, 'u4')}, {read(3, 'u4')})"
    if i.base == "prmt" and bits == 32:
        return f"permute_bytes({read(1)}, {read(2)}, {read(3)})"
    raise Unsupported(i.text)


def _product(code: Code, i: Instruction) -> str:
    bits, kind = BITS[i.type], NUMPY[i.type]
    unsigned, wide = f"u{bits // 8}", f"{kind[0]}{bits // 4}"
    added = i.base == "mad"
    if i.qualifiers == {"lo"}:
        product = f"{code.read(i.name(1), unsigned)} * {code.read(i.name(2), unsigned)}"
        return f"{product} + {code.read(i.name(3), unsigned)}" if added else product
    a, b = code.typed(i, 1), code.typed(i, 2)
    if i.qualifiers == {"hi"} and bits == 64 and not added:
        return f"high_half({a}, {b})"
    if bits == 64:
        raise Unsupported(i.text)
    product = f"(np.multiply({a}, {b}, dtype='{wide}'))"
    if i.qualifiers == {"hi"} and not added:
        return f"({product} >> {bits}).astype('{unsigned}')"
    if i.qualifiers == {"wide"}:
        whole = f"{product}.view('u{bits // 4}')"
        return f"{whole} + {code.read(i.name(3), f'u{bits // 4}')}" if added else whole
    raise Unsupported(i.text)
