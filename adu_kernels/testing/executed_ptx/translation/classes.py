"""Which unit of a multiprocessor an instruction keeps busy."""

from __future__ import annotations

from ..ptx.instructions import Instruction

MEMORY = ("ld", "st", "cp", "atom", "ldmatrix", "stmatrix")


def instruction_class(i: Instruction) -> str:
    """ "move" costs nothing that is counted: ptxas gives most of them no instruction."""
    if i.base == "mov" or (i.base == "ld" and i.words[1] == "param"):
        return "move"
    if i.base in ("bra", "ret", "brx"):
        return "branch"
    if i.base in ("bar", "fence") or i.words[:2] in (["wgmma", "wait_group"], ["wgmma", "fence"]):
        return "barrier"
    if i.base in MEMORY:
        return "global" if "global" in i.words or "async" in i.words else "shared"
    if i.base in ("shfl", "redux"):
        return "shuffle"
    if i.base in ("mma", "wgmma"):
        return "matrix"
    if i.base in ("ex2", "lg2", "rcp", "sqrt", "rsqrt") or (i.base == "div" and i.type.startswith("f")):
        return "special"
    if i.type == "f64" and i.base != "selp":
        return "fp64"
    if i.type == "f32" and i.base in ("add", "sub", "mul", "fma", "fms", "fnma"):
        return "fp32"
    if i.base == "cvt":
        return _conversion(*i.words[-2:])
    if i.base in ("div", "rem"):
        return "integer_division"
    return "integer"


def _conversion(to: str, of: str) -> str:
    """Whole numbers, and bfloat16 to fp32, are shifts and permutes; the rest goes to a slower unit."""
    return "conversion" if ("f" in to or "f" in of) and (to, of) != ("f32", "bf16") else "integer"
