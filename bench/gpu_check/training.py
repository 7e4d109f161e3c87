"""A short real training of teacher and student, once with the kernels and once with the references, in bf16.

Real pairs from $ADU_REAL_STEREO where that is set, else built-in scenes, rendered once and packed: rendered as they are
needed they would bound the speed (31 to 37 images/s on an H200, with kernels and references alike).
What is kept, after each of the four: images per second, peak memory, every logged loss, the error on other scenes.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from adu_depth.data import SyntheticStereo
from adu_depth.data.packed.command import PackConfig, run_pack
from adu_depth.evaluation import evaluate
from adu_depth.files import write_json
from adu_depth.inference import Predictor
from adu_depth.inference.render import write_samples
from adu_depth.progress import Progress
from adu_depth.training.config import DataConfig, LoopConfig, StudentTrainingConfig, TeacherTrainingConfig
from adu_depth.training.runs import train_student, train_teacher
from adu_kernels.backend import use_backend
from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.packed import read_json
from bench.harness.environment import measured_environment, source_digest
from bench.harness.result import same_making
from bench.harness.statistics import summary
from bench.training_steps import SCALES

BACKENDS = {"kernels": "triton", "references": "torch"}
HELD_OUT = 10_000  # a scene seed that no training uses
SCENES = 96
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
    real: bool = False
    """Whether the pairs are a camera's."""


def make_plan(dry_run: bool) -> Plan:
    if dry_run:
        return Plan(2, 1, DataConfig(size=(32, 64)), "cpu", 1, 1, 16, True)
    real = os.environ.get("ADU_REAL_STEREO")
    if real:
        root = Path(real) / "kitti2015" / "training"
        data = DataConfig(root=str(root if root.is_dir() else real), fit="crop", size=(320, 704))
    else:
        data = DataConfig(size=(256, 512))
    return Plan(60, 8, data, "cuda", 16, 10, 192, tiny=False, real=bool(real))


def with_scenes(plan: Plan, folder: Path) -> Plan:
    """The plan whose pairs lie in a pack below `folder`, made there where they are not yet."""
    if plan.real:
        return plan
    height, width = plan.data.size
    count = plan.batch if plan.tiny else SCENES
    pack = folder / "scenes"
    if not pack.is_dir():
        raw = folder / "rendered"
        shutil.rmtree(raw, ignore_errors=True)
        write_samples(SyntheticStereo(count, height, width, seed=0, device=plan.device), raw, count)
        run_pack(PackConfig(root=raw, output=folder / "packed"), print)
        (folder / "packed").rename(pack)
        shutil.rmtree(raw)
    return replace(plan, data=replace(plan.data, root=str(pack)))


def runs_folder(output: Path, dry_run: bool) -> Path:
    """Where the runs and checkpoints of a stage go, beside its document: nothing to commit. Kept until the stage has
    ended well, so that another call of this code can go on from them."""
    return output.with_suffix(".runs") / (("dry-run-" if dry_run else "") + source_digest())


def forget_runs(output: Path, keep: Path | None = None) -> None:
    """All of them, or those of other code alone."""
    place = output.with_suffix(".runs")
    for path in place.glob("*"):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)
    if keep is None:
        shutil.rmtree(place, ignore_errors=True)


KINDS = ("teacher", "student")


def configured(plan: Plan, kind: str, seed: int, folder: Path) -> tuple[Any, Any]:
    """The function that trains, and its configuration. The student is taught online by the teacher in `folder`."""
    loop = LoopConfig(
        steps=plan.steps,
        batch_size=plan.batch,
        seed=seed,
        device=plan.device,
        mixed_precision="bf16",
        workers=0 if plan.tiny else 4,
        log_every=plan.log_every,
        checkpoint_every=plan.steps,
        keep_checkpoints=1,
    )
    scale = SCALES["tiny" if plan.tiny else "gpu"][0]
    teacher = folder / "teacher"
    if kind == "teacher":
        model = replace(scale.teacher, max_disparity=plan.max_disparity)
        return train_teacher, TeacherTrainingConfig(run=teacher, data=plan.data, model=model, loop=loop)
    return train_student, StudentTrainingConfig(
        run=folder / "student", data=plan.data, model=scale.student, loop=loop, teacher=teacher
    )


def train_one(plan: Plan, kind: str, backend: str, seed: int, folder: Path) -> Run:
    """One of the trainings: what it came to, or how it failed (the others are still wanted)."""
    run: Run = {"kind": kind, "backend": backend, "seed": seed}
    try:
        train, config = configured(plan, kind, seed, folder)
        with use_backend(BACKENDS[backend]):
            return run | trained(train, config, plan)
    except Exception:
        told = traceback.format_exc()[-4000:]
        print(told, flush=True)
        return run | {"failure": told}


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
        "data": "real pairs" if plan.real else "built-in scenes, packed",
        "seconds": seconds,
        "images_per_second": summary(speeds[1:] or speeds),  # the first row holds compilation
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "held_out": held_out_error(config, plan),
        "history": [{"step": row["step"], "total": row["total"]} for row in history],
    }


def held_out_error(config: Any, plan: Plan) -> dict[str, float]:
    """Depth errors on built-in scenes that no training saw."""
    height, width = plan.data.size
    scenes = SyntheticStereo(plan.held_out, height, width, seed=HELD_OUT, device=plan.device)
    predictor = Predictor.from_checkpoint(config.run, plan.device)
    means = evaluate(predictor, scenes, batch_size=plan.batch, device=predictor.device).means()
    return {name: means[name] for name in ("abs_rel", "rmse", "a1")}


def trained_before(earlier: dict[str, Any] | None, now: dict[str, Any]) -> list[Run]:
    """The trainings that a run of this code, machine and versions which was cut short has finished."""
    if earlier is None or not same_making(earlier["environment"], now["environment"]):
        return []
    return [run for run in earlier["runs"] if "failure" not in run]


def line(run: Run) -> str:
    if "failure" in run:
        return f"{run['kind']}, {run['backend']}: failed"
    peak = "" if run["peak_bytes"] is None else f"peak {run['peak_bytes'] / 1e6:.0f} MB, "
    return (f"{run['kind']}, {run['backend']}: {run['images_per_second']['median']:.1f} images/s, {peak}"
            f"loss {run['history'][0]['total']:.4f} to {run['history'][-1]['total']:.4f}")  # fmt: skip


def main() -> None:
    chosen = stage_arguments(__doc__)
    plan = make_plan(chosen.dry_run)
    result: dict[str, Any] = {
        "environment": measured_environment(torch.device(plan.device)),
        "complete": False,
        "steps": plan.steps,
        "runs": [],
    }
    result["runs"] = trained_before(read_json(chosen.output), result)
    runs = runs_folder(chosen.output, chosen.dry_run)
    forget_runs(chosen.output, keep=runs)
    plan = with_scenes(plan, runs)
    for backend in BACKENDS:
        folder = runs / f"{backend}-0"
        for kind in KINDS:
            if any((run["backend"], run["kind"]) == (backend, kind) for run in result["runs"]):
                continue
            if kind == "student" and not (folder / "teacher").is_dir():  # on another machine its teacher is gone
                result["runs"] = [run for run in result["runs"] if run["backend"] != backend]
                result["runs"].append(train_one(plan, "teacher", backend, 0, folder))
            result["runs"].append(train_one(plan, kind, backend, 0, folder))
            print(line(result["runs"][-1]), flush=True)
            write_json(chosen.output, result)
    result["complete"] = True
    write_json(chosen.output, result)
    if any("failure" in run for run in result["runs"]):
        sys.exit(1)
    forget_runs(chosen.output)


if __name__ == "__main__":
    main()
