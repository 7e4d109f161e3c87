"""What is asserted of a step sees each fault it is there for, planted into a whole training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from adu_depth.training.config import TeacherTrainingConfig
from adu_kernels.testing.fake_cuda.process import FakeCudaError, FakeCudaProcess
from bench.step_model import budgets
from bench.step_model.steps import StepCase, StepTrace, trace_step
from bench.step_model.summary import counts
from tests.step_model import planted
from tests.step_model.rules import check_step

TRAINING = TeacherTrainingConfig()
CASE = StepCase("planted", replace(TRAINING, loop=replace(TRAINING.loop, batch_size=2)))


@pytest.fixture(scope="module")
def sound(fake_cuda: FakeCudaProcess) -> StepTrace:
    return fake_cuda.call(trace_step, CASE, "bf16")


def test_nothing_is_found_where_nothing_is_planted(sound: StepTrace) -> None:
    check_step(sound, "bf16", "kernels")
    assert budgets.changes(as_budget(sound), counts(sound)) == []


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (planted.looks, r"waits_for_device:\n_to_copy"),
        (planted.uploads, r"pageable_copies:\n_to_copy.*planted\.py"),
        (planted.uploads_without_waiting, r"(?s)touches_host.*\n_pin_memory.*planted\.py"),
        (planted.takes_a_number_of_the_host, r"(?s)touches_host.*\nmul.*planted\.py"),
        (planted.doubles, r"fp64_on_device:\n_to_copy.*planted\.py"),
        (planted.forgets_a_parameter, r"network\.unused"),
        (planted.leaves_channels_last, r"cost_volume\(bfloat16 2×64×24×80 contiguous"),
        (planted.widens, r"cost_volume\(float32 2×64×24×80 channels-last"),
        (planted.copies_the_volume, r"clone\(bfloat16 2×16×16×24×80 channels-last"),
    ],
)
def test_a_planted_fault_is_told(fake_cuda: FakeCudaProcess, fault: Callable[..., None], seen: str) -> None:
    trace = fake_cuda.call(trace_step, CASE, "bf16", "kernels", fault)
    with pytest.raises(AssertionError, match=seen):
        check_step(trace, "bf16", "kernels")


def test_a_wait_for_a_value_ends_the_step(fake_cuda: FakeCudaProcess) -> None:
    with pytest.raises(FakeCudaError, match="_local_scalar_dense"):
        fake_cuda.call(trace_step, CASE, "bf16", "kernels", planted.waits)


@pytest.mark.parametrize(
    ("fault", "told"),
    [(planted.seeds, r"torch\.manual_seed\(\)"), (planted.waits_for_the_stream, r"Stream\.synchronize\(\)")],
)
def test_what_a_graph_forbids_the_host_ends_the_step(
    fake_cuda: FakeCudaProcess, fault: Callable[..., None], told: str
) -> None:
    with pytest.raises(FakeCudaError, match=told) as caught:
        fake_cuda.call(trace_step, CASE, "bf16", "kernels", fault)
    assert caught.value.kind == "NotCapturable"


def test_the_budget_sees_one_copy_and_one_launch_more(fake_cuda: FakeCudaProcess, sound: StepTrace) -> None:
    trace = fake_cuda.call(trace_step, CASE, "bf16", "kernels", planted.copies)
    told = budgets.changes(as_budget(sound), counts(trace))
    for figure in ("copies", "launches"):
        assert next(line for line in told if line.startswith(f"{figure}:")).endswith("(+1)")
    assert any(line.startswith("launches of ") for line in told)


def as_budget(trace: StepTrace) -> dict[str, object]:
    return vars(counts(trace))
