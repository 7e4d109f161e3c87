"""Runs the stages of the GPU check, the most valuable first, within a budget of minutes.

A stage that has its result from the same code on the same machine is skipped, so that a check that ran out of time, or
lost its machine, goes on where it stopped: keep the output folder. Exit code: 0 all is well, 1 something is wrong, 2
the machine cannot run it, 3 time ran out.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from bench.gpu_check.runner import Check
from bench.gpu_check.stages import BY_NAME, STAGES


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    width = max(len(stage.name) for stage in STAGES)
    listed = "\n".join(f"  {stage.name:{width}}  {stage.answers}" for stage in STAGES)
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh",
        description=__doc__,
        epilog=f"stages, in this order:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", metavar="stage", help="only these (doctor always runs first); default all")
    parser.add_argument(
        "--out", type=Path, help="folder for results (bench/results/gpu; runs/gpu-rehearsal to rehearse)"
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="budget of the whole check (25)")
    parser.add_argument("--rehearse", action="store_true", help="everything tiny, on a CPU, kernels in the interpreter")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.stages if name not in BY_NAME]
    if unknown:
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    if not chosen.minutes > 0:
        parser.error(f"--minutes: expected more than 0, got {chosen.minutes}")
    return chosen


def out_folder(chosen: argparse.Namespace) -> Path:
    """Relative to where the script was called, not to the repository it changes to."""
    if chosen.out is None:
        return Path("runs/gpu-rehearsal" if chosen.rehearse else "bench/results/gpu").resolve()
    return (Path(os.environ.get("ADU_CALLED_FROM", ".")) / chosen.out).resolve()


def stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    chosen = parse()
    if chosen.rehearse:  # before anything imports Triton, in this process and in those it starts
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    signal.signal(signal.SIGTERM, stop)
    wanted = [stage for stage in STAGES if not chosen.stages or stage.name in chosen.stages or stage.name == "doctor"]
    sys.exit(Check(out_folder(chosen), chosen.minutes, chosen.rehearse).run(wanted))


if __name__ == "__main__":
    main()
