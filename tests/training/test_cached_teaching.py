"""What a student learns from a teacher's kept outputs, beside what it learns from the teacher itself."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adu_depth.data import SyntheticStereo
from adu_depth.evaluation import evaluate
from adu_depth.inference import Predictor
from adu_depth.training.config import DataConfig, LoopConfig, OptimizerConfig
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import tiny_student, tiny_teacher

SIZE = (64, 128)
SEEDS = range(4)


@pytest.mark.slow
def test_a_student_taught_from_a_cache_ends_within_the_spread_of_seeds(tmp_path: Path) -> None:
    """abs_rel on scenes that neither has seen, means over seeds against a seed's standard deviation (pooled).

    Once measured: online 0.2179, 0.2186, 0.2172, 0.2152, cached 0.2126, 0.2190, 0.2183, 0.2194. The means are 0.0001
    apart, the deviation is 0.0025. One seed with and without a cache differs as two seeds do: rounding grows.
    """
    data = DataConfig(size=SIZE, pairs=32)
    loop = LoopConfig(steps=250, batch_size=4, device="cpu", workers=0, checkpoint_every=250, log_every=250)
    optimizer = OptimizerConfig(learning_rate=2e-3)
    train_teacher(tiny_teacher(tmp_path / "teacher", data=data, loop=loop, optimizer=optimizer))
    held_out = SyntheticStereo(24, *SIZE, seed=1000)
    found: dict[str, list[float]] = {"online": [], "cached": []}
    for seed in SEEDS:
        for name, errors in found.items():
            run = tmp_path / f"{name}-{seed}"
            config = tiny_student(
                run, teacher=tmp_path / "teacher", data=data, loop=replace(loop, seed=seed), optimizer=optimizer
            )
            train_student(replace(config, teacher_cache=tmp_path / "cache" if name == "cached" else None))
            predictor = Predictor.from_checkpoint(run, "cpu")
            means = evaluate(predictor, held_out, batch_size=4, device=torch.device("cpu")).means()
            errors.append(means["abs_rel"])
    told = {name: [round(error, 4) for error in errors] for name, errors in found.items()}
    print(told)
    spread = statistics.fmean(statistics.variance(errors) for errors in found.values()) ** 0.5
    assert abs(statistics.fmean(found["cached"]) - statistics.fmean(found["online"])) <= spread, told
