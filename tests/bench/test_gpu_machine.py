"""A machine with a GPU has what the check's doctor asks for and no more: every stage starts there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu_check import parity
from bench.gpu_check.doctor import NO_STAGE
from bench.gpu_check.stages import BY_NAME
from bench.harness.environment import ROOT
from bench.operations import EVERY

STARTED = sorted({"bench.gpu_check", "bench.gpu_check.unpack", *(stage.module for stage in BY_NAME.values())})
SUITES = "from bench.operations import EVERY, suite_class\nfor name in EVERY: suite_class(name)"
COLLECT = f"""
import sys, torch
torch.cuda.is_available = lambda: True
import pytest
chosen = ["-m", {parity.MARKED!r}, "-p", "no:cacheprovider", "-p", "no:xdist"]
sys.exit(pytest.main(["--collect-only", "-q", *chosen, *{parity.TESTS!r}]))
"""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python to which what no stage may need is not installed."""
    folder = tmp_path_factory.mktemp("absent")
    for name in NO_STAGE:
        told = f"No module named {name!r}"
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError({told!r}, name={name!r})\n")
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "TRITON_INTERPRET": "0"}


def run(code: str, environment: dict[str, str], folder: Path = ROOT) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_what_is_absent_is_absent(without: dict[str, str]) -> None:
    """Else the other tests here could not fail."""
    assert "tyro" in NO_STAGE
    told = run("try: import tyro.conf\nexcept ModuleNotFoundError as error: print(error.name)", without)
    assert told == "tyro\n"


def test_every_stage_and_every_benchmark_is_imported(without: dict[str, str]) -> None:
    assert {"bench.gpu_check.profile", "bench.gpu_check.training", "bench.gpu_check.convergence"} <= {*STARTED}
    assert {"teacher-step", "student-inference"} <= EVERY.keys()
    run("\n".join([f"import {module}" for module in STARTED] + [SUITES]), without)


def test_every_kernel_test_is_collected(without: dict[str, str]) -> None:
    collected = {line.split("::")[0] for line in run(COLLECT, without).splitlines() if "::" in line}
    kernels, graphs = parity.TESTS
    assert {graphs, *(f"{kernels}/{path.name}" for path in (ROOT / kernels).glob("test_*_triton.py"))} <= collected
