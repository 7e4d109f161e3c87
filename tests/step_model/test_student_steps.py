"""Whole training steps of the student under CUDA's rules, its teacher online; and that every preset is among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.distillation import DistillationConfig
from adu_depth.models import MonoStudent, StudentConfig, TeacherConfig
from adu_depth.training.config import DataConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.presets import PRESETS
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from bench.step_model import budgets
from bench.step_model.cases import cases
from bench.step_model.steps import Precision, StepCase, build, trace_step
from tests.step_model.conftest import Traced
from tests.step_model.rules import check_budget, check_norms, check_rounding, check_step, distinct, runs, what_runs

STUDENTS = distinct(StudentTrainingConfig)
FEW = replace(StudentTrainingConfig().loop, batch_size=2)


@pytest.mark.parametrize(("name", "precision", "implementation"), runs(STUDENTS, quick=["student 96×320"]))
def test_a_step_keeps_cudas_rules(traced: Traced, name: str, precision: str, implementation: str) -> None:
    check_step(traced(name, precision, implementation), precision, implementation)


def test_every_preset_is_run() -> None:
    known = cases()
    run = [what_runs(known[name]) for name in (*distinct(TeacherTrainingConfig), *STUDENTS)]
    for name in PRESETS:
        assert what_runs(known[name]) in run, name
    assert len(set(run)) == len(run)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    "option",
    [
        StudentTrainingConfig(augmentation=AugmentationConfig(cut_flip=0.5, contrast=0.2, saturation=0.2)),
        StudentTrainingConfig(model=StudentConfig(norm="batch", reference_focal=700.0)),
        StudentTrainingConfig(distillation=DistillationConfig(guide="none", gate=False, key_bias=False)),
        StudentTrainingConfig(distillation=DistillationConfig(beta_nll=0.5, uncertainty_joint=True, normalize="image")),
        StudentTrainingConfig(distillation=DistillationConfig(selective=1.0, learned_scale=1.0, structure=1.0)),
        StudentTrainingConfig(teacher_left_right=True),
        StudentTrainingConfig(
            distillation=DistillationConfig(features=0, learned_scale=1.0, structure=1.0, normalize="image")
        ),
    ],
    ids=[
        "every change of an image",
        "batch norm, focal length",
        "no guide, gate or bias",
        "other objective",
        "further terms",
        "left–right check of the teacher",
        "further terms for features",
    ],
)
def test_options_keep_them_too(fake_cuda: FakeCudaProcess, option: StudentTrainingConfig, precision: Precision) -> None:
    case = StepCase("options", replace(option, loop=FEW), TeacherConfig())
    check_step(fake_cuda.call(trace_step, case, precision), precision, "kernels")


def test_micro_batches_keep_them_too(fake_cuda: FakeCudaProcess) -> None:
    """Two in one step: what a graph holds of it begins with no gradients and ends with all of them."""
    training = StudentTrainingConfig(loop=replace(FEW, accumulate=2))
    trace = fake_cuda.call(trace_step, StepCase("micro-batches", training, TeacherConfig()), "bf16")
    check_step(trace, "bf16", "kernels")
    once = fake_cuda.call(trace_step, StepCase("one", replace(training, loop=FEW), TeacherConfig()), "bf16")
    of = [sum(row.name == "convolution" and row.phase == "forward" for row in t.rows) for t in (once, trace)]
    assert of[0] > 0
    assert of[1] == 2 * of[0]
    assert trace.saved_bytes == once.saved_bytes, "one micro-batch is kept at a time"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_outputs_that_come_with_the_batch_keep_them_too(fake_cuda: FakeCudaProcess, precision: Precision) -> None:
    every_change = AugmentationConfig(cut_flip=0.5, contrast=0.2, saturation=0.2, rotate=5, zoom=1.5)
    training = StudentTrainingConfig(data=DataConfig(dense=True), augmentation=every_change, loop=FEW)
    trace = fake_cuda.call(trace_step, StepCase("cached", training, TeacherConfig(), cached=True), precision)
    check_step(trace, precision, "kernels")
    assert not [row for row in trace.rows if row.phase == "teacher"]


def test_a_norm_with_sum_and_relu_is_one_operation(traced: Traced) -> None:
    with torch.device("meta"):
        network = MonoStudent(StudentConfig())
    check_norms(traced("student 96×320"), network)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_are_rounded_together(traced: Traced, precision: str) -> None:
    """But for the adapters' last, which are multiplied with a number first."""
    with torch.device("meta"):
        task, _ = build(cases()["student 96×320"])
    check_rounding(traced("student 96×320", precision), task, left=len(task.loss.adapters.levels))  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("name", [name for name in budgets.CASES if name in STUDENTS])
def test_a_step_adds_nothing_to_its_budget(traced: Traced, name: str) -> None:
    check_budget(name, traced)


def test_a_step_in_fp16_keeps_them_too(traced: Traced) -> None:
    """Its scaler included: whether a gradient has overflowed stays on the device."""
    trace = traced("student 96×320", "fp16")
    check_step(trace, "fp16", "kernels")
    names = [row.name for row in trace.rows]
    assert "_amp_foreach_non_finite_check_and_unscale_" in names
    assert "_amp_update_scale_" in names
