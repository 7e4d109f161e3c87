"""One setting, `backend`, reaches every operation of a network, and the loss's own every one of the loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.errors import InputError
from adu_depth.geometry import Camera
from adu_depth.models import FeatureAdapters, MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_depth.models.blocks import Backend, ConvNorm, KernelModule, set_backend
from adu_kernels._triton import runtime
from adu_kernels.backend import use_backend

pytest.importorskip("triton")
WIDTHS: dict[str, Any] = {"feature_channels": (8, 8, 8), "head_channels": 8}
NARROW: dict[str, Any] = {
    **WIDTHS,
    "max_disparity": 16,
    "num_groups": 2,
    "correlation_channels": 8,
    "concat_channels": 1,
    "aggregation_channels": 4,
    "refinement_channels": 4,
}


PAIR = (1, 3, 32, 32)


class Operators(TorchDispatchMode):
    """Counts the operators of adu_kernels that a forward and its backward ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "adu_kernels":
            self.calls[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels compute is asked elsewhere; here their results may hold anything."""
    monkeypatch.setattr(runtime, "run", lambda *arguments, **options: None)


def norms(*networks: nn.Module | None) -> int:
    return sum(isinstance(m, ConvNorm) for network in networks if network is not None for m in network.modules())


def twice(calls: dict[str, int]) -> dict[str, int]:
    """The same with the operator of each one's backward."""
    return {**calls, **{f"{name}_backward": count for name, count in calls.items()}}


def teacher_step(backend: Backend, camera: Camera) -> tuple[Counter[str], StereoTeacher]:
    network = StereoTeacher(TeacherConfig(**NARROW, backend=backend)).train()
    loss = TeacherLoss(TeacherLossConfig(backend=backend), 16, 0.5, 80.0)
    views = torch.rand(PAIR), torch.rand(PAIR)
    with Operators() as seen:
        prediction = network(*views, camera)
        loss(prediction, torch.full_like(prediction.depth, 10.0), *views, camera)["total"].backward()
    return seen.calls, network


def student_step(backend: Backend) -> tuple[Counter[str], MonoStudent]:
    network = MonoStudent(StudentConfig(**WIDTHS, backend=backend)).train()
    loss = StudentLoss(DistillationConfig(backend=backend), (8, 8, 8), (8, 8, 8), 0.5, 80.0)
    taught = MonoStudent(StudentConfig(**WIDTHS, backend="torch"))(torch.rand(PAIR))
    with Operators() as seen:
        prediction = network(torch.rand(PAIR))
        loss(prediction, taught, torch.full_like(prediction.depth, 10.0), 0.5)["total"].backward()
    return seen.calls, network


def test_torch_reaches_every_operation(make_camera: Callable[..., Camera]) -> None:
    """Where "auto" is a kernel, as on a GPU, none of their operators is asked for."""
    with use_backend("triton"):
        assert not teacher_step("torch", make_camera(1))[0]
        assert not student_step("torch")[0]


def test_triton_reaches_every_operation_of_a_teacher(make_camera: Callable[..., Camera]) -> None:
    """Where "auto" is a reference, as on a CPU. What calls an operation of adu_kernels anew belongs on this list."""
    seen, network = teacher_step("triton", make_camera(1))
    once = {"cost_volume": 1, "cosine_features": 1, "single_output_conv3d": 2, "disparity_regression": 2}
    # SILog of the depth and of the decoder's, and the Laplace likelihood, whose gradients come with their values.
    assert seen == {**twice({**once, "group_norm": norms(network)}), "depth_losses": 3}


def test_triton_reaches_every_operation_of_a_student() -> None:
    seen, network = student_step("triton")
    once = {"attention_adaptation": 3, "feature_distillation": 1, "group_norm": norms(network)}
    assert seen == {**twice(once), "depth_losses": 1, "response_weights": 1, "pooled_guide": 1}


def test_every_module_that_calls_an_operation_is_one_of_the_kind() -> None:
    networks = [
        StereoTeacher(TeacherConfig(**NARROW, backend="torch")),
        MonoStudent(StudentConfig(**WIDTHS, backend="torch")),
        FeatureAdapters((8,), (8,), backend="torch"),
    ]
    for network in networks:
        kinds = [m for m in network.modules() if isinstance(m, KernelModule)]
        assert kinds
        assert {m.backend for m in kinds} == {"torch"}
    kept = StereoTeacher(TeacherConfig(**NARROW))
    assert list(kept.state_dict()) == list(networks[0].state_dict())
    assert {m.backend for m in kept.modules() if isinstance(m, KernelModule)} == {"auto"}


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputError, match="backend: expected one of auto, triton, torch, got 'cuda'"):
        StudentConfig(backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"loss\.backend"):
        TeacherLossConfig(backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="backend"):
        set_backend(MonoStudent(StudentConfig(**WIDTHS)), "reference")  # type: ignore[arg-type]
