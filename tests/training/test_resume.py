"""A run that was stopped ends with the same weights, bit for bit, as one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adu_depth.checkpoint import list_checkpoints, load_model, restore_checkpoint
from adu_depth.data.sample import StereoSample
from adu_depth.distillation import StudentLoss
from adu_depth.errors import InputError
from adu_depth.models import MonoStudent
from adu_depth.training.loop import Interrupted
from adu_depth.training.runs import train_student, train_teacher
from adu_depth.training.tasks import StudentTask
from tests.training.tiny import LOOP, tiny_scenes, tiny_student, tiny_teacher

ROOT = Path(__file__).resolve().parents[2]


def newest(run: Path) -> Path:
    return list_checkpoints(run)[-1]


def assert_same_bits(one: Path, other: Path) -> None:
    """Weights, adapters and optimiser state of the two runs' last checkpoints."""
    assert newest(one).name == newest(other).name
    for file in ("model.safetensors", "training.safetensors"):
        first, second = load_file(newest(one) / file), load_file(newest(other) / file)
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []


class Stopping:
    """A data set that raises when it is read for the nth time: a crash in the middle of a step."""

    def __init__(self, reads: int) -> None:
        self.scenes, self.reads_left = tiny_scenes(), reads

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> StereoSample:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise KeyboardInterrupt
        return self.scenes[index]


def test_teacher_resumes_after_a_crash_to_the_same_bits(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train_teacher(tiny_teacher(tmp_path / "broken"), samples=Stopping(reads=7))
    assert newest(tmp_path / "broken").name == "step-00000002"
    train_teacher(tiny_teacher(tmp_path / "broken", loop=replace(LOOP, resume=True)))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")


def test_taught_student_with_cached_outputs_resumes_to_the_same_bits(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "teacher"))
    settings = {"teacher": tmp_path / "teacher", "teacher_cache": tmp_path / "cache"}
    train_student(tiny_student(tmp_path / "whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        train_student(tiny_student(tmp_path / "broken", **settings), samples=Stopping(reads=9))
    train_student(tiny_student(tmp_path / "broken", **settings, loop=replace(LOOP, resume=True)))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    rows = [json.loads(line) for line in (tmp_path / "broken" / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6], "the curve has each step once"


def test_a_backbone_that_draws_random_numbers_resumes_to_the_same_bits(tmp_path: Path) -> None:
    encoder = "config:convnext?depths=1,1,1,1&hidden_sizes=8,8,16,16&drop_path_rate=0.5"
    settings = {"model": replace(tiny_student(tmp_path).model, encoder=encoder)}
    train_student(tiny_student(tmp_path / "whole", **settings))
    with pytest.raises(KeyboardInterrupt):
        train_student(tiny_student(tmp_path / "broken", **settings), samples=Stopping(reads=7))
    train_student(tiny_student(tmp_path / "broken", **settings, loop=replace(LOOP, resume=True)))
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")


def test_resumed_moments_lie_as_their_parameters_do(tmp_path: Path) -> None:
    """The optimizer's multi-tensor step leaves its fast path where they do not."""
    encoder = "config:convnext?depths=1,1,1,1&hidden_sizes=8,8,16,16"
    config = tiny_student(tmp_path / "run", model=replace(tiny_student(tmp_path).model, encoder=encoder))
    train_student(config)
    network = MonoStudent(config.model)
    loss = StudentLoss(
        config.distillation, network.config.feature_channels, None, config.model.min_depth, config.model.max_depth
    )
    task = StudentTask(network, loss, config.augmentation)
    optimizer = torch.optim.AdamW(task.parameters())
    restore_checkpoint(newest(tmp_path / "run"), task, optimizer)
    kernels = [p for p in task.parameters() if p.ndim == 4 and not p.is_contiguous()]
    assert kernels
    for parameter in kernels:
        slots = optimizer.state[parameter]
        assert {slots[name].stride() for name in ("exp_avg", "exp_avg_sq")} == {parameter.stride()}


def test_a_resumed_run_keeps_its_teacher_and_where_its_outputs_come_from(tmp_path: Path) -> None:
    for seed in (0, 1):
        train_teacher(tiny_teacher(tmp_path / f"teacher{seed}", loop=replace(LOOP, steps=1, seed=seed)))
    short = replace(LOOP, steps=1)
    train_student(tiny_student(tmp_path / "run", teacher=tmp_path / "teacher0", loop=short))
    again = replace(short, resume=True)
    cached = {"teacher": tmp_path / "teacher0", "teacher_cache": tmp_path / "cache"}
    with pytest.raises(InputError, match="teacher_outputs: online → cached"):
        train_student(tiny_student(tmp_path / "run", **cached, loop=again))
    (tmp_path / "teacher0").rename(tmp_path / "moved")
    (tmp_path / "teacher1").rename(tmp_path / "teacher0")
    with pytest.raises(InputError, match="teacher_weights"):
        train_student(tiny_student(tmp_path / "run", teacher=tmp_path / "teacher0", loop=again))


def command(run: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "adu_depth", "train-teacher", "--run", str(run), "--data.pairs", "4"),
        *("--data.size", "32", "64", "--model.max-disparity", "16", "--loop.steps", "24", "--loop.batch-size", "2"),
        *(
            "--loop.checkpoint-every",
            "3",
            "--loop.workers",
            "0",
            "--loop.device",
            "cpu",
            "--model.aggregation-channels",
            "4",
            *more,
        ),
    ]


def wait_for_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not list_checkpoints(run):
        assert process.poll() is None, "the training ended before its first checkpoint"
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        time.sleep(0.01)


def test_a_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL at a moment nobody chose: whatever was being written, the run goes on from a whole checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, env=environment, capture_output=True)
    process = subprocess.Popen(command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_checkpoint(killed, process)
    time.sleep(0.5 * random.random())
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert newest(killed).name != "step-00000024", "killed too late to show anything"
    subprocess.run(command(killed, "--loop.resume"), check=True, env=environment, capture_output=True)
    assert_same_bits(whole, killed)
    assert list((killed / "checkpoints").glob(".*")) == [], "no half-written checkpoint stays behind"


class Signalling(Stopping):
    """Sends this process SIGTERM when it is read for the nth time."""

    def __getitem__(self, index: int) -> StereoSample:
        self.reads_left -= 1
        if self.reads_left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.scenes[index]


def test_sigterm_ends_the_step_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "whole"))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM.*step-00000003.*--loop\.resume"):
        train_teacher(tiny_teacher(tmp_path / "stopped"), samples=Signalling(reads=6))
    assert signal.getsignal(signal.SIGTERM) is handler
    train_teacher(tiny_teacher(tmp_path / "stopped", loop=replace(LOOP, resume=True)))
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_folder_is_never_overwritten_nor_resumed_with_other_settings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_teacher(tiny_teacher(run, loop=replace(LOOP, steps=2)))
    before = newest(run).joinpath("model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"already holds a training.*--loop\.resume"):
        train_teacher(tiny_teacher(run))
    with pytest.raises(InputError, match=r"loop\.seed: 0 → 1"):
        train_teacher(tiny_teacher(run, loop=replace(LOOP, steps=2, seed=1, resume=True)))
    assert newest(run).joinpath("model.safetensors").read_bytes() == before


NEWER = {"data": ("split", "ground_truth", "kb_crop", "skip_missing", "scenery"), "loop": ("prefetch",)} | {
    "augmentation": ("asymmetric", "flip", "zoom", "vertical_jitter", "erase", "erase_size", "contrast", "saturation"),
    "loss": ("left_right",),
}
"""Settings that came to a teacher's training after config.json was first written."""


def test_a_run_whose_config_json_a_lost_power_emptied_has_a_way_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_teacher(tiny_teacher(run, loop=replace(LOOP, steps=2)))
    kept = (run / "config.json").read_text()
    (run / "config.json").write_text("")
    again = tiny_teacher(run, loop=replace(LOOP, steps=2, resume=True))
    with pytest.raises(InputError, match=rf"config\.json: .*; remove it, and that of {newest(run)} is taken"):
        train_teacher(again)
    (run / "config.json").unlink()
    train_teacher(again)
    assert json.loads((run / "config.json").read_text())["model"] == json.loads(kept)["model"]


@pytest.mark.parametrize(
    ("part", "value"),
    [("loop", 2.5), ("validation", []), ("extended", 3), ("extended", ["x"]), ("data", None), ("loop", {"ema": "x"})],
)
def test_a_run_whose_config_json_is_no_configuration_is_named(
    part: str, value: object, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, part: value}))
    with pytest.raises(InputError, match=rf"{run}.*{part}"):
        train_teacher(tiny_teacher(run, loop=replace(LOOP, steps=2, resume=True)))


def test_a_run_from_before_a_setting_was_there_goes_on_with_its_default(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_teacher(tiny_teacher(run, loop=replace(LOOP, steps=2)))
    for file in (run / "config.json", newest(run) / "config.json"):
        config = json.loads(file.read_text())
        config.pop("backbone", None)
        for part, names in NEWER.items():
            for name in names:
                del config[part][name]
        file.write_text(json.dumps(config))
    again = replace(LOOP, steps=2, resume=True)
    changed = replace(tiny_teacher(run).augmentation, vertical_jitter=0.5)
    with pytest.raises(InputError, match=r"differ: augmentation\.vertical_jitter: 0\.0 → 0\.5$"):
        train_teacher(tiny_teacher(run, loop=again, augmentation=changed))
    train_teacher(tiny_teacher(run, loop=again))
    assert json.loads((run / "config.json").read_text())["augmentation"]["vertical_jitter"] == 0.0


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train_teacher(tiny_teacher(tmp_path / "run", loop=replace(LOOP, keep_checkpoints=2)))
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000004", "step-00000006"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("trained") / "teacher"
    train_teacher(tiny_teacher(run, loop=replace(LOOP, steps=2)))
    return run


def test_load_model_names_what_is_wrong(trained: Path, tmp_path: Path) -> None:
    assert load_model(trained).kind == "teacher"
    assert load_model(newest(trained)).size == (32, 64)
    with pytest.raises(InputError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_model(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in newest(trained).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        load_model(broken)
    (broken / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json must hold a JSON object, got list"):
        load_model(broken)
    (broken / "config.json").write_text("{}")
    with pytest.raises(InputError, match="does not describe a teacher or a student"):
        load_model(broken)
