"""The two objectives: what reaches what, and what each option changes."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.distillation.teacher_loss import masked_smooth_l1
from adu_depth.errors import InputError
from adu_depth.geometry import Camera, depth_to_disparity
from adu_depth.models.prediction import DepthPrediction
from adu_kernels import depth_objective

CHANNELS = (4, 6, 8)


def prediction(seed: int, requires_grad: bool = False) -> DepthPrediction:
    generator = torch.Generator().manual_seed(seed)
    depth = 5 + 20 * torch.rand(2, 1, 32, 64, generator=generator)
    log_scale = -2 + torch.rand(2, 1, 32, 64, generator=generator)
    features = tuple(
        torch.randn(2, c, 32 // s, 64 // s, generator=generator) for c, s in zip(CHANNELS, (8, 16, 32), strict=True)
    )
    maps = [depth, log_scale, *features]
    if requires_grad:
        maps = [m.requires_grad_() for m in maps]
    return DepthPrediction(maps[0], maps[1], tuple(maps[2:]))


def sparse_target() -> Tensor:
    generator = torch.Generator().manual_seed(9)
    dense = 5 + 20 * torch.rand(2, 1, 32, 64, generator=generator)
    return torch.where(torch.rand(2, 1, 32, 64, generator=generator) < 0.1, dense, 0.0)


def student_loss(**changes: object) -> StudentLoss:
    torch.manual_seed(0)
    return StudentLoss(DistillationConfig(**changes), CHANNELS, CHANNELS, 0.5, 80.0)  # type: ignore[arg-type]


def test_alone_is_the_objective_without_teacher_terms() -> None:
    student, target = prediction(1, requires_grad=True), sparse_target()
    terms = student_loss()(student, None, target, 1.0)
    assert terms.keys() == {"total", "silog", "uncertainty"}
    assert terms["total"].item() == pytest.approx((terms["silog"] + terms["uncertainty"]).item(), rel=1e-6)
    terms["total"].backward()
    assert (student.depth.grad != 0).sum() == (target > 0).sum(), "only measured pixels teach"  # type: ignore[union-attr]


def test_the_teacher_reaches_every_pixel_and_every_level() -> None:
    student = prediction(1, requires_grad=True)
    student_loss()(student, prediction(2), sparse_target(), 1.0)["total"].backward()
    assert (student.depth.grad != 0).float().mean() > 0.99  # type: ignore[union-attr]
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in student.features)


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    config = {"silog": 0.5, "uncertainty": 2.0, "response": 3.0, "features": 4.0}
    terms = student_loss(**config)(prediction(1), prediction(2), sparse_target(), 1.0)
    expected = sum(weight * terms[name].item() for name, weight in config.items())
    assert terms["total"].item() == pytest.approx(expected, rel=1e-5)


def test_nothing_flows_back_to_the_teacher_nor_from_the_weights_to_the_scale() -> None:
    student, teacher = prediction(1, requires_grad=True), prediction(2, requires_grad=True)
    student_loss(uncertainty=0.0, silog=0.0)(student, teacher, sparse_target(), 1.0)["total"].backward()
    assert teacher.depth.grad is None
    assert all(f.grad is None for f in teacher.features)
    assert student.log_scale.grad is None or student.log_scale.grad.abs().max() == 0, (
        "the guide is a weight, not a loss"
    )


def test_the_guide_grows_over_the_ramp_and_turns_with_its_option() -> None:
    def response(guide: str, progress: float) -> float:
        loss = student_loss(guide=guide, gate=False)
        # An uncertain left half that is also the wrong half: emphasis must raise the loss, attenuation lower it.
        student, teacher = prediction(1), prediction(2)
        left = torch.arange(64).expand_as(student.depth) < 32
        student = replace(student, log_scale=torch.where(left, 0.0, -4.0), depth=torch.where(left, 10.0, teacher.depth))
        return float(loss(student, teacher, sparse_target(), progress)["response"])

    plain = response("none", 1.0)
    assert response("emphasise", 0.0) == pytest.approx(plain, rel=1e-5)
    assert plain < response("emphasise", 0.05) < response("emphasise", 0.1)
    assert response("emphasise", 0.1) == pytest.approx(response("emphasise", 1.0), rel=1e-6)
    assert response("attenuate", 1.0) < plain


def test_the_objectives_options_reach_it() -> None:
    """Targets on one image alone, the other's log scale far off: per image the guide of the first is its own."""
    student, teacher, target = prediction(1), prediction(2), sparse_target()
    log_scale = student.log_scale.clone()
    log_scale[1] += 2
    student = replace(student, log_scale=log_scale)
    terms = {name: student_loss(**options)(student, teacher, target, 1.0) for name, options in {
        "plain": {}, "beta": {"beta_nll": 0.5}, "image": {"normalize": "image"},
    }.items()}  # fmt: skip
    expected = depth_objective(student.depth, log_scale, teacher.depth, target, beta_nll=0.5, min_depth=0.5)
    assert terms["beta"]["uncertainty"] == expected.uncertainty
    assert terms["beta"]["uncertainty"] != terms["plain"]["uncertainty"]
    expected = depth_objective(student.depth, log_scale, teacher.depth, target, normalize="image", min_depth=0.5)
    for name in ("silog", "uncertainty", "response"):
        assert terms["image"][name] == getattr(expected, name), name
    assert terms["image"]["features"] != terms["plain"]["features"], "the features' guide is of each image too"


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("beta_nll", -0.5, "must be 0 or more, got -0.5"),
        ("response", math.nan, "must be 0 or more, got nan"),
        ("features", math.inf, "must be 0 or more, got inf"),
        ("beta", 0.0, "must be above 0, got 0.0"),
        ("gamma", math.nan, "must be at least 1, got nan"),
    ],
)
def test_a_bad_number_is_named(setting: str, value: float, expected: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"distillation.{setting} {expected}")):
        DistillationConfig(**{setting: value})  # type: ignore[arg-type]


def test_the_guides_ramp_and_the_depth_range_reach_the_terms() -> None:
    """At the first step the guide weighs all features alike; a pixel beyond the range is no target."""
    student, teacher, target = prediction(1), prediction(2), sparse_target()

    def terms(guide: str, progress: float, max_depth: float = 80.0) -> dict[str, Tensor]:
        torch.manual_seed(0)
        config = DistillationConfig(guide=guide)  # type: ignore[arg-type]
        return StudentLoss(config, CHANNELS, CHANNELS, 0.5, max_depth)(student, teacher, target, progress)

    torch.testing.assert_close(terms("emphasise", 0.0)["features"], terms("none", 0.0)["features"])
    assert terms("emphasise", 1.0)["features"] != terms("none", 1.0)["features"]
    expected = depth_objective(
        student.depth, student.log_scale, teacher.depth, target, min_depth=0.5, max_depth=12.0, guide="none"
    )
    torch.testing.assert_close(terms("none", 1.0, 12.0)["silog"], expected.silog)


@pytest.mark.parametrize("nothing", [torch.inf, torch.nan, -1.0])
def test_where_the_teacher_knows_nothing_the_guide_weighs_features_as_where_it_has_no_depth(nothing: float) -> None:
    def features(unknown: float) -> Tensor:
        teacher = prediction(1)
        depth = teacher.depth.clone()
        depth[..., :10] = unknown
        return student_loss()(prediction(0), replace(teacher, depth=depth), sparse_target(), 1.0)["features"]

    assert features(nothing) == features(0.0)


def test_the_gate_quietens_a_teacher_that_the_ground_truth_contradicts() -> None:
    student, teacher = prediction(1), prediction(2)
    dense_truth = prediction(3).depth
    gated = student_loss(gate=True)(student, teacher, dense_truth, 0.0)["response"]
    free = student_loss(gate=False)(student, teacher, dense_truth, 0.0)["response"]
    assert gated < 0.7 * free
    assert student_loss(gate=True)(student, teacher, teacher.depth, 0.0)["response"] == pytest.approx(free, rel=1e-5)


def test_a_student_without_teacher_or_feature_weight_has_no_adapters() -> None:
    assert StudentLoss(DistillationConfig(), CHANNELS, None, 0.5, 80.0).adapters is None
    assert student_loss(features=0.0).adapters is None
    assert list(student_loss().adapters.parameters())  # type: ignore[union-attr]


CAMERA = Camera(*(torch.full((2,), v) for v in (100.0, 100.0, 32.0, 16.0, 0.5, 0.0)))


def teacher_terms(target: Tensor, heads: int = 2) -> dict[str, Tensor]:
    p = prediction(1)
    disparity = depth_to_disparity(p.depth, CAMERA)
    p = replace(p, heads=tuple((disparity + i, torch.ones_like(disparity)) for i in reversed(range(heads))))
    p = replace(p, decoder_depth=p.depth * 1.5)
    views = torch.full((2, 3, 32, 64), 0.5)  # plain: nothing photometric to learn from
    loss = TeacherLoss(TeacherLossConfig(smoothness=0.0), max_disparity=16, min_depth=0.5, max_depth=80.0)
    return loss(p, target, views, views, CAMERA)


def test_the_teacher_with_the_right_answer_pays_for_its_wrong_head_and_decoder_only() -> None:
    terms = teacher_terms(prediction(1).depth)
    # Heads are off by 1 and by 0 pixels: smooth-L1 0.5 with weight 0.7, and 0 with weight 1.
    assert terms["disparity"].item() == pytest.approx(0.35, rel=1e-4)
    assert terms["silog"].item() == pytest.approx(10 * 1e-3, rel=1e-3), "the square root's 1e-6 alone"
    assert terms["decoder"].item() == pytest.approx(10 * (0.15 * 0.405465**2 + 1e-6) ** 0.5, rel=1e-3)
    assert terms["total"].item() == pytest.approx(sum(v.item() for n, v in terms.items() if n != "total"), rel=1e-5)


def test_a_disparity_that_is_not_searched_is_not_taught() -> None:
    """Depth 2 m is 25 px here, beyond the 16 that are searched: a head could only be pulled to the end of its range."""
    near = torch.full((2, 1, 32, 64), 2.0)
    assert teacher_terms(near)["disparity"].item() == 0.0
    assert teacher_terms(near)["silog"].item() > 0.0


def test_an_empty_target_teaches_nothing() -> None:
    for empty in (torch.zeros(2, 1, 32, 64), torch.full((2, 1, 32, 64), float("nan"))):
        assert teacher_terms(empty)["total"].item() == 0.0


def test_smooth_l1_ignores_what_stands_at_masked_pixels() -> None:
    value = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    target = torch.tensor([1.5, float("nan"), 6.0])
    loss = masked_smooth_l1(value, target, torch.tensor([True, False, True]))
    assert loss.item() == pytest.approx((0.5 * 0.25 + 2.5) / 2)
    loss.backward()
    assert value.grad.tolist() == pytest.approx([-0.25, 0.0, -0.5])  # type: ignore[union-attr]
