"""BatchNorm in training has no statistics of a channel with one value: said with size, batch and norm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.models import DepthPrediction, MonoStudent, StereoTeacher, StudentConfig, TeacherConfig

RESNET = "config:resnet?depths=1,1,1,1&hidden_sizes=16,16,16,16&embedding_size=8"


def _student(**settings: str) -> Callable[[Tensor], DepthPrediction]:
    return MonoStudent(StudentConfig(**settings))  # type: ignore[arg-type]


def _teacher(**settings: str) -> Callable[[Tensor], DepthPrediction]:
    teacher = StereoTeacher(TeacherConfig(max_disparity=16, **settings))  # type: ignore[arg-type]

    def both_views(image: Tensor) -> DepthPrediction:
        ones = torch.ones(image.shape[0])
        return teacher(image, image, Camera(fx=ones, fy=ones, cx=ones, cy=ones, baseline=ones))

    return both_views


NETWORKS: dict[str, Callable[[], Callable[[Tensor], DepthPrediction]]] = {
    "student": lambda: _student(norm="batch"),
    "student's backbone": lambda: _student(encoder=RESNET),
    "teacher": lambda: _teacher(norm="batch"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_value_per_channel_is_named_with_size_batch_and_norm(name: str) -> None:
    network = NETWORKS[name]()
    with pytest.raises(InputError, match=r"BatchNorm2d.* one value per channel, .* 20×32 in a batch of 1 leave one"):
        network(torch.rand(1, 3, 20, 32))
    assert network(torch.rand(2, 3, 20, 32)).depth.shape == (2, 1, 20, 32)
    assert network(torch.rand(1, 3, 40, 32)).depth.shape == (1, 1, 40, 32)


def test_evaluation_and_group_norm_take_single_values() -> None:
    image = torch.rand(1, 3, 32, 32)
    assert MonoStudent(StudentConfig(norm="batch")).eval()(image).depth.shape == (1, 1, 32, 32)
    assert MonoStudent(StudentConfig(norm="group"))(image).depth.shape == (1, 1, 32, 32)


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    student = MonoStudent()

    def fails(image: Tensor) -> Tensor:
        raise ValueError("something else")

    monkeypatch.setattr(student.encoder, "forward", fails)
    with pytest.raises(ValueError, match=r"^something else$"):
        student(torch.rand(1, 3, 32, 32))


def test_a_student_is_traced_whole() -> None:
    student, image = MonoStudent().eval(), torch.rand(1, 3, 32, 32)
    torch._dynamo.reset()
    traced = torch.compile(student, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(traced(image).depth, student(image).depth)
