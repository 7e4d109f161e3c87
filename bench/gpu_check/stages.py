"""The stages, the most valuable first, how the minutes are shared out, and what each answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.operations import EVERY, OPERATIONS, STEPS


@dataclass(frozen=True)
class Stage:
    """A process of its own that writes one JSON document, after every case."""

    name: str
    module: str
    seconds: float
    """Its share: of the time that is left it gets so much beside the shares of those that come after it."""
    answers: str
    arguments: tuple[str, ...] = ()
    beside: str = ""
    """The stage that it runs at the same time as, within the same limit."""
    resumable: bool = False
    """Whether it keeps what a run of it that was cut short has finished."""

    def command(
        self, output: Path, seconds: float, *, dry_run: bool, only: Sequence[str] = (), again: bool = False
    ) -> list[str]:
        told = [sys.executable, "-m", self.module, *self.arguments, "--output", str(output)]
        told += ["--seconds", f"{seconds:.1f}", *(["--dry-run"] if dry_run else []), *(["--again"] if again else [])]
        return [*told, *(word for name in only for word in ("--only", name))]


def _benchmarks(name: str, seconds: float, answers: str) -> Stage:
    return Stage(name, "bench.gpu_check.benchmarks", seconds, answers, (name,), resumable=True)


DOCTOR = Stage("doctor", "bench.gpu_check.doctor", 15, "whether this machine can run the rest")
PEAKS = Stage("peaks", "bench.gpu_check.peaks", 15, "copy and product rates over sizes, launch costs, versions")
PARITY = Stage("parity", "bench.gpu_check.parity", 210, "the kernel tests on the GPU itself", resumable=True)
WARM = Stage("warm", "bench.gpu_check.warm", 0, "compiles for `compiled`, beside the tests", beside="parity")
SINGLE_CALLS = _benchmarks("operations", 110, "every operation, ours against eager: times, memory, errors, roof")
COMPILED = _benchmarks("compiled", 30, "the same beside torch.compile, SDPA and FlexAttention")
TRAINING_STEPS = _benchmarks("training-steps", 90, "teacher and distillation step, bf16 and fp32, ours against eager")
PROFILE = Stage("profile", "bench.gpu_check.profile", 20, "where a step's time goes, and where it waits for the GPU")
TRAINING = Stage(
    "training", "bench.gpu_check.training", 30, "a real training: images/s, peak memory, losses", resumable=True
)
TUNE = Stage("tune", "bench.gpu_check.tune", 90, "other launch shapes beside those of the tables", resumable=True)

PLAN = (DOCTOR, PEAKS, PARITY, WARM, SINGLE_CALLS, COMPILED, TRAINING_STEPS, PROFILE, TRAINING)
"""What a call does unless it is told otherwise."""
CONTINUED = (
    *(DOCTOR, PEAKS, PARITY, TUNE, SINGLE_CALLS, COMPILED, TRAINING_STEPS, PROFILE, TRAINING),
    _benchmarks("inference", 40, "teacher's and student's images/s without gradients"),
    _benchmarks("max-autotune", 90, "the headline cases beside torch.compile's max-autotune"),
    _benchmarks("compiled-steps", 90, "training steps with the network compiled"),
    Stage("convergence", "bench.gpu_check.convergence", 60, "whether both learn alike, against the spread of seeds"),
)
"""What --continue does: of the plan what is not done, then the rest."""
BY_NAME = {stage.name: stage for stage in (*PLAN, *CONTINUED)}
TABLE_SECONDS = 20.0
"""Kept back for the last summary."""


def chosen_stages(names: Sequence[str], continued: bool) -> tuple[list[Stage], list[str]]:
    """The stages of a call, and the benchmarks it is confined to (none: all). names: of stages and of benchmarks."""
    if not names:
        return list(CONTINUED if continued else PLAN), []
    only = [name for name in names if name in EVERY]
    wanted = {name for name in names if name in BY_NAME} | {"doctor"}
    for name in only:
        if name in OPERATIONS:
            wanted |= {"operations", "compiled"}
        else:
            wanted.add("training-steps" if name in STEPS else "inference")
    order = (*CONTINUED, WARM) if continued else BY_NAME.values()
    return [stage for stage in order if stage.name in wanted], only
