"""Run by each of two processes: small trainings, which a test compares with those of one process.

fp16 is for GPUs; here its parts run on the CPU, whose fused AdamW is told of an overflow as CUDA's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import DistillationConfig, TeacherLossConfig
from adu_depth.training import loop, runs, step
from adu_depth.training.config import LoopConfig, OptimizerConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.graph import WARM_UP
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.step import TrainingParts
from adu_depth.training.teacher_outputs import weights_digest
from adu_depth.training.validation_config import ValidationConfig
from tests.training.tape import Tape
from tests.training.test_graph import as_sent, place_rate
from tests.training.tiny import DATA, LOOP, tiny_student, tiny_teacher

PLAIN = {"colour": 0.0, "flip": 0.0}
"""No draws: those of a process depend on its number."""
GRAPHS = "teacher, by graphs"
TOGETHER = "teacher, initialised, accumulated, averaged, validated, ended early"
HALF = "student, fp16, one process overflows"
CASES = ("teacher", "student, online", "student, cached", "teacher, batch means", TOGETHER, HALF, GRAPHS)
STEPS = dict.fromkeys(CASES, 2) | {"teacher": 3, TOGETHER: 8, HALF: 4, GRAPHS: 3}
ROWS = STEPS | {TOGETHER: 2 * 3}
"""The rows of its history: it ends by its third validation."""
OVERFLOWS = 1
"""The step in which, with fp16, a gradient of one process is infinite."""
SCALE = 2.0**14
"""Of the loss, with fp16. At 2^16 this network's own gradients overflow too: groups of equal values are stretched."""


def settings(case: str, folder: Path, batch_size: int) -> TeacherTrainingConfig | StudentTrainingConfig:
    """One of the trainings; of a student the folder holds the teacher."""
    lasting = replace(LOOP, steps=STEPS[case], batch_size=batch_size, checkpoint_every=2, log_every=1, check_every=1)
    lasting = replace(lasting, graph_several=True)
    run = folder / case
    shared: dict[str, Any] = {"loop": lasting, "data": replace(DATA, pairs=4)}
    if case == TOGETHER:
        shared |= {
            "loop": replace(lasting, batch_size=batch_size // 2, accumulate=2, ema=0.9, keep_checkpoints=9),
            "init": folder / "taught-by",
            "optimizer": OptimizerConfig(learning_rate=0.03),
            # Every prediction is moved to where it counts as right: none is better than the first.
            "validation": ValidationConfig(
                every=1, samples=3, batch_size=2, metric="a1", min_depth=18.0, max_depth=22.0, patience=2, pictures=1
            ),
        }
    if case == HALF:
        # Networks as small as these have groups whose values are all equal: there fp16's rounding decides about ReLU's
        # kink, and steps of the usual size go apart by it.
        shared |= {"optimizer": OptimizerConfig(learning_rate=1e-4)}
    if case.startswith("student"):
        return tiny_student(
            run,
            **shared,
            teacher=None if case == HALF else folder / "taught-by",
            teacher_cache=folder / f"cache-{batch_size}" if "cached" in case else None,
            augmentation=AugmentationConfig(**PLAIN),
            distillation=DistillationConfig(normalize="image", features=1.0 if "cached" in case else 0.0),
        )
    return tiny_teacher(
        run,
        **shared,
        augmentation=PairAugmentationConfig(**PLAIN, asymmetric=0.0),
        loss=TeacherLossConfig(normalize="batch" if "batch means" in case else "image"),
    )


def by_graphs() -> Tape:
    """Steps are captured from here on, by what stands for CUDA's graphs on a CPU."""
    tape = Tape()
    loop.graphs_for = lambda device: tape
    loop.place_learning_rate = place_rate
    step.upload_together = as_sent
    return tape


@contextmanager
def in_half(scale: dict[str, float]) -> Iterator[None]:
    """Trainings compute in fp16 on the CPU; they begin with the scale that `scale` holds."""

    def make(config: LoopConfig, run: Path | None = None) -> Accelerator:
        AcceleratorState._reset_state()  # accelerate keeps one for the process
        accelerator = loop.make_accelerator(replace(config, mixed_precision="no"), run)
        AcceleratorState._shared_state["_mixed_precision"] = "fp16"
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale["scale"])
        return accelerator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "make_accelerator", make)
        try:
            yield
        finally:
            AcceleratorState._reset_state()


@contextmanager
def overflowing(here: bool) -> Iterator[None]:
    """A gradient of step OVERFLOWS is infinite, if here."""
    before, done = TrainingParts.gradients, []

    def gradients(self: TrainingParts, *given: Any) -> step.Terms:
        terms = before(self, *given)
        done.append(terms)
        if here and len(done) == OVERFLOWS + 1:
            next(p.grad for p in self.task.parameters() if p.grad is not None)[0] = torch.inf
        return terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingParts, "gradients", gradients)
        yield


def train(case: str, folder: Path, batch_size: int, last: bool = True) -> list[dict[str, float]]:
    """last: the process that has the overflow."""
    config = settings(case, folder, batch_size)
    if case == HALF:
        with in_half({"scale": SCALE}), overflowing(last):
            return train_student(config)
    return train_teacher(config) if isinstance(config, TeacherTrainingConfig) else train_student(config)


def noting_weights() -> list[str]:
    """The digest of what each training from here on ends with, in this process."""
    found: list[str] = []
    before = runs.train

    def noted(run: Path, task: Any, *given: Any, **settings: Any) -> list[dict[str, float]]:
        rows = before(run, task, *given, **settings)
        found.append(weights_digest(task))
        return rows

    runs.train = noted
    return found


if __name__ == "__main__":
    folder, last = Path(sys.argv[1]), int(os.environ["RANK"]) + 1 == int(os.environ["WORLD_SIZE"])
    digests = noting_weights()
    found = {case: train(case, folder, 2, last) for case in CASES if case != GRAPHS}
    tape = by_graphs()
    found[GRAPHS] = train(GRAPHS, folder, 2)
    assert (tape.captures, tape.replays) == (3, 3 * (STEPS[GRAPHS] - WARM_UP)), vars(tape)
    group = dist.distributed_c10d._get_default_group()
    assert group._get_backend(torch.device("cpu")).options._timeout.total_seconds() == LOOP.process_timeout
    print(json.dumps({"rows": found, "digests": digests}))
