"""One benchmark as a stage: cases that an earlier run of the same code on the same machine measured are kept."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from bench.gpu_check.arguments import stage_arguments
from bench.gpu_check.stages import OPERATIONS
from bench.harness.environment import measured_environment
from bench.harness.result import comparable, new_result, read_result
from bench.harness.runner import ours_is_sound
from bench.harness.suite import Suite


def suite_of(name: str, output: Path, rehearse: bool) -> Suite:
    """The benchmark with this check's options."""
    module, _, kind = OPERATIONS[name].partition(":")
    options: dict[str, Any] = {"output": output}
    if rehearse:
        options |= {"size": "tiny", "repeats": 1, "seconds": 0.1}
    else:
        options |= {"device": "cuda", "repeats": 30, "seconds": 3.0, "compile_seconds": 90.0}
    suite: Suite = getattr(importlib.import_module(module), kind)(**options)
    return suite


def forget_other(suite: Suite) -> None:
    """Removes a result that this run could not be added to: of other code, or of another machine."""
    assert suite.output is not None
    if not suite.output.exists():
        return
    device = suite.chosen_device()
    now = new_result(suite.name, suite.chosen_size(device), measured_environment(device), "")
    try:
        fits = comparable(read_result(suite.output), now)
    except ValueError:
        fits = False
    if not fits:
        suite.output.unlink()


def main() -> None:
    chosen = stage_arguments(__doc__, "name")
    suite = suite_of(chosen.name, chosen.output, chosen.rehearse)
    forget_other(suite)
    result = suite.run(lambda table: print(table, flush=True))
    sys.exit(0 if ours_is_sound(result["cases"]) else 1)


if __name__ == "__main__":
    main()
