"""Where a teacher's depth is 0, nothing is known: no term that reads it adds anything there, whatever stands there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adu_depth.distillation import DistillationConfig, LightLoss, StudentLoss
from adu_depth.models.prediction import DepthPrediction, TeacherTargets
from adu_kernels import depth_gradient_normal_loss, pooled_guide, uncertainty_guide
from adu_kernels.reference import feature_distillation_loss

BOUNDS = (0.5, 80.0)
SIZE = (32, 64)
BACKENDS = ["torch", "triton"]


def maps(seed: int, channels: int = 1, stride: int = 1) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.rand(2, channels, SIZE[0] // stride, SIZE[1] // stride, generator=generator)


def prediction() -> DepthPrediction:
    features = tuple(maps(level, 8, stride) for level, stride in enumerate((8, 16, 32)))
    return DepthPrediction((2 + 20 * maps(4)).requires_grad_(), (maps(5) - 1).requires_grad_(), features)


def taught() -> tuple[TeacherTargets, Tensor]:
    """A teacher that knows some six tenths of the pixels of one image and all but a window of the other, and where."""
    known = maps(6) < 0.6
    known[1] = True
    known[1, :, 3:29, 5:40] = False
    features = tuple(maps(10 + level, 8, stride) for level, stride in enumerate((8, 16, 32)))
    return TeacherTargets(torch.where(known, 2 + 20 * maps(7), 0.0), features), known


def objective(backend: str, **settings: Any) -> StudentLoss:
    alone = {"silog": 0, "uncertainty": 0, "response": 0, "features": 0, "backend": backend}
    return StudentLoss(DistillationConfig(**{**alone, **settings}), (8, 8, 8), (8, 8, 8), *BOUNDS)


def gradients(student: DepthPrediction, total: Tensor) -> list[Tensor]:
    assert student.log_scale is not None
    found = torch.autograd.grad(total, [student.depth, student.log_scale], allow_unused=True, materialize_grads=True)
    return list(found)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("guide", ["emphasise", "none"])
def test_the_response_is_the_mean_over_the_known_pixels_alone(backend: str, guide: str) -> None:
    student, (teacher, known) = prediction(), taught()
    assert student.log_scale is not None
    loss = objective(backend, response=1, guide=guide, guide_ramp=0)
    terms = loss(student, teacher, torch.zeros(2, 1, *SIZE), 0.5)
    error = (student.depth[known].log() - teacher.depth[known].log()).abs()
    scale = student.log_scale[known].exp()
    weight = (0.5 + 0.5 * scale / scale.mean()).clamp(0.25, 4) if guide == "emphasise" else torch.ones_like(scale)
    expected = (weight.detach() * error * torch.tanh(5 * error)).mean()
    assert terms["response"].item() == pytest.approx(expected.item(), rel=1e-5)
    (found, of_scale), (by_hand, _) = gradients(student, terms["total"]), gradients(student, expected)
    assert not found[~known].any()
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-9)
    assert not of_scale.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_teacher_that_knows_nothing_gives_exactly_nothing(backend: str) -> None:
    student, teacher = prediction(), TeacherTargets(torch.zeros(2, 1, *SIZE), taught()[0].features)
    loss = objective(backend, response=1, selective=1, learned_scale=1)
    terms = loss(student, teacher, 2 + 20 * maps(8), 0.5)
    assert terms["total"].item() == 0
    assert not any(bool(gradient.any()) for gradient in gradients(student, terms["total"]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_learned_scale_and_selective_read_the_known_pixels_alone(backend: str) -> None:
    student, (teacher, known), truth = prediction(), taught(), 2 + 20 * maps(8)
    assert student.log_scale is not None
    terms = objective(backend, learned_scale=1, selective=1)(student, teacher, truth, 0.5)
    error = (student.depth[known].log() - teacher.depth[known].log()).abs()
    learned = (torch.exp(-student.log_scale[known]) * error + student.log_scale[known]).mean()
    nearer = known & ((teacher.depth - truth).abs() < (student.depth - truth).abs())
    selective = (student.depth - teacher.depth).abs()[nearer].mean()
    assert terms["learned_scale"].item() == pytest.approx(learned.item(), rel=1e-5)
    assert terms["selective"].item() == pytest.approx(selective.item(), rel=1e-5)
    found = gradients(student, terms["total"])
    for one, other in zip(found, gradients(student, learned + selective), strict=True):
        assert not one[~known].any()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gate_says_nothing_of_what_is_not_known(backend: str) -> None:
    """It reads truth and teacher: with a truth everywhere the unknown pixels are as absent as without."""
    student, (teacher, known), truth = prediction(), taught(), 2 + 20 * maps(8)
    terms = objective(backend, response=1, guide="none")(student, teacher, truth, 0.5)
    there, true = teacher.depth[known], truth[known]
    error = (student.depth[known].log() - there.log()).abs()
    gate = torch.exp(-5 * (there - true).abs() / (there + true))
    assert terms["response"].item() == pytest.approx((gate * error * torch.tanh(5 * error)).mean().item(), rel=1e-5)
    assert not gradients(student, terms["total"])[0][~known].any()


def test_the_features_guide_is_a_mean_over_the_known_pixels_and_1_elsewhere() -> None:
    """The features themselves are compared there too: they say what is seen, and not how far it is."""
    student, (teacher, known) = prediction(), taught()
    assert student.log_scale is not None
    loss = objective("torch", features=1, guide_ramp=0, attention=False)
    assert loss.adapters is not None
    found = loss(student, teacher, torch.zeros(2, 1, *SIZE), 0.5)["features"]
    scale = student.log_scale.detach().exp()
    by_hand = torch.where(known, (0.5 + 0.5 * scale / scale[known].mean()).clamp(0.25, 4), 1.0)
    torch.testing.assert_close(uncertainty_guide(student.log_scale, known), by_hand)
    weights = pooled_guide(by_hand, [(f.shape[2], f.shape[3]) for f in student.features], backend="torch")
    adapted = loss.adapters(student.features, student.log_scale.detach())
    distances = []
    for mine, its, weight in zip(adapted, teacher.features, weights, strict=True):
        everywhere = torch.ones_like(weight)
        distances.append([feature_distillation_loss(mine, its, w) for w in (weight, everywhere)])
    weighted, plain = (torch.stack(list(column)).mean() for column in zip(*distances, strict=True))
    torch.testing.assert_close(found, weighted.detach())
    assert abs(float((weighted - plain).detach())) > 1e-4, "the guide weighs something"


@pytest.mark.parametrize(
    ("backend", "wild"), [("torch", 0.01), ("torch", 1e6), ("torch", float("nan")), ("triton", float("nan"))]
)
def test_a_light_networks_objective_leaves_them_out_with_their_windows(backend: str, wild: float) -> None:
    """Slopes and normals are of 3×3 pixels: a window with an unknown one has none."""
    known = taught()[1][..., :16, :24]
    teacher = TeacherTargets(taught()[0].depth[..., :16, :24], ())
    depth = torch.where(known, 2 + 20 * maps(4)[..., :16, :24], wild).requires_grad_()
    loss = LightLoss(DistillationConfig(backend=backend), *BOUNDS)
    truth = torch.zeros(2, 1, 16, 24)
    truth[0, 0, 4:8, 4:8] = 9.0  # the first image is a labelled one
    terms = loss(DepthPrediction(depth, None, ()), teacher, torch.where(known, truth, 0.0), 0.5)
    (gradient,) = torch.autograd.grad(terms["total"], [depth])
    assert not gradient[~known].any()
    assert bool(gradient[known].any())
    bounds = {"min_depth": BOUNDS[0], "max_depth": BOUNDS[1]}
    for name, image in (("teacher", 0), ("unlabelled", 1)):
        one = slice(image, image + 1)
        alone = depth_gradient_normal_loss(depth[one], teacher.depth[one], backend="torch", **bounds).total
        assert terms[name].item() == pytest.approx(alone.item(), rel=1e-5)
    error = (depth - teacher.depth)[1, 0][known[1, 0]]
    whole = depth_gradient_normal_loss(depth[1:], teacher.depth[1:], backend="torch", **bounds)
    assert whole.depth.item() == pytest.approx((error.abs() + 0.5).log().mean().item(), rel=1e-5)
