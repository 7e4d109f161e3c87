"""Structure affinity: against values computed by hand, and as an option of the objective."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.distillation.structure import PLACES, structure_loss
from adu_depth.errors import InputError
from adu_depth.models import StudentConfig
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.training.config import StudentTrainingConfig
from adu_depth.training.runs import train_student
from tests.training.tiny import LOOP, tiny_scenes, tiny_student

FLOOR = 1e-6
"""Of the mean square: what keeps a unit length from 1."""


def places(*features: list[float]) -> torch.Tensor:
    """One image, 1×N, a feature vector for each place."""
    return torch.tensor(features).T[None, :, None, :]


# Cosines of 0, and of 0.6 and 0.8: the affinities of three places are written out below.
TEACHER = places([3.0, 0.0], [0.0, 5.0], [0.0, 1.0])
STUDENT = places([2.0, 0.0, 0.0], [1.2, 1.6, 0.0], [0.0, 0.0, 7.0])


def rows(*cosines: list[float]) -> list[list[float]]:
    """softmax of cosine / 0.1 in each row."""
    powers = [[math.exp(10 * cosine) for cosine in row] for row in cosines]
    return [[power / sum(row) for power in row] for row in powers]


def squares(values: list[list[float]]) -> float:
    return sum(value**2 for row in values for value in row)


def test_by_hand() -> None:
    """Three places, of 2 and of 3 channels."""
    target = rows([1, 0, 0], [0, 1, 1], [0, 1, 1])
    mine = rows([1, 0.6, 0], [0.6, 1, 0], [0, 0, 1])
    difference = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(mine, target, strict=True)]
    expected = squares(difference) / squares(target)
    assert expected == pytest.approx(0.4916, abs=1e-4)
    assert structure_loss([STUDENT], [TEACHER]).item() == pytest.approx(expected, rel=1e-4)
    other = torch.cat([STUDENT, STUDENT[:, :, :, [1, 0, 2]]])
    both = structure_loss([other], [torch.cat([TEACHER, TEACHER[:, :, :, [1, 0, 2]]])])
    assert both.item() == pytest.approx(expected, rel=1e-4), "a mean over images; where a place lies says nothing"
    levels = structure_loss([STUDENT, TEACHER], [TEACHER, TEACHER])
    assert levels.item() == pytest.approx(expected / 2, rel=1e-4), "a mean over levels"


def test_the_same_up_to_a_scale_or_a_turn_of_the_channels_is_no_distance() -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    turned = torch.einsum("ij,bjhw->bihw", turn, TEACHER)
    for same in (TEACHER, 3 * TEACHER, turned, torch.cat([TEACHER, torch.zeros_like(TEACHER)], 1)):
        assert structure_loss([same], [TEACHER]).item() < 1e-9


def test_an_image_adds_what_it_adds_alone() -> None:
    torch.manual_seed(0)
    student, teacher = torch.rand(3, 5, 4, 6), torch.rand(3, 4, 4, 6)
    each = [structure_loss([student[i : i + 1]], [teacher[i : i + 1]]).item() for i in range(3)]
    assert structure_loss([student], [teacher]).item() == pytest.approx(sum(each) / 3, rel=1e-5)


def test_no_image_has_more_places_than_are_said() -> None:
    """23×45 are 1,035, averaged over 2×2 cells to 12×23: what is equal within them is what they are."""
    torch.manual_seed(1)
    small = torch.rand(1, 4, 12, 23), torch.rand(1, 6, 12, 23)
    student, teacher = (level.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :23, :45] for level in small)
    assert 12 * 23 <= PLACES < 23 * 45
    expected = structure_loss([small[0]], [small[1]])
    torch.testing.assert_close(structure_loss([student], [teacher]), expected, rtol=1e-5, atol=0)


def test_the_gradient_is_that_of_differences_and_the_student_s_alone() -> None:
    torch.manual_seed(2)
    student, teacher = (torch.randn(2, c, 3, 4, dtype=torch.float64) for c in (3, 5))
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: structure_loss([s], [teacher]), student)
    structure_loss([student], [teacher]).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_places_that_the_teacher_does_not_know_are_left_out(garbage: float) -> None:
    """Whatever the student has there, too, and however many they are; with no place left there is no loss."""
    taught = torch.cat([TEACHER, *[places([garbage, 1.0])] * 99], 3)
    student = torch.cat([STUDENT, *[places([garbage, 2.0, 3.0])] * 99], 3).requires_grad_()
    loss = structure_loss([student], [taught])
    torch.testing.assert_close(loss, structure_loss([STUDENT], [TEACHER]))
    [grad] = torch.autograd.grad(loss, student)
    assert bool(grad[..., :3].isfinite().all())
    assert bool(grad[..., :3].any())
    assert not bool(grad[..., 3:].any())
    nothing = structure_loss([student], [torch.full_like(taught, garbage)])
    [grad] = torch.autograd.grad(nothing, student)
    assert nothing.item() == 0
    assert not bool(grad.any())


def test_features_of_zeros_have_no_direction_and_a_slope_all_the_same() -> None:
    """A cosine of 0 with every place, itself too; the slope is bounded by the floor."""
    student = torch.zeros_like(TEACHER).requires_grad_()
    loss = structure_loss([student], [TEACHER])
    target = rows([1, 0, 0], [0, 1, 1], [0, 1, 1])
    difference = [[1 / 3 - value for value in row] for row in target]
    assert loss.item() == pytest.approx(squares(difference) / squares(target), rel=1e-4)
    [grad] = torch.autograd.grad(loss, student)
    assert bool(grad.isfinite().all())
    part = student.detach().clone()
    part[..., 0] = 1
    part.requires_grad_()
    [grad] = torch.autograd.grad(structure_loss([part], [TEACHER]), part)
    assert bool(grad.isfinite().all())
    assert 0 < grad.abs().max().item() < 10 / math.sqrt(FLOOR)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_computed_in_fp32_whatever_autocast_says(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    student, teacher = (torch.rand(1, c, 4, 6).to(dtype) for c in (5, 3))
    with torch.autocast("cpu", dtype):
        loss = structure_loss([student], [teacher])
    assert loss.dtype == torch.float32
    assert torch.equal(loss, structure_loss([student.float()], [teacher.float()]))


def test_levels_that_do_not_fit_are_named() -> None:
    for student, teacher, told in (
        ([STUDENT], [], "expected as many levels as the teacher's, got 1 and the teacher's 0"),
        ([], [], "got 0"),
        ([STUDENT], [TEACHER[..., :2]], r"teacher's, \(1, 1, 2\), got \(1, 1, 3\)"),
    ):
        with pytest.raises(InputError, match=f"features: .*{told}"):
            structure_loss(student, teacher)


def test_it_is_an_option_of_the_objective() -> None:
    depth = torch.full((1, 1, 8, 24), 2.0)

    def terms(weight: float, teacher: TeacherTargets | None) -> dict[str, torch.Tensor]:
        loss = StudentLoss(DistillationConfig(features=0.0, structure=weight), (3,), (2,), 0.5, 10.0)
        assert loss.adapters is None
        assert loss.reads_features == (weight > 0)
        return loss(DepthPrediction(depth, torch.zeros_like(depth), (STUDENT,)), teacher, depth, 1.0)

    taught = TeacherTargets(depth, (TEACHER,))
    with_it, without = terms(2.0, taught), terms(0.0, taught)
    expected = structure_loss([STUDENT], [TEACHER]).item()
    assert with_it["structure"].item() == pytest.approx(expected)
    assert with_it["total"].item() == pytest.approx(without["total"].item() + 2 * expected)
    assert "structure" not in without
    assert "structure" not in terms(2.0, None)
    assert not StudentLoss(DistillationConfig(structure=1.0), (3,), None, 0.5, 10.0).reads_features


def test_a_student_learns_by_it_alone_and_not_without_a_teacher(tmp_path: Path) -> None:
    alone = DistillationConfig(silog=0, uncertainty=0, response=0, features=0, structure=1.0)
    train_student(tiny_student(tmp_path / "teacher"), samples=tiny_scenes())
    config = tiny_student(tmp_path / "run", teacher=tmp_path / "teacher", distillation=alone)
    history = train_student(config, samples=tiny_scenes())
    assert history[-1]["total"] == pytest.approx(history[-1]["structure"])
    assert history[-1]["structure"] > 0
    assert history[-1]["gradient_norm"] > 0
    scene = tiny_scenes(1)[0]
    bare = [replace(scene, valid=torch.zeros_like(scene.valid), sparse_depth=torch.zeros_like(scene.depth))]
    [row] = train_student(replace(config, run=tmp_path / "bare", loop=replace(LOOP, steps=1)), samples=bare)
    assert row["gradient_norm"] > 0, "no ground truth is needed"
    only = DistillationConfig(structure=1.0)
    with pytest.raises(InputError, match=r"distillation\.structure 1\.0: there is no teacher: expected --teacher RUN"):
        train_student(tiny_student(tmp_path / "alone", distillation=only), samples=tiny_scenes())
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"distillation\.structure must be 0 or more"):
            DistillationConfig(structure=wrong)
    with pytest.raises(InputError, match=r"distillation\.structure: a light network reads"):
        StudentTrainingConfig(model=StudentConfig(network="light"), distillation=only)


def test_a_cache_of_depth_alone_is_refused(tmp_path: Path) -> None:
    """One that a student without features has begun; the other way round its features are left where they are."""
    train_student(tiny_student(tmp_path / "teacher"), samples=tiny_scenes())
    config = tiny_student(
        tmp_path / "run",
        teacher=tmp_path / "teacher",
        teacher_cache=tmp_path / "cache",
        distillation=DistillationConfig(features=0),
        loop=replace(LOOP, steps=1),
    )
    train_student(config, samples=tiny_scenes())
    with_it = replace(config, run=tmp_path / "other", distillation=DistillationConfig(features=0, structure=1.0))
    with pytest.raises(InputError, match=r"holds depth alone, the teacher's features .* without --distillation\.struc"):
        train_student(with_it, samples=tiny_scenes())
    [row] = train_student(replace(with_it, teacher_cache=tmp_path / "whole"), samples=tiny_scenes())
    assert row["structure"] > 0
    train_student(replace(config, run=tmp_path / "third", teacher_cache=tmp_path / "whole"), samples=tiny_scenes())
