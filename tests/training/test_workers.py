"""A worker that is lost ends the reading with its reason, within seconds; none outlives the training."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from adu_depth.data import SyntheticStereo
from adu_depth.distributed import ProcessGroup
from adu_depth.errors import InputError
from adu_depth.training.batches import batches
from adu_depth.training.held_out import read_ahead
from adu_depth.training.workers import _require_all, delivered
from tests.training.tiny import DATA, LOOP, SIZE

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 10  # the cores may be busy


class Numbers(Dataset[Any]):
    """Tensors; in a worker, `happens` is done where number 5 is read."""

    def __init__(self, happens: str = "") -> None:
        self.happens = happens

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Any:
        if index == 5 and self.happens.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.happens))
        if index == 5 and self.happens == "exit":
            os._exit(7)
        if index == 5 and self.happens and self.happens != "SIGTERM":
            return Unsendable(self.happens)
        return torch.full((3,), index)


class Unsendable:
    def __init__(self, why: str) -> None:
        self.why = why

    def __reduce__(self) -> Any:
        raise RuntimeError(self.why)


def first(found: list[Any]) -> Any:
    return found[0]


def read(happens: str) -> list[Any]:
    return list(delivered(DataLoader(Numbers(happens), batch_size=1, num_workers=2, collate_fn=first)))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_are_started_in_any_way_that_python_has(method: str) -> None:
    loader = DataLoader(Numbers(), batch_size=25, num_workers=1, collate_fn=first, multiprocessing_context=method)
    assert [int(item[0]) for item in delivered(loader)] == [0, 25]


NO_ROOM = "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        ("SIGKILL", r"was killed \(SIGKILL\), as the system does where memory runs out.*--loop\.workers 0"),
        ("SIGBUS", r"no room in shared memory \(/dev/shm holds \d+ MB\): .*--shm-size.*--loop\.workers 0"),
        ("SIGSEGV", r"ended unexpectedly \(SIGSEGV\); --loop\.workers 0"),
        ("exit", r"ended unexpectedly \(exit code 7\)"),
        (NO_ROOM, r"no room in shared memory .*--shm-size.*--loop\.workers 0"),
        ("received 0 items of ancdata: Too many open files", r"may open no more files.*ulimit -n.*--loop\.workers 0"),
        ("that is no tensor", r"could not hand over what it read: RuntimeError: that is no tensor"),
    ],
)
def test_a_lost_worker_says_why(happens: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=message):
        read(happens)
    assert time.monotonic() - began < SECONDS


TOO_MANY = "unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (NO_ROOM, InputError, r"2\) found no room in shared memory .*--shm-size.*--loop\.workers 0"),
        (TOO_MANY, InputError, r"2\) may open no more files.*ulimit -n.*--loop\.workers 0"),
        ("size mismatch", RuntimeError, "size mismatch"),
    ],
)
def test_a_worker_that_cannot_put_a_batch_together_says_why(text: str, error: type[Exception], message: str) -> None:
    """`collate` takes shared memory itself: the worker lives on, and hands the exception to the training."""

    def fails(found: list[Any]) -> Any:
        raise RuntimeError(text)

    with pytest.raises(error, match=message):
        list(delivered(DataLoader(Numbers(), batch_size=1, num_workers=2, collate_fn=fails)))


def test_a_loss_that_torch_tells_first_is_told_with_its_reason() -> None:
    """Another loader of the process has left torch's handler of SIGCHLD, which raises in the middle of what runs."""

    class Ended:
        told = False

        @property
        def exitcode(self) -> int:
            if not self.told:
                self.told = True
                raise RuntimeError("DataLoader worker is killed by signal: Segmentation fault.")
            return -signal.SIGSEGV

    heard, _ = multiprocessing.Pipe(duplex=False)
    with pytest.raises(InputError, match="SIGSEGV"):
        _require_all([Ended()], heard, patience=1.0)  # type: ignore[list-item]


def test_workers_leave_signals_to_their_parent() -> None:
    assert [int(value[0]) for value in read("SIGTERM")] == list(range(50)), "one was asked to end, and went on"


def test_closing_ends_workers_that_are_busy() -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index > 1:
                time.sleep(600)
            return torch.tensor(os.getpid())

    stream = delivered(DataLoader(Slow(), batch_size=1, num_workers=2))
    pids = {int(next(stream)), int(next(stream))}
    handler = signal.getsignal(signal.SIGCHLD)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_the_thread_that_started_the_workers_may_end() -> None:
    """To Linux a thread is a parent too."""
    stream = delivered(DataLoader(Numbers(), batch_size=1, num_workers=2))
    found: list[Any] = []
    starter = threading.Thread(target=lambda: found.append(next(stream)))
    starter.start()
    starter.join()
    assert [int(value[0, 0]) for value in [*found, *stream]] == list(range(50))


class Broken(SyntheticStereo):
    """Its disk has errors, or its frames are too large."""

    def __init__(self, error: Exception) -> None:
        super().__init__(5, *SIZE, seed=0)
        self.error = error

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(5, "Input/output error"), "[Errno 5] Input/output error"), (MemoryError(), "out of memory")],
)
def test_a_disk_with_errors_is_one_line_and_no_traceback(error: Exception, told: str, workers: int) -> None:
    samples, loop = Broken(error), replace(LOOP, workers=workers)
    for reading in (
        batches(samples, DATA, loop, 0, ProcessGroup(), torch.device("cpu")),
        read_ahead(samples, range(5), workers),
    ):
        with pytest.raises(InputError) as caught:
            list(reading)
        assert str(caught.value) == f"sample 2 of the data set cannot be read: {told}"


SMALL_ROOM = """
mount -t tmpfs -o size=1M tmpfs /dev/shm || exit 77
exec "$0" -c '
import torch
from torch.utils.data import DataLoader
from adu_depth.data import SyntheticStereo, collate
from adu_depth.training.workers import delivered
tensors = [torch.zeros(1 << 18)] * 40, torch.stack
samples = [SyntheticStereo(1, 128, 256)[0]] * 40, collate
found, put_together = WHICH
for _ in delivered(DataLoader(found, batch_size=4, num_workers=2, collate_fn=put_together)): pass
'
"""


@pytest.mark.parametrize("which", ["tensors", "samples"])
def test_a_container_with_little_shared_memory_is_named(which: str) -> None:
    """As in Docker, whose /dev/shm holds 64 MB; needs the right to mount."""
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", SMALL_ROOM.replace("WHICH", which), sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no right to mount a small /dev/shm")
    assert "InputError: a worker process (--loop.workers 2) found no room in shared memory" in done.stderr
    assert "/dev/shm holds 1 MB): give more (docker run --shm-size" in done.stderr


ORPHANS = """
import os, sys, time, torch
from torch.utils.data import DataLoader
from adu_depth.training.workers import delivered
class Slow:
    def __len__(self): return 9
    def __getitem__(self, index):
        if index > 1: time.sleep(600)
        return torch.tensor(os.getpid())
stream = delivered(DataLoader(Slow(), batch_size=1, num_workers=2))
print(int(next(stream)), int(next(stream)), flush=True)
next(stream)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere torch's workers look after themselves")
def test_a_killed_training_leaves_no_worker_behind() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 3
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether the process is there and no zombie: who collects those depends on the machine."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
