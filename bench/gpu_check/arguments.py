"""The arguments that every stage's process takes, and how long it has."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

DEADLINE = "ADU_GPU_CHECK_DEADLINE"
"""Variable that carries a stage's deadline (seconds of the monotonic clock) over a restart of its process."""


def stage_arguments(description: str | None, *positional: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    for name in positional:
        parser.add_argument(name)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on a CPU, kernels in the interpreter")
    parser.add_argument("--seconds", type=float, default=1e9, help="what is not begun by then is left")
    parser.add_argument("--only", action="append", default=[], help="only this benchmark; repeat for several")
    parser.add_argument("--again", action="store_true", help="a later call: what failed is run again, told in full")
    chosen = parser.parse_args()
    os.environ.setdefault(DEADLINE, str(time.monotonic() + chosen.seconds))
    return chosen


def seconds_left() -> float:
    """Until the stage's limit."""
    return float(os.environ[DEADLINE]) - time.monotonic()
