"""Whole steps: a teacher's training step, a distillation step, inference. What a user waits for, gaps included.

The implementations differ in what the operations of adu_kernels are: ours (kernels where there are any) or the plain
references, each as it is or with the network compiled; "ours, graph" replays training steps as the trainer does
(`adu_depth.training.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adu_depth.data import SyntheticStereo
from adu_depth.data.sample import StereoSample
from adu_depth.distillation import DistillationConfig, StudentLoss, TeacherLoss, TeacherLossConfig
from adu_depth.models import MonoStudent, StereoTeacher, StudentConfig, TeacherConfig
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.config import OptimizerConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.step import make_optimizer, place_learning_rate
from adu_depth.training.tasks import OnlineTeacher, StudentTask, TeacherTask
from adu_depth.transfer import upload_together
from adu_kernels._triton import runtime
from adu_kernels.backend import use_backend
from bench.harness.implementations import EAGER, OURS, compiled, kernels_run_on, time_limit
from bench.harness.memory import peak_bytes
from bench.harness.parity import Refused
from bench.harness.result import CaseResult, Row
from bench.harness.runner import Effort, fill, row_without_times
from bench.harness.suite import Planned, Suite, dtype_name, float32_products, labelled
from bench.harness.timing import Mark, Step, first_line, measure, no_mark
from bench.training_parts import (
    CONTEXT,
    GRAPH,
    OURS_BY_GRAPH,
    Built,
    StepParts,
    Work,
    autocast_on,
    by_graph,
    graphs_on,
)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Of a loss term or the gradient's norm, relative, on top of twice what the references' own rounding does."""


@dataclass(frozen=True)
class Scale:
    """Images of a step, and the networks that see them."""

    batch: int
    height: int
    width: int
    teacher: TeacherConfig
    student: StudentConfig


THIN = TeacherConfig(
    max_disparity=16,
    num_groups=2,
    correlation_channels=8,
    concat_channels=2,
    aggregation_channels=4,
    feature_channels=(8, 8, 8),
    head_channels=8,
)
SCALES = {
    "gpu": (
        Scale(8, 256, 512, TeacherConfig(max_disparity=192), StudentConfig()),
        Scale(4, 384, 1248, TeacherConfig(max_disparity=192), StudentConfig()),
    ),
    "small": (Scale(2, 64, 128, TeacherConfig(max_disparity=32), StudentConfig()),),
    "tiny": (Scale(1, 32, 64, THIN, StudentConfig(feature_channels=(8, 8, 12), head_channels=8)),),
}
Implementation = tuple[str, str, "str | None"]
"""Name, what backend="auto" means, mode of torch.compile or None."""


Build = Callable[[Scale, torch.device, "torch.dtype | None", "str | None"], Built]
"""scale, device, autocast type or None, mode of torch.compile or None → an implementation."""


class _StepSuite(Suite):
    """Options of the whole steps; --dtype bfloat16 is autocast."""

    trains: ClassVar[bool] = False

    def build(self) -> Build:
        raise NotImplementedError

    def plan(self, size: str, device: torch.device, peaks: dict[str, float] | None) -> list[Planned]:
        dtypes = [torch.float32] if size != "gpu" else [torch.bfloat16, torch.float32]
        planned: list[Planned] = []
        for scale in self.scales(size):
            for dtype in dtypes:
                if self.dtype and str(dtype).removeprefix("torch.") not in self.dtype:
                    continue
                label = labelled(B=scale.batch, D=scale.teacher.max_disparity)
                name = f"{self.name}, {dtype_name(dtype)}, {label}, {scale.height}×{scale.width}"
                if not self.case or any(part in name for part in self.case):
                    planned.append((name, partial(self.measure, name, scale, device, dtype)))
        return planned

    def scales(self, size: str) -> Sequence[Scale]:
        return SCALES[size]

    def products(self) -> AbstractContextManager[Any]:
        """As a user's: torch's own settings, which let convolutions of float32 use TF32."""
        return nullcontext()

    def measure(self, name: str, scale: Scale, device: torch.device, dtype: torch.dtype) -> CaseResult:
        effort = Effort(self.repeats, self.seconds, self.compile_seconds)
        by_graph = self.trains and device.type == "cuda"
        modes = self.compile_modes(device, False)
        implementations = list_implementations(kernels_run_on(device), modes, by_graph)
        rows = step_rows(self.build(), scale, device, dtype, implementations, effort)
        return {
            "name": name,
            "dtype": str(dtype).removeprefix("torch."),
            "shape": {"batch": scale.batch, "height": scale.height, "width": scale.width},
            "work": {},
            "note": f"Gaps between launches included. {self.__class__.__doc__}",
            "rows": rows,
        }


@dataclass(frozen=True)
class TeacherStepBenchmark(_StepSuite):
    """One training step of the stereo teacher: forward with its losses, backward, AdamW."""

    trains: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "teacher-step"

    def build(self) -> Build:
        return teacher_step


@dataclass(frozen=True)
class DistillationStepBenchmark(_StepSuite):
    """One training step of the student: frozen teacher online, forward with adapters and losses, backward, AdamW."""

    trains: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "distillation-step"

    def build(self) -> Build:
        return distillation_step


@dataclass(frozen=True)
class TeacherInferenceBenchmark(_StepSuite):
    """Depth of pairs by the teacher, without gradients."""

    @property
    def name(self) -> str:
        return "teacher-inference"

    def build(self) -> Build:
        return teacher_inference


@dataclass(frozen=True)
class StudentInferenceBenchmark(_StepSuite):
    """Depth of images by the student, without gradients."""

    @property
    def name(self) -> str:
        return "student-inference"

    def build(self) -> Build:
        return student_inference

    def scales(self, size: str) -> Sequence[Scale]:
        found = SCALES[size]
        return [*found, *(replace(scale, batch=1) for scale in found)]


def teacher_step(scale: Scale, device: torch.device, autocast: torch.dtype | None, mode: str | None) -> Built:
    network = StereoTeacher(scale.teacher)
    config = network.config
    loss = TeacherLoss(TeacherLossConfig(), config.max_disparity, config.min_depth, config.max_depth)
    task = TeacherTask(network, loss, TeacherTrainingConfig().augmentation)
    return _training(task, lambda batch: batch, device, autocast, mode)


def distillation_step(scale: Scale, device: torch.device, autocast: torch.dtype | None, mode: str | None) -> Built:
    teacher, network = StereoTeacher(scale.teacher), MonoStudent(scale.student)
    loss = StudentLoss(
        DistillationConfig(),
        network.config.feature_channels,
        teacher.config.feature_channels,
        network.config.min_depth,
        network.config.max_depth,
    )
    task = StudentTask(network, loss, StudentTrainingConfig().augmentation)
    return _training(task, OnlineTeacher(teacher, device, autocast), device, autocast, mode)


def _training(
    task: TeacherTask | StudentTask,
    teach: Callable[[TrainingBatch], TrainingBatch],
    device: torch.device,
    autocast: torch.dtype | None,
    mode: str | None,
) -> Built:
    task.to(device).train()
    config = OptimizerConfig(learning_rate=1e-4)
    optimizer = make_optimizer(task, config, device)
    place_learning_rate(optimizer, device)
    run: Callable[..., dict[str, Tensor]] = task if mode is None or mode == GRAPH else compiled(task, mode)
    parts = StepParts(task, run, teach, optimizer, config.clip_norm, device, autocast)
    if mode == GRAPH:
        return by_graph(parts, graphs_on(device))

    def work(sample: StereoSample, mark: Mark, backward: bool) -> dict[str, Tensor]:
        batch = TrainingBatch(sample)
        draws = upload_together(parts.draw(batch, CONTEXT), device)
        if isinstance(teach, OnlineTeacher):
            batch = parts.taught(batch)
            mark("teacher")
        terms = parts.losses(batch, draws)
        mark("forward")
        if backward:
            terms["total"].backward()
            parts.clip()
            mark("backward")
            parts.update()
            parts.clear()
            mark("update")
        return terms

    return Built(work, parts.parameters())


def teacher_inference(scale: Scale, device: torch.device, autocast: torch.dtype | None, mode: str | None) -> Built:
    network = StereoTeacher(scale.teacher).to(device).eval()
    run = network if mode is None else compiled(network, mode)
    return _inference(lambda s: run(s.left, s.right, s.camera), network, device, autocast)


def student_inference(scale: Scale, device: torch.device, autocast: torch.dtype | None, mode: str | None) -> Built:
    network = MonoStudent(scale.student).to(device).eval()
    run = network if mode is None else compiled(network, mode)
    return _inference(lambda s: run(s.left), network, device, autocast)


def _inference(
    predict: Callable[[StereoSample], Any], network: nn.Module, device: torch.device, autocast: torch.dtype | None
) -> Built:
    def work(sample: StereoSample, mark: Mark, backward: bool) -> dict[str, Tensor]:
        with torch.no_grad(), autocast_on(device, autocast):
            prediction = predict(sample)
        mark("forward")
        return {"depth": prediction.depth, "log_scale": prediction.log_scale}

    return Built(work, [])


def step_rows(
    build: Build,
    scale: Scale,
    device: torch.device,
    dtype: torch.dtype,
    implementations: Sequence[Implementation],
    effort: Effort,
) -> list[Row]:
    """A row for each implementation: parity of losses and gradients first, then times, images per second, memory."""
    torch._dynamo.reset()
    autocast = None if dtype == torch.float32 else dtype
    scenes = SyntheticStereo(None, scale.height, scale.width, device=device)
    ring = [
        scenes.render_batch(range(k * scale.batch, (k + 1) * scale.batch))
        for k in range(1 if runtime.interpreting() else 2)
    ]
    rows: dict[str, Row] = {}
    works: dict[str, Work] = {}

    def values(backend: str, kind: torch.dtype | None, mode: str | None) -> dict[str, Tensor]:
        return _values(_seeded(build, scale, device, kind, mode, backend), ring[0], backend)

    same = values("torch", autocast, None)
    with float32_products():
        exact = values("torch", None, None)
    for name, backend, mode in implementations:
        try:
            with time_limit(effort.compile_seconds, "compiling and checking"):
                errors = check_step(values(backend, autocast, mode), same, exact, TOLERANCE[dtype])
                works[name] = _on(backend, _seeded(build, scale, device, autocast, mode, backend).work)
                works[name](ring[0], no_mark, True)
            rows[name] = {"name": name, "status": "measured", "error": errors}
        except Exception as error:
            works.pop(name, None)
            rows[name] = row_without_times(name, error)
    steps: dict[str, Step] = {name: _step(work, ring) for name, work in works.items()}
    fill(rows, measure(steps, len(ring), device, repeats=effort.repeats, seconds=effort.seconds, gaps=True))
    for name, row in rows.items():
        if row["status"] == "measured":
            row["images_per_second"] = scale.batch / row["times"]["total"]["median"] * 1e6
            if name == OURS_BY_GRAPH:  # its memory is held between steps: a replay allocates nothing
                continue
            try:
                row["peak_bytes"] = peak_bytes(partial(steps[name], 0, no_mark, True), device)
            except Exception as error:  # the times stand without it
                row["memory_failure"] = first_line(error)
    return list(rows.values())


def list_implementations(kernels: bool, modes: Sequence[str], by_graph: bool = False) -> list[Implementation]:
    found: list[Implementation] = []
    if kernels:
        found.append((OURS, "triton", None))
        if by_graph:
            found.append((OURS_BY_GRAPH, "triton", GRAPH))
    found.append((EAGER, "torch", None))
    for mode in modes:
        suffix = "" if mode == "default" else f", {mode}"
        found.append((f"compiled reference{suffix}", "torch", mode))
        if kernels and not runtime.interpreting():
            found.append((f"ours, compiled{suffix}", "triton", mode))
    return found


def _seeded(
    build: Build, scale: Scale, device: torch.device, autocast: torch.dtype | None, mode: str | None, backend: str
) -> Built:
    """The same first weights in every implementation."""
    torch.manual_seed(0)
    with use_backend(backend):
        return build(scale, device, autocast, mode)


def _on(backend: str, work: Work) -> Work:
    def on_backend(sample: StereoSample, mark: Mark, backward: bool) -> dict[str, Tensor]:
        with use_backend(backend):
            return work(sample, mark, backward)

    return on_backend


def _step(work: Work, ring: Sequence[StereoSample]) -> Step:
    def step(index: int, mark: Mark, backward: bool) -> None:
        work(ring[index], mark, backward)

    return step


def _values(built: Built, sample: StereoSample, backend: str) -> dict[str, Tensor]:
    """What is compared: the outputs by name, and the norm of the gradient of each parameter."""
    with use_backend(backend):
        if built.values is not None:
            return {name: value.double() for name, value in built.values(sample).items()}
        terms = built.work(sample, no_mark, False)
        found = {name: value.detach().double() for name, value in terms.items()}
        if built.parameters:
            gradients = torch.autograd.grad(terms["total"], list(built.parameters), allow_unused=True)
            norms = [g.double().norm() for g in gradients if g is not None]
            found["gradient"] = torch.stack(norms).norm()
    return found


def check_step(
    ours: dict[str, Tensor], same: dict[str, Tensor], exact: dict[str, Tensor], tolerance: float
) -> dict[str, float]:
    """Relative errors against the fp32 references; Refused past 2 × the references' own error + tolerance.

    same: the references in the precision that is measured. exact: the references in fp32.
    """
    errors = {"forward": 0.0, "backward": 0.0}
    for name, want in exact.items():
        size = want.norm().clamp(min=1e-12)
        error = ((ours[name] - want).norm() / size).item()
        allowed = 2 * ((same[name] - want).norm() / size).item() + tolerance
        if not error <= allowed:
            raise Refused(f"{name}: relative error {error:.2e}, allowed {allowed:.2e}")
        key = "backward" if name == "gradient" else "forward"
        errors[key] = max(errors[key], error)
    return errors
