"""A compiled training is the same up to rounding, under the same names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adu_depth.checkpoint import list_checkpoints, load_model
from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.distillation import DistillationConfig, StudentLoss
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.models import MonoStudent
from adu_depth.tensor_files import read_tensors
from adu_depth.training import compilation
from adu_depth.training.batches import batches
from adu_depth.training.config import OptimizerConfig
from adu_depth.training.runs import train_student
from adu_depth.training.tasks import StepContext, StudentTask, step_losses
from adu_depth.training.validation_config import ValidationConfig
from tests.training.tiny import DATA, LOOP, STUDENT, tiny_scenes, tiny_student

GENTLE = OptimizerConfig(learning_rate=1e-5)


def trained_alike(tmp_path: Path, **settings: Any) -> None:
    found, kept = [], []
    for name, compiled in (("plain", False), ("compiled", True)):
        loop = replace(LOOP, steps=3, log_every=1, checkpoint_every=3, compile=compiled)
        history = train_student(tiny_student(tmp_path / name, loop=loop, optimizer=GENTLE, **settings))
        found.append([row for row in history if "total" in row])
        kept.append(read_tensors(list_checkpoints(tmp_path / name)[-1] / "model.safetensors"))
    for one, other in zip(*found, strict=True):
        for term in ("total", "silog"):
            assert other[term] == pytest.approx(one[term], rel=1e-3), term
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.allclose(kept[0][name], kept[1][name], rtol=1e-3, atol=1e-4) for name in kept[0])
    assert load_model(tmp_path / "compiled").kind == "student"


def test_both_parts_are_traced_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a backend that runs what was traced as it is: no compiler takes time."""
    traced: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, example: Any) -> Any:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "OPTIONS", {"dynamic": False, "backend": backend})
    torch._dynamo.reset()
    trained_alike(tmp_path, validation=ValidationConfig(every=2, samples=2, pictures=1))
    assert len(traced) == 2, "encoder and decoder, whole and once: not for the look before a checkpoint, nor to measure"


def gradients(number: int, compiled: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of a step of the tiny student, all parameters end to end."""
    batch = list(batches(tiny_scenes(), DATA, LOOP, 0, ProcessGroup(), torch.device("cpu")))[number]
    torch.manual_seed(0)
    loss = StudentLoss(DistillationConfig(), STUDENT.feature_channels, None, 0.5, 80.0)
    task = StudentTask(MonoStudent(STUDENT), loss, AugmentationConfig()).to(dtype)
    if compiled:
        compilation.compile_parts(task.network, torch.device("cpu"))
    step_losses(task, batch, StepContext(0, number, 0, 0.0, False))["total"].backward()
    return torch.cat([p.grad.double().flatten() for p in task.parameters() if p.grad is not None])


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_compiled_gradients_are_the_same_up_to_rounding(number: int) -> None:
    """No farther from fp64 than twice what the step as it is leaves: for the first batch that is 4 % of the gradient,
    and 3e-5 for the second."""
    torch._dynamo.reset()
    exact = gradients(number, False, torch.float64)
    plain, compiled = (gradients(number, compiled) for compiled in (False, True))
    assert (compiled - exact).norm() <= 2 * (plain - exact).norm() + 1e-5 * exact.norm()
    assert not torch.equal(compiled, plain), "it has been compiled"


def test_without_a_compiler_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(InputError, match=r"loop\.compile needs a C\+\+ compiler, and torch finds none: install g\+\+"):
        train_student(tiny_student(tmp_path / "run", loop=replace(LOOP, compile=True)))


def test_a_run_stays_compiled_or_not(tmp_path: Path) -> None:
    train_student(tiny_student(tmp_path / "run", loop=replace(LOOP, steps=1)))
    with pytest.raises(InputError, match=r"loop\.compile: False → True"):
        train_student(tiny_student(tmp_path / "run", loop=replace(LOOP, steps=1, resume=True, compile=True)))
