"""The main job on the built-in scenes: a stereo teacher, a student alone, the same student taught; then the comparison.

Everything but the teaching is the same for both students: first weights, batches, colour changes, steps, sparse ground
truth. Evaluation is on the dense ground truth of scenes that no training saw.
"""

from __future__ import annotations

import re
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from adu_depth.checkpoint import config_dict, load_model
from adu_depth.data import StereoSample, built_in_scenes, collate
from adu_depth.data.synthetic.sceneries import Scenery
from adu_depth.environment import describe_environment
from adu_depth.errors import InputError
from adu_depth.evaluation import evaluate
from adu_depth.evaluation.command import HELD_OUT_SCENES
from adu_depth.files import require_text_name, write_json
from adu_depth.folder_lock import LOCK_FILE, locked, require_free_below
from adu_depth.inference import Predictor
from adu_depth.models import StudentConfig, TeacherConfig
from adu_depth.progress import Progress
from adu_depth.report import ScenePanel, write_report
from adu_depth.schema import require_kinds
from adu_depth.training.batches import InMemory
from adu_depth.training.config import (
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    StudentTrainingConfig,
    TeacherTrainingConfig,
)
from adu_depth.training.loop import Interrupted, make_accelerator
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.teacher_outputs import OutputsInMemory
from adu_depth.training.validation_config import ValidationConfig

MODELS = ("teacher", "student_alone", "student_distilled")
TRAINING_SCENES = 1  # a scene seed unlike HELD_OUT_SCENES: no scene is in both
SCENES_SHOWN = 4
SETTINGS = "settings.json"  # marks a folder as a quickstart's
TEACHER_LEARNING_RATE = 2e-3
VALIDATE_EVERY, EMA = 100, 0.95
STUDENT_LEARNING_RATE = 4e-3  # the best of four for the student that learns alone; the taught one takes it as it is


@dataclass(frozen=True)
class QuickstartConfig:
    """Train teacher, student alone and student distilled on the built-in scenes; write report.json and report.html."""

    output: Path = Path("runs/quickstart")
    seeds: int = 1
    """How often to repeat the whole comparison, each time with another seed."""
    steps: int = 600
    """Steps of each student."""
    teacher_steps: int = 600
    """Steps of the teacher."""
    batch_size: int = 8
    """Images per step of the students; the teacher takes half."""
    pairs: int = 320
    """Scenes to train on."""
    held_out: int = 48
    """Scenes to evaluate on."""
    size: tuple[int, int] = (96, 320)
    """Height and width in pixels, multiples of 32."""
    scenery: Scenery = "usual"
    """Kind of both: usual, streets by day as a KITTI-like car sees them, or varied (data.scenery of the trainings)."""
    max_disparity: int = 32
    """Disparities the teacher searches, pixels; at a width of 320 the largest is about 25, of varied scenes 45: 48."""
    validate: bool = False
    """Also validate every 100 steps, on 32 more scenes, average the weights (loop.ema 0.95) and take the best
    checkpoint of each training; the report then has the curves."""
    device: str = "auto"
    """"auto" (CUDA where there is one), "cuda" or "cpu"."""

    def __post_init__(self) -> None:
        require_kinds(self)
        for name in ("seeds", "steps", "teacher_steps", "pairs", "held_out"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        DataConfig(size=self.size)  # its checks are ours
        if self.batch_size < 2:
            raise InputError(f"batch_size must be at least 2, got {self.batch_size}")


@dataclass(frozen=True)
class SeedOutcome:
    """What one seed gave: metrics and training history, both by model."""

    metrics: dict[str, dict[str, float]]
    history: dict[str, list[dict[str, float]]]


class Stopwatch:
    """Seconds per stage, summed over its repetitions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def run_quickstart(config: QuickstartConfig, console: Console) -> dict[str, Any]:
    """Runs the comparison and returns what report.json holds. An earlier quickstart in the folder is replaced."""
    device = make_accelerator(LoopConfig(device=config.device)).device  # before anything earlier is removed
    require_text_name(config.output)
    with locked(config.output, "quickstart"):
        clear_output(config.output)
        return _run(config, console, device)


def _run(config: QuickstartConfig, console: Console, device: torch.device) -> dict[str, Any]:
    progress, stopwatch = Progress(console), Stopwatch()
    write_json(config.output / SETTINGS, config_dict(config))
    height, width = config.size
    training = training_scenes(config)
    held_out = InMemory(built_in_scenes(config.scenery, config.held_out, height, width, HELD_OUT_SCENES))
    with stopwatch("render"):
        training.fill(progress, "rendering training scenes")
        held_out.fill(progress, "rendering held-out scenes")
    try:
        seeds = [run_seed(config, seed, training, held_out, progress, stopwatch) for seed in range(config.seeds)]
    except Interrupted as stopped:
        raise Interrupted(stopped.signum, "a quickstart begins anew when it is called again") from stopped
    report = {
        **{model: summarise([outcome.metrics[model] for outcome in seeds]) for model in MODELS},
        "seeds": config.seeds,
        "seconds": {stage: round(seconds, 1) for stage, seconds in stopwatch.seconds.items()},
        "environment": describe_environment(device),
        "settings": config_dict(config),
    }
    write_json(config.output / "report.json", report)
    console.print(result_table(report))  # before the pages, which need matplotlib
    panels = [scene_panel(config, held_out[index]) for index in range(min(SCENES_SHOWN, len(held_out)))]
    write_report(config.output / "report.html", report, panels, seeds[0].history)
    console.print(f"report: {config.output / 'report.html'}", markup=False)
    return report


def clear_output(output: Path) -> None:
    """Removes an earlier quickstart from `output`; refuses a folder that holds anything else."""
    if not output.exists():
        return
    if not output.is_dir():
        raise InputError(f"output {output} is a file: name a folder")
    entries = [entry for entry in output.iterdir() if entry.name != LOCK_FILE]
    ours = {SETTINGS, "report.json", "report.html"}
    strangers = [e.name for e in entries if e.name not in ours and not re.fullmatch(r"seed-\d+", e.name)]
    if entries and not (output / SETTINGS).is_file():
        strangers = [e.name for e in entries]
    if strangers:
        raise InputError(f"output {output} holds {strangers[0]!r}, which no quickstart wrote: name an empty folder")
    require_free_below(output)
    # The mark goes last: where this is stopped half-way, the rest must still be known as a quickstart's.
    for entry in sorted(entries, key=lambda entry: entry.name == SETTINGS):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def training_scenes(config: QuickstartConfig) -> InMemory:
    """The scenes that every network learns from, each rendered once."""
    height, width = config.size
    return InMemory(built_in_scenes(config.scenery, config.pairs, height, width, TRAINING_SCENES))


def teacher_training(config: QuickstartConfig, seed: int, run: Path) -> TeacherTrainingConfig:
    """The teacher's training on these scenes."""
    loop = LoopConfig(
        steps=config.teacher_steps,
        batch_size=config.batch_size // 2,
        seed=seed,
        device=config.device,
        checkpoint_every=250,
        keep_checkpoints=1,
        ema=EMA if config.validate else 0.0,
    )
    return TeacherTrainingConfig(
        run=run,
        data=DataConfig(size=config.size, pairs=config.pairs, scene_seed=TRAINING_SCENES, scenery=config.scenery),
        model=TeacherConfig(max_disparity=config.max_disparity),
        optimizer=OptimizerConfig(learning_rate=TEACHER_LEARNING_RATE),
        loop=loop,
        validation=ValidationConfig(every=VALIDATE_EVERY if config.validate else 0, scenery=config.scenery),
    )


def run_seed(
    config: QuickstartConfig,
    seed: int,
    training: InMemory,
    held_out: InMemory,
    progress: Progress,
    stopwatch: Stopwatch,
) -> SeedOutcome:
    """Trains and evaluates the three models with one seed."""
    folder = config.output / f"seed-{seed}"
    teacher = teacher_training(config, seed, folder / "teacher")
    loop = replace(teacher.loop, steps=config.steps, batch_size=config.batch_size)
    alone = StudentTrainingConfig(
        run=folder / "student_alone",
        data=teacher.data,
        model=StudentConfig(),
        optimizer=OptimizerConfig(learning_rate=STUDENT_LEARNING_RATE),
        loop=loop,
        validation=teacher.validation,
    )
    distilled = replace(alone, run=folder / "student_distilled", teacher=teacher.run)
    history = {}
    with stopwatch("teacher"):
        history["teacher"] = train_teacher(teacher, progress, training)
    with stopwatch("student_alone"):
        history["student_alone"] = train_student(alone, progress, training)
    with stopwatch("student_distilled"):
        device = make_accelerator(loop).device
        network = load_model(teacher.run, device).model
        outputs = OutputsInMemory(network, training, device, progress, at_once=config.batch_size)
        history["student_distilled"] = train_student(distilled, progress, training, outputs)
    metrics = {}
    with stopwatch("evaluation"):
        for name, run in zip(MODELS, (teacher.run, alone.run, distilled.run), strict=True):
            predictor = Predictor.from_checkpoint(run, config.device)
            metrics[name] = evaluate(predictor, held_out, batch_size=config.batch_size, device=predictor.device).means()
    return SeedOutcome(metrics, history)


def scene_panel(config: QuickstartConfig, sample: StereoSample) -> ScenePanel:
    """A held-out scene and what the first seed's three models say of it."""
    predictors = {model: Predictor.from_checkpoint(config.output / "seed-0" / model, config.device) for model in MODELS}
    return ScenePanel.from_sample(sample, {model: predict(collate([sample])) for model, predict in predictors.items()})


def result_table(report: dict[str, Any]) -> Table:
    """The comparison for the terminal; mean ± sample standard deviation where there are several seeds."""
    table = Table("held-out scenes", *(model.replace("_", " ") for model in MODELS))

    def cell(model: str, metric: str) -> str:
        found = report[model]
        if metric not in found:
            return "–"
        return f"{found[metric]:.3f}" + (f" ± {found[metric + '_sd']:.3f}" if f"{metric}_sd" in found else "")

    for metric in ("abs_rel", "sq_rel", "rmse", "silog", "a1", "epe", "d1"):
        table.add_row(metric, *(cell(model, metric) for model in MODELS))
    return table


def summarise(results: list[dict[str, float]]) -> dict[str, float]:
    """Means over seeds; with several seeds also each metric's sample standard deviation as `<metric>_sd`."""
    summary = {}
    for name in results[0]:
        values = [result[name] for result in results]
        summary[name] = statistics.fmean(values)
        if len(values) > 1:
            summary[f"{name}_sd"] = statistics.stdev(values)
    return summary
