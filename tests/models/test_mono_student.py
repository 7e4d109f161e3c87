"""The monocular student."""

from __future__ import annotations

import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.models import MonoStudent, StudentConfig


@pytest.mark.parametrize("size", [(97, 131), (96, 128), (33, 20)])
def test_shapes_follow_the_image(student: MonoStudent, size: tuple[int, int]) -> None:
    height, width = size
    prediction = student(torch.rand(2, 3, height, width))
    assert prediction.depth.shape == prediction.log_scale.shape == (2, 1, height, width)
    assert [tuple(f.shape) for f in prediction.features] == [
        (2, c, -(-height // s), -(-width // s)) for c, s in zip((16, 24, 32), (8, 16, 32), strict=True)
    ]
    assert prediction.disparity is None
    assert prediction.heads == ()
    assert prediction.decoder_depth is None


def test_starts_at_a_sensible_depth_inside_its_bounds(student: MonoStudent) -> None:
    prediction = student(torch.rand(2, 3, 96, 128))
    assert 10 < prediction.depth.median() < 22
    assert -2.0 < prediction.log_scale.median() < -1.0
    assert prediction.depth.min() >= 0.5
    assert prediction.depth.max() <= 80


def test_starts_without_a_checkerboard(student: MonoStudent) -> None:
    """All pixels of a 4×4 cell start alike."""
    depth = student(torch.rand(1, 3, 64, 64)).depth
    cells = depth.unfold(2, 4, 4).unfold(3, 4, 4)
    torch.testing.assert_close(cells, cells[..., :1, :1].expand_as(cells), rtol=1e-5, atol=1e-5)


def test_bounds_hold_whatever_the_weights() -> None:
    torch.manual_seed(0)
    student = MonoStudent(StudentConfig(min_depth=2.0, max_depth=10.0))
    with torch.no_grad():
        student.head.predict.weight.mul_(1e4)
        prediction = student(torch.rand(1, 3, 64, 64))
    assert prediction.depth.min() >= 2.0 - 1e-5
    assert prediction.depth.max() <= 10.0 + 1e-5
    assert prediction.log_scale.min() == -6
    assert prediction.log_scale.max() == 3


def test_every_parameter_gets_a_gradient_at_the_first_step(student: MonoStudent) -> None:
    prediction = student(torch.rand(2, 3, 97, 131))
    (prediction.depth.log().square().mean() + prediction.log_scale.square().mean()).backward()
    assert [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_image_does_not_feel_its_batch(student: MonoStudent) -> None:
    images = torch.rand(3, 3, 64, 96)
    student.eval()
    with torch.no_grad():
        torch.testing.assert_close(student(images).depth[1:2], student(images[1:2]).depth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_saved_student_is_the_same_student(norm: str, tmp_path) -> None:
    torch.manual_seed(0)
    config = StudentConfig(norm=norm)  # type: ignore[arg-type]
    first, image = MonoStudent(config), torch.rand(2, 3, 64, 64)
    first(image)  # moves the running statistics of "batch"
    torch.save(first.state_dict(), tmp_path / "student.pt")
    second = MonoStudent(config)
    second.load_state_dict(torch.load(tmp_path / "student.pt"))
    assert torch.equal(first.eval()(image).depth, second.eval()(image).depth)
    assert not any("adapter" in key for key in first.state_dict())


def test_a_longer_lens_sees_the_same_picture_farther_away(make_camera) -> None:
    torch.manual_seed(0)
    student = MonoStudent(StudentConfig(reference_focal=100.0)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        near, far = student(image, make_camera(1, fx=100.0)).depth, student(image, make_camera(1, fx=150.0)).depth
        farther = student(image, make_camera(1, fx=1e5)).depth
    torch.testing.assert_close(far, near * 1.5)
    assert farther.max() <= 80.0


def test_what_cannot_be_used_is_named(student: MonoStudent) -> None:
    with pytest.raises(InputError, match="image"):
        student(torch.zeros(3, 64, 64))
    with pytest.raises(InputError, match="camera"):
        MonoStudent(StudentConfig(reference_focal=100.0))(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="reference_focal"):
        StudentConfig(reference_focal=-1.0)
    with pytest.raises(InputError, match="min_depth"):
        StudentConfig(min_depth=0.0)
    with pytest.raises(InputError, match="feature_channels"):
        StudentConfig(feature_channels=(1, 2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="norm"):
        StudentConfig(norm="layer")  # type: ignore[arg-type]
