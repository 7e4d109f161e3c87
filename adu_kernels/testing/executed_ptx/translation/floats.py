"""Floating-point numbers: fp32, fp64, fp16, bfloat16. What `.approx` may be off by is asked of `m.approximate`."""

from __future__ import annotations

from ..ptx.instructions import BITS, NUMPY, Instruction, Unsupported
from .code import UNARY, Code

SIGNS = {"add": "+", "sub": "-", "mul": "*"}
APPROXIMATE = {
    ("ex2", "approx"): ("np.exp2({0}.astype('f8')).astype('f4')", "exponential"),
    ("lg2", "approx"): ("np.log2({0}.astype('f8')).astype('f4')", "logarithm"),
    ("rcp", "approx"): ("np.float32(1) / {0}", "reciprocal"),
    ("sqrt", "approx"): ("np.sqrt({0})", "root"),
    ("rsqrt", "approx"): ("(1 / np.sqrt({0}.astype('f8'))).astype('f4')", "reciprocal_root"),
    ("div", "full"): ("{0} / {1}", "quotient"),
    ("div", "approx"): ("{0} / {1}", "quotient"),
}
"""fp32 instructions whose result the ISA leaves open within a bound: the exact one, and whose bound."""


def floating(code: Code, i: Instruction) -> str:
    """The bits of a result in fp32 or fp64."""
    bits, double = f"u{BITS[i.type] // 8}", i.type == "f64"
    how = i.qualifiers - {"ftz"}
    flushed = "ftz" in i.qualifiers and not double
    values = [code.typed(i, position) for position in range(1, len(i.operands))]
    if flushed:
        values = [f"flush({value})" for value in values]
    if (i.base, *how) == ("rcp", "approx") and double:
        return f"rough_reciprocal({values[0]})"
    result = _result(i, values, how)
    return f"flush({result}).view('{bits}')" if flushed else f"{result}.view('{bits}')"


def _result(i: Instruction, x: list[str], how: set[str]) -> str:
    if len(how) == 1 and i.type == "f32" and (i.base, *how) in APPROXIMATE:
        exact, bound = APPROXIMATE[i.base, next(iter(how))]
        return f"m.approximate.{bound}({exact.format(*x)}" + (f", {x[0]})" if bound == "logarithm" else ")")
    if how <= {"rn"}:
        if i.base in SIGNS:
            return f"({x[0]} {SIGNS[i.base]} {x[1]})"
        if i.base == "div" and how:
            return f"({x[0]} / {x[1]})"
        if i.base == "sqrt" and how:
            return f"np.sqrt({x[0]})"
        if i.base in ("fma", "fms", "fnma") and how:
            first = f"-{x[0]}" if i.base == "fnma" else x[0]
            last = f"-{x[2]}" if i.base == "fms" else x[2]
            return f"fused_{i.type}({first}, {x[1]}, {last})"
    if not how:
        if i.base == "copysign":
            return f"np.copysign({x[1]}, {x[0]})"
        if i.base in UNARY:
            return UNARY[i.base].format(x[0])
        if i.base in ("max", "min"):
            return f"{i.base}imum_number({x[0]}, {x[1]})"
    if how == {"NaN"} and i.base in ("max", "min"):
        return f"np.{i.base}imum({x[0]}, {x[1]})"
    raise Unsupported(i.text)


def half(code: Code, i: Instruction) -> str:
    """The bits of a result in fp16 or bfloat16: calculated wider, rounded once."""
    if i.base in ("max", "min") and i.qualifiers == {"NaN"}:
        sign = f"np.{i.base}imum({{0}}, {{1}})"
    elif i.base in SIGNS and not i.qualifiers - {"rn"}:
        sign = f"{{0}} {SIGNS[i.base]} {{1}}"
    elif i.base == "fma" and i.qualifiers == {"rn"}:
        sign = "fused_half({0}, {1}, {2})"
    else:
        raise Unsupported(i.text)
    if i.type == "bf16":
        values = [f"from_bf16({code.read(i.name(k), 'u2')}).astype('f8')" for k in range(1, len(i.operands))]
    else:
        values = [f"{code.read(i.name(k), NUMPY['f16'])}.astype('f8')" for k in range(1, len(i.operands))]
    return f"to_{i.type}({sign.format(*values)})"
