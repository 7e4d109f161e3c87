"""Every command that writes into a folder leaves it to the process that is writing there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from adu_depth.checkpoint import list_checkpoints
from adu_depth.cli import main
from adu_depth.data import SyntheticStereo
from adu_depth.folder_lock import LOCK_FILE, locked
from adu_depth.inference import write_samples
from adu_depth.training.runs import train_student, train_teacher
from tests.data.trees import save_image
from tests.training.tiny import LOOP, SIZE, tiny_student, tiny_teacher

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--data.size", 32, 64, "--loop.workers", 0, "--loop.device", "cpu", "--loop.batch-size", 2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student, a data set, an image of KITTI's benchmark."""
    folder = tmp_path_factory.mktemp("inputs")
    short = replace(LOOP, steps=1)
    train_teacher(tiny_teacher(folder / "teacher", loop=short))
    train_student(tiny_student(folder / "student", loop=short))
    write_samples(SyntheticStereo(2, *SIZE, seed=0), folder / "pairs", 2)
    for part in ("left", "right", "camera.toml"):  # without ground truth
        (folder / "bare").mkdir(exist_ok=True)
        (folder / "bare" / part).symlink_to(folder / "pairs" / part)
    save_image(folder / "test" / "image" / "0000000000.png", SyntheticStereo(1, 352, 1216, seed=0)[0].left)
    return folder


COMMANDS = {
    "train-teacher": ("train-teacher", "--run", "OUT", *SMALL),
    "distill": ("distill", "--run", "OUT", *SMALL),
    "teacher cache": (
        *("distill", "--run", "FREE", "--teacher", "IN/teacher", "--teacher-cache", "OUT", "--data.pairs", 2, *SMALL),
    ),
    "evaluate": ("evaluate", "IN/student", "--pairs", 1, "--device", "cpu", "--output", "OUT"),
    "predict a folder": ("predict", "IN/student", "IN/pairs/left", "--device", "cpu", "--output", "OUT"),
    "predict an image": ("predict", "IN/student", "IN/pairs/left/000000.png", "--device", "cpu", "--output", "OUT"),
    "predict a clip": (
        *("predict", "IN/student", "IN/pairs/left", "--as-video", "--device", "cpu", "--output", "OUT"),
    ),
    "save": ("save", "IN/student", "OUT"),
    "export": ("export", "IN/student", "--format", "torch-export", "--output", "FILE"),
    "submit": ("submit", "IN/student", "--data", "IN/test", "--partial", "--device", "cpu", "--output", "OUT"),
    "pack": ("pack", "IN/pairs", "--output", "OUT"),
    "render": ("render", "--count", 1, "--size", 32, 64, "--output", "OUT"),
    "splits": ("splits", "IN/pairs", "--validation", 0.5, "--output", "OUT"),
    "proxies": ("proxies", "IN/bare", "--output", "OUT"),
    "adapt": ("adapt", "IN/teacher", "--data.root", "IN/bare", "--output", "OUT"),
    "ablation": ("ablation", "--preset", "adu", "--device", "cpu", "--output", "OUT"),
    "quickstart": ("quickstart", "--device", "cpu", "--output", "OUT"),
    "quickstart-real": ("quickstart-real", "--device", "cpu", "--data.root", "IN/bare", "--output", "OUT"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_another_writes_into_is_refused(
    command: str, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    places = {"OUT": str(output), "FREE": str(tmp_path / "free"), "FILE": str(output / "student.pt2")}
    arguments = [places.get(str(a), str(a).replace("IN/", f"{inputs}/")) for a in COMMANDS[command]]
    with locked(output, "somebody"):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert os.listdir(output) == [LOCK_FILE], "nothing was written"
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {output}: another process (somebody, process {os.getpid()} on ")
    assert len(said.splitlines()) == 1


def test_a_whole_teacher_cache_is_read_by_many_at_once(inputs: Path, tmp_path: Path) -> None:
    def distill(name: str) -> None:
        settings = {"teacher": inputs / "teacher", "teacher_cache": tmp_path / "cache"}
        train_student(tiny_student(tmp_path / name, **settings, loop=replace(LOOP, steps=1)))

    distill("one")
    with locked(tmp_path / "cache", "somebody"):
        distill("two")


def training(run: Path, *more: object) -> list[str]:
    thin = ("--model.max-disparity", 16, "--model.aggregation-channels", 4, "--data.pairs", 4)
    steps = ("--loop.steps", 3000, "--loop.checkpoint-every", 3, "--loop.log-every", 1)
    return [sys.executable, "-m", "adu_depth", *map(str, ("train-teacher", "--run", run, *SMALL, *thin, *steps, *more))]


def environment(**more: object) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in more.items()}}


def test_a_second_training_on_a_run_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = subprocess.Popen(training(run), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list_checkpoints(run):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = subprocess.run(training(run, "--loop.resume"), env=environment(), capture_output=True, text=True)
    assert first.poll() is None, "it ended too early to show anything"
    assert second.returncode == 2, second.stderr
    assert f"{run}: another process (train-teacher, process {first.pid} on {socket.gethostname()}" in second.stderr
    assert "Traceback" not in second.stderr
    first.terminate()
    assert first.wait(60) == 128 + signal.SIGTERM
    rows = [json.loads(line)["step"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert rows == list(range(1, len(rows) + 1))
    assert int(list_checkpoints(run)[-1].name.removeprefix("step-")) == len(rows)
    assert not list(run.rglob(".*")), "no lock, nothing temporary"


def test_two_processes_of_one_training_are_refused_together(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with locked(tmp_path / "run", "somebody"):
        group = [
            subprocess.Popen(
                training(tmp_path / "run"),
                env=environment(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        told = [process.communicate(timeout=60)[1] for process in group]
        assert os.listdir(tmp_path / "run") == [LOCK_FILE]
    assert [process.returncode for process in group] == [2, 2], told
    assert "another process (somebody" in told[0]
    assert "process 1 of 2: stopped with the others; process 0 says why" in told[1]
    assert not any("Traceback" in text for text in told)
