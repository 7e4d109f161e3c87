"""A training step's parts beside the trainer's own, and the same replayed from the trainer's CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adu_depth.data.sample import StereoSample
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.cuda_graphs import CudaGraphs
from adu_depth.training.graph import WARM_UP, Graphs, StepByGraph
from adu_depth.training.processes import Exchange
from adu_depth.training.step import set_learning_rate
from adu_depth.training.tasks import StepContext, StepDraws, StudentTask, TeacherTask
from bench.harness.implementations import OURS
from bench.harness.timing import Mark, no_mark

CONTEXT = StepContext(seed=0, step=100, rank=0, progress=0.5, dense=False)
Work = Callable[[StereoSample, Mark, bool], "dict[str, Tensor]"]
"""A step on one batch; returns what is compared between implementations, by name."""

GRAPH = "graph"
"""In the place of a mode of torch.compile: the trainer's CUDA graphs."""
OURS_BY_GRAPH = f"{OURS}, {GRAPH}"


@dataclass(frozen=True)
class Built:
    """One implementation with weights of its own, the same in all. values: what is compared, where `work` and autograd
    cannot say it."""

    work: Work
    parameters: Sequence[nn.Parameter]
    values: Callable[[StereoSample], dict[str, Tensor]] | None = None


@dataclass(frozen=True)
class StepParts:
    """The parts of a training step, as `adu_depth.training.step.TrainingParts` has them with an accelerator."""

    task: TeacherTask | StudentTask
    run: Callable[..., dict[str, Tensor]]
    teach: Callable[[TrainingBatch], TrainingBatch]
    optimizer: torch.optim.Optimizer
    clip_norm: float
    device: torch.device
    autocast: torch.dtype | None
    exchange: Exchange | None = None

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.task.parameters() if p.requires_grad]

    def draw(self, batch: TrainingBatch, context: StepContext) -> StepDraws:
        return self.task.draw(batch, context)

    def taught(self, batch: TrainingBatch) -> TrainingBatch:
        with autocast_on(self.device, self.autocast):
            return self.teach(batch)

    def losses(self, batch: TrainingBatch, draws: StepDraws) -> dict[str, Tensor]:
        with autocast_on(self.device, self.autocast):
            return self.run(batch, draws, CONTEXT.dense)

    def gradients(self, batch: TrainingBatch, draws: StepDraws) -> dict[str, Tensor]:
        terms = self.losses(self.taught(batch), draws)
        terms["total"].backward()
        return terms

    def clip(self) -> Tensor:
        return nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)

    def update(self) -> None:
        self.optimizer.step()

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)


def graphs_on(device: torch.device) -> Graphs:
    return CudaGraphs(device)


def by_graph(parts: StepParts, graphs: Graphs) -> Built:
    """Steps by the trainer's own graphs. What keeps it from capturing one is raised."""

    def fail(text: str) -> None:
        raise RuntimeError(text)

    runner = StepByGraph(parts, parts.device, graphs, fail)

    def work(sample: StereoSample, mark: Mark, backward: bool) -> dict[str, Tensor]:
        terms = runner.gradients(TrainingBatch(sample), CONTEXT)
        mark("gradients")
        runner.update()
        mark("update")
        return terms

    def values(sample: StereoSample) -> dict[str, Tensor]:
        """Of a replay; until then the weights stay as they are."""
        set_learning_rate(parts.optimizer, 0.0)
        for _ in range(WARM_UP):
            work(sample, no_mark, True)
        terms = work(sample, no_mark, True)
        return {"gradient": terms.pop("gradient_norm"), **terms}

    return Built(work, parts.parameters(), values)


def autocast_on(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
