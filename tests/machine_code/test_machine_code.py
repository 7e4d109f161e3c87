"""No spills, no fp64 and no atomics in any kernel; registers, shared memory and wide loads as the budgets say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = json.loads(Path(__file__).with_name("budgets.json").read_text())
UPDATE = "if the change is wanted: python -m tests.machine_code --update, and commit the difference"


@pytest.fixture(scope="session")
def measured() -> dict:
    """Compiled in a process of its own: here the kernels are interpreted, and those cannot be compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.machine_code", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kernel_has_a_budget(measured: dict) -> None:
    assert set(measured["kernels"]) == set(BUDGETS["kernels"]), UPDATE


@pytest.mark.parametrize("figure", ["spills", "atomics", "fp64"])
def test_none_in_any_kernel(measured: dict, figure: str) -> None:
    excused = measured["double"] if figure in ("fp64", "spills") else []
    found = {name: f[figure] for name, f in measured["kernels"].items() if f[figure] and name not in excused}
    assert not found


@pytest.mark.parametrize("name", BUDGETS["kernels"])
def test_within_budget(measured: dict, name: str) -> None:
    if measured["triton"] != BUDGETS["triton"]:
        pytest.skip(f"the budgets are those of Triton {BUDGETS['triton']}, this is {measured['triton']}")
    budget, figures = BUDGETS["kernels"][name], measured["kernels"][name]
    for figure in ("registers", "shared", "instructions"):
        assert figures[figure] <= budget[figure], f"{figure}: {UPDATE}"
    for figure in ("wide_loads", "wide_stores"):
        assert figures[figure] >= budget[figure], f"{figure}: {UPDATE}"
    assert (figures["tensor_core"] > 0) == (budget["tensor_core"] > 0), UPDATE


def test_two_compilations_serve_every_image_size(measured: dict) -> None:
    for room, kernels in measured["compilations"].items():
        assert kernels, f"{room}: no kernel was launched"
        assert max(kernels.values()) <= 2, (room, kernels)
