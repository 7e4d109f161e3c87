"""Run by each of two processes: small trainings, which a test compares with those of one process."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.data.pair_augmentation import PairAugmentationConfig
from adu_depth.distillation import DistillationConfig, TeacherLossConfig
from adu_depth.training import loop, step
from adu_depth.training.config import StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.graph import WARM_UP
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tape import Tape
from tests.training.test_graph import as_sent, fused, place_rate
from tests.training.tiny import DATA, LOOP, tiny_student, tiny_teacher

PLAIN = {"colour": 0.0, "flip": 0.0}
"""No draws: those of a process depend on its number."""
GRAPHS = "teacher, by graphs"
CASES = ("teacher", "student, online", "student, cached", "teacher, batch means", GRAPHS)
STEPS = dict.fromkeys(CASES, 2) | {"teacher": 3, GRAPHS: 3}


def settings(case: str, folder: Path, batch_size: int) -> TeacherTrainingConfig | StudentTrainingConfig:
    """One of the trainings; of a student the folder holds the teacher."""
    lasting = replace(LOOP, steps=STEPS[case], batch_size=batch_size, checkpoint_every=2, log_every=1, check_every=1)
    lasting = replace(lasting, graph_several=True)
    run = folder / case
    shared: dict[str, Any] = {"loop": lasting, "data": replace(DATA, pairs=4)}
    if case.startswith("student"):
        return tiny_student(
            run,
            **shared,
            teacher=folder / "taught-by",
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
    loop.make_optimizer, loop.place_learning_rate = fused, place_rate
    step.upload_together = as_sent
    return tape


def train(case: str, folder: Path, batch_size: int) -> list[dict[str, float]]:
    config = settings(case, folder, batch_size)
    return train_teacher(config) if isinstance(config, TeacherTrainingConfig) else train_student(config)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {case: train(case, folder, 2) for case in CASES if case != GRAPHS}
    tape = by_graphs()
    found[GRAPHS] = train(GRAPHS, folder, 2)
    assert (tape.captures, tape.replays) == (3, 3 * (STEPS[GRAPHS] - WARM_UP)), vars(tape)
    print(json.dumps(found))
