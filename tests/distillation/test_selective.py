"""Selective distillation against values that were computed by hand, and as an option of the student's objective."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.distillation.selective import selective_loss
from adu_depth.errors import InputError
from adu_depth.models import StudentConfig
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.training.config import StudentTrainingConfig
from adu_depth.training.runs import train_student
from tests.training.tiny import tiny_scenes, tiny_student


def maps(*rows: list[float]) -> torch.Tensor:
    """One image a row."""
    return torch.tensor(rows).reshape(len(rows), 1, 1, -1)


# Of the first image the first two pixels count (the teacher is nearer by 2 and by 0.5), then: student nearer, as near,
# no truth, truth beyond the range. Of the second: no teacher, a teacher beyond the range that counts as 10, and twice
# a student that is nearer.
STUDENT = maps([2.0, 5.0, 4.0, 3.0, 2.0, 2.0], [2.0, 4.0, 8.0, 3.0, 3.0, 3.0])
TEACHER = maps([4.0, 4.5, 6.0, 5.0, 3.0, 3.0], [math.nan, 0.0, 25.0, 9.0, 9.0, math.inf])
TRUTH = maps([5.0, 4.0, 4.5, 4.0, 0.0, 12.0], [3.0, 3.0, 9.5, 3.5, 2.5, 3.5])


def test_by_hand() -> None:
    """The chosen differ by 2, 0.5 and 2 metres."""
    depth = STUDENT.clone().requires_grad_()
    batch, image = (selective_loss(depth, TEACHER, TRUTH, 0.5, 10.0, name) for name in ("batch", "image"))
    assert batch.item() == pytest.approx((2 + 0.5 + 2) / 3, rel=1e-6)
    assert image.item() == pytest.approx(((2 + 0.5) / 2 + 2) / 2, rel=1e-6)
    [grad] = torch.autograd.grad(batch, depth)
    third = 1 / 3
    torch.testing.assert_close(grad, maps([-third, third, 0, 0, 0, 0], [0, 0, -third, 0, 0, 0]))
    [grad] = torch.autograd.grad(image, depth)
    torch.testing.assert_close(grad, maps([-0.25, 0.25, 0, 0, 0, 0], [0, 0, -0.5, 0, 0, 0]))


def test_a_teacher_beyond_the_range_counts_as_its_end() -> None:
    """Teacher 0.2 as 0.5 (a difference of 1.5), 25 as 10 (of 2)."""
    loss = selective_loss(maps([2.0, 8.0]), maps([0.2, 25.0]), maps([0.6, 9.5]), 0.5, 10.0, "batch")
    assert loss.item() == pytest.approx((1.5 + 2) / 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_range_s_ends_are_not_rounded_to_the_teacher_s_type(dtype: torch.dtype) -> None:
    """10.1 is 10.125 in bf16, 10.1016 in fp16; the student is at 8."""
    loss = selective_loss(maps([8.0]), maps([25.0]).to(dtype), maps([10.0]), 0.5, 10.1, "batch")
    assert loss.item() == pytest.approx(2.1, rel=1e-5)


@pytest.mark.parametrize("normalize", ["batch", "image"])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1.0])
def test_what_stands_where_nothing_is_known_reaches_nothing(garbage: float, normalize: str) -> None:
    depth = maps([garbage, garbage]).requires_grad_()
    loss = selective_loss(depth, maps([3.0, garbage]), maps([garbage, 3.0]), 0.5, 10.0, normalize)
    [grad] = torch.autograd.grad(loss, depth)
    assert loss.item() == 0
    assert not bool(grad.any())


def test_the_gradient_is_that_of_differences() -> None:
    torch.manual_seed(0)
    depth, teacher, truth = (1 + 4 * torch.rand(2, 1, 4, 5, dtype=torch.float64) for _ in range(3))
    depth.requires_grad_()
    assert torch.autograd.gradcheck(lambda d: selective_loss(d, teacher, truth, 0.5, 10.0, "batch"), depth)


@pytest.mark.parametrize("normalize", ["batch", "image"])
def test_it_is_an_option_of_the_objective(normalize: Literal["batch", "image"]) -> None:
    def terms(weight: float, teacher: TeacherTargets | None) -> dict[str, torch.Tensor]:
        config = DistillationConfig(features=0.0, normalize=normalize, selective=weight)
        loss = StudentLoss(config, (1, 1, 1), (1, 1, 1), 0.5, 10.0)
        return loss(DepthPrediction(STUDENT, torch.zeros_like(STUDENT), ()), teacher, TRUTH, 1.0)

    taught = TeacherTargets(TEACHER, ())
    with_it, without = terms(2.0, taught), terms(0.0, taught)
    expected = 1.5 if normalize == "batch" else 1.625
    assert with_it["selective"].item() == pytest.approx(expected, rel=1e-6)
    assert with_it["total"].item() == pytest.approx(without["total"].item() + 2 * expected, rel=1e-6)
    assert "selective" not in without
    assert "selective" not in terms(2.0, None)


def test_a_student_learns_by_it_alone_and_not_without_a_teacher(tmp_path: Path) -> None:
    alone = DistillationConfig(silog=0, uncertainty=0, response=0, features=0, selective=1.0)
    train_student(tiny_student(tmp_path / "teacher"), samples=tiny_scenes())
    config = tiny_student(tmp_path / "run", teacher=tmp_path / "teacher", distillation=alone)
    rows = train_student(config, samples=tiny_scenes())
    assert rows[-1]["total"] == pytest.approx(rows[-1]["selective"])
    assert rows[-1]["selective"] > 0
    scene = tiny_scenes(1)[0]
    bare = [replace(scene, valid=torch.zeros_like(scene.valid), sparse_depth=torch.zeros_like(scene.depth))]
    with pytest.raises(InputError, match=r"nothing to learn from: none of the 1 frames looked at .* has ground truth"):
        train_student(replace(config, run=tmp_path / "bare"), samples=bare)
    with pytest.raises(InputError, match=r"distillation\.selective 1\.0: there is no teacher: expected --teacher RUN"):
        train_student(tiny_student(tmp_path / "alone", distillation=alone), samples=tiny_scenes())
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"distillation\.selective must be 0 or more"):
            DistillationConfig(selective=wrong)
    with pytest.raises(InputError, match=r"distillation\.selective: a light network reads"):
        StudentTrainingConfig(model=StudentConfig(network="light"), distillation=DistillationConfig(selective=1.0))
