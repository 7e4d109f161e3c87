"""Signals end a command with one line and 128 + n, at whatever moment; a training has saved its state by then."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adu_depth.checkpoint import list_checkpoints
from adu_depth.data import SyntheticStereo
from adu_depth.inference.render import write_samples
from adu_depth.training.runs import train_student, train_teacher
from tests.training.tiny import LOOP, tiny_student, tiny_teacher

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def hang_up_is_heard() -> Iterator[None]:
    """nohup ignores SIGHUP, for everything that is started from it: here it is as a terminal leaves it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def program(work: str) -> list[str]:
    """A command of which `work` is all it does; it says "here" where a test should signal it."""
    return [sys.executable, "-c", f"import os, signal, sys, time\nfrom adu_depth.entry import run\n{work}"]


def start(command: list[str], **options: object) -> subprocess.Popen[str]:
    """In a process group of its own, as a shell or a batch system starts it."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, **options}
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, **settings)  # type: ignore[call-overload, no-any-return]


def storm(process: subprocess.Popen[str], signum: int, times: int = 30) -> None:
    """Signals for the whole group, a few milliseconds apart, until it is over."""
    for _ in range(times):
        if process.poll() is not None:
            return
        os.killpg(process.pid, signum)
        time.sleep(0.01)


WAIT = """
def work(started):
    started()
    try:
        print("here", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.5)
        print("cleaned up")
    return 0
sys.exit(run(work, last=True))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_storm_of_signals_is_one_line_and_cleans_up_once(name: str) -> None:
    process = start(program(WAIT))
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    storm(process, getattr(signal, name))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + getattr(signal, name)
    assert (out, err) == ("cleaned up\n", f"stopped by {name}\n")


IMPORTING = """
def work(started):
    print("here", flush=True)
    try:
        time.sleep(60)
    except BaseException:  # as modules do that can live without another
        pass
    started()
    return 0
sys.exit(run(work, last=True))
"""
DESTROYED = """
class Dying:
    def __del__(self):
        print("here", flush=True)
        time.sleep(60)
def work(started):
    started()
    Dying()
    for _ in range(600):
        time.sleep(0.1)
    return 0
sys.exit(run(work, last=True))
"""
STUCK = """
import ctypes, adu_depth.stopping
adu_depth.stopping.PATIENCE = 0.5
def work(started):
    started()
    print("here", flush=True)
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # never comes back, and no signal ends it: as a collective that waits
sys.exit(run(work, last=True))
"""


@pytest.mark.parametrize("work", [IMPORTING, DESTROYED, STUCK])
def test_code_that_drops_or_cannot_raise_exceptions_does_not_lose_the_signal(work: str) -> None:
    process = start(program(work))
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    storm(process, signal.SIGTERM, times=3)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (143, "stopped by SIGTERM\n")


TRAINING = """
from adu_depth.stopping import catch_signals
def work(started):
    started()
    with catch_signals() as caught:
        print("here", flush=True)
        while not caught:
            time.sleep(0.01)
        time.sleep(0.1)
    time.sleep(0.3)
    print("saved", caught[0])
    return 128 + caught[0]
sys.exit(run(work, last=True))
"""


def test_a_storm_does_not_stop_what_says_that_the_state_is_saved() -> None:
    process = start(program(TRAINING))
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    storm(process, signal.SIGTERM, times=1000)
    assert process.communicate(timeout=20) == ("saved 15\n", "")
    assert process.returncode == 143


IGNORED = """
def work(started):
    started()
    for name in ("SIGHUP", "SIGINT"):
        os.kill(os.getpid(), getattr(signal, name))
    print("there still")
    return 0
sys.exit(run(work, last=True))
"""


def test_what_nohup_and_the_shell_ignore_stays_ignored() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(program(IGNORED), preexec_fn=ignore)
    assert process.communicate(timeout=20) == ("there still\n", "")
    assert process.returncode == 0


def test_a_signal_after_the_work_changes_nothing() -> None:
    late = "import atexit\natexit.register(lambda: (print('here', flush=True), time.sleep(1)))\n"
    process = start(program(late + "sys.exit(run(lambda started: started() or 0, last=True))"))
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    storm(process, signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_samples(SyntheticStereo(4, 32, 64, seed=0), folder, 4)
    return folder


def training(pairs: Path, run: Path, *more: str) -> list[str]:
    sizes = "--data.size 32 64 --model.max-disparity 16 --model.aggregation-channels 4 --loop.batch-size 2"
    settings = f"{sizes} --loop.device cpu --loop.workers 2 --loop.steps 4000 --loop.checkpoint-every 4000"
    return [
        *(sys.executable, "-m", "adu_depth", "train-teacher", "--data.root", str(pairs), "--run", str(run)),
        *settings.split(),
        *more,
    ]


def stop_somewhere(pairs: Path, run: Path, signum: int, seconds: float) -> None:
    """A group signal while workers read: the state of the very step is saved, nothing else is said."""
    process = start(training(pairs, run))
    deadline = time.monotonic() + 120
    while not (run / "history.jsonl").exists():
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(seconds)
    storm(process, signum, times=5)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, err
    [saved] = list_checkpoints(run)
    name = signal.Signals(signum).name
    assert err == f"stopped by {name}; state saved in {saved}: go on with --loop.resume\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_group_signal_while_workers_read_saves_the_state(pairs: Path, tmp_path: Path) -> None:
    stop_somewhere(pairs, tmp_path / "run", signal.SIGTERM, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_group_signals_at_any_moment_save_the_state(pairs: Path, tmp_path: Path, seed: int) -> None:
    draws = random.Random(seed)
    signum = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP][seed % 3]
    stop_somewhere(pairs, tmp_path / "run", signum, 3 * draws.random())


@pytest.mark.parametrize(("name", "delay"), [("SIGINT", 0.3), ("SIGTERM", 1.5)])
def test_a_storm_while_modules_are_imported(pairs: Path, tmp_path: Path, name: str, delay: float) -> None:
    process = start(training(pairs, tmp_path / "run"))
    time.sleep(delay)
    storm(process, getattr(signal, name), times=300)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert out == ""
    assert re.fullmatch(rf"stopped by {name}.*\n", err)


COMMANDS = {
    "render": "render --output {output} --count 60 --size 64 128",
    "pack": "pack {pairs} --output {output} --pairs-per-shard 1",
    "evaluate": "evaluate {student} --pairs 60 --output {output} --device cpu",
    "predict": "predict {student} {pairs}/left --output {output} --device cpu",
    "predict a clip": "predict {student} {pairs}/left --as-video --output {output} --device cpu",
    "doctor": "doctor {pairs}",
    "distill": "distill --run {output} --teacher {teacher} --teacher-cache {output}-cache --data.root {pairs} "
    "--data.size 32 64 --loop.batch-size 2 --loop.device cpu --loop.steps 40 --loop.checkpoint-every 1",
    "quickstart": "quickstart --output {output} --size 32 64 --pairs 4 --held-out 4 --steps 8 --teacher-steps 8 "
    "--batch-size 2 --device cpu",
    "quickstart-real": "quickstart-real --output {output} --data.root {bare} --teacher-steps 2 --teacher-pairs 4 "
    "--teacher-size 64 128 --adapt-steps 2 --max-disparity 64 --student-steps 2 --student-size 64 128 --scene-pairs 2 "
    "--held-out 0.34 --data.size 64 96 --workers 1 --device cpu",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs without ground truth, large enough for a matcher."""
    folder = tmp_path_factory.mktemp("bare")
    write_samples(SyntheticStereo(6, 96, 192, seed=5), folder, 6)
    for role in ("depth", "sparse_depth", "disparity", "occluded", "preview"):
        shutil.rmtree(folder / role, ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_teacher(tiny_teacher(folder / "teacher", loop=replace(LOOP, steps=2)))
    train_student(tiny_student(folder / "student", loop=replace(LOOP, steps=2)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", COMMANDS)
def test_a_storm_at_any_moment_of_any_command(
    name: str, seed: int, pairs: Path, bare: Path, trained: Path, tmp_path: Path
) -> None:
    """From the first module to the last file: a clean code, one line or none, nothing half-written, no orphan."""
    draws = random.Random(f"{name}{seed}")
    signum = draws.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    places = {
        "pairs": pairs,
        "bare": bare,
        "output": tmp_path / "out",
        "teacher": trained / "teacher",
        "student": trained / "student",
    }
    process = start([sys.executable, "-m", "adu_depth", *COMMANDS[name].format(**places).split()])
    time.sleep(0.2 + 12 * draws.random())
    storm(process, signum, times=3000)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 128 + signum), err
    assert len(err.splitlines()) == (process.returncode != 0), err
    assert [path for path in tmp_path.rglob(".*") if path.name.endswith(".tmp")] == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
