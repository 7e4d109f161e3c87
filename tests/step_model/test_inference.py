"""Prediction, as evaluation and `adu-depth predict` run it, and rendering on the device, under CUDA's rules."""

from __future__ import annotations

import pytest

from adu_kernels.testing.fake_cuda import rules
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from tests.step_model.inference import predict, render

MAP = ("torch.float32", (2, 1, 190, 630))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("size", [None, (96, 320)], ids=["full size", "trained size"])
def test_a_teacher_predicts(fake_cuda: FakeCudaProcess, backend: str, size: tuple[int, int] | None, bf16: bool) -> None:
    maps, rows = fake_cuda.call(predict, "teacher", backend, size, "none", bf16)
    assert maps == dict.fromkeys(("depth", "log_scale", "disparity"), MAP)
    assert not rules.waits_for_device(rows)
    assert not rules.fp64_on_device(rows)
    if backend == "triton":
        assert not rules.volumes_copied(rows)
        assert not rules.off_the_fast_path(rows, "bfloat16" if bf16 else "float32")


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("flip", ["none", "mean", "monodepth"])
def test_a_student_predicts(fake_cuda: FakeCudaProcess, flip: str, bf16: bool) -> None:
    maps, rows = fake_cuda.call(predict, "student", "triton", (96, 320), flip, bf16)
    assert maps == dict.fromkeys(("depth", "log_scale"), MAP)
    assert not rules.waits_for_device(rows)
    assert not rules.fp64_on_device(rows)


def test_scenes_are_rendered_without_a_wait(fake_cuda: FakeCudaProcess) -> None:
    rows = fake_cuda.call(render, 2, 64, 96)
    for rule in (rules.waits_for_device, rules.pageable_copies, rules.fp64_on_device):
        broken = rule(rows)
        assert not broken, f"{rule.__name__}:\n" + "\n".join(sorted({str(row) for row in broken}))
