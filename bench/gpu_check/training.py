"""A short real training of teacher and student, once with the kernels and once with the references.

Real pairs from $ADU_REAL_STEREO where that is set, else the built-in scenes. What is kept: images per second, peak
memory, every logged loss.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from adu_depth.data import SyntheticStereo
from adu_depth.evaluation import evaluate
from adu_depth.files import write_json
from adu_depth.inference import Predictor
from adu_depth.training.checkpoint import read_json
from adu_depth.training.config import DataConfig, LoopConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.progress import Progress
from adu_depth.training.runs import train_student, train_teacher
from adu_kernels.backend import auto_is
from bench.gpu_check.arguments import stage_arguments
from bench.harness.environment import measured_environment, source_digest
from bench.harness.result import same_making
from bench.harness.statistics import summary
from bench.whole_steps import SCALES

BACKENDS = {"kernels": "triton", "references": "torch"}
HELD_OUT = 10_000  # a scene seed that no training uses
Run = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long and on what."""

    steps: int
    batch: int
    data: DataConfig
    device: str
    held_out: int
    log_every: int
    max_disparity: int
    tiny: bool


def make_plan(rehearse: bool) -> Plan:
    if rehearse:
        data = DataConfig(size=(32, 64), pairs=4)
        return Plan(2, 2, data, "cpu", 2, 1, 16, True)
    real = os.environ.get("ADU_REAL_STEREO")
    if real:
        root = Path(real) / "kitti2015" / "training"
        data = DataConfig(root=str(root if root.is_dir() else real), fit="crop", size=(320, 704))
    else:
        data = DataConfig(size=(256, 512), pairs=64)
    return Plan(200, 8, data, "cuda", 32, 10, 192, False)


def scratch() -> Path:
    """Where runs and checkpoints go: nothing to commit. Kept between the stages of one version of the code."""
    return Path(tempfile.gettempdir()) / f"adu-gpu-check-{source_digest()}"


def train_both(plan: Plan, backend: str, seed: int, folder: Path) -> list[Run]:
    """Teacher, then student taught by it online; the student's teacher has the same backend and seed."""
    loop = LoopConfig(
        steps=plan.steps,
        batch_size=plan.batch,
        seed=seed,
        device=plan.device,
        workers=0 if plan.tiny else 4,
        log_every=plan.log_every,
        checkpoint_every=plan.steps,
        keep_checkpoints=1,
    )
    scale = SCALES["tiny" if plan.tiny else "card"][0]
    model = replace(scale.teacher, max_disparity=plan.max_disparity)
    teacher = TeacherTrainingConfig(run=folder / "teacher", data=plan.data, model=model, loop=loop)
    student = StudentTrainingConfig(
        run=folder / "student", data=plan.data, model=scale.student, loop=loop, teacher=teacher.run
    )
    runs = []
    for kind, train, config in (("teacher", train_teacher, teacher), ("student", train_student, student)):
        with auto_is(BACKENDS[backend]):
            runs.append({"kind": kind, "backend": backend, "seed": seed, **trained(train, config, plan)})
    return runs


def trained(train: Any, config: Any, plan: Plan) -> Run:
    """One training and what it came to."""
    shutil.rmtree(config.run, ignore_errors=True)
    on_gpu = plan.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    history = train(config, Progress(Console(width=120)))
    seconds = time.perf_counter() - start
    speeds = [row["images_per_second"] for row in history]
    return {
        "steps": plan.steps,
        "batch": plan.batch,
        "size": list(plan.data.size),
        "data": "built-in scenes" if plan.data.root == "synthetic" else "real pairs",
        "seconds": seconds,
        "images_per_second": summary(speeds[1:] or speeds),  # the first row holds compilation
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "held_out": held_out_error(config, plan),
        "history": [{"step": row["step"], "total": row["total"]} for row in history],
    }


def held_out_error(config: Any, plan: Plan) -> dict[str, float]:
    """Depth errors on built-in scenes that no training saw."""
    height, width = plan.data.size
    scenes = SyntheticStereo(plan.held_out, height, width, seed=HELD_OUT)
    predictor = Predictor.from_checkpoint(config.run, plan.device)
    means = evaluate(predictor, scenes, batch_size=plan.batch, device=predictor.device).means()
    return {name: means[name] for name in ("abs_rel", "rmse", "a1")}


def trained_before(output: Path, now: dict[str, Any]) -> list[Run]:
    """The trainings that a run of this code, machine and versions which was cut short has finished."""
    earlier = read_json(output) if output.exists() else {}
    same = bool(earlier) and same_making(earlier["environment"], now["environment"])
    return list(earlier["runs"]) if same else []


def main() -> None:
    chosen = stage_arguments(__doc__)
    plan = make_plan(chosen.rehearse)
    device = torch.device(plan.device)
    result: dict[str, Any] = {"environment": measured_environment(device), "complete": False, "runs": []}
    result["runs"] = trained_before(chosen.output, result)
    for backend in BACKENDS:
        if all(run["backend"] != backend for run in result["runs"]):
            result["runs"] += train_both(plan, backend, 0, scratch() / f"{backend}-0")
            write_json(chosen.output, result)
    result["complete"] = True
    write_json(chosen.output, result)
    for run in result["runs"]:
        print(f"{run['kind']}, {run['backend']}: {run['images_per_second']['median']:.1f} images/s, "
              f"peak {run['peak_bytes']} bytes, last loss {run['history'][-1]['total']:.4f}")  # fmt: skip
    sys.exit(0)


if __name__ == "__main__":
    main()
