"""What a step may launch, copy and keep: committed counts, so that a change says when it adds to them."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adu_depth.files import write_json
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from bench.step_model.cases import cases
from bench.step_model.steps import trace_step
from bench.step_model.summary import Counts, counts

PATH = Path(__file__).with_name("budgets.json")
CASES = (
    "teacher 96×320", "teacher 256×512 D192", "teacher gwc-sized 256×512", "student 96×320", "student 256×512",
    "kitti-eigen-teacher", "kitti-eigen-resnet50", "kitti-eigen-resnet50 cached", "kitti-eigen-mobile",
    "kitti-eigen-swin-large",
)  # fmt: skip
"""Budgeted, in bf16 with the kernels. The presets of other data sets are the same networks."""
FIGURES = ("launches", "layouts", "copies", "casts", "saved_bytes")
UPDATE = "python -m bench step-model --update"


def versions() -> dict[str, str]:
    """What the counts depend on besides this repository: torch splits operations, transformers writes the encoders."""
    return {name: version(name).partition("+")[0] for name in ("torch", "transformers")}


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def changes(budget: dict[str, Any], now: Counts) -> list[str]:
    """How a step's counts differ from its budget, in words; empty where they do not."""
    found = []
    for figure in FIGURES:
        before, after = budget[figure], getattr(now, figure)
        if before != after:
            found.append(f"{figure}: {after}, the budget says {before} ({after - before:+d})")
    if found:
        for group in sorted({*budget["by_group"], *now.by_group}):
            before, after = budget["by_group"].get(group, 0), now.by_group.get(group, 0)
            if before != after:
                found.append(f"launches of {group}: {before} → {after}")
    return found


def update(process: FakeCudaProcess) -> list[str]:
    """Writes the counts of this tree as budgets; returns what changed, in words."""
    before: dict[str, Any] = read()["steps"] if PATH.exists() else {}
    known, steps, said = cases(), {}, []
    for name in CASES:
        now = counts(process.call(trace_step, known[name], "bf16"))
        steps[name] = asdict(now)
        if name not in before:
            said.append(f"{name}: new, {now.launches} launches")
        elif changed := changes(before[name], now):
            said += [f"{name}:", *(f"  {line}" for line in changed)]
    write_json(PATH, {"counted_with": versions(), "steps": steps})
    return [*(said or ["no budget changed"]), f"wrote {PATH.name}"]
