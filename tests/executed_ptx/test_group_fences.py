"""wgmma.fence orders what threads do to registers before a product uses them: PTX by hand, with it and without."""

from __future__ import annotations

import pytest

from adu_kernels.testing.executed_ptx import UnfencedRegisters
from adu_kernels.testing.executed_ptx.ptx.group_fences import check_registers_are_fenced
from adu_kernels.testing.executed_ptx.ptx.parser import parse

FENCE = "wgmma.fence.sync.aligned;"
SUMS = "{" + ", ".join(f"%r{number}" for number in range(32)) + "}"
PRODUCT = f"wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {SUMS}, %rd1, %rd2, 1, 1, 1, 0, 0;"
OF_REGISTERS = (
    f"wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {SUMS}, {{%r40, %r41, %r42, %r43}}, %rd2, 1, 1, 1, 0;"
)


def check(text: str) -> None:
    check_registers_are_fenced(parse(".entry k(\n)\n.reqntid 128\n{\n" + text + "\nret;\n}\n").blocks)


@pytest.mark.parametrize(
    "text",
    [
        f"mov.b32 %r3, 0;\n{FENCE}\n{PRODUCT}",
        f"{FENCE}\nadd.s32 %r50, %r51, 1;\n{PRODUCT}",  # a register of its own
        f"{FENCE}\n{PRODUCT}\n{PRODUCT}",  # products add up in order
        f"{FENCE}\n$again:\n{PRODUCT}\nsetp.eq.u32 %p1, %r50, 0;\n@%p1 bra $again;",
        f"$again:\n{FENCE}\n{OF_REGISTERS}\nmov.b32 %r40, %r50;\n@%p1 bra $again;",
        f"@%p1 bra $no;\nmov.b32 %r3, 0;\n{FENCE}\n{PRODUCT}\n$no:",
    ],
)
def test_registers_are_fenced(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        PRODUCT,
        f"{PRODUCT}\n{FENCE}",
        f"{FENCE}\nmov.b32 %r3, 0;\n{PRODUCT}",
        f"{FENCE}\nst.global.b32 [%rd5], %r3;\n{PRODUCT}",  # read, and then written by the product
        f"{FENCE}\nadd.s32 %r42, %r50, 1;\n{OF_REGISTERS}",
        f"{FENCE}\n$again:\n{OF_REGISTERS}\nmov.b32 %r40, %r50;\n@%p1 bra $again;",  # the second time round
        f"@%p1 bra $on;\n{FENCE}\n$on:\n{PRODUCT}",  # by one way
    ],
)
def test_registers_are_not_fenced(text: str) -> None:
    with pytest.raises(UnfencedRegisters, match=r"with no wgmma\.fence since: wgmma\.mma_async"):
        check(text)
