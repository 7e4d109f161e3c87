"""The row "ours, graph" of training steps: it compares what a replay gives, and times the trainer's own graphs."""

from __future__ import annotations

import pytest
import torch

from adu_depth.data import SyntheticStereo
from adu_depth.training.graph import WARM_UP
from bench import training_steps
from bench.harness.implementations import EAGER, OURS
from bench.harness.timing import no_mark
from bench.training_parts import GRAPH, OURS_BY_GRAPH
from bench.training_steps import (
    SCALES,
    TOLERANCE,
    Build,
    DistillationStepBenchmark,
    StudentInferenceBenchmark,
    TeacherStepBenchmark,
    _seeded,
    _values,
    check_step,
    distillation_step,
    list_implementations,
    teacher_step,
)
from tests.training.tape import Tape
from tests.training.test_graph import place_rate

CPU, (TINY,) = torch.device("cpu"), SCALES["tiny"]


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    tape = Tape()
    monkeypatch.setattr(training_steps, "graphs_on", lambda device: tape)
    monkeypatch.setattr(training_steps, "place_learning_rate", place_rate)
    return tape


@pytest.mark.parametrize("build", [teacher_step, distillation_step])
def test_a_replays_values_are_compared(build: Build, tape: Tape) -> None:
    sample = SyntheticStereo(None, TINY.height, TINY.width).render_batch([0])
    exact = _values(_seeded(build, TINY, CPU, None, None, "torch"), sample, "torch")
    built = _seeded(build, TINY, CPU, None, GRAPH, "torch")
    before = [parameter.clone() for parameter in built.parameters]
    found = _values(built, sample, "torch")
    assert (tape.captures, tape.replays) == (2, 2)
    check_step(found, exact, exact, TOLERANCE[torch.float32])
    assert all(torch.equal(one, other) for one, other in zip(before, built.parameters, strict=True))


def test_what_is_timed_trains(tape: Tape) -> None:
    sample = SyntheticStereo(None, TINY.height, TINY.width).render_batch([0])
    built = _seeded(teacher_step, TINY, CPU, None, GRAPH, "torch")
    marks: list[str] = []
    totals = [float(built.work(sample, marks.append, True)["total"]) for _ in range(5)]
    assert marks == ["gradients", "update"] * 5
    assert tape.replays == 6
    assert len(set(totals)) == 5


def test_a_step_that_cannot_be_captured_has_no_times(tape: Tape) -> None:
    tape.fail = {0: RuntimeError("operation not permitted")}
    built = _seeded(teacher_step, TINY, CPU, None, GRAPH, "torch")
    sample = SyntheticStereo(None, TINY.height, TINY.width).render_batch([0])
    for _ in range(WARM_UP):
        built.work(sample, no_mark, True)
    with pytest.raises(RuntimeError, match=r"cannot be captured \(RuntimeError: operation not permitted\)"):
        built.work(sample, no_mark, True)


def test_it_stands_beside_ours_where_steps_are_trained_on_a_gpu() -> None:
    assert [name for name, *_ in list_implementations(True, (), by_graph=True)] == [OURS, OURS_BY_GRAPH, EAGER]
    assert [name for name, *_ in list_implementations(True, ())] == [OURS, EAGER]
    trains = [suite().trains for suite in (TeacherStepBenchmark, DistillationStepBenchmark, StudentInferenceBenchmark)]
    assert trains == [True, True, False]
