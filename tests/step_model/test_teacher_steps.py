"""Whole training steps of the stereo teacher under CUDA's rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import TeacherLossConfig
from adu_depth.models import StereoTeacher, TeacherConfig
from adu_depth.training.config import TeacherTrainingConfig
from adu_kernels.testing.fake_cuda.process import FakeCudaProcess
from bench.step_model import budgets
from bench.step_model.steps import Precision, StepCase, trace_step
from bench.step_model.summary import volumes
from tests.step_model.conftest import Traced
from tests.step_model.rules import check_budget, check_norms, check_rounding, check_step, distinct, runs

TEACHERS = distinct(TeacherTrainingConfig)
FEW = replace(TeacherTrainingConfig().loop, batch_size=2)
EVERY_CHANGE = PairAugmentationConfig(
    contrast=0.2, saturation=0.2, asymmetric=0.5, flip=0.5, zoom=1.5, vertical_jitter=1.0, erase=0.5
)


@pytest.mark.parametrize(("name", "precision", "implementation"), runs(TEACHERS, quick=["teacher 96×320"]))
def test_a_step_keeps_cudas_rules(traced: Traced, name: str, precision: str, implementation: str) -> None:
    check_step(traced(name, precision, implementation), precision, implementation)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    "option",
    [
        TeacherTrainingConfig(augmentation=EVERY_CHANGE),
        TeacherTrainingConfig(model=TeacherConfig(concat_free=True)),
        TeacherTrainingConfig(model=TeacherConfig(norm="batch")),
        TeacherTrainingConfig(model=TeacherConfig(hourglasses=0, refinement_channels=0)),
        TeacherTrainingConfig(loop=replace(FEW, ema=0.999)),
        TeacherTrainingConfig(model=TeacherConfig(hourglasses=2, recompute_aggregation=True)),
        TeacherTrainingConfig(loss=TeacherLossConfig(left_right=True), augmentation=EVERY_CHANGE),
        TeacherTrainingConfig(loss=TeacherLossConfig(left_right=True), model=TeacherConfig(norm="batch")),
    ],
    ids=[
        *("every change of a pair", "no concatenated volume", "batch norm", "no hourglass, no refinement", "averages"),
        *("recomputed", "left–right check of a changed pair", "left–right check with batch norm"),
    ],
)
def test_options_keep_them_too(fake_cuda: FakeCudaProcess, option: TeacherTrainingConfig, precision: Precision) -> None:
    case = StepCase("options", replace(option, loop=replace(FEW, ema=option.loop.ema)))
    check_step(fake_cuda.call(trace_step, case, precision), precision, "kernels")


def test_averages_are_a_few_launches_on_the_device(fake_cuda: FakeCudaProcess, traced: Traced) -> None:
    averaged = StepCase(
        "averages", replace(TeacherTrainingConfig(), loop=replace(TeacherTrainingConfig().loop, ema=0.999))
    )
    rows = [row for row in fake_cuda.call(trace_step, averaged, "bf16").rows if row.phase == "optimizer"]
    plain = [row for row in traced("teacher 96×320").rows if row.phase == "optimizer"]
    more = [row.name for row in rows][len(plain) :]
    assert [row.name for row in plain] == [row.name for row in rows][: len(plain)]
    assert more[-3:] == ["_foreach_sub", "_foreach_mul_", "_foreach_add_"], more
    assert len(more) <= 10, more


def test_volumes_are_what_the_kernels_are_fast_with(traced: Traced) -> None:
    assert volumes(traced("teacher 96×320")) == "channels-last bfloat16, copied 0 times"
    assert volumes(traced("teacher 96×320", "fp32")) == "channels-last float32, copied 0 times"


def test_a_norm_with_sum_and_relu_is_one_operation(traced: Traced) -> None:
    with torch.device("meta"):
        network = StereoTeacher(TeacherConfig())
    check_norms(traced("teacher 96×320"), network)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("implementation", ["kernels", "references"])
def test_weights_are_rounded_together(traced: Traced, precision: str, implementation: str) -> None:
    with torch.device("meta"):
        network = StereoTeacher(TeacherConfig())
    check_rounding(traced("teacher 96×320", precision, implementation), network)


def test_weights_are_rounded_together_beside_passes_without_gradients_and_recomputed_ones(
    fake_cuda: FakeCudaProcess,
) -> None:
    model = TeacherConfig(hourglasses=2, recompute_aggregation=True)
    training = TeacherTrainingConfig(loss=TeacherLossConfig(left_right=True), model=model, loop=FEW)
    with torch.device("meta"):
        network = StereoTeacher(model)
    check_rounding(fake_cuda.call(trace_step, StepCase("both", training), "bf16"), network)


def test_in_fp32_no_weight_is_rounded(traced: Traced) -> None:
    rows = traced("teacher 96×320", "fp32").rows
    assert not [row for row in rows if row.name == "_foreach_copy_"]


@pytest.mark.parametrize("name", [name for name in budgets.CASES if name in TEACHERS])
def test_a_step_adds_nothing_to_its_budget(traced: Traced, name: str) -> None:
    check_budget(name, traced)
