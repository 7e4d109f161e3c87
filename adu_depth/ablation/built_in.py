"""Preset adu: our student on the quickstart's built-in scenes, each part of its distillation
left out once, each further term added once."""

from __future__ import annotations

from typing import Any

import torch

from adu_depth.ablation.config import AblationConfig
from adu_depth.ablation.preset import Column, OneTeacher, Preset, TrainingConfig, always, filled, means_on
from adu_depth.ablation.rows import ADU, Row, changed
from adu_depth.data import StereoSample, SyntheticStereo
from adu_depth.data.config import DataConfig
from adu_depth.evaluation.command import HELD_OUT_SCENES
from adu_depth.evaluation.evaluator import Predict
from adu_depth.inference import Predictor
from adu_depth.models import TeacherConfig
from adu_depth.progress import Progress
from adu_depth.quickstart import STUDENT_LEARNING_RATE, TEACHER_LEARNING_RATE, TRAINING_SCENES
from adu_depth.training.batches import InMemory
from adu_depth.training.config import OptimizerConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.runs import train_student, train_teacher


class BuiltIn(Preset):
    title = "Our student, taken apart"
    rows = ADU
    columns = (
        Column("scenes/abs_rel", "abs_rel"),
        Column("scenes/sq_rel", "sq_rel"),
        Column("scenes/rmse", "RMSE, m"),
        Column("scenes/silog", "SILog"),
        Column("scenes/a1", "δ1", True),
    )
    plotted = ("scenes/abs_rel", "scenes/rmse")

    def __init__(self, config: AblationConfig) -> None:
        self.settings = filled(
            config,
            steps=600,
            teacher_steps=600,
            size=(96, 320),
            learning_rate=STUDENT_LEARNING_RATE,
            teacher_learning_rate=TEACHER_LEARNING_RATE,
        )
        assert self.settings.size is not None
        self.data = DataConfig(size=self.settings.size, pairs=config.scenes.pairs, scene_seed=TRAINING_SCENES)
        self.data.require_cells()
        self.teacher = OneTeacher(self.device, reads_features=True)

    @property
    def about(self) -> str:
        scenes, size = self.settings.scenes, "×".join(map(str, self.data.size))
        return (
            f"{scenes.pairs} built-in scenes to train on, sparse ground truth, at {size}; {scenes.held_out} others to "
            "measure on, dense ground truth, every pixel. Each seed has its own teacher, which all its rows share, and "
            "all its students have the same first weights, batches and colour changes."
        )

    def lacks(self, row: Row) -> str:
        return ""

    def load(self, progress: Progress) -> None:
        height, width = self.data.size
        scenes = self.settings.scenes
        self.scenes = InMemory(SyntheticStereo(scenes.pairs, height, width, seed=TRAINING_SCENES))
        self.held_out = InMemory(SyntheticStereo(scenes.held_out, height, width, seed=HELD_OUT_SCENES))
        self.scenes.fill(progress, "rendering training scenes")
        self.held_out.fill(progress, "rendering held-out scenes")

    def training(self, row: Row, seed: int) -> TrainingConfig:
        run, loop, optimizer = self.run_folder(row.name, seed), self.loop(row, seed), self.learning_rate(row)
        config: TrainingConfig
        if row.teacher:
            config = TeacherTrainingConfig(
                run=run,
                data=self.data,
                model=TeacherConfig(max_disparity=self.settings.scenes.max_disparity),
                optimizer=OptimizerConfig(learning_rate=optimizer),
                loop=changed(loop, {"batch_size": max(1, loop.batch_size // 2)}),
            )
        else:
            teacher = self.run_folder(row.taught_by, seed) if row.taught_by else None
            rate = OptimizerConfig(learning_rate=optimizer)
            config = StudentTrainingConfig(run=run, teacher=teacher, data=self.data, optimizer=rate, loop=loop)
        return changed(config, row.changes)

    def identity(self, row: Row) -> dict[str, Any]:
        return {"held_out": self.settings.scenes.held_out}

    def train(self, row: Row, config: TrainingConfig, progress: Progress) -> None:
        if isinstance(config, TeacherTrainingConfig):
            train_teacher(config, progress, self.scenes)
            return
        outputs = None if config.teacher is None else self.teacher.outputs(config.teacher, {"scenes": self.scenes})
        train_student(config, progress, self.scenes, outputs)

    def measure(self, predict: Predict) -> dict[str, float]:
        return means_on(predict, {"scenes": self.held_out}, self.device, "none")

    def predictor(self, config: TrainingConfig) -> Predictor:
        return Predictor.from_checkpoint(config.run, self.settings.device)

    def example(self) -> StereoSample:
        return self.held_out[0]

    def trivial(self) -> dict[str, Predict]:
        known = torch.cat([s.depth[s.valid] for s in (self.scenes[index] for index in range(len(self.scenes)))])
        median = float(known.median())
        return {f"{median:.1f} m everywhere, the median of the training scenes": always(median)}
