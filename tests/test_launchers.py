"""torchrun, `accelerate launch` and a plain start alike; where one process fails, its reason is said once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
import torch.distributed.run
from accelerate.commands.launch import launch_command_parser

from adu_depth import distributed
from adu_depth.checkpoint import list_checkpoints
from adu_depth.cli import COMMANDS, main
from adu_depth.data import SyntheticStereo
from adu_depth.evaluation import evaluate
from adu_depth.inference import Predictor
from adu_depth.inference.render import write_samples
from adu_depth.training import good_checkpoints
from adu_depth.training.good_checkpoints import Fault, NonFiniteLoss, require_no_fault

ROOT = Path(__file__).resolve().parents[1]
NAMES = [
    "quickstart",
    "quickstart-real",
    "report",
    "ablation",
    "render",
    "doctor",
    "splits",
    "proxies",
    "adapt",
    "train-teacher",
    "distill",
    "cache-teacher",
    "evaluate",
    "predict",
    "save",
    "export",
    "app",
    "submit",
    "pack",
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_every_option_has_a_name_that_no_launcher_takes_for_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse looks for options, abbreviated ones too, also behind the name of the program that is to be launched."""
    owned = [
        option
        for parser in (torch.distributed.run.get_args_parser(), launch_command_parser())
        for action in parser._actions
        for option in action.option_strings
    ]
    assert "--run-path" in owned
    assert len(NAMES) == len(COMMANDS) - 1, "presets has no options"
    for command in NAMES:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        lines = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\W* --?\w", line)]
        assert lines
        for line in lines:
            names = [name for name in re.findall(r"--[\w.-]+", line) if name != "--help"]
            free = [name for name in names if not any(option.startswith(name) for option in owned)]
            assert free or not names, f"{command}: {line}"


def by_torchrun(processes: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]


UNHURRIED = ["--monitor-interval", "10"]
"""torchrun looks every 0.1 s, and where one process has failed ends the others, before they have said a word: they
may be seconds behind. So long after its first look both have spoken."""


def torchrun(arguments: list[str], processes: int = 2, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*by_torchrun(processes), *options, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs, one of whose images is cut short."""
    folder = tmp_path_factory.mktemp("broken")
    write_samples(SyntheticStereo(4, 32, 64, seed=0), folder, 4)
    image = folder / "left" / "000003.png"
    image.write_bytes(image.read_bytes()[:300])
    return folder


def training(data: Path) -> list[str]:
    settings = "--data.size 32 64 --loop.batch-size 1 --loop.steps 4 --loop.device cpu --loop.workers 1"
    return ["distill", "--data.root", str(data), *settings.split()]


def said(text: str) -> list[str]:
    """What the processes said, without what the launcher adds."""
    return [line for line in text.splitlines() if re.search(r"^(process \d|error:|\[rank|stopped by)", line)]


def test_where_one_process_fails_the_others_say_so_in_one_line(broken: Path, tmp_path: Path) -> None:
    """The image belongs to one of the two processes; nobody waits for it."""
    began = time.monotonic()
    done = torchrun(["-m", "adu_depth", "--", *training(broken), "--run", str(tmp_path / "run")], options=UNHURRIED)
    assert done.returncode != 0
    assert time.monotonic() - began < 60
    assert (tmp_path / "run" / "config.json").is_file(), "it started"
    lines = sorted(said(done.stderr))
    reason = f"error: {broken / 'left' / '000003.png'}: the image is cut short"
    [own] = [line for line in lines if reason in line]
    [other] = [line for line in lines if line != own]
    assert re.match(r"process [01] of 2: another process has ended, and with it the run", other)
    assert own[:9] != other[:9]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("--data.root=nowhere", "error: nowhere: no such folder"), ("--no-such-option", "Unrecognized options:")],
)
def test_an_error_that_all_processes_have_is_said_by_one(wrong: str, message: str, tmp_path: Path) -> None:
    done = torchrun(
        ["-m", "adu_depth", "distill", wrong, "--loop.device", "cpu", "--run-folder", str(tmp_path / "run")],
        options=UNHURRIED,
    )
    assert done.returncode != 0
    assert done.stderr.count(message) == 1
    alike = [line for line in done.stderr.splitlines() if "stopped by the same error as another process" in line]
    assert len(alike) == 1
    assert re.match(r"process [01] of 2: ", alike[0])


def test_processes_that_share_a_validation_have_the_numbers_of_one(tmp_path: Path) -> None:
    """Of a network with running statistics too, which every process must have alike when it is measured."""
    run = tmp_path / "run"
    settings = "--data.pairs 8 --data.size 32 64 --loop.batch-size 2 --loop.steps 2 --loop.device cpu"
    settings += " --model.norm batch"
    validation = "--validation.every 1 --validation.samples 3 --validation.batch-size 2 --loop.keep-checkpoints 9"
    done = torchrun(["-m", "adu_depth", "distill", "--run-folder", str(run), *settings.split(), *validation.split()])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    found = {row["step"]: row["validation/abs_rel"] for row in rows if "validation/abs_rel" in row}
    newest = list_checkpoints(run)[-1]
    network = Predictor.from_checkpoint(newest, "cpu")
    assert any("running_mean" in name for name in network.model.state_dict())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes: sums go by threads
    try:
        alone = evaluate(network, SyntheticStereo(3, 32, 64, seed=3), batch_size=2)
    finally:
        torch.set_num_threads(threads)
    assert list(found) == [1, 2]
    assert found[int(newest.name.removeprefix("step-"))] == alone.means()["abs_rel"]
    assert len(list((run / "validation").rglob("*.png"))) == 6


def fault(step: int, follows: bool, text: str, suspect: bool = False) -> Fault:
    return Fault(step, follows, text, suspect)


def test_the_process_that_had_the_nan_names_its_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cause, follows = fault(7, False, "silog is nan, samples bad"), fault(7, True, "gradient_norm is nan, samples good")
    for own, every in (
        (follows, [follows, None, cause]),
        (None, [None, cause, fault(8, False, "later")]),
        (cause, [cause, None, None]),
    ):
        monkeypatch.setattr(good_checkpoints, "gather_object", lambda given, every=every: every)
        with pytest.raises(NonFiniteLoss, match=r"^silog is nan, samples bad\. Training stopped; there is no"):
            require_no_fault(own, tmp_path)
    monkeypatch.setattr(good_checkpoints, "gather_object", lambda given: [None, None])
    require_no_fault(None, tmp_path)


def test_a_checkpoint_is_suspect_unless_a_process_was_given_a_nan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoints" / "step-00000007"
    checkpoint.mkdir(parents=True)
    given, weights = fault(7, False, "silog is nan"), fault(7, True, "gradient_norm is nan", suspect=True)
    monkeypatch.setattr(good_checkpoints, "gather_object", lambda own: [given, weights])
    with pytest.raises(NonFiniteLoss, match=r"the last good checkpoint is .*step-00000007"):
        require_no_fault(weights, tmp_path)
    monkeypatch.setattr(good_checkpoints, "gather_object", lambda own: [weights, weights])
    with pytest.raises(NonFiniteLoss, match="there is no checkpoint yet"):
        require_no_fault(weights, tmp_path)
    assert not checkpoint.exists()
    for rank in ("1", "0"):  # they do so at the same time: what the first set aside is not another's to remove
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(NonFiniteLoss):
            require_no_fault(weights, tmp_path)
    assert checkpoint.with_name("broken-step-00000007").is_dir()


NAN = """
import os, sys
from dataclasses import replace
from pathlib import Path
from adu_depth import cli
from adu_depth.training.runs import train_student
from tests.training.tiny import tiny_scenes, tiny_student

class OneNan:
    def __init__(self): self.scenes, self.reads = tiny_scenes(), 0
    def __len__(self): return len(self.scenes)
    def __getitem__(self, index):
        self.reads += 1
        sample = self.scenes[index]
        if os.environ["RANK"] == "1" and self.reads == 4:
            print("BAD", sample.name)
            return replace(sample, left=sample.left * float("nan"))
        return sample

def train(config):
    train_student(tiny_student(Path(sys.argv[1])), samples=OneNan())
    return 0

cli.COMMANDS[cli.RenderConfig] = train
cli.main(["render"])
"""


@pytest.mark.slow
def test_a_nan_in_one_of_two_processes_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "nan.py").write_text(NAN)
    done = torchrun([str(tmp_path / "nan.py"), str(tmp_path / "run")], options=UNHURRIED)
    assert done.returncode != 0
    [bad] = re.findall(r"BAD (\S+)", done.stdout)
    first, second = sorted(said(done.stderr))
    assert re.match(r"error: loss term silog is nan.* at step 1, samples .* of process 1\. Training stopped", first)
    assert bad in first
    assert second == "process 1 of 2: stopped with the others; process 0 says why"


def mended(broken: Path, data: Path) -> Path:
    """Its pairs in `data`, all whole."""
    shutil.copytree(broken, data)
    shutil.copy(data / "left" / "000002.png", data / "left" / "000003.png")
    return data


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_the_state(broken: Path, tmp_path: Path) -> None:
    """The agent forwards it, and kills after 30 seconds."""
    data, run = mended(broken, tmp_path / "data"), tmp_path / "run"
    long = [*training(data), "--loop.steps", "4000", "--loop.checkpoint-every", "4000", "--run-folder", str(run)]
    process = subprocess.Popen(
        [*by_torchrun(), "-m", "adu_depth", *long], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while not (run / "history.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    began = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 25
    [line] = said(err)
    assert re.fullmatch(r"stopped by SIGTERM; state saved in .*step-\d{8}: go on with --loop\.resume", line)
    assert list((run / "checkpoints").glob("step-*"))


def under_way(
    launcher: list[str], arguments: list[str], run: Path
) -> tuple[subprocess.Popen[str], list[psutil.Process], psutil.Process]:
    """A training whose first row is written: its launcher, every process below that, and the one of rank 1."""
    agent = subprocess.Popen(
        [*launcher, "-m", "adu_depth", "--", *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while not (run / "history.jsonl").exists() or not (run / "history.jsonl").read_text():
        assert agent.poll() is None
        time.sleep(0.05)
    every = psutil.Process(agent.pid).children(recursive=True)
    [second] = [p for p in every if p.ppid() == agent.pid and p.environ().get("RANK") == "1"]
    return agent, every, second


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """A zombie has ended: who collects those depends on the machine."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads other processes' environment")
def test_a_killed_process_ends_all_within_a_minute(broken: Path, tmp_path: Path) -> None:
    """Its workers too. It says nothing itself: the launcher names its number and the signal."""
    data, run = mended(broken, tmp_path / "data"), tmp_path / "run"
    long = [*training(data), "--loop.steps", "4000", "--loop.log-every", "1", "--run", str(run)]
    agent, every, second = under_way(by_torchrun(), long, run)
    began = time.monotonic()
    second.kill()
    _, err = agent.communicate(timeout=90)
    assert time.monotonic() - began < 60
    assert agent.returncode != 0
    [line] = said(err)
    assert line.startswith("process 0 of 2: another process has ended, and with it the run")
    assert "SIGKILL" in err
    assert still_running(every) == []


def test_the_processes_that_wait_in_vain_find_out_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "3", "RANK": "2"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert distributed.silent_processes(0.0) == [], "no launcher, nobody to ask"
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert distributed.silent_processes(0.0) == [0, 1]
    monkeypatch.setenv("RANK", "0")
    assert distributed.silent_processes(0.0) == [1]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert distributed.silent_processes(0.0) == [1, 2], "what was said before a restart does not count"
    monkeypatch.setenv("MASTER_PORT", "1")
    assert distributed.silent_processes(0.0) == []


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads other processes' environment")
def test_a_process_that_stands_still_ends_all_and_is_named(broken: Path, tmp_path: Path) -> None:
    """torchrun asks it to end, which it does not hear, and kills it after 30 seconds."""
    data, run = mended(broken, tmp_path / "data"), tmp_path / "run"
    long = [*training(data), "--loop.steps", "4000", "--loop.log-every", "1", "--loop.process-timeout", "5"]
    agent, every, second = under_way(by_torchrun(3), [*long, "--run", str(run)], run)
    began = time.monotonic()
    second.suspend()
    _, err = agent.communicate(timeout=120)
    assert time.monotonic() - began < 5 + 15 + 30 + 30
    assert agent.returncode != 0
    alike, told = sorted(said(err), key=len)
    assert re.match(r"process [02] of 3: waited in vain for process 1: not ended, but stopped", told)
    assert re.match(r"process [02] of 3: stopped by the same error as another process", alike)
    left = still_running(every)
    assert not left, "a worker whose parent was killed is the system's to bury"


@pytest.mark.slow
def test_accelerate_launch_starts_a_training(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "-m", "adu_depth"]
    settings = ["--data.size", "32", "64", "--data.pairs", "2", "--loop.batch-size", "1", "--loop.steps", "1"]
    done = subprocess.run(
        [*launcher, "distill", "--run", str(tmp_path / "run"), *settings],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000001").is_dir()
