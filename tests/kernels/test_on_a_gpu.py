"""Which kernel tests run on a GPU, and on which numbers, as far as a machine without one can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.kernels import draws

pytestmark = pytest.mark.cpu
ROOT = Path(__file__).resolve().parents[2]
COLLECT = """
import sys, torch
torch.cuda.is_available = lambda: True
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-m", sys.argv[1], "-p", "no:cacheprovider", "tests/kernels"]))
"""


def _selected(marked: str) -> list[str]:
    """The tests that `-m marked` selects where torch says that there is a GPU, in the order in which they run."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COLLECT, marked]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.removeprefix("tests/kernels/") for line in done.stdout.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def selected() -> list[str]:
    return _selected("gpu")


def test_kernels_are_tested_on_a_gpu(selected: list[str]) -> None:
    files = {test.split("::")[0] for test in selected}
    started = {path.name for path in Path(__file__).parent.glob("test_*_triton.py")}
    assert started | {"test_correlation_disparity.py", "test_depth_objective_sums.py", "test_kit.py"} <= files
    assert "test_kit.py::TestWeightedMean::test_gradcheck" in selected
    assert any("captured_in_a_cuda_graph" in test for test in selected)
    assert "test_depth_objective_masks.py::test_same_bits_twice[triton]" in selected


def test_references_and_text_stay_on_the_cpu(selected: list[str]) -> None:
    files = {test.split("::")[0] for test in selected}
    for other in ("attention_adaptation", "cost_volume", "depth_objective", "disparity_regression", "concat_free_conv"):
        assert f"test_{other}.py" not in files
    assert {test.split("[")[0] for test in selected if test.startswith("test_public_face.py")} == {
        "test_public_face.py::test_auto_on_a_gpu_is_the_kernel"
    }
    assert "test_depth_objective_masks.py::test_same_bits_twice[torch]" not in selected


def test_what_takes_long_there_comes_last(selected: list[str]) -> None:
    long = _selected("gpu and long")
    assert selected[-len(long) :] == long
    assert 100 < len(long) < len(selected) / 3
    assert "test_kit.py::TestWeightedMean::test_gradcheck" in long
    assert "test_kit.py::TestWeightedMean::test_every_dtype[float64]" in long
    assert "test_attention_adaptation_triton.py::test_parity_at_any_size" in long


def test_drawn_numbers_are_the_cpus() -> None:
    torch.manual_seed(3)
    want = torch.randn(2, 3), torch.rand(4), torch.randint(9, (5,)), torch.randn_like(torch.ones(2, 2))
    torch.manual_seed(3)
    with draws.drawn_on_the_cpu():
        got = torch.randn(2, 3), torch.rand(4), torch.randint(9, (5,)), torch.randn_like(torch.ones(2, 2))
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


def test_drawn_numbers_lie_where_tensors_are_made() -> None:
    with draws.drawn_on_the_cpu(), torch.device("meta"):
        assert torch.rand(3).device.type == "meta"
        assert torch.randn(3, device="cpu").device.type == "cpu"
        leaf = torch.randn((2, 2), dtype=torch.float64, requires_grad=True)
    assert (leaf.device.type, leaf.dtype, leaf.is_leaf, leaf.requires_grad) == ("meta", torch.float64, True, True)


def test_a_cpu_generator_is_taken_wherever_the_numbers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.autograd.gradcheck` hands one over, and a GPU's `torch.rand` would refuse it."""
    given: list[str] = []

    def rand(*shape: int, device: str, generator: torch.Generator) -> Tensor:
        given.append(device)
        assert generator.device == torch.device(device)
        return real(*shape, device=device, generator=generator)

    real, generator = torch.rand, torch.Generator("cpu")
    monkeypatch.setattr(torch, "rand", rand)
    with draws.drawn_on_the_cpu(), torch.device("meta"):
        assert torch.rand(3, generator=generator).device.type == "meta"
    assert given == ["cpu"]
