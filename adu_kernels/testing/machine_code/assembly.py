"""Reads compiled kernels: registers, spills, shared memory, widths of loads, what kinds of instructions there are."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton

from .rounding import fused_lane_sums
from .undecided import undecided

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Figures:
    """What one kernel costs on one target. Instruction counts are static: a loop's body counts once."""

    registers: int
    """Per thread (gfx942: vector registers)."""
    spills: int
    """Bytes of local memory per thread (gfx942: spilled vector registers + scratch bytes)."""
    shared: int
    """Bytes of shared memory per program, those known at launch included."""
    loads: int
    """Loads from global memory."""
    wide_loads: int
    """Of them 16 bytes and wider per thread, bulk tensor copies included."""
    wide_stores: int
    fp64: int
    """Instructions that calculate in, or convert to or from, double precision."""
    tensor_core: int
    atomics: int
    """Atomic operations on global memory."""
    float_atomics: int
    """Of them those on floating-point numbers, whose order would show in the result."""
    special: int
    """Instructions of the special-function unit: exponentials, logarithms, reciprocals, roots."""
    lane_exchanges: int
    """Instructions that take a number from another thread's register."""
    instructions: int
    undecided: int
    """Loads and stores that happen or not by a predicate that nothing sets (`undecided.py`); 0 on gfx942, which has no
    PTX."""
    fused_lane_sums: int
    """What `rounding.py` finds in the PTX; 0 on gfx942, which has none."""

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


_NVIDIA = {
    "loads": r"(LDG|LDGSTS|UBLKCP|UTMALDG)\b",
    "wide_loads": r"(LDG|LDGSTS)\b.*\.(128|256)\b|(UBLKCP|UTMALDG)\b",
    "wide_stores": r"STG\b.*\.(128|256)\b|UTMASTG\b",
    "fp64": r"D(ADD|MUL|FMA|SETP|MNMX|MMA)\b|\S*\.F64\b|MUFU\.\w*64",
    "tensor_core": r"(HMMA|IMMA|BMMA|DMMA|QMMA|OMMA|HGMMA|IGMMA|BGMMA|QGMMA|UTC\w*MMA)\b",
    "atomics": r"(ATOM|ATOMG|RED|REDG|UTMAREDG)\b",
    "float_atomics": r"(ATOM|ATOMG|RED|REDG|UTMAREDG)\b.*\.B?F\d",
    "special": r"MUFU\b",
    "lane_exchanges": r"SHFL\b",
}
_AMD = {
    "loads": r"(global|buffer|flat)_load_",
    "wide_loads": r"(global|buffer|flat)_load_(dwordx4|b128)",
    "wide_stores": r"(global|buffer|flat)_store_(dwordx4|b128)",
    "fp64": r"v_\w*_?f64",
    "tensor_core": r"v_s?mfma",
    "atomics": r"(global|buffer|flat)_atomic",
    "float_atomics": r"(global|buffer|flat)_atomic_\w*_b?f\d",
    "special": r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_",
    "lane_exchanges": r"v_\w+_dpp\b|v_permlane|ds_(b?permute|swizzle)_",
}


def read(compiled: Any) -> Figures:
    """The figures of what `triton.compile` returned."""
    if "cubin" in compiled.asm:
        return _nvidia(compiled.asm["cubin"], compiled.metadata.shared, compiled.asm["ptx"])
    return _amd(compiled.asm["amdgcn"], compiled.metadata.shared)


def sass(cubin: bytes) -> str:
    """The disassembly, one instruction per line, as nvdisasm prints it."""
    return _tool("nvdisasm", cubin, "-c")


def _nvidia(cubin: bytes, shared: int, ptx: str) -> Figures:
    usage = dict(re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", _tool("cuobjdump", cubin, "-res-usage")))
    instructions = [
        re.sub(r"^@!?U?P\w+\s+", "", line)
        for line in re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(.+?);", sass(cubin), re.MULTILINE)
    ]
    counts = _counted([line for line in instructions if not line.startswith("NOP")], _NVIDIA)
    return Figures(
        registers=int(usage["REG"]),
        spills=int(usage["STACK"]) + int(usage["LOCAL"]),
        shared=max(shared, int(usage["SHARED"])),
        undecided=undecided(ptx),
        fused_lane_sums=fused_lane_sums(ptx),
        **counts,
    )


def _amd(text: str, shared: int) -> Figures:
    def stated(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", text)[1])  # type: ignore[index]

    code = text.split(".amdhsa_kernel")[0]
    instructions = re.findall(r"^\t([a-z]+_[a-z0-9_]+.*)$", code, re.MULTILINE)
    return Figures(
        registers=stated("vgpr_count"),
        spills=stated("vgpr_spill_count") + stated("private_segment_fixed_size"),
        shared=max(shared, stated("group_segment_fixed_size")),
        undecided=0,
        fused_lane_sums=0,
        **_counted(instructions, _AMD),
    )


def _counted(instructions: list[str], patterns: dict[str, str]) -> dict[str, int]:
    counts: Counter[str] = Counter(dict.fromkeys(patterns, 0))
    for line in instructions:
        counts.update(name for name, pattern in patterns.items() if re.match(pattern, line))
    return {**counts, "instructions": len(instructions)}


def _tool(name: str, binary: bytes, *arguments: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        done = subprocess.run([TOOLS / name, *arguments, file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} could not read a compiled kernel: {done.stderr.strip()}")
    return done.stdout
