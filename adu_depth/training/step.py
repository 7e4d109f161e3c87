"""One training step in two halves, between which its losses can be looked at: gradients, then the weights' update.

What a step is told by the CPU beside its batch (random numbers, how far the run is) is drawn first and sent up; what
follows runs on the device alone. So the same parts can be run one by one, or captured in a CUDA graph (`graph.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adu_depth.data.augmentation import draw_seed
from adu_depth.models.averages import Averages
from adu_depth.training.accumulation import images_of, mean_terms, micro_batches, with_teachers
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.config import OptimizerConfig
from adu_depth.training.processes import Exchange
from adu_depth.training.rounded_weights import RoundedWeights
from adu_depth.training.tasks import StepContext, StepDraws, StudentTask, TeacherTask
from adu_depth.training.weight_decay import parameter_groups
from adu_depth.transfer import upload_together

Terms = dict[str, Tensor]


class StepParts(Protocol):
    """What a step is made of."""

    def draw(self, batch: TrainingBatch, context: StepContext) -> StepDraws:
        """What the step is told, on the CPU."""

    @property
    def exchange(self) -> Exchange | None:
        """What stands between the gradients of this process and their clipping; None where it is the only process."""

    def gradients(self, batch: TrainingBatch, draws: StepDraws) -> Terms:
        """Fills this process's gradients. batch, draws: on the device. Takes nothing else from the CPU, waits for
        nothing."""

    def clip(self) -> Tensor:
        """Scales the gradients down where they are too long, and gives how long they were; on the device alone."""

    def update(self) -> None:
        """Changes the weights by their gradients, on the device alone."""

    def clear(self) -> None:
        """Forgets the gradients."""


def whole_gradients(parts: StepParts, batch: TrainingBatch, draws: StepDraws) -> Terms:
    """The first half of a step: the gradients of all processes, clipped."""
    terms = parts.gradients(batch, draws)
    if parts.exchange is not None:
        parts.exchange.average()
    return terms | {"gradient_norm": parts.clip()}


class StepRunner(Protocol):
    """How steps are executed."""

    def gradients(self, batch: TrainingBatch, context: StepContext) -> Terms:
        """The first half: the loss terms by name, detached, the caller's own."""

    def update(self) -> None:
        """The second half of the same step."""

    def release(self) -> bool:
        """Between two steps: gives back what it holds of the device's memory from step to step. False: nothing."""


class PartByPart:
    """Runs the parts of each step as they are."""

    def __init__(self, parts: StepParts, device: torch.device) -> None:
        self.parts, self.device = parts, device

    def gradients(self, batch: TrainingBatch, context: StepContext) -> Terms:
        draws = upload_together(self.parts.draw(batch, context), self.device)
        seed_step(context)
        return {name: term.detach() for name, term in whole_gradients(self.parts, batch, draws).items()}

    def update(self) -> None:
        self.parts.update()
        self.parts.clear()

    def release(self) -> bool:
        return False


class TrainingParts:
    """The parts of a step of teacher or student: frozen teacher, forward with its losses, backward, clipping, AdamW."""

    def __init__(
        self,
        task: TeacherTask | StudentTask,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        *,
        teach: Callable[[TrainingBatch], TrainingBatch],
        clip_norm: float,
        dense: bool,
        averages: Averages | None = None,
        accumulate: int = 1,
        exchange: Exchange | None = None,
    ) -> None:
        """module: `task` as the accelerator has wrapped it. teach: adds a teacher's outputs to a batch. accumulate:
        micro-batches of a step."""
        self.averages, self.exchange = averages, exchange
        self.task, self.module, self.optimizer, self.accelerator = task, module, optimizer, accelerator
        self.teach, self.dense, self.accumulate = teach, dense, accumulate
        self.rounded_weights = RoundedWeights(task)
        self.clip_norm = clip_norm or math.inf  # the norm is wanted in any case: it shows a NaN

    def draw(self, batch: TrainingBatch, context: StepContext) -> StepDraws:
        return self.task.draw(batch, context)

    def taught(self, batch: TrainingBatch) -> TrainingBatch:
        with self.accelerator.autocast():
            return self.teach(batch)

    def taught_whole(self, batch: TrainingBatch) -> TrainingBatch:
        """A step's batch, taught as its micro-batches are."""
        if self.accumulate == 1:
            return self.taught(batch)
        size = batch.sample.left.shape[0] // self.accumulate
        parts = (images_of(batch, slice(k * size, (k + 1) * size)) for k in range(self.accumulate))
        return with_teachers(batch, [self.taught(part) for part in parts])

    def losses(self, batch: TrainingBatch, draws: StepDraws) -> Terms:
        terms: Terms = self.module(batch, draws, self.dense)
        return terms

    def gradients(self, batch: TrainingBatch, draws: StepDraws) -> Terms:
        """The first micro-batch makes the gradients, the others add to them: in a CUDA graph too, which holds all."""
        found: list[Terms] = []
        for part, drawn in micro_batches(batch, draws, self.accumulate):
            taught = self.taught(part)
            with self.rounded_weights.in_place():
                terms = self.losses(taught, drawn)
                self.rounded_weights.find(terms["total"])
                self.backward(terms["total"] if self.accumulate == 1 else terms["total"] / self.accumulate)
            found.append({name: term.detach() for name, term in terms.items()})
        return mean_terms(found) | self.loss_scale()

    def loss_scale(self) -> Terms:
        """What the loss was multiplied with, in fp16."""
        scale = None if self.accelerator.scaler is None else self.accelerator.scaler._get_scale_async()
        return {} if scale is None else {"loss_scale": scale.clone()}  # `get_scale` would wait for the device

    def backward(self, total: Tensor) -> None:
        self.accelerator.backward(total)

    def clip(self) -> Tensor:
        norm: Tensor = self.accelerator.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        return norm

    def update(self) -> None:
        self.optimizer.step()
        if self.averages is not None:
            self.averages.update()

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.accelerator.scaler is not None:
            # Where a step ended halfway, in a capture that failed, it has gradients that are unscaled already.
            self.accelerator.scaler._per_optimizer_states.clear()


def make_optimizer(task: nn.Module, config: OptimizerConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW, fused. On CUDA in the form that a graph can hold, with its count of steps on the device, whether one is
    captured or not, so that the bits are the same. Call `place_learning_rate` when it is prepared and restored."""
    on_cuda = device.type == "cuda"
    # On a CPU the fused one walks through memory, whatever the strides. Autograd lays gradients as their parameters are
    # where these have no gaps, and moments are made so, and restored so.
    on_cpu = device.type == "cpu" and all(p.stride() == torch.empty_like(p).stride() for p in task.parameters())
    return torch.optim.AdamW(
        parameter_groups(task, config.decay_norms_and_biases),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        capturable=on_cuda,
        fused=on_cuda or on_cpu or None,  # None: PyTorch chooses
    )


def place_learning_rate(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """On CUDA the rate becomes one tensor of the device, for good: a graph reads it where it lies."""
    if device.type == "cuda":
        rate = torch.full((), float(optimizer.param_groups[0]["lr"]), device=device)
        for group in optimizer.param_groups:
            group["lr"] = rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of every group. Where it is one tensor for all, that is filled, not replaced: a graph reads it there."""
    placed = optimizer.param_groups[0]["lr"]
    if isinstance(placed, Tensor):
        placed.fill_(rate)
        return
    for group in optimizer.param_groups:
        group["lr"] = rate


def seed_step(context: StepContext) -> None:
    """What a backbone draws (drop-path, dropout) must follow from the step too, or a resumed run would differ."""
    torch.manual_seed(draw_seed(context.seed, context.step, context.rank))
