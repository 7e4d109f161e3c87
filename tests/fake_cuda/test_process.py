"""The guard is built once, whole or not at all; what it does stays in the child."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adu_kernels.testing.fake_cuda import build
from adu_kernels.testing.fake_cuda.build import DoesNotCompile, Unavailable, guard_library
from adu_kernels.testing.fake_cuda.device import fake_cuda as inside
from adu_kernels.testing.fake_cuda.process import FakeCudaError, FakeCudaProcess
from tests.fake_cuda.planted import autocast_table, backward_on_two_threads, fail, leave, torch_answers, unpicklable
from tests.fake_cuda.start import started_or_skipped


def test_the_child_has_a_device_and_this_process_none(fake_cuda: FakeCudaProcess) -> None:
    before = torch_answers()
    assert fake_cuda.call(torch_answers) == (True, 1, "cuda")
    assert torch_answers() == before
    if torch.version.cuda is None:
        assert before == (False, 0, "None")


def test_results_have_cudas_types_and_layouts(fake_cuda: FakeCudaProcess) -> None:
    """CUDA's autocast makes some fp32 that the CPU's leaves in bf16, and CUDA's kernels choose layouts of their own."""
    assert fake_cuda.call(autocast_table) == {
        "conv2d": "bfloat16 channels-last",
        "normalize": "float32 channels-last",
        "group_norm": "float32 contiguous",
        "instance_norm": "bfloat16 contiguous",
        "relu": "bfloat16 channels-last",
        "softmax": "float32 contiguous",
        "sum": "float32 channels-last",
    }


def test_a_failure_comes_back_as_its_traceback_and_the_child_goes_on(fake_cuda: FakeCudaProcess) -> None:
    with pytest.raises(FakeCudaError, match=r"in fail\n(.*\n)*ValueError: planted") as caught:
        fake_cuda.call(fail, "planted")
    assert caught.value.kind == "ValueError"
    with pytest.raises(FakeCudaError, match=r"unpicklable\.<locals>"):
        fake_cuda.call(unpicklable)
    assert fake_cuda.call(torch_answers)[0]


def test_a_child_that_dies_is_reported(fake_cuda: FakeCudaProcess) -> None:
    with FakeCudaProcess() as other:
        for _ in range(2):
            with pytest.raises(FakeCudaError, match="ended with code 3"):
                other.call(leave, 3)


def test_fake_tensors_are_refused_where_the_guard_is_not_loaded() -> None:
    if torch.cuda.is_available():
        pytest.skip("this torch has a CUDA device of its own")
    with pytest.raises(RuntimeError, match="FakeCudaProcess"), inside():
        pass


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(Unavailable, match=r"c\+\+, g\+\+, clang\+\+ not found on PATH; install g\+\+"):
        FakeCudaProcess()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match="no-such-compiler not found"):
        FakeCudaProcess()


def test_a_compiler_may_be_named_with_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in CXX="ccache g++"; here one that writes down what it is given."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho "$@" > "$0.given"\nwhile [ "$1" != -o ]; do shift; done\ntouch "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("CXX", f"'{compiler}' -m64 --because='of this'")
    assert guard_library().exists()
    assert (tmp_path / "compiler.given").read_text().startswith("-m64 --because=of this -shared ")
    monkeypatch.setenv("CXX", " ")
    build.compile_guard(tmp_path / "guard.so")


def test_a_guard_that_does_not_compile_fails_the_tests_that_need_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A skip would take every such test away, and be green. `false` is a compiler that is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(DoesNotCompile, match=r"false could not compile guard\.cpp"):
        started_or_skipped()
    monkeypatch.setenv("CXX", "'no end")
    with pytest.raises(DoesNotCompile, match="CXX: expected a command and its arguments, got 'no end"):
        started_or_skipped()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(pytest.skip.Exception, match="no-such-compiler not found"):
        started_or_skipped()
    assert list(tmp_path.rglob("*.*")) == [], "nothing half made is left"


def test_a_gpu_build_of_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(Unavailable, match="GPU build"):
        guard_library()


def test_the_library_is_made_once_for_a_torch_and_a_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_cuda: FakeCudaProcess
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = guard_library()
    made = first.stat().st_mtime_ns
    assert guard_library() == first
    assert first.stat().st_mtime_ns == made
    changed = tmp_path / "guard.cpp"
    changed.write_bytes(build.SOURCE.read_bytes() + b"// changed\n")
    monkeypatch.setattr(build, "SOURCE", changed)
    second = guard_library()
    assert second != first
    changed.write_text("no C++")
    with pytest.raises(DoesNotCompile, match=r"could not compile guard.cpp for torch .*:\n(.*\n)*.*error"):
        guard_library()
    assert sorted(first.parent.iterdir()) == sorted([first, second]), "nothing half made is left"


def test_an_environment_that_is_gone_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_cuda: FakeCudaProcess
) -> None:
    """Two environments have the same torch; the guard that the first one made refers to the first one's files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gone = tmp_path / "environment"
    gone.symlink_to(Path(torch.__file__).parent)
    with monkeypatch.context() as first:
        first.setattr(torch, "__file__", str(gone / "__init__.py"))
        guard_library()
    gone.unlink()
    with FakeCudaProcess() as process:
        assert process.call(torch_answers) == (True, 1, "cuda")


def test_a_backward_on_the_host_and_on_the_device_at_once(fake_cuda: FakeCudaProcess) -> None:
    """The two share the mode, and each must have its own idea of whether it is inside an operation."""
    rounds = 20
    assert fake_cuda.call(backward_on_two_threads, rounds) == rounds * fake_cuda.call(backward_on_two_threads, 1)
