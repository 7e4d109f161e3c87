"""Self-distillation with a learned scale: against values computed by hand, and as an option of the objective."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.distillation.learned_scale import learned_scale_loss
from adu_depth.errors import InputError
from adu_depth.models import StudentConfig
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_depth.training.config import StudentTrainingConfig
from adu_depth.training.runs import train_student
from tests.training.tiny import LOOP, tiny_scenes, tiny_student

LN2 = math.log(2)


def maps(*rows: list[float]) -> torch.Tensor:
    """One image a row."""
    return torch.tensor(rows).reshape(len(rows), 1, 1, -1)


# Of the first image the teacher knows three pixels: off by ln 2 with a scale of 1, by ln 4 with a scale of 2, right
# with a scale of a half; then zero, NaN, infinity. Of the second image one: off by ln 4 with a scale of e⁻¹.
STUDENT = maps([2.0, 8.0, 5.0, 3.0, 2.0, 2.0], [1.0, 4.0, 8.0, 3.0, 3.0, 3.0])
SCALE = maps([0.0, LN2, -LN2, 1.0, 2.0, -3.0], [-1.0, 5.0, 0.5, 1.0, 1.0, 1.0])
TEACHER = maps([4.0, 2.0, 5.0, 0.0, math.nan, math.inf], [4.0, 0.0, -2.0, math.nan, math.inf, -math.inf])
FIRST = [LN2, 2 * LN2 / 2 + LN2, -LN2]
SECOND = 2 * LN2 * math.e - 1


def test_by_hand() -> None:
    depth, scale = STUDENT.clone().requires_grad_(), SCALE.clone().requires_grad_()
    batch, image = (learned_scale_loss(depth, scale, TEACHER, 0.5, 10.0, name) for name in ("batch", "image"))
    assert batch.item() == pytest.approx((sum(FIRST) + SECOND) / 4, rel=1e-6)
    assert image.item() == pytest.approx((sum(FIRST) / 3 + SECOND) / 2, rel=1e-6)
    by_depth, by_scale = torch.autograd.grad(batch, (depth, scale))
    # sign / (u·n·d) and (1 − residual/u) / n
    nothing = [0.0] * 5
    expected = maps([-1 / (4 * 2), 1 / (2 * 4 * 8), *nothing[:4]], [-math.e / (4 * 1), *nothing])
    torch.testing.assert_close(by_depth, expected)
    expected = maps([(1 - LN2) / 4, (1 - LN2) / 4, 1 / 4, *nothing[:3]], [(1 - 2 * LN2 * math.e) / 4, *nothing])
    torch.testing.assert_close(by_scale, expected)
    [by_depth] = torch.autograd.grad(image, depth)
    expected = maps([-1 / (6 * 2), 1 / (2 * 6 * 8), *nothing[:4]], [-math.e / (2 * 1), *nothing])
    torch.testing.assert_close(by_depth, expected)


def test_the_scale_is_guarded_at_both_ends() -> None:
    """A log scale of −1000 counts as −6, where e⁶ would be e¹⁰⁰⁰, one of 1000 as 3; neither is moved."""
    depth, scale = maps([2.0, 2.0]).requires_grad_(), maps([-1000.0, 1000.0]).requires_grad_()
    loss = learned_scale_loss(depth, scale, maps([4.0, 4.0]), 0.5, 10.0, "batch")
    assert loss.item() == pytest.approx((LN2 * math.exp(6) - 6 + LN2 * math.exp(-3) + 3) / 2, rel=1e-6)
    by_depth, by_scale = torch.autograd.grad(loss, (depth, scale))
    torch.testing.assert_close(by_depth, maps([-math.exp(6) / 4, -math.exp(-3) / 4]))
    assert not bool(by_scale.any())


def test_a_teacher_beyond_the_range_counts_as_its_end() -> None:
    """Teacher 0.2 as 0.5 (a quotient of 4), 25 as 10 (of 5)."""
    loss = learned_scale_loss(maps([2.0, 2.0]), maps([0.0, 0.0]), maps([0.2, 25.0]), 0.5, 10.0, "batch")
    assert loss.item() == pytest.approx((math.log(4) + math.log(5)) / 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_range_s_ends_are_not_rounded_to_the_teacher_s_type(dtype: torch.dtype) -> None:
    """Of 0.001 and 10.1 the first is 0.000999 in bf16, the second 10.125, in fp16 10.1016: outside of the range."""
    assert torch.tensor(0.001).bfloat16().item() < 0.001
    teacher = maps([1e-4, 25.0]).to(dtype)
    loss = learned_scale_loss(maps([0.002, 2.0]), maps([0.0, 0.0]), teacher, 0.001, 10.1, "batch")
    assert loss.item() == pytest.approx((LN2 + math.log(5.05)) / 2, rel=1e-5)


@pytest.mark.parametrize("normalize", ["batch", "image"])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1.0])
def test_what_stands_where_the_teacher_knows_nothing_reaches_nothing(garbage: float, normalize: str) -> None:
    depth, scale = maps([garbage, 2.0]).requires_grad_(), maps([garbage, 0.0]).requires_grad_()
    for teacher, expected in ((maps([0.0, 4.0]), LN2), (maps([0.0, math.nan]), 0.0)):
        loss = learned_scale_loss(depth, scale, teacher, 0.5, 10.0, normalize)
        assert loss.item() == pytest.approx(expected, rel=1e-6, abs=0)
        for grad in torch.autograd.grad(loss, (depth, scale)):
            assert grad[..., 0].item() == 0
            assert bool(grad[..., 1]) == (expected > 0)


@pytest.mark.parametrize("normalize", ["batch", "image"])
def test_it_is_an_option_of_the_objective(normalize: Literal["batch", "image"]) -> None:
    """Without any ground truth, which is what it is for."""

    def terms(weight: float, teacher: TeacherTargets | None) -> dict[str, torch.Tensor]:
        config = DistillationConfig(features=0.0, normalize=normalize, learned_scale=weight)
        loss = StudentLoss(config, (1, 1, 1), (1, 1, 1), 0.5, 10.0)
        return loss(DepthPrediction(STUDENT, SCALE, ()), teacher, torch.zeros_like(STUDENT), 1.0)

    taught = TeacherTargets(TEACHER, ())
    with_it, without = terms(2.0, taught), terms(0.0, taught)
    expected = (sum(FIRST) + SECOND) / 4 if normalize == "batch" else (sum(FIRST) / 3 + SECOND) / 2
    assert with_it["learned_scale"].item() == pytest.approx(expected, rel=1e-6)
    assert with_it["total"].item() == pytest.approx(without["total"].item() + 2 * expected, rel=1e-6)
    assert "learned_scale" not in without
    assert "learned_scale" not in terms(2.0, None)


def test_a_student_learns_by_it_alone_and_not_without_a_teacher(tmp_path: Path) -> None:
    alone = DistillationConfig(silog=0, uncertainty=0, response=0, features=0, learned_scale=1.0)
    train_student(tiny_student(tmp_path / "teacher"), samples=tiny_scenes())
    config = tiny_student(tmp_path / "run", teacher=tmp_path / "teacher", distillation=alone)
    rows = train_student(config, samples=tiny_scenes())
    assert rows[-1]["total"] == pytest.approx(rows[-1]["learned_scale"])
    assert rows[-1]["gradient_norm"] > 0
    scene = tiny_scenes(1)[0]
    bare = [replace(scene, valid=torch.zeros_like(scene.valid), sparse_depth=torch.zeros_like(scene.depth))]
    [row] = train_student(replace(config, run=tmp_path / "bare", loop=replace(LOOP, steps=1)), samples=bare)
    assert row["gradient_norm"] > 0, "no ground truth is needed"
    with pytest.raises(InputError, match=r"distillation\.learned_scale 1\.0: there is no teacher: expected --teacher"):
        train_student(
            tiny_student(tmp_path / "alone", distillation=DistillationConfig(learned_scale=1.0)), samples=tiny_scenes()
        )
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"distillation\.learned_scale must be 0 or more"):
            DistillationConfig(learned_scale=wrong)
    with pytest.raises(InputError, match=r"distillation\.learned_scale: a light network reads"):
        StudentTrainingConfig(model=StudentConfig(network="light"), distillation=DistillationConfig(learned_scale=1.0))
