"""Runs small enough for tests: a few 32×64 scenes, a few steps, thin networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.data import SyntheticStereo
from adu_depth.models import StudentConfig, TeacherConfig
from adu_depth.training.batches import InMemory
from adu_depth.training.config import DataConfig, LoopConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.runs import train_student, train_teacher

SIZE = (32, 64)
TEACHER = TeacherConfig(
    max_disparity=16,
    num_groups=2,
    correlation_channels=8,
    concat_channels=2,
    aggregation_channels=4,
    feature_channels=(8, 8, 8),
    head_channels=8,
)
STUDENT = StudentConfig(feature_channels=(8, 8, 12), head_channels=8)
DATA = DataConfig(size=SIZE, pairs=5)
LOOP = LoopConfig(steps=6, batch_size=2, device="cpu", workers=0, checkpoint_every=2, log_every=2, check_every=2)


def count_permutations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the permutations that are drawn from here on."""
    drawn: list[int] = []
    randperm = torch.randperm

    def counted(length: int, **settings: object) -> torch.Tensor:
        drawn.append(length)
        return randperm(length, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "randperm", counted)
    return drawn


def tiny_scenes(pairs: int = 5) -> InMemory:
    return InMemory(SyntheticStereo(pairs, *SIZE, seed=0))


def tiny_teacher(run: Path, **changes: object) -> TeacherTrainingConfig:
    return TeacherTrainingConfig(**{"run": run, "data": DATA, "model": TEACHER, "loop": LOOP, **changes})  # type: ignore[arg-type]


def tiny_student(run: Path, **changes: object) -> StudentTrainingConfig:
    return StudentTrainingConfig(**{"run": run, "data": DATA, "model": STUDENT, "loop": LOOP, **changes})  # type: ignore[arg-type]


def train_three(folder: Path) -> None:
    """A teacher, a student and a light student without uncertainty, of one step each, below these names."""
    short = replace(LOOP, steps=1)
    train_teacher(tiny_teacher(folder / "teacher", loop=short))
    train_student(tiny_student(folder / "student", loop=short))
    train_student(tiny_student(folder / "light", loop=short, model=StudentConfig(network="light")))
