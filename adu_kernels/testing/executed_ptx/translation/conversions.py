"""`cvt`: from one type to another."""

from __future__ import annotations

from ..ptx.instructions import BITS, NUMPY, Instruction, Unsupported, register_kind
from .code import Code

FLOATS = {"f64", "f32", "f16", "bf16"}


def convert(code: Code, i: Instruction) -> str:
    """The bits of the result; a whole number is extended to its register by its own sign."""
    to, of = i.words[-2:]
    how = set(i.words[1:-2])
    if to in ("bf16x2", "f16x2") and of == "f32" and how == {"rn"}:
        high, low = (f"to_{to[:-2]}({code.read(i.name(k), 'f4')}).astype('u4')" for k in (1, 2))
        return f"({high} << np.uint32(16)) | {low}"
    source = code.read(i.name(1), NUMPY[of])
    if to in FLOATS and not how - {"rn", "ftz"}:
        return _to_float(i, source, to, of)
    if to in FLOATS or to not in NUMPY:
        raise Unsupported(i.text)
    register = register_kind(i.name(0))
    if of in FLOATS:
        if how - {"rzi", "ftz"} or "rzi" not in how or of == "bf16":
            raise Unsupported(i.text)
        return f"extended(truncated({source}, '{NUMPY[to]}'), '{register}')"
    if how:
        raise Unsupported(i.text)
    return f"extended({source}.astype('{NUMPY[to]}'), '{register}')"


def _to_float(i: Instruction, source: str, to: str, of: str) -> str:
    if of == "bf16":
        source = f"from_bf16({source})"
    flushed = "ftz" in i.words
    if flushed and of == "f32":
        source = f"flush({source})"
    if to == "bf16":
        if of != "f32":
            raise Unsupported(i.text)
        return f"to_bf16({source})"
    if to == "f16" and of not in ("f32", "f16", "bf16"):
        raise Unsupported(i.text)
    result = f"{source}.astype('{NUMPY[to]}')"
    return f"{f'flush({result})' if flushed and to == 'f32' else result}.view('u{BITS[to] // 8}')"
