"""SIGKILL at drawn moments: what ends at last is bit for bit what a run that was never stopped leaves."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adu_depth.checkpoint import list_checkpoints
from adu_depth.data import SyntheticStereo
from adu_depth.folder_lock import LOCK_FILE
from adu_depth.inference.render import write_samples
from adu_depth.training.history import MEASURED
from adu_depth.training.teacher_outputs import CHUNK
from tests.killing import Zygote, zygote

TRAIN = "--data.size 32 64 --loop.device cpu --loop.steps 12 --loop.checkpoint-every 2"
OFTEN = "--loop.log-every 1 --loop.check-every 2"
VALIDATED = (
    "--loop.ema 0.9 --loop.keep-checkpoints 1 --validation.every 2 --validation.samples 2 --validation.pictures 1"
)
TEACHER = "--model.max-disparity 16 --model.num-groups 2 --model.correlation-channels 8 --model.aggregation-channels 4"


@dataclass
class Bench:
    """Where the commands run: the process that starts them, and pairs of images on disk."""

    zygote: Zygote
    pairs: Path
    many: Path
    """More of them than one chunk of a teacher's cache holds."""
    folder: Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    write_samples(SyntheticStereo(12, 32, 64, seed=0), folder / "pairs", 12)
    write_samples(SyntheticStereo(3 * CHUNK + 2, 32, 64, seed=1), folder / "many", 3 * CHUNK + 2)
    with zygote() as started:
        yield Bench(started, folder / "pairs", folder / "many", folder)


def train_teacher(bench: Bench, output: Path) -> list[str]:
    settings = f"{TRAIN} {OFTEN} {TEACHER} --loop.batch-size 2 --loop.workers 1".split()
    return ["train-teacher", "--run", str(output / "run"), "--data.root", str(bench.pairs), *settings]


def a_teacher(bench: Bench) -> Path:
    teacher = bench.folder / "taught-by"
    if not teacher.is_dir():
        bench.zygote.run([*train_teacher(bench, teacher), "--loop.steps", "2"])
    return teacher / "run"


def distill(bench: Bench, output: Path) -> list[str]:
    """All that a training keeps beside its weights: a cache, averages, a validation; steps of two micro-batches."""
    folders = ["--run", output / "run", "--teacher", a_teacher(bench), "--teacher-cache", output / "cache"]
    settings = f"{TRAIN} {OFTEN} {VALIDATED} --loop.batch-size 1 --loop.accumulate 2 --loop.workers 0"
    return ["distill", *map(str, folders), "--data.root", str(bench.many), *settings.split()]


def validated(bench: Bench, output: Path) -> list[str]:
    """Averages of the weights, a validation each second step, its pictures and its best checkpoint."""
    return [*train_teacher(bench, output), *VALIDATED.split()]


def pack(bench: Bench, output: Path) -> list[str]:
    settings = ["--pairs-per-shard", "1", "--workers", "2"]
    return ["pack", str(bench.pairs), "--output", str(output), *settings]


def cache_teacher(bench: Bench, output: Path) -> list[str]:
    folders = ["--teacher", a_teacher(bench), "--teacher-cache", output, "--data.root", bench.many]
    return ["cache-teacher", *map(str, folders), *["--data.size", "32", "64", "--device", "cpu", "--batch-size", "2"]]


def clip(bench: Bench, output: Path) -> list[str]:
    settings = ["--as-video", "--video.frames", "png", "--video.stabilise", "0.5", "--device", "cpu"]
    return ["predict", str(a_teacher(bench)), str(bench.pairs), "--output", str(output), *settings]


FILES_ALONE = ("pack", "teacher's cache", "clip")
"""Commands that write files, which must be the same byte for byte, and go on when they are given again."""
COMMANDS = {
    "teacher": train_teacher,
    "validated, averaged": validated,
    "student with cache, validated, averaged, accumulated": distill,
    "pack": pack,
    "teacher's cache": cache_teacher,
    "clip": clip,
}


def kill_and_compare(bench: Bench, what: str, output: Path, kills: int, seed: int) -> list[str]:
    whole, killed = output / "whole", output / "killed"
    command = COMMANDS[what]
    first = command(bench, killed)
    seconds = bench.zygote.run(command(bench, whole))
    again = first if what in FILES_ALONE else [*first, "--loop.resume"]
    found = bench.zygote.run_killed(killed, first, again, seconds, kills, random.Random(seed))
    assert_same_files(whole, killed) if what in FILES_ALONE else assert_same_training(whole, killed)
    leftovers = [path for path in killed.rglob("*") if path.name.startswith(".") and path.name != LOCK_FILE]
    assert not leftovers, "nothing half-written stays"
    return found


def assert_same_files(one: Path, other: Path) -> None:
    """A lock's file may stay where a kill came after the last chunk of a cache: whoever only reads takes no lock, and
    the lock itself has ended."""
    names, others = (
        sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE)
        for folder in (one, other)
    )
    assert names == others
    assert names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def assert_same_training(one: Path, other: Path) -> None:
    """Every tensor of every checkpoint, every row of the history but for the speed, every file of the cache."""
    checkpoints = [[path.name for path in list_checkpoints(folder / "run")] for folder in (one, other)]
    assert checkpoints[0] == checkpoints[1]
    assert checkpoints[0][-1] == "step-00000012"
    for name in checkpoints[0]:
        for file in ("model.safetensors", "training.safetensors"):
            tensors, others = (load_file(folder / "run" / "checkpoints" / name / file) for folder in (one, other))
            assert tensors.keys() == others.keys()
            assert [key for key in tensors if not torch.equal(tensors[key], others[key])] == [], f"{name}/{file}"
    assert history(one) == history(other)
    assert len([row for row in history(one) if "total" in row]) == 12
    state = [json.loads((list_checkpoints(folder / "run")[-1] / "state.json").read_text()) for folder in (one, other)]
    assert state[0] == state[1]
    if (one / "run" / "validation").is_dir():
        assert_same_files(one / "run" / "validation", other / "run" / "validation")
    if (one / "cache").is_dir():
        assert_same_files(one / "cache", other / "cache")


def history(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "run" / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


@pytest.mark.parametrize("what", COMMANDS)
def test_a_few_kills_leave_no_trace(bench: Bench, tmp_path: Path, what: str) -> None:
    kill_and_compare(bench, what, tmp_path, kills=4, seed=sum(map(ord, what)))


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_many_kills_leave_no_trace(bench: Bench, tmp_path: Path, what: str) -> None:
    """At least twenty each; a run that ended in between is begun anew."""
    found: list[str] = []
    seed = 0
    while len(found) < 20:
        seed += 1
        output = tmp_path / str(seed)
        found += kill_and_compare(bench, what, output, kills=6, seed=seed)
        shutil.rmtree(output)
    print(f"{what}: {len(found)} kills in {seed} runs without a difference, while this was written: {Counter(found)}")
