"""Which counters order what two programs do, step by step: one thread of one program at a time, in PTX by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from adu_kernels.testing.executed_ptx import Fault
from tests.executed_ptx import handwritten

BARRIER = "bar.sync 0;"
STORE, LOAD = "st.global.b32 [%rd901], 7;", "ld.global.b32 %r2, [%rd901];"
COUNT, COUNT_ELSEWHERE = (f"atom.global.gpu.acq_rel.add.u32 %r1, [%rd900+{offset}], 1;" for offset in (0, 4))
Step = tuple[int, int, str] | str
"""Program, thread and instruction; or an instruction for all."""

ORDERED: dict[str, list[Step]] = {
    "the same threads store, count, count and load": [(0, 0, STORE), (0, 0, COUNT), (1, 0, COUNT), (1, 0, LOAD)],
    "others store and load, with barriers": [
        (0, 1, STORE), BARRIER, (0, 0, COUNT), (1, 0, COUNT), BARRIER, (1, 1, LOAD),
    ],
    "a third program passes it on by another counter": [
        (0, 0, STORE), (0, 0, COUNT), (2, 0, COUNT), (2, 0, COUNT_ELSEWHERE), (1, 0, COUNT_ELSEWHERE), (1, 0, LOAD),
    ],
    "another thread counts elsewhere before the load": [
        (0, 0, STORE), (0, 0, COUNT), (1, 0, COUNT), BARRIER, (1, 1, COUNT_ELSEWHERE), (1, 2, LOAD),
    ],
    "another program's load before the store": [(0, 0, LOAD), (0, 0, COUNT), (1, 0, COUNT), (1, 0, STORE)],
}  # fmt: skip
UNORDERED: dict[str, list[Step]] = {
    "nobody counts": [(0, 0, STORE), (1, 0, LOAD)],
    "the first does not count": [(0, 0, STORE), (1, 0, COUNT), (1, 0, LOAD)],
    "the second does not count": [(0, 0, STORE), (0, 0, COUNT), (1, 0, LOAD)],
    "the second counts before the first": [(1, 0, COUNT), (0, 0, STORE), (0, 0, COUNT), (1, 0, LOAD)],
    "no barrier before counting": [(0, 1, STORE), (0, 0, COUNT), (1, 0, COUNT), (1, 0, LOAD)],
    "no barrier after counting": [(0, 0, STORE), (0, 0, COUNT), (1, 0, COUNT), (1, 1, LOAD)],
    "stored after counting and a barrier": [(0, 0, COUNT), BARRIER, (0, 0, STORE), (1, 0, COUNT), (1, 0, LOAD)],
    "stored just after counting": [(0, 0, COUNT), (0, 0, STORE), (1, 0, COUNT), (1, 0, LOAD)],
    "counted again where the second does not look": [
        (0, 0, COUNT), BARRIER, (1, 0, COUNT), (0, 0, STORE), BARRIER, (0, 0, COUNT_ELSEWHERE), BARRIER, (1, 0, LOAD),
    ],
    "counted again after the second has looked": [
        (0, 0, COUNT), BARRIER, (1, 0, COUNT), (0, 0, STORE), BARRIER, (0, 0, COUNT), BARRIER, (1, 0, LOAD),
    ],
    "the third's two threads have no barrier between": [
        (0, 0, STORE), (0, 0, COUNT), (2, 0, COUNT), (2, 1, COUNT_ELSEWHERE), (1, 0, COUNT_ELSEWHERE), (1, 0, LOAD),
    ],
    "a store over what another program loads": [(0, 0, LOAD), (1, 0, COUNT), (1, 0, STORE)],
}  # fmt: skip


def execute(steps: list[Step]) -> None:
    predicates, lines = itertools.count(1), ["mov.u32 %r5, %ctaid.x;"]
    for step in steps:
        if isinstance(step, str):
            lines.append(step)
            continue
        program, thread, instruction = step
        of_program, of_thread, both = (f"%p{next(predicates)}" for _ in range(3))
        lines += [
            f"setp.eq.u32 {of_program}, %r5, {program};",
            f"setp.eq.u32 {of_thread}, %r900, {thread};",
            f"and.pred {both}, {of_program}, {of_thread};",
            f"@{both} {instruction}",
        ]
    handwritten.run("\n".join(lines), np.zeros(2, "u4"), np.zeros(1, "u4"), programs=3)


@pytest.mark.parametrize("steps", ORDERED.values(), ids=ORDERED)
def test_ordered(steps: list[Step]) -> None:
    execute(steps)


@pytest.mark.parametrize("steps", UNORDERED.values(), ids=UNORDERED)
def test_unordered(steps: list[Step]) -> None:
    with pytest.raises(Fault, match="RACE between programs 0 and 1, device memory"):
        execute(steps)
