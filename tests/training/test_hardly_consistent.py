"""A training whose left–right check lets next to nothing pass says so, once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adu_depth.distillation import TeacherLossConfig, teacher_loss
from adu_depth.training import tasks
from adu_depth.training.history import hardly_consistent
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import LOOP, tiny_student, tiny_teacher

CHECKED = TeacherLossConfig(left_right=True)


def warnings_in(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "pass the left–right check" in line]


def shares(run: Path) -> list[float]:
    return [json.loads(line)["consistent"] for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture
def nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check's answer as pairs give it that have nothing in common."""

    def none(disparity: Tensor, right_disparity: Tensor) -> Tensor:
        return torch.zeros_like(disparity, dtype=torch.bool)

    for module in (teacher_loss, tasks):
        monkeypatch.setattr(module, "left_right_consistent", none)


@pytest.mark.usefixtures("nothing_passes")
def test_teacher_and_student_warn_once_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, short = tmp_path / "teacher", replace(LOOP, steps=4)
    train_teacher(tiny_teacher(run, loss=CHECKED, loop=short))
    assert shares(run) == [0, 0]
    [said] = warnings_in(capsys)
    assert said.startswith("WARNING: step 2: 0.0 % of the pixels pass the left–right check")
    assert "exchanged" in said
    assert "max_disparity" in said
    train_teacher(tiny_teacher(run, loss=CHECKED, loop=replace(LOOP, steps=6, resume=True)))
    assert shares(run) == [0, 0, 0]
    assert warnings_in(capsys) == [], "the run has said so before"
    train_student(tiny_student(tmp_path / "student", teacher=run, teacher_left_right=True, loop=short))
    assert shares(tmp_path / "student") == [0, 0]
    [said] = warnings_in(capsys)
    assert "step 2: 0.0 %" in said


def test_one_of_which_some_pass_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_teacher(tiny_teacher(tmp_path / "run", loss=CHECKED, loop=replace(LOOP, steps=2)))
    assert min(shares(tmp_path / "run")) > 0.1
    assert warnings_in(capsys) == []


def test_the_first_row_below_is_the_one_that_warns() -> None:
    rows: list[dict[str, float]] = [{"step": 2, "consistent": 0.6}, {"step": 3, "validation/d1": 1.0}]
    assert hardly_consistent(rows) is None
    rows.append({"step": 4, "consistent": 0.012})
    assert "step 4: 1.2 % of the pixels" in (hardly_consistent(rows) or "")
    rows.append({"step": 5, "consistent": 0.7})
    assert hardly_consistent(rows) is None
    rows.append({"step": 6, "consistent": 0.0})
    assert hardly_consistent(rows) is None
