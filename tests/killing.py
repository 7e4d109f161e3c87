"""Commands that are killed with SIGKILL at drawn moments and started again, until they end.

Every start is forked from a process that has imported everything, so that the moments fall into the work. Every second
kill waits, from its moment on, until something is being written: that takes little of the time, and is what may break.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ZYGOTE = """
import json, os, sys
from adu_depth import cli
import adu_depth.training.loop
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0), os.dup2(nowhere, 1)
        try:
            cli.main(json.loads(line))
        except SystemExit as ended:
            os._exit(ended.code or 0)
        finally:
            os._exit(99)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


TEMPORARY = re.compile(r"\..+\.tmp|\.tmp[A-Za-z0-9]{6}")
"""Ours, and that of safetensors, which writes a chunk of a teacher's cache to a name of its own first."""


def half_written(folder: Path) -> set[str]:
    """What lies below a folder under a temporary name, which it has until it is whole."""
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        hidden = [name for name in (*folders, *files) if TEMPORARY.fullmatch(name)]
        found |= {os.path.join(place, name) for name in hidden}
        folders[:] = [name for name in folders if name not in hidden]
    return found


def kind_of(paths: set[str]) -> str:
    """In a word each: "step" (a checkpoint), "chunk", "cache", "tensors" (of a chunk)."""
    names = [Path(path).name for path in paths]
    kinds = {"tensors" if name.startswith(".tmp") else re.split(r"-[0-9]|\.", name[1:])[0] for name in names}
    return " and ".join(sorted(kinds)) or "nothing"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Zygote:
    """Starts commands, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def start(self, command: list[str]) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._number()

    def ended(self) -> int:
        """The exit code of what was started, once it has ended; −9 where it was killed."""
        return self._number()

    def run(self, command: list[str]) -> float:
        """Runs a command to its end, which must be good; returns the seconds it took."""
        began = time.monotonic()
        self.start(command)
        code = self.ended()
        assert code == 0, f"exit code {code}: {' '.join(command)}"
        return time.monotonic() - began

    def run_killed(
        self, output: Path, first: list[str], again: list[str], seconds: float, kills: int, draws: random.Random
    ) -> list[str]:
        """Starts `first`, kills it, starts `again`, kills that, …, until `kills` or the end; then it may end.

        Returns what was being written at each kill, one at least: "nothing", or a kind of file or folder. output: what
        they write, in some `seconds`.
        """
        killed: list[str] = []
        while len(killed) < kills:
            before = half_written(output)
            pid = self.start(again if killed else first)
            while not output.exists():
                time.sleep(0.002)
            time.sleep(seconds * draws.random())
            if len(killed) % 2:
                while half_written(output) <= before and _runs(pid):
                    time.sleep(0.0002)
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(pid, signal.SIGKILL)
            code = self.ended()
            assert code in (0, -signal.SIGKILL), f"exit code {code} after {len(killed)} kills: {' '.join(again)}"
            if code != 0:
                killed.append(kind_of(half_written(output) - before))
            elif killed:
                return killed
            else:  # too late to show anything
                seconds *= 0.6
                shutil.rmtree(output)
        self.run(again)
        return killed

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextmanager
def zygote() -> Iterator[Zygote]:
    process = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Zygote(process)
        assert process.stdin is not None
        process.stdin.close()
