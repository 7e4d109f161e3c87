"""Compiles the references of the headline cases beside the tests, into the shared cache: `compiled` finds them there.

Each in a process of its own, a few at once, behind the tests in the queue for the cores. Nothing is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import IO, Any

import torch

from adu_depth.files import write_json
from bench.gpu_check.arguments import seconds_left, stage_arguments
from bench.gpu_check.benchmarks import suite_of
from bench.harness.case import differentiable, draw_item, outputs_of
from bench.harness.implementations import COMPILED, implementations
from bench.operations import OPERATIONS

AT_ONCE = 4
THREADS = "3"  # of Inductor's, in each process
POLITENESS = 5
CHILD = "ADU_GPU_CHECK_WARM_CHILD"
"""Variable that marks the processes that compile."""


def compile_headline(name: str, dry_run: bool) -> None:
    """The compiled reference and the compiled peers of a benchmark's first case: forward and backward once."""
    suite = suite_of(name, dry_run)
    device = suite.chosen_device()
    case = suite.chosen_cases(suite.chosen_size(device), device)[0]
    for who, make in implementations(case, device, ("default",), {}).items():
        if who.startswith(COMPILED) or "Flex" in who:
            item = draw_item(case, device)
            with suite.products():
                outputs = differentiable(outputs_of(make()(*item.tensors)))
                torch.autograd.grad(outputs, item.leaves, [torch.randn_like(o) for o in outputs])
            print(f"{case.name}: {who} is compiled", flush=True)


def start(name: str, dry_run: bool, said: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.gpu_check.warm", "--output", os.devnull, "--only", name]
    return subprocess.Popen(
        [*command, *(["--dry-run"] if dry_run else [])],
        env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": THREADS, CHILD: "1"},
        stdout=said,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(os.nice, POLITENESS),
    )


def main() -> None:
    chosen = stage_arguments(__doc__)
    if CHILD in os.environ:
        compile_headline(chosen.only[0], chosen.dry_run)
        return
    waiting = (
        ["cost-volume"] if chosen.dry_run else [name for name in OPERATIONS if not chosen.only or name in chosen.only]
    )
    result: dict[str, Any] = {"complete": False, "compiled": {}}
    running: dict[str, tuple[subprocess.Popen[str], IO[str], float]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            said: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed when it has been read
            running[name] = (start(name, chosen.dry_run, said), said, time.monotonic())
        for name, (process, said, begun) in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            said.seek(0)
            output = said.read()[-3000:]
            said.close()
            told = {"code": process.returncode, "seconds": round(time.monotonic() - begun, 1)}
            result["compiled"][name] = told if process.returncode == 0 else {**told, "output": output}
            print(f"{name}: {told}", flush=True)
            write_json(chosen.output, result)
        time.sleep(0.2)
        if seconds_left() < 0:
            sys.exit(3)
    result["complete"] = True
    write_json(chosen.output, result)
    sys.exit(0)  # a compilation that fails is told by the row that wants it


if __name__ == "__main__":
    main()
