"""Runs the stages of the GPU check, the most valuable first, within a budget of minutes.

What is found lies in one file, results.json, rewritten as it grows, with summary.md for people and one log beside it.
A stage that this file has from the same code on the same machine is not run again. Exit code: 0 all is well, 1
something is wrong, 2 the machine cannot run it, 3 time ran out.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

from adu_depth.streams import safe_streams
from bench.gpu_check.packed import RESULTS, Packed
from bench.gpu_check.runner import Check, cache_folder, use_caches
from bench.gpu_check.stages import BY_NAME, CONTINUED, PLAN, chosen_stages
from bench.operations import EVERY

MINUTES = 9.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    width = max(len(name) for name in BY_NAME)
    listed = "\n".join(f"  {stage.name:{width}}  {stage.answers}" for stage in PLAN)
    more = "\n".join(f"  {stage.name:{width}}  {stage.answers}" for stage in CONTINUED if stage not in PLAN)
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh",
        description=__doc__,
        epilog=f"stages, in this order:\n{listed}\nwith --continue also:\n{more}\n"
        f"benchmarks, each by its name alone:\n  {', '.join(EVERY)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", metavar="stage", help="only these stages or benchmarks, and the doctor")
    parser.add_argument("--out", type=Path, help="output folder (runs/gpu; runs/gpu-dry-run for a dry run)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"budget of the whole call ({MINUTES:.0f})")
    parser.add_argument("--continue", dest="again", action="store_true", help="what is left, and what failed again")
    parser.add_argument("--from", dest="earlier", type=Path, help="go on from this results.json, not the folder's")
    parser.add_argument("--pack-to", type=Path, help="copy results.json, summary.md and the log there as they grow")
    parser.add_argument(
        "--dry-run", "--rehearse", action="store_true", help="everything tiny, on a CPU, kernels in the interpreter"
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.stages if name not in BY_NAME and name not in EVERY]
    if unknown:
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(BY_NAME)}, {', '.join(EVERY)}")
    if not chosen.minutes > 0:
        parser.error(f"--minutes: expected more than 0, got {chosen.minutes}")
    return chosen


def callers(path: Path) -> Path:
    """Relative to where the script was called, not to the repository it changes to."""
    return (Path(os.environ.get("ADU_CALLED_FROM", ".")) / path).resolve()


def out_folder(chosen: argparse.Namespace) -> Path:
    if chosen.out is None:
        return Path("runs/gpu-dry-run" if chosen.dry_run else "runs/gpu").resolve()
    return callers(chosen.out)


def hold(folder: Path) -> int:
    """Holds the folder until the process ends or the descriptor is closed. ValueError: another check is on there."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"--out {folder}: another check is running there") from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    with safe_streams():  # `| head` has seen enough, and the check goes on
        sys.exit(run())


def run() -> int:
    chosen = parse()
    folder = out_folder(chosen)
    if chosen.dry_run:  # before anything imports Triton, in the processes this one starts
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    cache = cache_folder(folder, chosen.dry_run)
    use_caches(cache)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, stop)
    try:
        hold(folder)
        packed = Packed(
            folder,
            callers(chosen.pack_to) if chosen.pack_to else None,
            callers(chosen.earlier) if chosen.earlier else None,
        )
    except (OSError, ValueError) as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    say = partial(print, flush=True)
    stages, only = chosen_stages(chosen.stages, chosen.again)
    check = Check(packed, chosen.minutes, dry_run=chosen.dry_run, only=only, again=chosen.again, say=say)
    try:
        code = check.run(stages, named=bool(chosen.stages))
    except OSError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 1
    if chosen.dry_run:  # nothing that a GPU would find there
        shutil.rmtree(cache, ignore_errors=True)
    say(f"results: {folder / RESULTS}; tables and plots: python -m bench.gpu_check.unpack")
    return code


if __name__ == "__main__":
    main()
