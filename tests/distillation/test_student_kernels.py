"""The student's objective on the fused kernels: what "auto" takes on a GPU, and where training ends with them."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import StereoSample, collate
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.models import MonoStudent, StudentConfig
from adu_depth.models.prediction import DepthPrediction
from adu_kernels import backend
from adu_kernels._triton import runtime
from adu_kernels.feature_distillation import launch

pytest.importorskip("triton")
FOLDERS = ("attention_adaptation", "depth_objective", "feature_distillation")
STUDENT = StudentConfig(feature_channels=(8, 8, 12), head_channels=8)
TAUGHT = (8, 12, 16)
"""Channels of the teacher's features."""


class OnGpu:
    """All that the choice of an implementation asks a tensor."""

    is_cuda = True


def choose_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, folders: tuple[str, ...]) -> dict[str, bool]:
    """Lets their operations choose as for CUDA tensors; gives those asked for, and whether a kernel answered."""
    answered: dict[str, bool] = {}

    def dispatch(operation: str, asked: str, tensor: Tensor, *, torch_twin: Any, triton_twin: Any = None) -> Any:
        chosen = backend.dispatch(operation, asked, OnGpu(), torch_twin=torch_twin, triton_twin=triton_twin)  # type: ignore[arg-type, type-var]
        answered[operation] = chosen is triton_twin
        return chosen

    for folder in folders:
        monkeypatch.setattr(importlib.import_module(f"adu_kernels.{folder}.op"), "dispatch", dispatch)
    return answered


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for masked lanes: programs as small as these maps."""
    monkeypatch.setattr(launch, "LOSS", replace(launch.LOSS, last_lanes=64, last_tiles=1))
    monkeypatch.setattr(launch, "FINISH", replace(launch.FINISH, values=16))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that are started."""
    names: list[str] = []
    run = runtime.run

    def noted(kernel: Any, *arguments: Any, **options: Any) -> None:
        names.append(kernel.__name__)
        run(kernel, *arguments, **options)

    monkeypatch.setattr(runtime, "run", noted)
    return names


def sample() -> StereoSample:
    return collate([SyntheticStereo(2, 32, 32, seed=0)[i] for i in range(2)])


def teacher_of(pair: StereoSample) -> DepthPrediction:
    """A teacher a few percent off, whose features a student can learn: random filters of the image."""
    generator = torch.Generator().manual_seed(1)
    features, level = [], pair.left
    for channels, cell in zip(TAUGHT, (8, 2, 2), strict=True):
        filters = torch.randn(channels, level.shape[1], cell, cell, generator=generator) / (
            cell * level.shape[1] ** 0.5
        )
        level = nn.functional.conv2d(level, filters, stride=cell).relu().contiguous(memory_format=torch.channels_last)
        features.append(level)
    depth = pair.depth * (1 + 0.1 * torch.randn(pair.depth.shape, generator=generator))
    return DepthPrediction(depth, torch.zeros_like(depth), tuple(features))


def train(config: DistillationConfig, steps: int) -> tuple[Tensor, Tensor]:
    """The loss of every step, and all weights after the last."""
    torch.manual_seed(0)
    pair = sample()
    student, teacher = MonoStudent(STUDENT), teacher_of(pair)
    loss = StudentLoss(config, STUDENT.feature_channels, TAUGHT, STUDENT.min_depth, STUDENT.max_depth)
    weights = [*student.parameters(), *loss.parameters()]
    # eps: without it the first steps follow the sign of gradients that are rounding alone
    optimiser = torch.optim.Adam(weights, lr=5e-4, eps=1e-2)
    losses = []
    for step in range(steps):
        terms = loss(student(pair.left), teacher, pair.training_target(True), step / steps)
        optimiser.zero_grad()
        terms["total"].backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        losses.append(terms["total"].detach())
    return torch.stack(losses), torch.cat([w.detach().flatten() for w in weights])


OPERATIONS = {
    "attention_adaptation",
    "depth_objective",
    "feature_distillation_losses",
    "pooled_guide",
    "uncertainty_guide",
}


def test_auto_takes_every_kernel_on_a_gpu(monkeypatch: pytest.MonkeyPatch, started: list[str]) -> None:
    """A default configuration is enough; two steps end where the references end."""
    plain_losses, plain_weights = train(DistillationConfig(backend="torch"), steps=2)
    assert not started
    answered = choose_as_on_a_gpu(monkeypatch, FOLDERS)
    losses, weights = train(DistillationConfig(), steps=2)
    assert answered == dict.fromkeys(OPERATIONS, True)
    assert {"sums", "finish", "gradients", "nested"} <= set(started)
    assert (losses / plain_losses - 1).abs().max() <= 1e-5
    assert (weights - plain_weights).norm() <= 1e-5 * plain_weights.norm()


@pytest.mark.parametrize("chosen", ["torch", "triton"])
def test_the_backend_reaches_every_operation(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str] = {}

    def dispatch(operation: str, backend: str, tensor: Tensor, *, torch_twin: Any, triton_twin: Any = None) -> Any:
        asked[operation] = backend
        return torch_twin

    for folder in FOLDERS:
        monkeypatch.setattr(importlib.import_module(f"adu_kernels.{folder}.op"), "dispatch", dispatch)
    train(DistillationConfig(backend=chosen, learned_scale=1.0), steps=1)  # type: ignore[arg-type]
    assert asked == dict.fromkeys({*OPERATIONS, "laplace_nll"}, chosen)


def test_no_guide_pools_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = choose_as_on_a_gpu(monkeypatch, FOLDERS)
    train(DistillationConfig(guide="none"), steps=1)
    assert set(answered) == OPERATIONS - {"pooled_guide", "uncertainty_guide"}


def test_a_student_trains_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty steps from the same seed, the losses by kernels against the losses by references.

    Training amplifies rounding: where the images move by one unit in the last place, the references' losses differ by
    2e-6 at the end and the weights by 8e-6. Twenty steps must agree to 1e-5; at the end the losses may differ by 1e-3
    and the weights by 1e-4. Attention, the slowest here, has its share in the test of two steps.
    """
    plain_losses, plain_weights = train(DistillationConfig(backend="torch"), steps=30)
    answered = choose_as_on_a_gpu(monkeypatch, FOLDERS[1:])
    losses, weights = train(DistillationConfig(), steps=30)
    assert answered == dict.fromkeys(OPERATIONS - {"attention_adaptation"}, True)
    difference = (losses / plain_losses - 1).abs()
    assert plain_losses[-1] < 0.8 * plain_losses[0]
    assert difference[:20].max() <= 1e-5
    assert difference.max() <= 1e-3
    assert (weights - plain_weights).norm() <= 1e-4 * plain_weights.norm()
