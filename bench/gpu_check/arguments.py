"""The arguments that every stage's process takes."""

from __future__ import annotations

import argparse
from pathlib import Path


def stage_arguments(description: str | None, *positional: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    for name in positional:
        parser.add_argument(name)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on a CPU, kernels in the interpreter")
    return parser.parse_args()
