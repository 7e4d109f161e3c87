"""When a checkpoint is good: once its own weights gave a finite loss.

The loss of a step is that of the weights before its update, so it says nothing of what is saved after it. Hence two
looks. Before anything is written, the new weights must be finite and give the batch at hand a finite loss. And until
the step that begins from them has shown its loss, the checkpoints before are kept, and theirs is the name that a NaN
is told with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from adu_depth import launcher
from adu_depth.checkpoint import checkpoint_path, list_checkpoints
from adu_depth.distributed import ProcessGroup
from adu_depth.leftovers import remove
from adu_depth.tensor_files import non_finite, some
from adu_depth.training.batches import TrainingBatch
from adu_depth.training.compilation import uncompiled
from adu_depth.training.overflows import Overflows
from adu_depth.training.tasks import StepContext, StudentTask, TeacherTask, step_losses

FOLLOWING = ("total", "gradient_norm")  # bad wherever a term is


class NonFiniteLoss(RuntimeError):
    """A loss term or a weight became NaN or infinite; the message names it, the step and the samples."""


@dataclass
class SeenStep:
    """What is remembered of a step until its loss has been looked at.

    given_finite: whether what the step was given is finite, the teacher's outputs included (`inputs_finite`); where it
    began from a checkpoint that no loss has proven yet.
    """

    number: int
    names: list[str]
    terms: dict[str, Tensor]
    given_finite: Callable[[], bool] | None = None


def require_finite_loss(
    task: TeacherTask | StudentTask, batch: TrainingBatch, context: StepContext, accelerator: Accelerator, run: Path
) -> None:
    """Raises NonFiniteLoss, in every process, unless the weights are finite and give this batch a finite loss.

    batch, with its teacher's outputs, and context: those of the step that has just been done; it is repeated without
    gradients. Weights, running statistics and whatever the next step draws stay as they are.
    """
    fault = _fault(task, batch, context, accelerator)
    fault = next((found for found in gather_object([fault]) if found), "")
    if fault:
        raise NonFiniteLoss(f"{fault}. {advice(list_checkpoints(run))}")


def check_finite(
    steps: list[SeenStep],
    run: Path,
    group: ProcessGroup = ProcessGroup(),  # noqa: B008  (a frozen value)
    overflows: Overflows | None = None,
) -> None:
    """Waits for the device and raises NonFiniteLoss, in every process, for the first step with a bad term in one of
    them; forgets the rest. Every process must look at the same steps. overflows: excuses steps that fp16 skipped."""
    if not steps:
        return
    values = torch.stack([torch.stack([t.float() for t in s.terms.values()]) for s in steps]).tolist()
    found = (find_fault(s, row, group.rank, group.world_size, overflows) for s, row in zip(steps, values, strict=True))
    require_no_fault(next(filter(None, found), None), run)
    steps.clear()


@dataclass
class Fault:
    """A step whose loss is not finite, as one process saw it. follows: it has the gradient or the total of a term that
    is bad in another process. suspect: the weights may be to blame, what the step was given is not."""

    number: int
    follows: bool
    text: str
    suspect: bool


def find_fault(
    seen: SeenStep, values: Sequence[float], rank: int, processes: int, overflows: Overflows | None = None
) -> Fault | None:
    """What is wrong with a step's terms, None if nothing is. values: those of seen.terms. overflows: with fp16."""
    bad = bad_terms(seen.terms, values)
    skipped = overflows is not None and overflows.excuses(seen.terms, values)
    if not bad or skipped:
        return None
    own = {name: value for name, value in zip(seen.terms, values, strict=True) if name not in FOLLOWING}
    where = f" of process {rank}" if processes > 1 else ""
    text = f"{bad} at step {seen.number}, samples {', '.join(seen.names)}{where}"
    text += "" if overflows is None else overflows.explanation()
    suspect = seen.given_finite is not None and seen.given_finite()
    return Fault(seen.number, all(map(math.isfinite, own.values())), text, suspect)


def require_no_fault(fault: Fault | None, run: Path) -> None:
    """Raises NonFiniteLoss, in every process alike, if one of them has found a fault: that which came first and names
    a cause. A NaN reaches the other processes by the gradients, and they would name samples that are good."""
    faults = [found for found in gather_object([fault]) if found is not None]
    if faults:
        first = min(faults, key=lambda found: (found.number, found.follows))
        suspect = all(found.suspect for found in faults if found.number == first.number)
        raise NonFiniteLoss(f"{first.text}. {advice(last_good(run, first.number, suspect))}")


def last_good(run: Path, number: int, suspect: bool) -> list[Path]:
    """The good checkpoints of a run, oldest first, after step `number` gave a loss that is not finite.

    Where it is suspect, the checkpoint that the step began from is not among them, and is set aside under another name.
    """
    if not suspect:
        return list_checkpoints(run)
    began = checkpoint_path(run, number)
    aside = began.with_name(f"broken-{began.name}")
    if launcher.rank() == 0 and began.is_dir():
        remove(aside)
        os.replace(began, aside)
    return [path for path in list_checkpoints(run) if path != began]


def advice(good: list[Path]) -> str:
    """The end of the message that stops a training."""
    where = f"the last good checkpoint is {good[-1]}." if good else "there is no checkpoint yet."
    return f"Training stopped; {where} Look at the samples, or lower the learning rate."


def bad_terms(terms: Iterable[str], values: Iterable[float]) -> str:
    """The terms that are NaN or infinite, in words; "" if none is.

    The total, and then the gradient, are bad wherever a term is: they are named only where nothing else is.
    """
    bad = {name: value for name, value in zip(terms, values, strict=True) if not math.isfinite(value)}
    causes = {name: value for name, value in bad.items() if name not in FOLLOWING} or bad
    return f"loss term {', '.join(f'{name} is {value}' for name, value in causes.items())}" if causes else ""


@torch.no_grad()
def _fault(
    task: TeacherTask | StudentTask, batch: TrainingBatch, context: StepContext, accelerator: Accelerator
) -> str:
    """What is wrong with the weights after this step, in words; "" if nothing is."""
    broken = non_finite({name: tensor.detach() for name, tensor in task.state_dict().items()})
    if broken:
        return f"weights are NaN or infinite after step {context.step}: {some(broken)}"
    buffers = [(buffer, buffer.clone()) for buffer in task.buffers()]
    try:
        with uncompiled(task), accelerator.autocast():
            terms = step_losses(task, batch, context)
    finally:  # running statistics saw the batch once, as in a run that is never saved
        for buffer, before in buffers:
            buffer.copy_(before)
    bad = bad_terms(terms, torch.stack([term.float() for term in terms.values()]).tolist())
    where = f"with the weights that step {context.step} made, samples {', '.join(batch.sample.name)}"
    return f"{bad} {where}" if bad else ""


def inputs_finite(taught: Callable[[], TrainingBatch]) -> bool:
    """Whether what the networks and the loss are given is finite; a truth may be NaN where nothing is known."""
    batch = taught()
    sample, camera, teacher = batch.sample, batch.sample.camera, batch.teacher
    given = {"left": sample.left, "right": sample.right, "fx": camera.fx, "baseline": camera.baseline}
    if teacher is not None:
        targets = teacher.decoded()
        given |= {"depth": targets.depth}
        given |= {f"features.{level}": feature for level, feature in enumerate(targets.features)}
    return not non_finite({name: value for name, value in given.items() if isinstance(value, Tensor)})
