"""Which kernel tests run on a GPU, and on which numbers, as far as a machine without one can tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from adu_kernels.testing import autograd_paths
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from tests.kernels import draws
from tests.kernels.played import mixed_devices

pytestmark = pytest.mark.cpu
ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
COLLECT = """
import sys, torch
from torch.overrides import TorchFunctionMode

class Told(TorchFunctionMode):
    def __torch_function__(self, function, types, given=(), options=None):
        made = function(*given, **(options or {}))
        of_others = any(isinstance(one, torch.Tensor) for one in given)
        if isinstance(made, torch.Tensor) and not of_others and "device" not in (options or {}):
            frame = sys._getframe()
            while frame and "/tests/kernels/" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame:
                print(f"MADE {frame.f_code.co_filename}:{frame.f_lineno}")
        return made

torch.cuda.is_available = lambda: True
import pytest
with Told():
    sys.exit(pytest.main(["--collect-only", "-qs", "-m", sys.argv[1], "-p", "no:cacheprovider", "tests/kernels"]))
"""
CLASS = re.compile(r"^class (Test\w+)\((?:OperationTests|Test\w+)\):", re.MULTILINE)
CASE = re.compile(r'^    "(\w+)": \(', re.MULTILINE)


def _collected(marked: str) -> list[str]:
    """What pytest says where there is a GPU for torch; "MADE FILE:LINE" where a tensor is made on no device named."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COLLECT, marked]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def _tests(collected: list[str]) -> list[str]:
    """Those selected, in the order in which they run."""
    return [line.removeprefix("tests/kernels/") for line in collected if "::" in line]


@pytest.fixture(scope="module")
def collected() -> list[str]:
    return _collected("gpu")


@pytest.fixture(scope="module")
def selected(collected: list[str]) -> list[str]:
    return _tests(collected)


def test_kernels_are_tested_on_a_gpu(selected: list[str]) -> None:
    files = {test.split("::")[0] for test in selected}
    started = {path.name for path in Path(__file__).parent.glob("test_*_triton.py")}
    assert started | {"test_correlation_disparity.py", "test_depth_objective_sums.py", "test_kit.py"} <= files
    assert "test_kit.py::TestWeightedMean::test_gradcheck" in selected
    assert any("captured_in_a_cuda_graph" in test for test in selected)
    assert "test_depth_objective_masks.py::test_same_bits_twice[triton]" in selected


def test_references_and_text_stay_on_the_cpu(selected: list[str]) -> None:
    files = {test.split("::")[0] for test in selected}
    for other in (
        "attention_adaptation",
        "cost_volume",
        "depth_objective",
        "disparity_regression",
        "concat_free_conv",
        "group_norm",
    ):
        assert f"test_{other}.py" not in files
    assert {test.split("[")[0] for test in selected if test.startswith("test_public_face.py")} == {
        "test_public_face.py::test_auto_on_a_gpu_is_the_kernel"
    }
    assert "test_depth_objective_masks.py::test_same_bits_twice[torch]" not in selected


def test_what_takes_long_there_comes_last(selected: list[str]) -> None:
    long = _tests(_collected("gpu and long"))
    assert selected[-len(long) :] == long
    assert 100 < len(long) < len(selected) / 3
    assert "test_kit.py::TestWeightedMean::test_gradcheck" in long
    assert "test_kit.py::TestWeightedMean::test_every_dtype[float64]" in long
    assert "test_attention_adaptation_triton.py::test_parity_at_any_size" in long


def test_what_is_made_at_import_says_where_it_lies(collected: list[str]) -> None:
    """Tests make tensors on the GPU by default, and at import there is no such default yet: kernels refused them."""
    made = [line.removeprefix(f"MADE {HERE}/") for line in collected if line.startswith("MADE ")]
    assert not made, f"give it a device, or make it in the test: {made}"


def test_a_path_of_numbers_ends_where_it_began() -> None:
    value = SimpleNamespace(tolist=lambda: [2.0], dtype=torch.float64, device=torch.device("meta"))
    unpacked = autograd_paths._from_numbers(autograd_paths._as_numbers(value))  # type: ignore[arg-type]
    assert (unpacked.device.type, unpacked.dtype, unpacked.shape) == ("meta", torch.float64, (1,))


PLAYED = [
    *((path.stem, name) for path in sorted(HERE.glob("test_*.py")) for name in CLASS.findall(path.read_text())),
    *(("test_autograd_paths", name) for name in CASE.findall((HERE / "test_autograd_paths.py").read_text())),
]


@pytest.mark.parametrize(("file", "name"), PLAYED)
def test_autograd_s_own_thread_meets_no_other_device(file: str, name: str, fake_cuda: FakeCudaProcess) -> None:
    assert not fake_cuda.call(mixed_devices, f"tests.kernels.{file}", name)


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
