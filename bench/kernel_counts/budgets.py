"""The committed counts, and what may grow by how much before a change is questioned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("budgets.json")
TOLERANCE = 0.05
"""Share by which a figure may get worse unquestioned: what one more instruction in a short loop does."""
FEWER_IS_BETTER = ("instructions_per_word", "sectors_over_floor", "bank_factor", "over_dram")
MORE_IS_BETTER = ("load_efficiency", "store_efficiency")


def read() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def write(report: dict[str, Any]) -> None:
    """All of them."""
    kept = {**report, "kernels": dict(sorted(report["kernels"].items()))}
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def worse(measured: dict[str, Any], budget: dict[str, Any]) -> list[str]:
    """What of one kernel's figures got worse by more than the tolerance, in words."""
    found = []
    for figure in FEWER_IS_BETTER:
        if measured[figure] > budget[figure] * (1 + TOLERANCE):
            found.append(f"{figure} {measured[figure]}, budget {budget[figure]}")
    for figure in MORE_IS_BETTER:
        if measured[figure] < budget[figure] * (1 - TOLERANCE):
            found.append(f"{figure} {measured[figure]}, budget {budget[figure]}")
    return found
