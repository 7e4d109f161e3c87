"""Every operation launched for real but for the GPU: Triton's binder, ptxas and C launcher on a stub of the driver.

What the driver is handed, grid, block and each parameter by value, is what was called for; registers and shared memory
are what the GPU has. In processes of their own: here kernels are interpreted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.stub_driver import gpu

pytest.importorskip("triton")
ROOT = Path(__file__).resolve().parents[2]
LAUNCHES = {
    "attention_adaptation": 4,
    "correlation_disparity": 2,
    "cost_volume": 2,
    "depth_gradient_normal": 3,
    "depth_objective": 2,
    "disparity_regression": 3,
    "feature_distillation": 3,
    "group_norm": 5,
    "single_output_conv3d": 3,
}
"""Of the first case of each operation, forward and backward."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if gpu.compiler() is None:
        pytest.skip(f"needs a C compiler: $CC ({os.environ.get('CC', 'not set')}), gcc or clang")
    return gpu.build(tmp_path_factory.mktemp("driver"))


def _json(module: str, *arguments: str) -> dict[str, Any]:
    """What the module prints on its last line, run with compiled kernels."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _check(found: dict[str, list[dict[str, Any]]]) -> None:
    for operation, cases in found.items():
        for case in cases:
            assert not case["faults"], (operation, case["case"])
            assert case["kernels"], (operation, case["case"])


@pytest.mark.parametrize("named", ["no-such-compiler", "ccache gcc", "/no/such/gcc", ""])
def test_a_compiler_that_triton_could_not_start_is_none(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Triton takes $CC for one word, the name of a program: without it these tests are skipped."""
    monkeypatch.setenv("CC", named)
    assert gpu.compiler() is None


def test_an_operation_is_launched_as_it_is_called(library: Path) -> None:
    found = _json("tests.stub_driver", str(library), "--gpu", "90", "--first")
    _check(found)
    counts = Counter({operation: len(case["kernels"]) for operation, (case,) in found.items()})
    assert counts == LAUNCHES


def test_what_a_call_costs_the_host_is_told_by_layer(library: Path) -> None:
    found = _json(
        "tests.stub_driver.host_time", str(library), "teacher_gate", "disparity_regression", "--repeats", "40"
    )
    gate, regression = found["teacher_gate"], found["disparity_regression"]
    assert (gate["launches"], regression["launches"]) == ("1", "1 + 2")
    assert "backward" not in gate
    assert sum(gate[layer] for layer in ("check", "operator", "body", "launch")) == pytest.approx(gate["all"])
    assert regression["both"] == regression["forward"] + regression["backward"] > regression["all"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100, 120])
def test_every_case_is_launched_as_it_is_called(library: Path, capability: int) -> None:
    found = _json("tests.stub_driver", str(library), "--gpu", str(capability))
    _check(found)
    assert found.keys() == LAUNCHES.keys()


def test_a_kept_kernel_is_started_where_triton_would_choose_it(library: Path) -> None:
    found = _json("tests.stub_driver.kept", str(library))
    assert {name: case["faults"] for name, case in found.items() if case["faults"]} == {}
    assert {name: case["new kernels"] for name, case in found.items()} == {
        name: 0 if name.startswith("same") else 1 for name in found
    }


def test_planted_faults_are_seen(library: Path) -> None:
    found = _json("tests.stub_driver.planted", str(library))
    assert found.pop("as called") == []
    assert found.pop("launched all the same") == []
    assert "a grid that no GPU takes" in found.pop("a grid too high")
    assert "a cubin for another GPU" in found.pop("another GPU's cubin")
    assert len(found) == 6
    for name, seen in found.items():
        assert seen, name
